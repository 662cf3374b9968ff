//! Many records quickly, of one kind or of many.

use super::{GeneratedRecord, Generator};

/// How much noise is kept, in bytes. It stays in a processor's cache.
const NOISE_LENGTH: usize = 64 << 10;
/// What the places in it are multiples of.
const NOISE_STEP: usize = 8;

/// How long records are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordMix {
    /// Short ones as of small transactions, 80 bytes on average.
    Small,
    /// As varied as those that real servers write between checkpoints.
    Varied,
    /// Longer than several pages, 30 kB on average.
    Large,
    /// Images of whole pages, as after a checkpoint.
    FullPages,
}

impl RecordMix {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Small, Self::Varied, Self::Large, Self::FullPages];
}

impl Generator {
    /// Appends a record of a length that `mix` has, its body being a part of noise that is made
    /// once: all of it costs little more than its checksum.
    pub fn record_of(&mut self, mix: RecordMix) -> GeneratedRecord {
        let length = match mix {
            RecordMix::Small => self.rng.usize(20..92),
            RecordMix::Varied => usize::try_from(self.any_length()).unwrap_or_default(),
            RecordMix::Large => self.rng.usize(20_000..40_000),
            // The image with its block's header and the record's data.
            RecordMix::FullPages => 8_192 + 50,
        };
        let mut noise = std::mem::take(&mut self.kept_noise);
        if noise.is_empty() {
            noise.resize(NOISE_LENGTH, 0);
            self.rng.fill(&mut noise);
        }
        let from = self.rng.usize(..(NOISE_LENGTH - length) / NOISE_STEP) * NOISE_STEP;
        let record = self.any_kind(noise.get(from..from + length).unwrap_or_default());
        self.kept_noise = noise;
        record
    }
}
