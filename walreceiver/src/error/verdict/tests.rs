//! Which error ends receiving when. A new one has to be listed in `ends` to compile; what is
//! decided there is written down here once more, for what must not change by accident.

use std::io;
use std::time::Duration;

use pgconn::connection::{Attempt, ConnectError, ConnectFailure, ConnectionError};
use pgconn::tls::TlsError;
use segstore::{
    Corruption, CorruptionReason, Damage, DiskError, Encoding, Operation, SegmentFile, SegmentName,
};
use walproto::client::{AuthError, ClientError};
use walproto::error::{ServerMessage, Severity};
use walproto::result::{ResultSet, TimelineEnd};
use walproto::{SegmentSize, SlotName, SystemId, TimelineHistory};

use super::*;
use crate::apply::ApplyError;
use crate::follow::Fork;
use crate::incomplete_tail::IncompleteTail;
use crate::slot::SlotError;

const TIMELINE: TimelineId = TimelineId::FIRST;
const LSN: Lsn = Lsn(0x0300_0000);

/// When an error ends receiving.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ends {
    Always,
    /// Until the run has streamed.
    Before,
    Never,
}
use Ends::{Always, Before, Never};

fn message(sqlstate: &[u8; 5]) -> Box<ServerMessage> {
    let sqlstate = SqlState::new(sqlstate).unwrap();
    Box::new(ServerMessage::new(Severity::Error, sqlstate, "no"))
}

fn failed(sqlstate: &[u8; 5]) -> ConnectionError {
    ConnectionError::Failed {
        command: "IDENTIFY_SYSTEM".to_owned(),
        message: message(sqlstate),
    }
}

fn connect(failure: ConnectFailure) -> ReceiveError {
    let server = "\"db\", port 5432".to_owned();
    let attempts = vec![Attempt { server, failure }];
    ConnectError { attempts }.into()
}

fn refused(sqlstate: &[u8; 5]) -> ReceiveError {
    connect(ConnectFailure::Refused {
        message: message(sqlstate),
        password_file: None,
    })
}

fn disk(number: i32) -> DiskError {
    let error = io::Error::from_raw_os_error(number);
    DiskError::at(Operation::Sync, "/wal")(error)
}

const ENOSPC: i32 = 28;
const EIO: i32 = 5;

fn corruption() -> Corruption {
    Corruption {
        timeline: TIMELINE,
        lsn: LSN,
        reason: CorruptionReason::NoRecord,
    }
}

fn file() -> SegmentFile {
    let size = SegmentSize::new(1 << 20).unwrap();
    SegmentFile {
        name: SegmentName::of(TIMELINE, LSN, size),
        partial: true,
        encoding: Encoding::Plain,
    }
}

fn corrupt() -> WriteError {
    WriteError::Corrupt {
        corruption: corruption(),
        file: file(),
        offset: 0,
        record_end: LSN,
    }
}

fn diverged() -> WriteError {
    WriteError::Diverged {
        timeline: TIMELINE,
        lsn: LSN,
        file: file(),
        offset: 0,
        expected: 1,
        found: 2,
        record_end: LSN,
    }
}

fn slot() -> SlotName {
    SlotName::new("one").unwrap()
}

#[track_caller]
fn check(all: Vec<(ReceiveError, Ends)>) {
    for (error, expected) in all {
        let found = match (error.ends(Phase::Before), error.ends(Phase::After)) {
            (true, true) => Always,
            (true, false) => Before,
            (false, false) => Never,
            (false, true) => panic!("{error:?} ends only what has streamed"),
        };
        assert_eq!(found, expected, "{error:?}");
    }
}

