//! A batch of received bytes.

use bytes::Bytes;
use walproto::Lsn;

/// Pieces of WAL that follow one another, the first at `start`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch<'a> {
    start: Lsn,
    pieces: &'a [Bytes],
}

/// Where received bytes are not the stored ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Difference {
    pub(super) lsn: Lsn,
    pub(super) stored: u8,
    pub(super) received: u8,
}

impl<'a> Batch<'a> {
    pub(super) const fn new(start: Lsn, pieces: &'a [Bytes]) -> Self {
        Self { start, pieces }
    }

    /// The bytes from `from` up to `end`, without copying them.
    pub(super) fn range(self, from: Lsn, end: Lsn) -> impl Iterator<Item = &'a [u8]> {
        let mut next = self.start;
        self.pieces
            .iter()
            .map(move |piece| {
                let start = next;
                next = Lsn(start.0.saturating_add(piece.len() as u64));
                let offset = |lsn: Lsn| {
                    let bytes = usize::try_from(lsn.bytes_since(start)).unwrap_or(usize::MAX);
                    bytes.min(piece.len())
                };
                piece.get(offset(from)..offset(end)).unwrap_or_default()
            })
            .filter(|slice| !slice.is_empty())
    }

    /// Where the bytes from `from` on first differ from `stored`, `None` if nowhere.
    pub(super) fn first_difference(self, from: Lsn, stored: &[u8]) -> Option<Difference> {
        let end = Lsn(from.0.saturating_add(stored.len() as u64));
        let mut stored = stored;
        let mut position = from;
        for slice in self.range(from, end) {
            let (here, later) = stored.split_at_checked(slice.len())?;
            if here != slice {
                let mut bytes = (position.0..).zip(here.iter().zip(slice));
                return bytes.find_map(|(lsn, (&stored, &received))| {
                    (stored != received).then_some(Difference {
                        lsn: Lsn(lsn),
                        stored,
                        received,
                    })
                });
            }
            position = Lsn(position.0 + slice.len() as u64);
            stored = later;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_range_is_that_of_the_bytes_joined(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..9),
            from in 0usize..80, length in 0usize..80, change in 0usize..80,
        ) {
            let joined = pieces.concat();
            let pieces: Vec<Bytes> = pieces.into_iter().map(Bytes::from).collect();
            let batch = Batch::new(Lsn(100), &pieces);
            let from = from.min(joined.len());
            let end = (from + length).min(joined.len());
            let (first, last) = (Lsn(100 + from as u64), Lsn(100 + end as u64));
            let slices: Vec<&[u8]> = batch.range(first, last).collect();
            prop_assert_eq!(slices.concat(), &joined[from..end]);
            let mut stored = joined[from..end].to_vec();
            prop_assert_eq!(batch.first_difference(first, &stored), None);
            if change < stored.len() {
                stored[change] ^= 1;
                let expected = Difference {
                    lsn: Lsn(first.0 + change as u64),
                    stored: stored[change],
                    received: stored[change] ^ 1,
                };
                prop_assert_eq!(batch.first_difference(first, &stored), Some(expected));
            }
        }
    }
}
