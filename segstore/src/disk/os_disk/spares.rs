//! File descriptors that are kept for writing.
//!
//! A process that serves many clients may use all file descriptors that it is allowed. What it
//! reads can wait then, but a receiver that cannot open its next segment holds up every commit of
//! its primary. So some descriptors are occupied from the first file on that is opened to be
//! written, and given up for such a file when there is no other.

use std::fs::File;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

/// As many as a writer opens at the same time: the next segment, the one that is copied, a small
/// file of ours, and a directory that is listed.
const SPARES: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Spares(Mutex<Vec<File>>);

impl Spares {
    /// Calls `open`, again after each spare descriptor that is given up while there is none else.
    pub(super) fn open<T>(&self, mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            match open() {
                Err(error) if lacks_descriptor(&error) => {
                    if self.lock().pop().is_none() {
                        return Err(error);
                    }
                }
                opened => {
                    self.occupy();
                    return opened;
                }
            }
        }
    }

    /// Occupies as many descriptors as are to be spare, or as there are.
    fn occupy(&self) {
        let mut spares = self.lock();
        while spares.len() < SPARES
            && let Ok(spare) = File::open("/")
        {
            spares.push(spare);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<File>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lacks_descriptor(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spare_descriptor_is_given_up_for_a_file_and_occupied_again() {
        let spares = Spares::default();
        spares.open(|| Ok(())).unwrap();
        assert_eq!(spares.lock().len(), SPARES);
        let mut tries = 0;
        let opened = spares.open(|| {
            tries += 1;
            if tries < 3 {
                return Err(Errno::MFILE.into());
            }
            assert_eq!(spares.lock().len(), SPARES - 2);
            Ok(())
        });
        opened.unwrap();
        assert_eq!(spares.lock().len(), SPARES);
    }

    #[test]
    fn without_a_spare_descriptor_the_error_is_returned() {
        let spares = Spares::default();
        spares.open(|| Ok(())).unwrap();
        let mut tries = 0;
        let error = spares.open::<()>(|| {
            tries += 1;
            Err(Errno::NFILE.into())
        });
        assert_eq!(error.unwrap_err().raw_os_error(), Some(23));
        assert_eq!(tries, SPARES + 1);
    }
}
