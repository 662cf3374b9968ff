//! One client: its session is driven from what it sends, what becomes durable, and the clock.

mod admission;
mod answers;
mod error;
mod opening;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::BytesMut;
use segstore::{HeldSlot, SlotSession};
use tokio::sync::watch;
use walproto::command::Command;
use walproto::error::{ServerMessage, SqlState};
use walproto::server::{Event, MAX_WAITING_LENGTH, ServerError, ServerSession, StartupRequest};
use walproto::{Lsn, PgTimestamp, ServerVersion, TimelineId};

use crate::may_block::{MayBlock, on_blocking_thread};
use crate::pump::{Pump, Pushed};
use crate::registry::{Registered, StandbyState};
use crate::shared::Shared;
use crate::socket::{Accepted, Reader, Writer};

use admission::OpenedFacts;
pub(crate) use error::ConnectionError;
use error::log_end;
use opening::Opened;

/// How long a client may take for the last that it is told.
const FAREWELL: Duration = Duration::from_secs(2);

/// How much is read of a client to which nothing more is said, so that what it was told reaches
/// it.
const MAX_LEFT_OVER: usize = 64 << 10;

/// Serves a client to its end.
pub(crate) async fn serve(shared: Arc<Shared>, accepted: Accepted, number: u64) {
    let known = Known {
        shared: Arc::clone(&shared),
        number,
    };
    let address = match &accepted {
        Accepted::Tcp(_, address) => Some(*address),
        Accepted::Unix(_) => None,
    };
    let (result, is_authenticated) = match opening::open(&shared, accepted).await {
        Ok(Some(opened)) => {
            let (mut connection, asked, failure) = Connection::new(&shared, opened, known);
            let result = connection.run(asked, failure).await;
            connection.say_farewell().await;
            connection.log_client("disconnection");
            (result, connection.registered.is_some())
        }
        Ok(None) => (Ok(()), false),
        Err(error) => (Err(error), false),
    };
    if let Err(error) = result {
        log_end(&shared, address, is_authenticated, &error);
    }
}

/// Tells that a client has shown who it is, or has gone, when dropped.
#[derive(Debug)]
struct Known {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Known {
    fn drop(&mut self) {
        self.shared.note_known(self.number);
    }
}

/// A client that speaks to its session.
struct Connection {
    shared: Arc<Shared>,
    pump: Option<Pump>,
    reader: Reader,
    writer: Writer,
    input: BytesMut,
    opened: OpenedFacts,
    /// Until the client has shown who it is.
    known: Option<Known>,
    /// From then on.
    registered: Option<Arc<Registered>>,
    request: Option<Box<StartupRequest>>,
    wal_sender_timeout: Option<Duration>,
    slots: Option<Arc<SlotSession>>,
    /// The slot that the stream uses, and the stream's timeline.
    slot: Option<(HeldSlot, TimelineId)>,
    /// What is tried again when a slot is released.
    waiting: Option<Command>,
    released: watch::Receiver<()>,
    advance: watch::Receiver<()>,
    stopping: watch::Receiver<bool>,
}

/// A session for a new client.
fn new_session(shared: &Shared) -> ServerSession {
    let limits = &shared.config.limits;
    let times = walproto::server::SessionTimes {
        authentication_timeout: limits.authentication_timeout,
        wal_sender_timeout: limits.wal_sender_timeout,
    };
    let wall_clock = PgTimestamp::from_system_time(SystemTime::now());
    let version = ServerVersion(shared.view.identity().server_version_num());
    ServerSession::new(Instant::now(), wall_clock, version, times)
}

impl Connection {
    fn new(
        shared: &Arc<Shared>,
        opened: Opened,
        known: Known,
    ) -> (Self, Option<Event>, Option<ServerError>) {
        let plain = match &opened.writer {
            Writer::Plain(plain) => Some(plain.clone()),
            Writer::Tls { .. } => None,
        };
        let connection = Self {
            shared: Arc::clone(shared),
            pump: Some(Pump::new(opened.session, plain)),
            reader: opened.reader,
            writer: opened.writer,
            input: opened.input,
            opened: opened.facts,
            known: Some(known),
            registered: None,
            request: None,
            wal_sender_timeout: shared.config.limits.wal_sender_timeout,
            slots: None,
            slot: None,
            waiting: None,
            released: shared.released(),
            advance: shared.advance(),
            stopping: shared.stopping(),
        };
        (connection, opened.asked, opened.failure)
    }

