//! Whether damage, or a difference, comes with every try.

use segstore::WriteError;
use walproto::{Lsn, TimelineId};

use crate::error::ReceiveError;

/// What is met this often in a row at the same position is on the server, and was not flipped on
/// the way from it.
const DAMAGE_TRIES: u32 = 3;

/// Counts how often the same was met in a row.
#[derive(Debug, Default)]
pub(super) struct Damage {
    place: Option<(TimelineId, Lsn)>,
    met: u32,
}

impl Damage {
    /// Takes note of `error`, and turns what came with every try into an error that says so. A
    /// difference from the archive is another history then, which ends receiving. Damage does not:
    /// the archive is intact, and once the server's copy is mended, or another server is
    /// promoted, receiving resumes.
    pub(super) fn count(&mut self, error: ReceiveError) -> ReceiveError {
        let place = match &error {
            ReceiveError::Write(WriteError::Corrupt { corruption, .. }) => {
                (corruption.timeline, corruption.lsn)
            }
            ReceiveError::Write(WriteError::Diverged { timeline, lsn, .. }) => (*timeline, *lsn),
            _ => return error,
        };
        if self.place != Some(place) {
            self.place = Some(place);
            self.met = 0;
        }
        self.met = self.met.saturating_add(1);
        let tries = DAMAGE_TRIES;
        match error {
            ReceiveError::Write(source @ WriteError::Diverged { .. }) if self.met >= tries => {
                ReceiveError::Diverged { tries, source }
            }
            ReceiveError::Write(source) if self.met >= tries => {
                ReceiveError::Damaged { tries, source }
            }
            error => error,
        }
    }
}
