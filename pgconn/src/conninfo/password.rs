//! Passwords, and where they come from when nobody wrote them down.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// A password. It is not printed by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Vec<u8>);

impl Password {
    /// Takes the password as it is.
    #[must_use]
    pub fn new(password: impl Into<Vec<u8>>) -> Self {
        Self(password.into())
    }

    /// The password itself.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("...")
    }
}

type Ask = dyn Fn() -> io::Result<Password> + Send + Sync;

/// Asks somebody for a password, when a server wants one and no other source has it. The answer
/// is kept for all later connections.
#[derive(Clone)]
pub struct PasswordPrompt {
    ask: Arc<Ask>,
    answer: Arc<Mutex<Option<Password>>>,
    /// Held while somebody is asked.
    asking: Arc<Mutex<()>>,
}

impl PasswordPrompt {
    /// Takes the function that asks. It may block: it is called on a thread of its own.
    #[must_use]
    pub fn new(ask: impl Fn() -> io::Result<Password> + Send + Sync + 'static) -> Self {
        Self {
            ask: Arc::new(ask),
            answer: Arc::default(),
            asking: Arc::default(),
        }
    }

    /// What was answered before.
    pub(crate) fn answer(&self) -> Option<Password> {
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        answer.clone()
    }

    /// Asks, and waits for the answer. Of several hosts that want one at the same time only the
    /// first has somebody asked.
    pub(crate) fn ask(&self) -> io::Result<()> {
        let _asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if self.answer().is_some() {
            return Ok(());
        }
        let password = (self.ask)()?;
        let mut answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        *answer = Some(password);
        Ok(())
    }
}

impl fmt::Debug for PasswordPrompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordPrompt")
    }
}
