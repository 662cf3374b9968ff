//! Why receiving ends.

use std::fmt;
use std::io;

use pgconn::connection::{ConnectError, ConnectionError};
use segstore::{ArchiveError, WriteError};
use walproto::result::ResultError;
use walproto::{InvalidSegmentSize, Lsn, ParseHistoryError, SlotName, TimelineId};

use crate::apply::ApplyError;
use crate::follow::Refusal;
use crate::incomplete_tail::IncompleteTail;
use crate::slot::SlotError;

mod verdict;

pub(crate) use verdict::Phase;

/// Why a receiver stopped, or why one try at streaming did.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// No connection could be made.
    #[error(transparent)]
    Connect(#[from] ConnectError),

    /// The connection was lost, or the server did not keep to the protocol, or refused a command.
    #[error(transparent)]
    Connection(#[from] ConnectionError),

    /// The server's answer to a command is not what such a command is answered with.
    #[error(transparent)]
    Answer(#[from] ResultError),

    /// The server must not be followed.
    #[error(transparent)]
    Refused(#[from] Refusal),

    /// The archive cannot be opened, or is of something else than the server.
    #[error(transparent)]
    Archive(#[from] ArchiveError),

    /// What was received cannot be kept.
    #[error(transparent)]
    Write(#[from] WriteError),

    /// The same damage came with every try: it is on the server, or a device on the way always
    /// does the same.
    #[error(
        "WAL from the server was damaged at the same place {tries} times in a row; check the \
         server's own copy with pg_waldump, or promote a standby whose copy is intact"
    )]
    Damaged {
        /// After how many tries this is said; there may have been more.
        tries: u32,
        /// What is wrong with it, and where.
        #[source]
        source: WriteError,
    },

    /// The server's WAL differed from the archive's with every try.
    #[error("WAL from the server differed from the archive {tries} times in a row")]
    Diverged {
        /// How often it was compared.
        tries: u32,
        /// Where it differs.
        #[source]
        source: WriteError,
    },

    /// A record is incomplete where the server's WAL has ended for half of the receive timeout.
    /// When the next try meets the same, it waits for the rest.
    #[error("{0}; its length may have been damaged on the way, it is fetched again")]
    IncompleteTail(IncompleteTail),

    /// The server is a standby that has not yet received what the archive has.
    #[error(
        "standby's WAL ends at {flush} on timeline {timeline}, before the archive's at \
         {record_end} on timeline {archive}; waiting for it to catch up"
    )]
    StandbyBehind {
        /// The standby's timeline.
        timeline: TimelineId,
        /// The end of the standby's WAL.
        flush: Lsn,
        /// The archive's timeline.
        archive: TimelineId,
        /// The end of the archive's last record.
        record_end: Lsn,
    },

    /// The server has no history file of its own timeline.
    #[error(
        "server has no history file of its own timeline {timeline}; put one into its pg_wal, from \
         another server or archive"
    )]
    NoHistory {
        /// The server's timeline.
        timeline: TimelineId,
    },

    /// A history file of the server cannot be read.
    #[error("history file sent by the server")]
    History(#[from] ParseHistoryError),

    /// The server's history files are longer than any real ones.
    #[error("history files sent by the server are longer than {limit} bytes together")]
    HistoriesTooLong {
        /// The most that is taken, in bytes.
        limit: usize,
    },

    /// The server has segments of a size that no server has.
    #[error("wal_segment_size sent by the server")]
    SegmentSize(#[from] InvalidSegmentSize),

    /// There is no such slot.
    #[error("replication slot \"{slot}\" does not exist on the server; create it")]
    NoSuchSlot {
        /// The slot.
        slot: SlotName,
    },

    /// The slot is one for logical replication.
    #[error("replication slot \"{slot}\" is not physical; use another slot")]
    NotPhysical {
        /// The slot.
        slot: SlotName,
    },

    /// The slot no longer keeps WAL back.
    #[error(
        "replication slot \"{slot}\" is lost: it reserves no WAL, while the archive goes on from \
         {needed} (timeline {timeline}); drop the slot and create it again"
    )]
    LostSlot {
        /// The slot.
        slot: SlotName,
        /// The archive's timeline.
        timeline: TimelineId,
        /// The position needed next.
        needed: Lsn,
    },

    /// The server does not stream from the slot: it is lost (from 18 on the server says so), or
    /// logical, which cannot be asked beforehand up to 14.
    #[error(
        "replication slot \"{slot}\" cannot be streamed from at {start} (timeline {timeline}); \
         use another slot, or drop this one and create it again"
    )]
    UnusableSlot {
        /// The slot.
        slot: SlotName,
        /// The timeline that was asked for.
        timeline: TimelineId,
        /// The position that was asked for.
        start: Lsn,
        /// What the server said.
        #[source]
        source: ConnectionError,
    },

    /// Another process streams from the slot.
    #[error("replication slot \"{slot}\" is in use by another process on the server")]
    SlotInUse {
        /// The slot.
        slot: SlotName,
        /// What the server said.
        #[source]
        source: ConnectionError,
    },

    /// The server no longer has the WAL that comes next.
    #[error("WAL from {start} (timeline {timeline}) has already been removed on the server")]
    WalRemoved {
        /// The timeline that was asked for.
        timeline: TimelineId,
        /// The position that was asked for.
        start: Lsn,
        /// Whether another program moves segments out of the archive
        /// ([`ReceiverConfig::segments_are_moved`](crate::ReceiverConfig::segments_are_moved)).
        segments_are_moved: bool,
        /// What the server said.
        #[source]
        source: ConnectionError,
    },

    /// The timeline that comes next begins after the end of what was received.
    #[error(
        "server says that timeline {next} follows timeline {timeline} at {switch_point}, but sent \
         only up to {received_end}"
    )]
    SwitchPastEnd {
        /// The timeline that ended.
        timeline: TimelineId,
        /// The one that follows.
        next: TimelineId,
        /// Where it follows.
        switch_point: Lsn,
        /// The end of what was received.
        received_end: Lsn,
    },

    /// The end of a timeline that the server announced is not the one in its history.
    #[error(
        "server says that timeline {next} follows timeline {timeline} at {switch_point}, which is \
         not what its history file says"
    )]
    OtherSwitch {
        /// The timeline that ended.
        timeline: TimelineId,
        /// The one that follows.
        next: TimelineId,
        /// Where it follows.
        switch_point: Lsn,
    },

    /// Of several hosts none is followed, and some could not be asked: in the middle of a failover
    /// one of them is the one to follow.
    #[error("waiting for another host, server {server} cannot be followed")]
    OthersMissing {
        /// One that answered.
        server: String,
        /// Why it is not followed.
        #[source]
        reason: Box<Self>,
    },

    /// What some of several hosts know forbids to follow any of them.
    #[error("no host is followed, because of {}", Servers(servers))]
    Split {
        /// The hosts.
        servers: Vec<String>,
        /// What they know.
        #[source]
        refusal: Refusal,
    },

    /// No server was there to be asked.
    #[error("no server to connect to")]
    NoServer,

    /// The thread that wrote to the archive did not give it back.
    #[error("internal error: a worker thread did not return the archive")]
    ArchiveLost,

    /// A start was asked for that would leave a gap or overwrite what is there.
    #[error(
        "start position {start} was asked for, but the archive goes on from {resume_at} (timeline \
         {timeline}); resume there, or use an empty directory"
    )]
    NotEmpty {
        /// The position asked for.
        start: Lsn,
        /// The archive's newest timeline.
        timeline: TimelineId,
        /// Where it goes on.
        resume_at: Lsn,
    },

    /// The server ended the stream in good order, as when it is shut down.
    #[error("server ended the stream at {lsn} (timeline {timeline})")]
    ServerEnded {
        /// The timeline streamed last.
        timeline: TimelineId,
        /// The end of what was received.
        lsn: Lsn,
    },

    /// The server ended a timeline without naming the one that follows, as a standby does that is
    /// being promoted while it is asked for the new timeline.
    #[error(
        "server ended timeline {timeline} at {lsn} without naming the timeline that follows, as \
         during a promotion"
    )]
    NoSuccessor {
        /// The timeline that was streamed.
        timeline: TimelineId,
        /// The end of what was received, or where the stream was to start.
        lsn: Lsn,
    },

    /// The disk stayed full for so long that the server must not be kept waiting by us.
    #[error(
        "disk stayed full, nothing after {lsn} (timeline {timeline}) is durable: disconnected, so \
         that the server need not wait"
    )]
    DiskStayedFull {
        /// The timeline being received.
        timeline: TimelineId,
        /// The end of what is durable.
        lsn: Lsn,
        /// What could not be written; `None` when there was room again in that moment.
        #[source]
        source: Option<WriteError>,
    },

    /// A slot could not be created on the new primary.
    #[error(transparent)]
    Slot(#[from] SlotError),

    /// What applies the records has ended.
    #[error("the applier has ended")]
    ApplierEnded,

    /// What applies the records refused one.
    #[error(transparent)]
    Apply(#[from] ApplyError),

    /// A thread could not be started.
    #[error("start the {name} thread")]
    Thread {
        /// What for.
        name: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

struct Servers<'a>(&'a [String]);

impl fmt::Display for Servers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, server) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { " and " };
            write!(f, "{separator}server {server}")?;
        }
        Ok(())
    }
}