#[test]
fn what_a_connection_fails_with_ends_only_what_has_never_streamed() {
    let answer = TimelineEnd::decode(&ResultSet::default()).unwrap_err();
    let cannot_read = |kind: io::ErrorKind| io::Error::from(kind);
    check(vec![
        // A password, a right, a setting, an option of the session.
        (refused(b"28P01"), Before),
        (refused(b"28000"), Before),
        (refused(b"42501"), Before),
        (refused(b"42704"), Before),
        (refused(b"0A000"), Before),
        // PgBouncer; too many connections; a server that starts; one that is shut down.
        (refused(b"08P01"), Never),
        (refused(b"53300"), Never),
        (refused(b"57P03"), Never),
        (failed(b"42601").into(), Before),
        (failed(b"08P01").into(), Never),
        (failed(b"57P01").into(), Never),
        (ConnectionError::Closed.into(), Never),
        (answer.into(), Before),
        (
            connect(ConnectFailure::Resolve {
                host: "db".to_owned(),
                source: cannot_read(io::ErrorKind::NotFound),
            }),
            Never,
        ),
        (
            connect(ConnectFailure::Connect {
                error: cannot_read(io::ErrorKind::ConnectionRefused),
            }),
            Never,
        ),
        (
            connect(ConnectFailure::Timeout {
                after: Duration::from_secs(1),
                limit: "connect_timeout",
            }),
            Never,
        ),
        (
            connect(ConnectFailure::Target {
                found: "standby",
                wanted: "primary",
            }),
            Never,
        ),
        (
            connect(ConnectFailure::WrongPeer {
                required: "postgres".to_owned(),
                actual: "root".to_owned(),
            }),
            Before,
        ),
        // A certificate that is being rotated, on either side.
        (connect(TlsError::NoSystemRoots.into()), Before),
        (
            connect(ConnectFailure::Tls(TlsError::Handshake {
                source: cannot_read(io::ErrorKind::InvalidData),
            })),
            Before,
        ),
        (
            connect(ConnectFailure::Tls(TlsError::Http {
                status_line: "HTTP/1.1 503".to_owned(),
            })),
            Before,
        ),
        (
            connect(ConnectFailure::Session(ClientError::Http {
                status_line: "HTTP/1.1 503".to_owned(),
            })),
            Before,
        ),
        (
            connect(ConnectFailure::Session(AuthError::PasswordMissing.into())),
            Before,
        ),
    ]);
}

#[test]
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn what_a_server_says_ends_only_what_has_never_streamed() {
    let (timeline, lsn) = (TIMELINE, LSN);
    let tail = IncompleteTail {
        timeline,
        lsn,
        total_length: None,
        wal_end: lsn,
    };
    let zombie = Refusal::OlderTimeline {
        server: timeline,
        archive: timeline,
        record_end: lsn,
    };
    let other = TimelineHistory::parse(timeline, "x\n".into()).unwrap_err();
    check(vec![
        (ReceiveError::NoHistory { timeline }, Before),
        (other.into(), Before),
        (ReceiveError::HistoriesTooLong { limit: 1 }, Before),
        (SegmentSize::new(3).unwrap_err().into(), Before),
        (ReceiveError::NoSuchSlot { slot: slot() }, Before),
        (ReceiveError::NotPhysical { slot: slot() }, Before),
        (
            SlotError::Refused {
                command: "CREATE_REPLICATION_SLOT".to_owned(),
                message: message(b"53400"),
            }
            .into(),
            Before,
        ),
        (
            ReceiveError::Refused(Refusal::StartPastEnd {
                timeline,
                start: lsn,
                flush: lsn,
            }),
            Before,
        ),
        (
            ReceiveError::Thread {
                name: "flusher",
                source: io::ErrorKind::WouldBlock.into(),
            },
            Before,
        ),
        (ReceiveError::IncompleteTail(tail), Never),
        (
            ReceiveError::StandbyBehind {
                timeline,
                flush: lsn,
                archive: timeline,
                record_end: lsn,
            },
            Never,
        ),
        (
            ReceiveError::SlotInUse {
                slot: slot(),
                source: failed(b"55006"),
            },
            Never,
        ),
        (
            ReceiveError::SwitchPastEnd {
                timeline,
                next: timeline,
                switch_point: lsn,
                received_end: lsn,
            },
            Never,
        ),
        (
            ReceiveError::OtherSwitch {
                timeline,
                next: timeline,
                switch_point: lsn,
            },
            Never,
        ),
        (
            ReceiveError::OthersMissing {
                server: "one".to_owned(),
                reason: Box::new(zombie.into()),
            },
            Never,
        ),
        (ReceiveError::NoServer, Never),
        (ReceiveError::ServerEnded { timeline, lsn }, Never),
        (ReceiveError::NoSuccessor { timeline, lsn }, Never),
        (
            ReceiveError::DiskStayedFull {
                timeline,
                lsn,
                source: None,
            },
            Never,
        ),
        // Also what is sent with every try: the archive is intact, and the server can be mended.
        (corrupt().into(), Never),
        (
            ReceiveError::Damaged {
                tries: 3,
                source: corrupt(),
            },
            Never,
        ),
        (
            WriteError::Hole {
                timeline,
                expected: lsn,
                found: lsn,
            }
            .into(),
            Never,
        ),
        (
            ArchiveError::Hole {
                timeline,
                expected: lsn,
                found: lsn,
            }
            .into(),
            Never,
        ),
    ]);
}

