//! The receiver: opens the archive, and tries to stream into it until it is told to stop.

use std::future::{Future, pending};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pgconn::conninfo::ConnectionConfig;
use segstore::{Archive, ArchiveError, ArchiveOptions, MissingSegments, OsDisk};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::apply::{Applier, Apply, ApplyConfig};
use crate::attempt::{Attempt, HostMemory};
use crate::config::{ReceiverConfig, Reconnect};
use crate::downstream::{Behind, Downstream};
use crate::error::{Phase, ReceiveError};
use crate::event::{Progress, ReceiverEvent, Reporter, Warning};
use crate::outage::{Outage, Streaming};
use crate::retry::Backoff;
use crate::served::{ReceivedArchive, show};
use crate::standing::StandingWarnings;
use crate::stream::{Stop, TailMemory};
use damage::Damage;

mod damage;

/// How long completed segments may take to be compressed after the word to stop, or an error: what
/// is left then is compressed after the next start. It keeps short what a service manager waits
/// for, which would kill us in the end, and is enough where compression keeps up.
const COMPRESSION_PATIENCE: Duration = Duration::from_secs(10);

/// Receives WAL into an archive.
///
/// See `examples/` for a program that does no more than this.
pub struct Receiver {
    work: Work,
    apply: Option<(Box<dyn Apply>, ApplyConfig)>,
}

/// What is needed as long as it receives. Apart from what applies, which goes to a thread of its
/// own and need not be fit for two at once, as the future that borrows this has to be.
struct Work {
    config: ReceiverConfig,
    connection: ConnectionConfig,
    reporter: Box<dyn Reporter>,
    progress: watch::Sender<Option<Progress>>,
    archive: watch::Sender<ReceivedArchive>,
    behind: Option<Behind>,
}

impl Receiver {
    /// A receiver that has not begun.
    #[must_use]
    pub fn new(config: ReceiverConfig, connection: ConnectionConfig) -> Self {
        let reporter = Box::new(|_: &ReceiverEvent<'_>| {});
        Self {
            work: Work {
                config,
                connection,
                reporter,
                progress: watch::Sender::new(None),
                archive: watch::Sender::new(ReceivedArchive::Opening),
                behind: None,
            },
            apply: None,
        }
    }

    /// Tells events to `reporter`.
    #[must_use]
    pub fn with_reporter(mut self, reporter: impl Reporter + 'static) -> Self {
        self.work.reporter = Box::new(reporter);
        self
    }

    /// Gives durable records to `apply`, on a thread of its own.
    #[must_use]
    pub fn with_apply(mut self, apply: impl Apply + 'static, config: ApplyConfig) -> Self {
        self.apply = Some((Box::new(apply), config));
        self
    }

    /// Tells the server of those who get the WAL from here, too.
    #[must_use]
    pub fn with_downstream(mut self, downstream: Downstream) -> Self {
        self.work.behind = Some(Behind::new(downstream));
        self
    }

    /// The archive, for who serves it from this process. Ask for it before the receiver
    /// [runs](Self::run): a receiver whose archive is served tries again from the start on, where
    /// another one ends by what a user has to correct until it has streamed once.
    #[must_use]
    pub fn archive(&self) -> watch::Receiver<ReceivedArchive> {
        self.work.archive.subscribe()
    }

    /// How far the receiver has come, `None` while it does not stream.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Option<Progress>> {
        self.work.progress.subscribe()
    }

    /// Receives until `stop` says to end, or the configured end is reached. What was received by
    /// then is durable, and completed segments are compressed if they are to be; after the word to
    /// stop only those for which ten seconds are enough.
    ///
    /// The archive is opened first, which may take a while: the end of its WAL is looked for.
    ///
    /// # Errors
    /// Once it has streamed, or while its archive is served: what is wrong with the archive itself, a
    /// server of another cluster or lineage, WAL that is gone, and an applier that has ended. Until
    /// it has streamed also what a user has to correct, as a password. With
    /// [`Reconnect::Never`], anything that ends the stream.
    ///
    /// # Cancel safety
    /// To drop it may lose what was received and not yet synced, none of which was acknowledged.
    /// Its threads end by themselves after what they are at, and then the archive is unlocked.
    pub async fn run(self, stop: impl Future<Output = ()> + Send) -> Result<(), ReceiveError> {
        let Self { work, apply } = self;
        let stop = pin!(stop);
        let options = work.archive_options();
        let segments_are_moved = work.config.segments_are_moved;
        // The last watcher may drop its receiver as soon as it has the view.
        let is_served = work.archive.receiver_count() > 0;
        let open = move || {
            let mut archive = Archive::open(Arc::new(OsDisk::new()), options)?;
            if segments_are_moved {
                archive.let_segments_be_moved();
            }
            let missing = archive.missing_segments()?;
            // What is durable is handed out, by whoever serves the archive, even if no server can
            // be reached.
            if archive.identity().is_some() && (is_served || archive.is_synced()) {
                match archive.recover() {
                    Err(error) if error.is_temporary() => {}
                    // A sync that failed must not be tried again.
                    Err(error @ (ArchiveError::Disk(_) | ArchiveError::Unmarked { .. })) => {
                        return Err(error);
                    }
                    // It is met again, and told, next to a server: that may mend it.
                    Err(_) if !is_served => {}
                    recovered => drop(recovered?),
                }
            }
            Ok::<_, ArchiveError>((archive, missing))
        };
        let (archive, missing) = match tokio::task::spawn_blocking(open).await {
            Ok(opened) => opened?,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        work.reporter.report(&ReceiverEvent::ArchiveOpened);
        show(&archive, &work.archive)?;
        work.warn_of_foreign_files(&archive);
        work.warn_of_missing_segments(&missing);
        let applier = match apply {
            Some((apply, config)) => Some(Applier::start(apply, config)?),
            None => None,
        };
        let phase = if is_served {
            Phase::After
        } else {
            Phase::Before
        };
        let receiving = work.keep_receiving(archive, applier.as_ref(), phase, stop);
        let ended = receiving.await;
        match applier {
            // An applier that failed is why receiving ended.
            Some(applier) => applier
                .finish()
                .await
                .map_err(ReceiveError::from)
                .and(ended),
            None => ended,
        }
    }
}

impl Work {
    fn warn_of_foreign_files(&self, archive: &Archive) {
        let names = archive.foreign();
        if !names.is_empty() {
            let directory = archive.path();
            let warning = Warning::ForeignFiles { directory, names };
            self.reporter.report(&ReceiverEvent::Warning(warning));
        }
    }

