//! What a receiver is told to do.

use std::path::PathBuf;
use std::time::Duration;

use segstore::Compression;
use walproto::{Lsn, SlotName};

/// What a receiver is told, apart from where to connect.
///
/// A plain value: take that of [`ReceiverConfig::new`] and change what shall be otherwise, or name
/// every choice. The two faces of the `wal-receiver` binary differ in nothing but the values that
/// they put here and in the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiverConfig {
    /// The archive directory. It must exist.
    pub directory: PathBuf,
    /// How segments are stored once they are complete.
    pub compression: Compression,
    /// Whether files and directories are synced. Without, nothing survives a crash of the
    /// machine for certain.
    pub sync: bool,
    /// The physical replication slot to stream from. It must exist.
    pub slot: Option<SlotName>,
    /// Where to begin when the archive holds no WAL; rounded down to the start of its segment.
    /// `None` is the slot's restart LSN where the server tells it (15 and later), else what
    /// `first_start` says. Without meaning for an archive that holds WAL.
    pub start: Option<Lsn>,
    /// Where to begin when the archive holds no WAL, and neither `start` nor the slot says it.
    pub first_start: FirstStart,
    /// Stop, as on request, once WAL beyond this position has been received.
    pub end: Option<Lsn>,
    /// The longest time without a status message to the server; `None` is only when there is
    /// something to report or the server asks.
    pub status_interval: Option<Duration>,
    /// Who makes a little WAL durable.
    pub short_syncs: ShortSyncs,
    /// How long a server may be silent before it is taken for gone; it is asked for a sign of
    /// life half way. `None` is for ever. For half of it a record may stay incomplete at the end of
    /// the server's WAL before it is fetched again, in case that its length was damaged.
    pub receive_timeout: Option<Duration>,
    /// What follows a lost connection.
    pub reconnect: Reconnect,
    /// Whether a first connection that cannot be made is an error at once instead of a loss.
    pub first_connection_must_succeed: bool,
    /// When the flush position is told to the server.
    pub acknowledge: Acknowledge,
    /// What is told to the server as applied.
    pub apply: ReportedApply,
    /// What to do when the server's timeline forked off before the end of what is archived.
    pub fork: OnFork,
    /// What to do when the slot reserves no WAL although there is WAL in the archive.
    pub lost_slot: OnLostSlot,
    /// Whether another program moves completed segments out of the directory. That none is left
    /// there is no error then, and the receiver begins as with an empty directory.
    pub segments_are_moved: bool,
    /// Whether a clean end leaves the growing segment compressed too, if segments are compressed.
    /// While WAL is received it is always plain.
    pub compress_growing: bool,
}

impl ReceiverConfig {
    /// What `wal-receiver -D directory` does: every record is synced and acknowledged, a lost
    /// connection is tried again and again, and what could lose WAL is an error.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            compression: Compression::NONE,
            sync: true,
            slot: None,
            start: None,
            first_start: FirstStart::OldestWal,
            end: None,
            short_syncs: ShortSyncs::OnThread,
            status_interval: Some(Duration::from_secs(10)),
            receive_timeout: Some(Duration::from_secs(60)),
            reconnect: Reconnect::Backoff {
                min: Duration::from_millis(200),
                max: Duration::from_secs(5),
            },
            first_connection_must_succeed: false,
            acknowledge: Acknowledge::Always,
            apply: ReportedApply::Progress,
            fork: OnFork::Stop,
            lost_slot: OnLostSlot::Stop,
            segments_are_moved: false,
            compress_growing: false,
        }
    }
}

/// Where an archive begins that has no WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstStart {
    /// With the oldest WAL of its timeline that the server still has. Nothing is acknowledged before
    /// all is durable that the server had flushed when the connection was made. So the WAL of a
    /// commit that is acknowledged is in the archive, unless the server had removed it already.
    OldestWal,
    /// With the segment of the server's flush position, as `pg_receivewal` does. A commit that waits
    /// for WAL from before is acknowledged all the same.
    ServerFlush,
}

/// What follows a lost connection. Errors that end receiving ([`Receiver::run`](crate::Receiver::run))
/// are returned whatever this says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconnect {
    /// The loss is returned as an error.
    Never,
    /// Another try after the same time, always.
    Fixed(Duration),
    /// Another try after a random part of a time that doubles from `min` up to `max`, and
    /// begins anew once WAL that is new is durable, or after a connection that lasted longer than
    /// `max`. It is a second at most while the server's address refuses connections, or the server
    /// says that it is starting up.
    Backoff {
        /// The first time.
        min: Duration,
        /// The longest time.
        max: Duration,
    },
}

/// Who makes a little WAL durable, while the disk needs less than two milliseconds for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShortSyncs {
    /// A thread of its own, as for much WAL and for a slower disk: the receiver's task never
    /// waits for the disk.
    OnThread,
    /// The receiver's task itself: a commit is acknowledged without two switches between threads,
    /// which take as long as the sync. Meanwhile the task blocks its thread, so that thread should
    /// have nothing else to do; should the disk come to a standstill in such a sync, the server
    /// is not answered until that ends.
    OnTask,
}

/// When the flush position is told to the server.
///
/// A server counts a standby for synchronous replication, and lets a slot go forward, only by
/// the flush positions it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledge {
    /// As soon as WAL is durable.
    Always,
    /// After the first sync on a connection, at the end of a segment, and when the server asks for
    /// a reply: what `pg_receivewal` does with a slot but without `--synchronous`. It tells its
    /// start first, of which nothing is there yet.
    ///
    /// Source: src/bin/pg_basebackup/receivelog.c, `HandleCopyStream` (PG 15).
    SegmentEnd,
    /// Not at all (`0/0`): the server waits for others and removes WAL as if we were not there.
    Never,
}

/// What is told to the server as applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportedApply {
    /// How far the applier has come; without one the flush position, so that
    /// `synchronous_commit = remote_apply` does not wait for ever.
    Progress,
    /// Nothing (`0/0`), as `pg_receivewal` does.
    Never,
}

/// What to do when the server's timeline forked off before the end of what is archived, so that
/// it lacks WAL that was kept, and perhaps acknowledged, here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFork {
    /// Stop with an error that names both positions; the archive stays as it was.
    Stop,
    /// Say what the new timeline lacks, keep it, and go on with the new timeline.
    Follow,
}

/// What to do when the slot reserves no WAL although there is WAL in the archive: it is lost, or
/// was created without `RESERVE_WAL` and is used for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLostSlot {
    /// Stop with an error.
    Stop,
    /// Say so and go on, as `pg_receivewal` does without saying so.
    Warn,
}
