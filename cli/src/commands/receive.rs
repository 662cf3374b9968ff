//! Receiving, and the actions on a slot in its place.

mod live_line;
mod own_address;
mod password;
mod relay;

use std::ffi::OsString;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime;
use tracing::{Level, info, warn};
use walproto::SlotName;
use walproto::client::SessionTimes;

use pgconn::conninfo::{ConnectionConfig, Overrides, Password, PasswordPrompt};
use pgconn::hosts::connect_any;
use walreceiver::{
    NewPhysicalSlot, ReceiveError, Receiver, ReceiverConfig, Reconnect, create_slot, drop_slot,
};
use walsender::Stop;

use self::relay::Relay;
use super::serve::descriptors;
use crate::error::MainError;
use crate::exit::{self, Ended, conclude};
use crate::face::Face;
use crate::flags::LogFormat;
use crate::flags::receive::{self, Action, Arguments, ConnectionArguments, Prompt};
use crate::flags::serving::Serving;
use crate::logging;
use crate::observe::Observer;
use crate::owner::{self, check_directory};
use crate::screen::Screen;
use crate::signals::StopSignals;

/// Does what the arguments ask for, and tells why if it ended otherwise than asked.
pub(crate) fn main(face: Face, program: &str, words: &mut dyn Iterator<Item = OsString>) -> Ended {
    let command = receive::command(face);
    let arguments = exit::arguments(command, program, words, |given| given.receiving(face))?;
    let screen = Arc::new(Screen::stderr());
    // As with `serve`, clients that come and go are told of too.
    let level = match arguments.verbose && arguments.serving.is_some() {
        true => Level::DEBUG,
        false => Level::INFO,
    };
    logging::init(program, arguments.log_format, level, Arc::clone(&screen));
    Ok(conclude(try_run(face, arguments, &screen)))
}

fn try_run(face: Face, mut arguments: Arguments, screen: &Screen) -> Result<(), MainError> {
    if let Some(level) = arguments.unavailable_lz4_level {
        warn!("lz4 level {level} is not available, segments are compressed at the fast level");
    }
    if let Action::Receive(config) = &arguments.action {
        check_directory(&config.directory)?;
        owner::check(&config.directory)?;
    }
    let connection = connection(face, &arguments.connection)?;
    if let Some(serving) = &mut arguments.serving {
        own_address::refuse(&connection.hosts, &serving.config.listen)?;
        descriptors::fit(serving)?;
    }
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(MainError::Runtime)?;
    let ended = runtime.block_on(act(face, arguments, connection, screen));
    // Not dropped: somebody may still be asked for a password, and not be going to answer.
    runtime.shutdown_background();
    ended
}

/// Where to connect, from the command line, the environment and their files.
fn connection(face: Face, arguments: &ConnectionArguments) -> Result<ConnectionConfig, MainError> {
    let overrides = Overrides {
        host: arguments.host.clone(),
        port: arguments.port.clone(),
        user: arguments.user.clone(),
        fallback_application_name: face.application_name().to_owned(),
    };
    let conninfo = arguments.conninfo.as_deref();
    let mut connection =
        ConnectionConfig::from_sources(conninfo, &overrides, &|name| std::env::var_os(name))?;
    match arguments.prompt {
        Prompt::Never => {}
        Prompt::Needed => {
            let ask = || password::ask().map(Password::new);
            connection.password_prompt = Some(PasswordPrompt::new(ask));
        }
        Prompt::Always => {
            let password = password::ask().map_err(MainError::Password)?;
            connection.password = Some(Password::new(password));
        }
    }
    Ok(connection)
}