    fn warn_of_missing_segments(&self, missing: &[MissingSegments]) {
        if !missing.is_empty() {
            let warning = Warning::MissingSegments { missing };
            self.reporter.report(&ReceiverEvent::Warning(warning));
        }
    }

    fn archive_options(&self) -> ArchiveOptions {
        ArchiveOptions {
            directory: self.config.directory.clone(),
            compression: self.config.compression,
            sync: self.config.sync,
        }
    }

    async fn keep_receiving(
        &self,
        archive: Archive,
        applier: Option<&Applier>,
        phase: Phase,
        mut stop: Stop<'_>,
    ) -> Result<(), ReceiveError> {
        let mut archive = Some(archive);
        let stopped = AtomicBool::new(false);
        let stop = pin!(async {
            stop.as_mut().await;
            stopped.store(true, Ordering::Relaxed);
        });
        let ended = self
            .try_again(&mut archive, applier, phase, &stopped, stop)
            .await;
        if let Some(archive) = archive {
            let at_leisure = ended.is_ok() && !stopped.load(Ordering::Relaxed);
            let patience = if at_leisure {
                Duration::MAX
            } else {
                COMPRESSION_PATIENCE
            };
            let growing = self.config.compress_growing && ended.is_ok();
            self.close(archive, growing, patience).await;
        }
        ended
    }

