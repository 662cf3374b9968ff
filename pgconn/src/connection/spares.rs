//! Buffers that were read into and are used again.

use std::collections::VecDeque;

use bytes::BytesMut;

/// How many buffers are remembered: as many as the queue to the disk can hold, and a few that
/// have just been taken from it.
const MOST: usize = 12;

/// Buffers that events may still share. Once they do not, the memory is used again: what was
/// just freed and allocated anew would have to be found and cleared by the kernel each time.
#[derive(Debug, Default)]
pub(super) struct Spares(VecDeque<BytesMut>);

impl Spares {
    /// An empty buffer with room for `length` bytes: one whose events are done with, or else a
    /// new one.
    pub(super) fn take(&mut self, length: usize) -> BytesMut {
        let free = self
            .0
            .iter_mut()
            .position(|spare| spare.try_reclaim(length));
        free.and_then(|free| self.0.remove(free))
            .unwrap_or_else(|| BytesMut::with_capacity(length))
    }

    /// Remembers an empty buffer that events may share, and forgets the oldest one if there are
    /// too many.
    pub(super) fn put(&mut self, buffer: BytesMut) {
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_once_nobody_shares_it() {
        let mut spares = Spares::default();
        let mut buffer = spares.take(1 << 20);
        let memory = buffer.as_ptr();
        buffer.extend_from_slice(&[7; 100]);
        let event = buffer.split().freeze();
        spares.put(buffer);
        let other = spares.take(1 << 20);
        assert_ne!(other.as_ptr(), memory);
        assert_eq!(event, [7; 100][..]);
        drop(event);
        let again = spares.take(1 << 20);
        assert_eq!(again.as_ptr(), memory);
        assert!(again.is_empty());
    }

    #[test]
    fn only_so_many_are_remembered() {
        let mut spares = Spares::default();
        for _ in 0..2 * MOST {
            spares.put(BytesMut::with_capacity(8));
        }
        assert_eq!(spares.0.len(), MOST);
    }
}