/// One action, or the word to stop before it is done.
async fn act(
    face: Face,
    arguments: Arguments,
    connection: ConnectionConfig,
    screen: &Screen,
) -> Result<(), MainError> {
    let signals = StopSignals::install().map_err(MainError::Runtime)?;
    let (verbose, serving) = (arguments.verbose, arguments.serving);
    let slot_action = match arguments.action {
        Action::Receive(config) => {
            warn_without_sync(face, &config);
            let loops = config.reconnect != Reconnect::Never;
            let live = face.live_line()
                && arguments.log_format == LogFormat::Text
                && live_line::possible();
            let screen = live.then_some(screen);
            let (receiver, observer) =
                Observer::of_receiver(face, verbose, config, connection, arguments.on_event)?;
            let ended = receive(receiver, loops, &observer, serving, signals, screen).await;
            observer.finish(&ended);
            return ended;
        }
        Action::CreateSlot {
            slot,
            if_not_exists,
        } => SlotAction::Create {
            new: NewPhysicalSlot {
                reserve_wal: face.reserve_wal(),
                may_exist: if_not_exists,
            },
            slot,
        },
        Action::DropSlot(slot) => SlotAction::Drop { slot },
    };
    let times = SessionTimes {
        receive_timeout: arguments.connection.receive_timeout,
        status_interval: None,
    };
    let mut signals = signals;
    tokio::select! {
        ended = slot_action.execute(&connection, times, verbose) => ended,
        () = signals.received() => Err(MainError::Interrupted),
    }
}

/// An action on a replication slot.
enum SlotAction {
    Create {
        slot: SlotName,
        new: NewPhysicalSlot,
    },
    Drop {
        slot: SlotName,
    },
}

impl SlotAction {
    async fn execute(
        &self,
        connection: &ConnectionConfig,
        times: SessionTimes,
        verbose: bool,
    ) -> Result<(), MainError> {
        let mut connection = connect_any(connection, times).await?;
        match self {
            Self::Create { slot, new } => {
                if verbose {
                    info!(
                        event = "creating_slot",
                        slot = slot.as_str(),
                        "creating replication slot \"{slot}\""
                    );
                }
                create_slot(&mut connection, slot, *new).await?;
            }
            Self::Drop { slot } => {
                if verbose {
                    info!(
                        event = "dropping_slot",
                        slot = slot.as_str(),
                        "dropping replication slot \"{slot}\""
                    );
                }
                drop_slot(&mut connection, slot).await?;
            }
        }
        connection.close().await;
        Ok(())
    }
}

fn warn_without_sync(face: Face, config: &ReceiverConfig) {
    if config.sync || !face.advises() {
        return;
    }
    warn!(
        event = "not_synced",
        "WAL is not synced to disk and not acknowledged: a crash of this machine may lose it"
    );
    if let Some(slot) = &config.slot {
        warn!(
            event = "slot_held",
            slot = slot.as_str(),
            "slot \"{slot}\" does not go forward without acknowledgements: the server keeps all \
             WAL from its restart_lsn on"
        );
    }
}

/// How long the clients of a relay are waited for after an error has ended receiving. None of them
/// can make it longer: the service manager has to learn of the error.
const FAREWELL: Duration = Duration::from_secs(10);

/// Receives until there is an end to it, and serves it meanwhile if that was asked for; with a
/// screen, shows there how far it has come.
async fn receive(
    receiver: Receiver,
    loops: bool,
    observer: &Arc<Observer>,
    serving: Option<Serving>,
    mut signals: StopSignals,
    screen: Option<&Screen>,
) -> Result<(), MainError> {
    let Some(serving) = serving else {
        let received = receive_only(receiver, signals.received(), screen).await;
        return received.map_err(|error| observer.receiving_ended(error, loops));
    };
    let (receiver, relay) = Relay::start(receiver, serving, Arc::clone(observer))?;
    let stop = async {
        let server_ended = relay.ended();
        tokio::select! {
            () = signals.received() => {}
            () = server_ended => {}
        }
    };
    match receive_only(receiver, stop, screen).await {
        Ok(()) => {
            observer.stopping();
            // Clients get the last WAL. A server that failed is why receiving ended.
            relay.stop(Stop::OnceReplicated).await
        }
        Err(error) => {
            let error = observer.receiving_ended(error, loops);
            tokio::select! {
                stopped = relay.stop(Stop::Within(FAREWELL)) => stopped?,
                () = signals.received() => {}
            }
            Err(error)
        }
    }
}

/// Receives until there is an end to it.
async fn receive_only(
    receiver: Receiver,
    stop: impl Future<Output = ()> + Send,
    screen: Option<&Screen>,
) -> Result<(), ReceiveError> {
    let progress = receiver.progress();
    let mut running = pin!(receiver.run(stop));
    let Some(screen) = screen else {
        return running.await;
    };
    let ended = tokio::select! {
        ended = &mut running => ended,
        () = live_line::keep(screen, progress) => running.await,
    };
    screen.show("");
    ended
}
