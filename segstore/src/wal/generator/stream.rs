//! WAL without an end.

use walproto::Lsn;

use super::{Generator, RecordMix};

/// What is made at once. It is still in the processor's cache when it is copied.
const AT_ONCE: usize = 64 << 10;

/// WAL that is made as it is asked for: as much as a load needs, in the memory of a record and
/// a little more, with no allocation for each record.
///
/// ```
/// use segstore::generator::{GeneratedStream, Generator, RecordMix};
/// use segstore::{Validator, WalFormat};
/// use walproto::{Lsn, SegmentSize, SystemId, TimelineHistory, TimelineId};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let start = Lsn(1 << 24);
/// let format = WalFormat {
///     system_id: SystemId(7_000_000_000_000_000_001),
///     segment_size: SegmentSize::DEFAULT,
///     page_magic: None,
///     server_version_num: Some(170_004),
/// };
/// let history = TimelineHistory::without_ancestors(TimelineId::FIRST);
/// let generator = Generator::new(format, history.clone(), start, 1)?;
/// let mut stream = GeneratedStream::new(generator, RecordMix::Small);
/// let mut validator = Validator::new(format, history, start)?;
/// let mut message = vec![0; 128 << 10];
/// for _ in 0..10 {
///     stream.fill(&mut message);
///     validator.push(&message)?;
/// }
/// // A lone commit.
/// validator.push(stream.next_record())?;
/// validator.push(stream.next_record())?;
/// assert_eq!(validator.progress().record_end, stream.position());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct GeneratedStream {
    generator: Generator,
    mix: RecordMix,
    /// How many of the generator's bytes were given.
    given: usize,
}

impl GeneratedStream {
    /// Gives what `generator` has made, then records of `mix` for ever.
    #[must_use]
    pub const fn new(generator: Generator, mix: RecordMix) -> Self {
        Self {
            generator,
            mix,
            given: 0,
        }
    }

    /// The position of the next byte to be given.
    #[must_use]
    pub fn position(&self) -> Lsn {
        Lsn(self.generator.start().0 + self.given as u64)
    }

    /// Fills all of `buffer`, which may end inside a record.
    pub fn fill(&mut self, mut buffer: &mut [u8]) {
        while !buffer.is_empty() {
            let made = self.generator.bytes().get(self.given..).unwrap_or_default();
            if made.is_empty() {
                self.make(buffer.len().min(AT_ONCE));
                continue;
            }
            let count = made.len().min(buffer.len());
            let (now, later) = std::mem::take(&mut buffer).split_at_mut(count);
            now.copy_from_slice(made.get(..count).unwrap_or_default());
            self.given += count;
            buffer = later;
        }
    }

    /// The next record, with its padding and the page headers before and in it, or what was not
    /// yet given of one.
    pub fn next_record(&mut self) -> &[u8] {
        if self.given == self.generator.bytes().len() {
            self.make(0);
        }
        let position = self.position();
        let records = self.generator.records();
        let next = records.partition_point(|record| record.end <= position);
        let end = records
            .get(next)
            .map_or(self.generator.end(), |next| next.end);
        let length = usize::try_from(end.bytes_since(position)).unwrap_or(usize::MAX);
        let from = self.given;
        self.given = from.saturating_add(length);
        self.generator
            .bytes()
            .get(from..self.given)
            .unwrap_or_default()
    }

    /// Makes one record at least, in the place of what was given.
    fn make(&mut self, length: usize) {
        self.generator.forget();
        self.given = 0;
        loop {
            self.generator.record_of(self.mix);
            if self.generator.bytes().len() >= length {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use walproto::{Major, SegmentSize, SystemId, TimelineHistory, TimelineId};

    use super::*;

    use crate::wal::validator::{Validator, WalFormat};

    const START: Lsn = Lsn(3 << 20);

    fn format(version: u32, segment_size: u64) -> WalFormat {
        WalFormat {
            system_id: SystemId(7_000_000_000_000_000_001),
            segment_size: SegmentSize::new(segment_size).unwrap(),
            page_magic: None,
            server_version_num: Some(version),
        }
    }

    fn history() -> TimelineHistory {
        TimelineHistory::without_ancestors(TimelineId::FIRST)
    }

    fn stream(format: WalFormat, mix: RecordMix) -> GeneratedStream {
        GeneratedStream::new(Generator::new(format, history(), START, 1).unwrap(), mix)
    }

    #[test]
    fn every_mix_version_and_segment_size_is_valid() {
        for mix in RecordMix::ALL {
            for (major, segment_size) in [(13, 1 << 20), (16, 16 << 20), (18, 1 << 30)] {
                let format = format(major * 10_000 + 1, segment_size);
                let mut stream = stream(format, mix);
                let mut validator = Validator::new(format, history(), START).unwrap();
                let mut buffer = vec![0; 300_000];
                for _ in 0..10 {
                    stream.fill(&mut buffer);
                    validator.push(&buffer).unwrap();
                    assert_eq!(validator.position(), stream.position());
                }
                assert_eq!(
                    validator.page_magic(),
                    Major::numbered(major).map(|major| major.page_magic)
                );
                let progress = validator.progress();
                let incomplete = progress.byte_end.bytes_since(progress.record_end);
                assert!(progress.last_record.is_some() && incomplete < 50_000);
            }
        }
    }

    #[test]
    fn a_record_at_a_time_ends_where_records_do() {
        let format = format(150_018, 1 << 20);
        let mut stream = stream(format, RecordMix::Varied);
        let mut validator = Validator::new(format, history(), START).unwrap();
        let mut buffer = vec![0; 1_001];
        for _ in 0..1_000 {
            stream.fill(&mut buffer);
            validator.push(&buffer).unwrap();
            for _ in 0..2 {
                let record = stream.next_record();
                assert!(!record.is_empty());
                validator.push(record).unwrap();
                assert_eq!(validator.progress().record_end, stream.position());
            }
        }
    }

    proptest! {
        #[test]
        fn how_it_is_asked_for_makes_no_difference(
            lengths in proptest::collection::vec(0..200_000usize, 1..10),
        ) {
            let format = format(150_018, 1 << 20);
            let (mut one, mut other) = (
                stream(format, RecordMix::Varied),
                stream(format, RecordMix::Varied),
            );
            let total = lengths.iter().sum();
            let mut whole = vec![0; total];
            one.fill(&mut whole);
            let mut pieces = vec![0; total];
            let mut rest = &mut pieces[..];
            for length in lengths {
                let (piece, later) = rest.split_at_mut(length);
                other.fill(piece);
                rest = later;
            }
            prop_assert_eq!(whole, pieces);
        }
    }
}
