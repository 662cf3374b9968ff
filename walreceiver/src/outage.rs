//! The time since WAL was last streamed, and when an outage is reported.

use std::future::Future;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::error::ReceiveError;
use crate::event::{ReceiverEvent, Reporter};

/// How long an outage lasts before it is reported. A server restarts in less time.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a stream without new WAL lasts at least if it ends an outage. A proxy may accept a
/// stream for a server that is gone, and close it at once, with every try.
const SETTLED: Duration = Duration::from_secs(10);

/// Since when a connection streams, as an attempt shows it.
#[derive(Debug, Default)]
pub(crate) struct Streaming(Mutex<Option<Instant>>);

impl Streaming {
    /// The server has begun to stream.
    pub(crate) fn begins(&self) {
        *self.since() = Some(Instant::now());
    }

    fn is_on(&self) -> bool {
        self.since().is_some()
    }

    /// For how long the connection that is lost now has streamed, `None` if it did not.
    pub(super) fn ends(&self) -> Option<Duration> {
        self.since().take().map(|since| since.elapsed())
    }

    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time since something was streamed.
#[derive(Debug)]
pub(super) struct Outage {
    since: Instant,
    told: bool,
    cause: Option<ReceiveError>,
}

impl Outage {
    /// Nothing has been streamed yet.
    pub(super) fn begin() -> Self {
        Self {
            since: Instant::now(),
            told: false,
            cause: None,
        }
    }

    /// Begins anew after a stream that has lasted so long, unless it was none to speak of.
    pub(super) fn note_stream(&mut self, lasted: Duration, advanced: bool) {
        if advanced || lasted >= SETTLED {
            *self = Self::begin();
        }
    }

    /// Takes note of why the last try has ended.
    pub(super) fn note_cause(&mut self, cause: ReceiveError) {
        self.cause = Some(cause);
    }

    /// Does `work`, and meanwhile tells of the outage once it has lasted too long.
    pub(super) async fn watch<T>(
        &mut self,
        streaming: &Streaming,
        reporter: &dyn Reporter,
        work: impl Future<Output = T>,
    ) -> T {
        let mut work = pin!(work);
        let told_at = self.since + PATIENCE;
        if !self.told {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = sleep_until(told_at) => {}
            }
            if !streaming.is_on() {
                self.told = true;
                reporter.report(&ReceiverEvent::Unreachable {
                    lasted: self.since.elapsed(),
                    error: self.cause.as_ref(),
                });
            }
        }
        work.await
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::{advance, timeout};

    use super::*;

    /// The reports of an outage within so many seconds.
    async fn told(outage: &mut Outage, streaming: &Streaming, seconds: u64) -> Vec<String> {
        let told = Mutex::new(Vec::new());
        let reporter = |event: &ReceiverEvent<'_>| {
            let ReceiverEvent::Unreachable { error, .. } = event else {
                panic!("{event:?}");
            };
            let cause = error.map(ToString::to_string).unwrap_or_default();
            told.lock().unwrap().push(cause);
        };
        let work = async {
            let endless = timeout(Duration::from_secs(seconds), pending::<()>());
            endless.await.unwrap_err();
        };
        outage.watch(streaming, &reporter, work).await;
        told.into_inner().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_told_once_after_a_minute_with_its_cause() {
        let streaming = Streaming::default();
        let mut outage = Outage::begin();
        assert_eq!(told(&mut outage, &streaming, 50).await, [""; 0]);
        outage.note_cause(ReceiveError::NoServer);
        // A try may hang for longer than the rest of the minute.
        let causes = told(&mut outage, &streaming, 50).await;
        assert_eq!(causes, ["no server to connect to"]);
        outage.note_cause(ReceiveError::NoServer);
        assert_eq!(told(&mut outage, &streaming, 500).await, [""; 0]);
        // The next one is another one.
        outage = Outage::begin();
        assert_eq!(told(&mut outage, &streaming, 59).await, [""; 0]);
        assert_eq!(told(&mut outage, &streaming, 2).await.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_streams_is_no_outage() {
        let streaming = Streaming::default();
        let mut outage = Outage::begin();
        advance(Duration::from_secs(30)).await;
        streaming.begins();
        assert_eq!(told(&mut outage, &streaming, 500).await, [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn streams_that_end_at_once_are_part_of_the_outage() {
        let streaming = Streaming::default();
        let mut outage = Outage::begin();
        let mut lasts = async |seconds, advanced| {
            streaming.begins();
            advance(Duration::from_secs(seconds)).await;
            outage.note_stream(streaming.ends().unwrap(), advanced);
            outage.since.elapsed().as_secs()
        };
        assert_eq!(lasts(4, false).await, 4);
        assert_eq!(lasts(4, false).await, 8);
        assert_eq!(lasts(1, true).await, 0, "WAL became durable");
        assert_eq!(lasts(4, false).await, 4);
        assert_eq!(lasts(10, false).await, 0);
        assert_eq!(told(&mut outage, &streaming, 61).await.len(), 1);
    }
}