    fn pump(&mut self) -> Result<&mut Pump, ConnectionError> {
        self.pump.as_mut().ok_or(ConnectionError::Fault)
    }

    fn session(&mut self) -> Result<&mut ServerSession, ConnectionError> {
        Ok(&mut self.pump()?.session)
    }

    async fn run(
        &mut self,
        asked: Option<Event>,
        failure: Option<ServerError>,
    ) -> Result<(), ConnectionError> {
        if let Some(event) = asked {
            self.answer(event).await?;
        }
        if let Some(failure) = failure {
            return Err(failure.into());
        }
        let mut from_disk = false;
        loop {
            self.answer_events().await?;
            self.advance.borrow_and_update();
            let pushed = self.push(from_disk).await?;
            if self.pump()?.session.is_over() {
                return Ok(());
            }
            from_disk = match pushed {
                Pushed::OnDisk => true,
                Pushed::More => from_disk,
                Pushed::Idle | Pushed::Blocked => false,
            };
            match pushed {
                Pushed::OnDisk | Pushed::More => {
                    self.look().await?;
                    if !from_disk {
                        tokio::task::yield_now().await;
                    }
                }
                // There is room for more answers again.
                Pushed::Idle if self.takes_more().await? => {}
                Pushed::Idle | Pushed::Blocked => self.wait(pushed).await?,
            }
        }
    }

    /// Answers what the client asks for, until it waits or is waited for.
    async fn answer_events(&mut self) -> Result<(), ConnectionError> {
        let mut failure = None;
        loop {
            let now = Instant::now();
            let Some(pump) = &mut self.pump else {
                return Err(ConnectionError::Fault);
            };
            if failure.is_none()
                && !self.input.is_empty()
                && let Err(error) = pump.session.handle_input(now, &mut self.input)
            {
                failure = Some(error);
            }
            let Some(event) = pump.session.poll_event() else {
                return failure.map_or(Ok(()), |error| Err(error.into()));
            };
            self.answer(event).await?;
        }
    }

    /// Answers what the client has said meanwhile; whether that was anything.
    async fn takes_more(&mut self) -> Result<bool, ConnectionError> {
        let before = self.input.len();
        self.answer_events().await?;
        Ok(self.input.len() < before)
    }

    /// Sends what there is, or, with `from_disk`, what has to be read from the disk.
    async fn push(&mut self, from_disk: bool) -> Result<Pushed, ConnectionError> {
        let mut pump = self.pump.take().ok_or(ConnectionError::Fault)?;
        let registered = self.registered.clone();
        let shared = Arc::clone(&self.shared);
        let push = move |may_block: Option<&MayBlock>| {
            let pushed = pump.push(&shared.view, registered.as_deref(), may_block);
            (pump, pushed)
        };
        let (pump, pushed) = if from_disk {
            let _reader = self.shared.disk_readers.acquire().await;
            let pushing = on_blocking_thread(|may_block| push(Some(may_block)));
            pushing.await.map_err(|_panic| ConnectionError::Fault)?
        } else {
            push(None)
        };
        let pump = self.pump.insert(pump);
        if let Some(failure) = pump.take_failure() {
            self.note_failure(None, failure);
            self.end_stream();
        }
        Ok(pushed?)
    }

    /// Takes what is there without waiting.
    async fn look(&mut self) -> Result<(), ConnectionError> {
        let now = Instant::now();
        match self.reader.try_read(&mut self.input)? {
            Some(0) => self.session()?.handle_eof(now)?,
            Some(_) => {}
            None => self.session()?.handle_timeout(now)?,
        }
        if self.stopping.has_changed().unwrap_or(true) {
            self.stop()?;
        }
        Ok(())
    }

