//! A receiver that serves what it receives: the archive's readers on a thread of their own beside
//! it, and what is told upstream of them.

use std::future::{Future, pending};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};
use walproto::{Confirmed, Horizons};
use walreceiver::{ArchiveView, Downstream, ReceivedArchive, Receiver};

use walsender::{ServeError, ServerHandle, Sockets, Stop};

use crate::commands::serve::{listen, reload_on};
use crate::error::MainError;
use crate::flags::serving::Serving;
use crate::observe::Observer;

/// The server, on its thread. A receiver's task may wait for the disk, and no client for that.
pub(super) struct Relay {
    thread: JoinHandle<Result<(), MainError>>,
    stop: oneshot::Sender<Stop>,
    ended: watch::Receiver<()>,
}

/// Where the receiver hears of those who are served.
struct Told {
    confirmed: watch::Sender<Confirmed>,
    needs: watch::Sender<Horizons>,
}

impl Relay {
    /// Has `receiver`, which does not run yet, tell its server of those who are going to be
    /// served, and starts to serve as soon as its archive is known. The addresses are taken and the
    /// files read here: what is received may be acknowledged before the archive is known.
    ///
    /// # Errors
    /// When a file that says who may connect is wrong, an address cannot be listened at, or the
    /// system has no room for another thread.
    pub(super) fn start(
        receiver: Receiver,
        serving: Serving,
        observer: Arc<Observer>,
    ) -> Result<(Receiver, Self), MainError> {
        serving.config.access.check().map_err(ServeError::from)?;
        let sockets = Sockets::bind(&serving.config.listen)?;
        let policy = serving.config.policy.as_ref();
        let (confirmed, confirmed_by) = watch::channel(Confirmed {
            timeline: None,
            present: 0,
            needed: policy.map_or(0, walsender::policy::SyncPolicy::needed),
            progress: None,
        });
        let (needs, needed_by) = watch::channel(Horizons::default());
        let downstream = Downstream {
            confirmed: policy.is_some().then_some(confirmed_by),
            // Without --hot-standby-feedback there are none, and that is told.
            needs: Some(needed_by),
        };
        let archive = receiver.archive();
        let (stop, stopped) = oneshot::channel();
        let (running, ended) = watch::channel(());
        let told = Told { confirmed, needs };
        let serve = move || {
            let _running = running;
            // To drop the sender is the word to stop as well.
            serve(archive, (serving, sockets), &observer, &told, async {
                stopped.await.unwrap_or(Stop::OnceReplicated)
            })
        };
        let thread = thread::Builder::new().name("walsender".into()).spawn(serve);
        let relay = Self {
            thread: thread.map_err(MainError::Runtime)?,
            stop,
            ended,
        };
        Ok((receiver.with_downstream(downstream), relay))
    }

    /// Waits until it has ended by itself, which is by an error.
    pub(super) fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut ended = self.ended.clone();
        async move { while ended.changed().await.is_ok() {} }
    }

    /// Stops it, and says how long its clients are waited for.
    ///
    /// # Errors
    /// What it has ended by before.
    pub(super) async fn stop(self, how: Stop) -> Result<(), MainError> {
        let ended = self.ended();
        // One that has ended by itself does not listen.
        let _ = self.stop.send(how);
        ended.await;
        match self.thread.join() {
            Ok(served) => served,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// Serves the archive, once it is known, until it is told to stop.
fn serve(
    archive: watch::Receiver<ReceivedArchive>,
    (serving, sockets): (Serving, Sockets),
    observer: &Observer,
    told: &Told,
    stop: impl Future<Output = Stop>,
) -> Result<(), MainError> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(MainError::Runtime)?;
    let served = runtime.block_on(async {
        let mut stop = std::pin::pin!(stop);
        let view = tokio::select! {
            biased;
            _ = &mut stop => return Ok(()),
            view = known(archive) => view,
        };
        let hangup = signal(SignalKind::hangup()).map_err(MainError::Runtime)?;
        let (server, slots) = listen(&view, serving, sockets)?;
        let handle = server.handle();
        observer.offer_server(handle.clone(), slots.clone());
        let stopped = async {
            let how = stop.await;
            match how {
                Stop::OnceReplicated => info!(
                    event = "stop_requested",
                    "receiving has ended, stopping once clients have confirmed all WAL"
                ),
                Stop::Within(limit) => warn!(
                    event = "stop_requested",
                    "an error has ended receiving; clients have {} seconds to receive the durable WAL",
                    limit.as_secs()
                ),
            }
            how
        };
        tokio::select! {
            () = server.run_until(stopped) => {}
            () = reload_on(hangup, handle.clone()) => {}
            () = pass_on(&handle, told) => {}
            () = observer.watch_server(&handle, &slots) => {}
        }
        Ok(())
    });
    // Not dropped, which would wait for what its threads read: the disk may not answer.
    runtime.shutdown_background();
    served
}

/// Waits until it is known which cluster the archive is of.
async fn known(mut archive: watch::Receiver<ReceivedArchive>) -> ArchiveView {
    loop {
        match &*archive.borrow_and_update() {
            ReceivedArchive::Opening => {}
            ReceivedArchive::Unknown => info!(
                event = "archive_unknown",
                "the archive is new, it is served after the first connection to a server"
            ),
            ReceivedArchive::Known(view) => return view.clone(),
        }
        if archive.changed().await.is_err() {
            // The receiver has ended, and so will this.
            return pending().await;
        }
    }
}

/// Tells the receiver what becomes of those who are served, for ever.
async fn pass_on(handle: &ServerHandle, told: &Told) {
    let (mut confirmed, mut needs) = (handle.confirmed(), handle.needs());
    loop {
        if let Some(now) = *confirmed.borrow_and_update() {
            told.confirmed
                .send_if_modified(|told| std::mem::replace(told, now) != now);
        }
        let now = *needs.borrow_and_update();
        told.needs
            .send_if_modified(|told| std::mem::replace(told, now) != now);
        let changed = tokio::select! {
            changed = confirmed.changed() => changed,
            changed = needs.changed() => changed,
        };
        if changed.is_err() {
            return pending().await;
        }
    }
}
