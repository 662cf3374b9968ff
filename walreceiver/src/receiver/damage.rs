//! When damage is met too often for another try to get around it.

use segstore::WriteError;
use walproto::{Lsn, TimelineId};

use crate::error::ReceiveError;

/// The same damage at the same position, met this often in a row, is on the server and not on the
/// way from it.
const DAMAGE_TRIES: u32 = 3;

/// Counts how often the same damage was met in a row.
#[derive(Debug, Default)]
pub(super) struct Damage {
    place: Option<(TimelineId, Lsn)>,
    met: u32,
}

impl Damage {
    /// Takes note of `error`, and turns damage that another try will not get around into an
    /// error that says so.
    pub(super) fn count(&mut self, error: ReceiveError) -> ReceiveError {
        let (place, source) = match error {
            ReceiveError::Write(source @ WriteError::Corrupt { corruption, .. }) => {
                ((corruption.timeline, corruption.lsn), source)
            }
            ReceiveError::Write(source @ WriteError::Diverged { timeline, lsn, .. }) => {
                ((timeline, lsn), source)
            }
            other => return other,
        };
        if self.place != Some(place) {
            *self = Self {
                place: Some(place),
                met: 0,
            };
        }
        self.met += 1;
        if self.met >= DAMAGE_TRIES {
            let tries = self.met;
            ReceiveError::Damaged { tries, source }
        } else {
            source.into()
        }
    }
}
