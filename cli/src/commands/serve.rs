//! `wal-receiver serve`: an archive, which another process may be filling, is served.

pub(crate) mod args;
pub(crate) mod descriptors;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use segstore::{ArchiveError, ArchiveView, Disk, Followed, OsDisk, SlotStore, Subscription};
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, oneshot};
use tracing::{Level, error, info, warn};
use walproto::{Lsn, TimelineId};
use walsender::{Server, ServerHandle, Sockets};

use self::args::{Arguments, COMMAND};
use crate::error::MainError;
use crate::exit::{self, Ended, conclude};
use crate::flags::serving::Serving;
use crate::logging::{self, chain};
use crate::observe::Observer;
use crate::owner::{self, check_directory};
use crate::screen::Screen;
use crate::signals::StopSignals;

/// Does what the arguments after `serve` ask for.
pub(crate) fn main(program: &str, words: &mut dyn Iterator<Item = OsString>) -> Ended {
    let arguments = exit::arguments(&COMMAND, program, words, args::finish)?;
    let level = match arguments.verbose {
        true => Level::DEBUG,
        false => Level::INFO,
    };
    let screen = Arc::new(Screen::stderr());
    logging::init(program, arguments.log_format, level, screen);
    Ok(conclude(try_serve(arguments)))
}

fn try_serve(mut arguments: Arguments) -> Result<(), MainError> {
    check_directory(&arguments.directory)?;
    owner::check(&arguments.directory)?;
    descriptors::fit(&mut arguments.serving)?;
    // One thread for the network is enough: what waits for the disk has threads of its own.
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(MainError::Runtime)?;
    runtime.block_on(serve(arguments))
}

async fn serve(mut arguments: Arguments) -> Result<(), MainError> {
    let observer = Observer::of_server(&arguments.directory, arguments.on_event.take())?;
    let ended = serve_until_stopped(arguments, &observer).await;
    observer.finish(&ended);
    ended
}

async fn serve_until_stopped(arguments: Arguments, observer: &Observer) -> Result<(), MainError> {
    let mut stop = StopSignals::install().map_err(MainError::Runtime)?;
    let hangup = signal(SignalKind::hangup()).map_err(MainError::Runtime)?;
    let view = tokio::select! {
        view = open_when_begun(arguments.directory.clone()) => view?,
        () = stop.received() => return Ok(()),
    };
    let watch = Watch::new(&view);
    // Hears of what another process makes durable, as long as it lives.
    let _follower = view.follow()?;
    let sockets = Sockets::bind(&arguments.serving.config.listen)?;
    let (server, slots) = listen(&view, arguments.serving, sockets)?;
    observer.offer_server(server.handle(), slots.clone());
    observer.started();
    let followed = view.followed();
    tell_followed(&view, followed);
    if view.is_on_network()? {
        warn!(
            event = "network_file_system",
            "archive \"{}\" is on a network file system: WAL that another machine writes there is \
             not noticed",
            view.path().display()
        );
    }
    let handle = server.handle();
    let stopped = async {
        stop.received().await;
        info!(
            event = "stop_requested",
            "received interrupt signal, stopping once clients have confirmed all WAL"
        );
    };
    tokio::select! {
        () = server.run(stopped) => {}
        () = reload_on(hangup, handle.clone()) => {}
        () = watch.tell(&view, followed, observer) => {}
        () = observer.watch_server(&handle, &slots) => {}
    }
    Ok(())
}

/// Listens, and tells where and for what.
pub(crate) fn listen(
    view: &ArchiveView,
    serving: Serving,
    sockets: Sockets,
) -> Result<(Server, SlotStore), MainError> {
    let slots = SlotStore::open(view.clone(), serving.slots)?;
    let server = Server::at(sockets, serving.config, slots.clone())?;
    tell_archive(view)?;
    for address in server.addresses() {
        info!(event = "listening", %address, "listening at {address}");
    }
    Ok((server, slots))
}