    /// Compresses what is to be compressed, the growing segment too if `growing`.
    async fn close(&self, archive: Archive, growing: bool, patience: Duration) {
        let compression = self.config.compression;
        let close = move || {
            let begun = Instant::now();
            let failure = match growing {
                true => archive.compress_growing(compression, patience).err(),
                false => None,
            };
            failure.or(archive.close(patience.saturating_sub(begun.elapsed())))
        };
        let failure = match tokio::task::spawn_blocking(close).await {
            Ok(failure) => failure,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        if let Some(error) = failure {
            let warning = Warning::NotCompressed { error: &error };
            self.reporter.report(&ReceiverEvent::Warning(warning));
        }
    }

    /// Tries until something ends it for good. The archive is back when it returns, unless a
    /// thread has lost it.
    async fn try_again(
        &self,
        archive: &mut Option<Archive>,
        applier: Option<&Applier>,
        mut phase: Phase,
        stopped: &AtomicBool,
        mut stop: Stop<'_>,
    ) -> Result<(), ReceiveError> {
        let mut backoff = backoff(self.config.reconnect);
        let mut damage = Damage::default();
        let mut tail = TailMemory::new(self.config.reconnect != Reconnect::Never);
        let mut hosts = HostMemory::default();
        let mut warnings = StandingWarnings::default();
        let mut catching_up = None;
        let mut slot_reserves = false;
        let mut ever_connected = false;
        let streaming = Streaming::default();
        let mut outage = Outage::begin();
        while let Some(kept) = archive.take() {
            let mut attempt = Attempt {
                config: &self.config,
                connection: &self.connection,
                reporter: &*self.reporter,
                progress: &self.progress,
                shown: &self.archive,
                applier,
                behind: self.behind.as_ref(),
                tail: &mut tail,
                hosts: &mut hosts,
                warnings: &mut warnings,
                streaming: &streaming,
                phase,
                archive: Some(kept),
                recovery: None,
                catching_up: &mut catching_up,
                slot_reserves: &mut slot_reserves,
                reservation: None,
                connected_at: None,
                advanced: false,
                others_unasked: false,
            };
            self.reporter.report(&ReceiverEvent::Connecting);
            let outcome = outage
                .watch(&streaming, &*self.reporter, attempt.run(stop.as_mut()))
                .await;
            *archive = attempt.archive.take();
            ever_connected |= attempt.connected_at.is_some();
            if let Some(backoff) = &mut backoff {
                if attempt.advanced {
                    backoff.reset();
                } else if let Some(connected_at) = attempt.connected_at {
                    backoff.connection_lasted(connected_at.elapsed());
                }
            }
            let error = match outcome {
                Ok(()) => return Ok(()),
                Err(error) => damage.count(error),
            };
            // `stop` has completed and must not be polled again.
            if stopped.load(Ordering::Relaxed) {
                if error.ends(Phase::After) || error.is_of_archive() {
                    return Err(error);
                }
                // It would have been tried again: no reason to fail for who wanted an end.
                self.reporter.report(&ReceiverEvent::Disconnected {
                    error: &error,
                    retry_in: None,
                });
                return Ok(());
            }
            if let Some(lasted) = streaming.ends() {
                phase = Phase::After;
                outage.note_stream(lasted, attempt.advanced);
            }
            let must_connect = self.config.first_connection_must_succeed && !ever_connected;
            let Some(backoff) = &mut backoff else {
                return Err(error);
            };
            if must_connect || error.ends(phase) {
                return Err(error);
            }
            let retry_in = backoff.next_wait(error.is_server_starting(), fastrand::f64());
            // How far it had come can still be looked at while this is told.
            self.reporter.report(&ReceiverEvent::Disconnected {
                error: &error,
                retry_in: Some(retry_in),
            });
            self.progress.send_replace(None);
            outage.note_cause(error);
            let wait = async {
                tokio::select! {
                    biased;
                    () = &mut stop => {
                        self.reporter.report(&ReceiverEvent::StopRequested);
                        Some(Ok(()))
                    }
                    () = ended(applier) => Some(Err(ReceiveError::ApplierEnded)),
                    () = sleep(retry_in) => None,
                }
            };
            if let Some(end) = outage.watch(&streaming, &*self.reporter, wait).await {
                return end;
            }
        }
        Ok(())
    }
}

/// Waits until the applier has ended by itself, for ever without one.
async fn ended(applier: Option<&Applier>) {
    match applier {
        Some(applier) => applier.ended().await,
        None => pending().await,
    }
}

fn backoff(reconnect: Reconnect) -> Option<Backoff> {
    match reconnect {
        Reconnect::Never => None,
        Reconnect::Fixed(wait) => Some(Backoff::new(wait, wait)),
        Reconnect::Backoff { min, max } => Some(Backoff::new(min, max)),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Mutex;

    use super::*;
    use pgconn::conninfo::Overrides;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_stays_away_is_told_of_once_after_a_minute() {
        let directory = tempfile::tempdir().unwrap();
        let connection = ConnectionConfig::from_sources(
            Some("host=/nonexistent user=u"),
            &Overrides::default(),
            &|_| None,
        );
        let told = Arc::new(Mutex::new(Vec::new()));
        let note = Arc::clone(&told);
        let receiver = Receiver::new(ReceiverConfig::new(directory.path()), connection.unwrap())
            .with_reporter(move |event: &ReceiverEvent<'_>| match event {
                ReceiverEvent::Disconnected { retry_in, .. } => {
                    // Its socket may be there at any moment.
                    assert!(*retry_in <= Some(Duration::from_secs(1)), "{retry_in:?}");
                }
                ReceiverEvent::Unreachable { lasted, error } => {
                    let cause = error.map(ToString::to_string).unwrap_or_default();
                    note.lock().unwrap().push((*lasted, cause));
                }
                _ => {}
            });
        let stop = sleep(Duration::from_secs(200));
        receiver.run(stop).await.unwrap();
        let told = told.lock().unwrap();
        let [(lasted, cause)] = &told[..] else {
            panic!("{told:?}");
        };
        assert!((60..62).contains(&lasted.as_secs()), "{lasted:?}");
        assert!(cause.contains("No such file"), "{cause}");
    }

    #[tokio::test]
    async fn it_can_be_spawned_on_a_runtime_with_several_threads() {
        let directory = tempfile::tempdir().unwrap();
        let connection = ConnectionConfig::from_sources(
            Some("host=/nonexistent user=u"),
            &Overrides::default(),
            &|_| None,
        );
        let config = ApplyConfig {
            from: None,
            whole_length: 0,
        };
        // One that must not be used by two threads at once.
        let count = Cell::new(0);
        let apply = move |_| {
            count.set(count.get() + 1);
            Ok(())
        };
        let receiver = Receiver::new(ReceiverConfig::new(directory.path()), connection.unwrap())
            .with_reporter(|_: &ReceiverEvent<'_>| {})
            .with_apply(apply, config);
        let received = tokio::spawn(receiver.run(async {}));
        received.await.unwrap().unwrap();
    }
}
