//! Signals: SIGINT and SIGTERM end the program cleanly, a second one, whichever came first, at once;
//! SIGHUP is harmless.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::Poll;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask for an end.
pub(crate) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// Takes over the signals of this process; call it inside of a runtime.
    ///
    /// SIGPIPE needs nothing: Rust ignores it from the start, and what cannot be written to a
    /// closed pipe is dropped.
    ///
    /// # Errors
    /// When the system refuses a handler.
    pub(crate) fn install() -> io::Result<Self> {
        // In this order: the first signal finds the flag clear and sets it, the second finds it
        // set and exits inside of the handler, whatever the program is doing.
        let stopping = Arc::new(AtomicBool::new(false));
        for number in [SIGINT, SIGTERM] {
            flag::register_conditional_shutdown(number, 128 + number, Arc::clone(&stopping))?;
            flag::register(number, Arc::clone(&stopping))?;
        }
        // A handler that does nothing; without one SIGHUP would end the process.
        flag::register(SIGHUP, Arc::default())?;
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for one of them.
    ///
    /// # Cancel safety
    /// A signal is not lost when this is dropped before it returns.
    pub(crate) async fn received(&mut self) {
        poll_fn(|context| {
            match (
                self.interrupt.poll_recv(context),
                self.terminate.poll_recv(context),
            ) {
                (Poll::Pending, Poll::Pending) => Poll::Pending,
                _ => Poll::Ready(()),
            }
        })
        .await;
    }
}