/// Opens the archive, once a receiver has begun it.
async fn open_when_begun(directory: PathBuf) -> Result<ArchiveView, MainError> {
    let (sender, opened) = oneshot::channel();
    let open = move || {
        let disk: Arc<dyn Disk> = Arc::new(OsDisk::new());
        let view = ArchiveView::open_when_begun(&disk, &directory, || {
            info!(
                event = "waiting_for_archive",
                "nothing in \"{}\" says which cluster it is of, waiting for a receiver to begin \
                 the archive",
                directory.display()
            );
        });
        // Nobody waits any more when the program stops.
        drop(sender.send(view));
    };
    // Not one of the runtime's threads, whose end the runtime waits for.
    thread::Builder::new()
        .name("archive-opener".to_owned())
        .spawn(open)
        .map_err(MainError::Runtime)?;
    let opened = opened.await.map_err(io::Error::other);
    Ok(opened.map_err(MainError::Runtime)??)
}

/// Tells which archive is served, and what of it.
fn tell_archive(view: &ArchiveView) -> Result<(), ArchiveError> {
    let identity = view.identity();
    let version = walproto::ServerVersion(identity.server_version_num()).major();
    let directory = view.path().display();
    let durable = view.durable();
    let oldest = oldest(view)?;
    let what = match (oldest, durable) {
        (Some((timeline, oldest)), Some(durable)) => format!(
            "from {oldest} (timeline {timeline}) on, durable up to {} (timeline {})",
            durable.record_end, durable.timeline
        ),
        _ => "nothing of it is durable yet".to_owned(),
    };
    info!(
        event = "serving",
        timeline = durable.map(|durable| durable.timeline.number()),
        lsn = durable.map(|durable| tracing::field::display(durable.record_end)),
        oldest_lsn = oldest.map(|(_, oldest)| tracing::field::display(oldest)),
        "serving archive \"{directory}\" of PostgreSQL {version}, system identifier {}: {what}",
        identity.system_id()
    );
    Ok(())
}

/// Where the oldest segment begins.
fn oldest(view: &ArchiveView) -> Result<Option<(TimelineId, Lsn)>, ArchiveError> {
    let size = view.identity().segment_size();
    let listing = view.listing()?;
    let oldest = listing.segments().next().and_then(|(file, _)| {
        let start = file.name.number(size)?.start(size)?;
        Some((file.name.timeline(), start))
    });
    Ok(oldest)
}

/// Tells who says how far the archive is durable.
fn tell_followed(view: &ArchiveView, followed: Followed) {
    match followed {
        Followed::CompleteSegmentsOnly => warn!(
            event = "complete_segments_only",
            "no wal-receiver has written archive \"{}\": only complete segments are served, the \
             growing one is not",
            view.path().display()
        ),
        Followed::Published | Followed::SameProcess => info!(
            event = "every_record",
            "WAL is served as soon as its receiver has made it durable"
        ),
    }
}

/// Hears of what happens to the archive besides WAL that arrives.
struct Watch {
    changed: Arc<Notify>,
    _subscription: Subscription,
}

impl Watch {
    fn new(view: &ArchiveView) -> Self {
        let changed = Arc::new(Notify::new());
        let notify = Arc::clone(&changed);
        let subscription = view.on_advance(move || notify.notify_one());
        Self {
            changed,
            _subscription: subscription,
        }
    }

    /// Tells of it, for ever.
    async fn tell(&self, view: &ArchiveView, mut followed: Followed, observer: &Observer) {
        loop {
            self.changed.notified().await;
            if let Some(error) = view.take_failure() {
                observer.following_failed(&error);
            }
            let now = view.followed();
            if std::mem::replace(&mut followed, now) != now {
                tell_followed(view, now);
            }
        }
    }
}

/// Reads the files anew that say who may connect, at each signal, for ever.
pub(crate) async fn reload_on(mut hangup: Signal, handle: ServerHandle) {
    while hangup.recv().await.is_some() {
        let handle = handle.clone();
        // It reads files.
        let reloaded = tokio::task::spawn_blocking(move || handle.reload()).await;
        match reloaded.map_err(io::Error::other) {
            Ok(Ok(())) => info!(
                event = "reloaded",
                "received hangup signal, access files read anew"
            ),
            Ok(Err(error)) => tell_not_reloaded(&error),
            Err(error) => tell_not_reloaded(&error),
        }
    }
    // No more signals can come.
    std::future::pending().await
}

fn tell_not_reloaded(error: &(dyn std::error::Error + 'static)) {
    error!(
        event = "not_reloaded",
        "access files were not read anew, what was read before still holds: {}",
        chain(error)
    );
}