    /// Waits for something to do.
    async fn wait(&mut self, pushed: Pushed) -> Result<(), ConnectionError> {
        let Some(pump) = &mut self.pump else {
            return Err(ConnectionError::Fault);
        };
        let due = pump.session.next_timeout();
        let writes = pushed == Pushed::Blocked
            || (pump.is_buffered() && !pump.out.is_empty())
            || self.writer.is_unflushed();
        // As long as nothing more can be answered, nothing more is read.
        let reads = self.input.len() <= MAX_WAITING_LENGTH;
        let registered = self.registered.clone();
        let cancelled = async {
            match &registered {
                Some(registered) => registered.cancellation().asked().await,
                None => std::future::pending().await,
            }
        };
        let timeout = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            read = self.reader.read(&mut self.input), if reads => {
                if read? == 0 {
                    pump.session.handle_eof(Instant::now())?;
                }
            }
            progress = self.writer.progress(&mut pump.out), if writes => progress?,
            changed = self.advance.changed(), if pushed == Pushed::Idle => {
                changed.map_err(|_gone| ConnectionError::Fault)?;
            }
            () = timeout => pump.session.handle_timeout(Instant::now())?,
            changed = self.released.changed(), if self.waiting.is_some() => {
                changed.map_err(|_gone| ConnectionError::Fault)?;
                if let Some(command) = self.waiting.take() {
                    self.execute(command).await?;
                }
            }
            () = cancelled => self.cancel()?,
            _ = self.stopping.changed() => self.stop()?,
        }
        Ok(())
    }

    /// Gives up what the client waits for, on behalf of another connection of its own.
    fn cancel(&mut self) -> Result<(), ConnectionError> {
        let waited = self.waiting.take().is_some();
        let session = self.session()?;
        if waited || session.is_sending() {
            session.fail(ServerMessage::error(
                SqlState::QUERY_CANCELED,
                "canceling statement due to user request",
            ))?;
            self.end_stream();
        }
        Ok(())
    }

    /// Begins to stop. A streaming client receives all WAL that is durable now and confirms it,
    /// however far behind it is. Any other client gets an error. From now on the server's own
    /// `wal_sender_timeout` applies if it is shorter than the client's, so that a client cannot
    /// delay the stop.
    ///
    /// Source: src/backend/replication/walsender.c, `WalSndLoop` and `WalSndDone` (PG 15).
    fn stop(&mut self) -> Result<(), ConnectionError> {
        self.stopping.borrow_and_update();
        if let Some(registered) = &self.registered {
            for state in [StandbyState::Catchup, StandbyState::Streaming] {
                registered.change_state(state, StandbyState::Stopping);
            }
        }
        // Without anything durable there is no stream.
        let durable = self.shared.view.durable();
        let until = durable.map_or(Lsn::INVALID, |durable| durable.record_end);
        let own = self.shared.config.limits.wal_sender_timeout;
        let timeouts = [own, self.wal_sender_timeout];
        let shortest = timeouts.into_iter().flatten().min();
        let session = self.session()?;
        session.set_wal_sender_timeout(shortest);
        session.begin_shutdown(Instant::now(), until);
        Ok(())
    }

    /// Has the client get the last that it was told.
    async fn say_farewell(&mut self) {
        let farewell = async {
            self.pump()?.stop();
            let mut from_disk = false;
            loop {
                let pushed = self.push(from_disk).await?;
                from_disk = pushed == Pushed::OnDisk;
                let pump = self.pump.as_mut().ok_or(ConnectionError::Fault)?;
                if pump.is_empty() {
                    break;
                }
                if !from_disk {
                    self.writer.progress(&mut pump.out).await?;
                }
            }
            self.writer.shutdown().await?;
            // What is closed with unread bytes is reset, and what was said may be lost.
            let mut rest = BytesMut::new();
            let mut count = 0;
            while count < MAX_LEFT_OVER {
                rest.clear();
                match self.reader.read(&mut rest).await? {
                    0 => break,
                    more => count += more,
                }
            }
            Ok::<(), ConnectionError>(())
        };
        // Who does not take it in time, or is gone, does without.
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
    }
}
