//! Our library's receiver inside the test, with an applier.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use pgconn::conninfo::{ConnectionConfig, Overrides};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use walproto::Lsn;
use walreceiver::{
    Apply, ApplyConfig, PieceEnd, ReceiveError, Receiver, ReceiverConfig, RecordPiece, WalPosition,
};

use crate::Cluster;
use crate::wait::{wait_for, wait_until};

/// A running receiver on a thread of its own; told to stop when it goes out of scope.
#[derive(Debug)]
pub struct Embedded {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), ReceiveError>>>,
}

impl Embedded {
    /// Its `application_name`.
    pub const NAME: &str = "embedded";

    /// Starts a receiver that gives `records` all there is after `from`. Records that have more
    /// than 64 KiB come in pieces.
    #[must_use]
    pub fn start(
        config: ReceiverConfig,
        conninfo: &str,
        records: &Records,
        from: Option<WalPosition>,
    ) -> Self {
        let overrides = Overrides {
            fallback_application_name: Self::NAME.to_owned(),
            ..Overrides::default()
        };
        let connection =
            ConnectionConfig::from_sources(Some(conninfo), &overrides, &|_| None).unwrap();
        let apply_config = ApplyConfig {
            from,
            whole_length: 64 << 10,
        };
        let receiver =
            Receiver::new(config, connection).with_apply(records.applier(), apply_config);
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(receiver.run(async {
                // A test that has failed drops the sender, which is a stop as well.
                drop(stopped.await);
            }))
        });
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Starts one that fills `archive` from `cluster`, with our defaults.
    #[must_use]
    pub fn of(
        cluster: &Cluster,
        archive: &Path,
        records: &Records,
        from: Option<WalPosition>,
    ) -> Self {
        let config = ReceiverConfig::new(archive);
        Self::start(config, &cluster.conninfo(), records, from)
    }

    /// Waits until all up to `end` is flushed.
    #[track_caller]
    pub fn wait_flushed(cluster: &Cluster, end: Lsn) {
        wait_until(&format!("all up to {end} to be flushed"), || {
            cluster.reported_flush(Self::NAME) >= Some(end)
        });
    }

    /// Tells it to stop, and waits for its end, which must be a good one.
    #[track_caller]
    pub fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.ended().unwrap();
    }

    /// Waits until it ends by itself, which must be with an error.
    #[track_caller]
    pub fn fail(mut self) -> ReceiveError {
        self.ended().unwrap_err()
    }

    #[track_caller]
    fn ended(&mut self) -> Result<(), ReceiveError> {
        let thread = self.thread.as_ref().unwrap();
        wait_until("the embedded receiver to end", || thread.is_finished());
        self.thread.take().unwrap().join().unwrap()
    }
}

/// The pieces of records that an applier was given. It can be held up. Clones are the same ones.
#[derive(Clone, Debug, Default)]
pub struct Records(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    pieces: Mutex<Vec<RecordPiece>>,
    passage: Mutex<Passage>,
    changed: Condvar,
}

/// What becomes of the next piece.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Passage {
    #[default]
    Open,
    Closed,
    Fails,
}

impl Records {
    /// What an applier of these records says when it is told to fail.
    pub const FAILURE: &str = "told to fail";

    /// An applier that takes all it is given.
    fn applier(&self) -> impl Apply + 'static {
        let Self(shared) = self.clone();
        move |piece| {
            let passage = shared
                .changed
                .wait_while(shared.passage.lock().unwrap(), |now| {
                    *now == Passage::Closed
                })
                .unwrap();
            if *passage == Passage::Fails {
                return Err(Self::FAILURE.into());
            }
            drop(passage);
            shared.pieces.lock().unwrap().push(piece);
            Ok(())
        }
    }

    /// Holds the applier up at the next piece.
    pub fn hold(&self) {
        self.set(Passage::Closed);
    }

    /// Lets the applier go on.
    pub fn go_on(&self) {
        self.set(Passage::Open);
    }

    /// Makes the applier fail at the next piece.
    pub fn fail(&self) {
        self.set(Passage::Fails);
    }

    fn set(&self, passage: Passage) {
        *self.0.passage.lock().unwrap() = passage;
        self.0.changed.notify_all();
    }

    /// All there are so far.
    #[must_use]
    pub fn pieces(&self) -> Vec<RecordPiece> {
        self.0.pieces.lock().unwrap().clone()
    }

    /// The last piece of each record, whose pieces have to be complete and in order.
    #[must_use]
    pub fn complete(&self) -> Vec<RecordPiece> {
        let mut length = 0;
        let mut complete = Vec::new();
        for piece in self.pieces() {
            assert_eq!(piece.offset, length, "at {}", piece.start);
            length += u32::try_from(piece.bytes.len()).unwrap();
            if piece.end != PieceEnd::Continues {
                assert_eq!(piece.header.body_length(), length, "at {}", piece.start);
                complete.push(piece);
                length = 0;
            }
        }
        complete
    }

    /// How far they go.
    #[must_use]
    pub fn applied(&self) -> Option<WalPosition> {
        let pieces = self.0.pieces.lock().unwrap();
        pieces.iter().rev().find_map(RecordPiece::applied)
    }

    /// Waits until all records up to `end` are there.
    #[track_caller]
    pub fn wait_for(&self, end: Lsn) -> WalPosition {
        wait_for(&format!("records up to {end}"), || {
            self.applied().filter(|applied| applied.lsn >= end)
        })
    }
}