#[test]
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn the_archive_its_lineage_and_wal_that_is_gone_always_end_receiving() {
    let (timeline, lsn) = (TIMELINE, LSN);
    let directory = std::path::PathBuf::from("/wal");
    let path = directory.join("x");
    let refused = |refusal| ReceiveError::Refused(refusal);
    let archive = |error: ArchiveError| (ReceiveError::from(error), Always);
    let write = |error: WriteError| (ReceiveError::from(error), Always);
    check(vec![
        // Its own archive.
        archive(disk(EIO).into()),
        write(WriteError::Disk(disk(EIO))),
        write(WriteError::SyncFailed {
            error: disk(EIO),
            marker: None,
        }),
        write(WriteError::Latched),
        write(WriteError::Stopped),
        write(WriteError::Missing { timeline, lsn }),
        archive(ArchiveError::Locked {
            directory: directory.clone(),
            pid: None,
        }),
        archive(ArchiveError::SyncFailedBefore {
            directory: directory.clone(),
        }),
        archive(ArchiveError::Lost {
            timeline,
            found: lsn,
            expected: lsn,
        }),
        archive(ArchiveError::Damaged {
            path: path.clone(),
            reason: Damage::TooLong { limit: 1 },
        }),
        write(WriteError::Archive(ArchiveError::HistoryMissing {
            timeline,
        })),
        (ReceiveError::ArchiveLost, Always),
        (
            ReceiveError::NotEmpty {
                start: lsn,
                timeline,
                resume_at: lsn,
            },
            Always,
        ),
        // Room passes.
        (ArchiveError::from(disk(ENOSPC)).into(), Never),
        (WriteError::DiskFull(disk(ENOSPC)).into(), Never),
        // Lineage.
        archive(ArchiveError::OtherCluster {
            directory: directory.clone(),
            expected: SystemId(1),
            found: SystemId(2),
        }),
        archive(ArchiveError::OtherHistory { timeline, path }),
        archive(ArchiveError::NotDescendant {
            newest: timeline,
            found: timeline,
        }),
        (
            refused(Refusal::OlderTimeline {
                server: timeline,
                archive: timeline,
                record_end: lsn,
            }),
            Always,
        ),
        (
            refused(Refusal::ForeignTimeline {
                server: timeline,
                archive: timeline,
                record_end: lsn,
            }),
            Always,
        ),
        (
            refused(Refusal::LostWal {
                timeline,
                flush: lsn,
                record_end: lsn,
            }),
            Always,
        ),
        (
            refused(Refusal::Superseded {
                server: timeline,
                newest: timeline,
            }),
            Always,
        ),
        (
            ReceiveError::Split {
                servers: vec!["one".to_owned(), "other".to_owned()],
                refusal: Refusal::SplitTimeline { timeline },
            },
            Always,
        ),
        (
            refused(Refusal::Forked(Fork {
                timeline,
                successor: timeline,
                switch_point: lsn,
                record_end: lsn,
            })),
            Always,
        ),
        // A difference is compared again before it is believed.
        (diverged().into(), Never),
        (
            ReceiveError::Diverged {
                tries: 3,
                source: diverged(),
            },
            Always,
        ),
        // WAL that is gone.
        (
            ReceiveError::WalRemoved {
                timeline,
                start: lsn,
                segments_are_moved: false,
                source: failed(b"58P01"),
            },
            Always,
        ),
        (
            ReceiveError::LostSlot {
                slot: slot(),
                timeline,
                needed: lsn,
            },
            Always,
        ),
        (
            ReceiveError::UnusableSlot {
                slot: slot(),
                timeline,
                start: lsn,
                source: failed(b"55000"),
            },
            Always,
        ),
        // The applier.
        (ReceiveError::ApplierEnded, Always),
        (
            ApplyError::Thread(io::ErrorKind::WouldBlock.into()).into(),
            Always,
        ),
    ]);
}

#[test]
fn a_server_that_is_likely_to_be_there_soon_is_told_from_one_that_is_not() {
    let connect_error =
        |kind: io::ErrorKind| connect(ConnectFailure::Connect { error: kind.into() });
    for (error, soon) in [
        (connect_error(io::ErrorKind::ConnectionRefused), true),
        // The file of a Unix socket.
        (connect_error(io::ErrorKind::NotFound), true),
        (refused(b"57P03"), true),
        (failed(b"57P03").into(), true),
        (connect_error(io::ErrorKind::HostUnreachable), false),
        (refused(b"28P01"), false),
        (failed(b"57P01").into(), false),
        (ReceiveError::NoServer, false),
    ] {
        assert_eq!(error.is_server_starting(), soon, "{error:?}");
    }
}
