//! Many records quickly, of one kind or of many.

use super::{GeneratedRecord, Generator};

/// How many bodies of a mix are kept. Each of many records has one of them.
const BODIES: usize = 512;

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

/// Noise, and the parts of it that are bodies of records.
#[derive(Clone, Default, Debug)]
pub(super) struct Kept {
    noise: Vec<u8>,
    /// Of each mix, once there was a record of it.
    bodies: [Vec<Body>; RecordMix::ALL.len()],
}

/// A part of the noise.
#[derive(Clone, Copy, Debug)]
struct Body {
    from: usize,
    to: usize,
    /// Its CRC-32C.
    crc: u32,
}

impl Generator {
    /// Appends a record of a length that `mix` has, its body being one of those that are made and
    /// summed up once: all of it costs little more than to copy it.
    pub fn record_of(&mut self, mix: RecordMix) -> GeneratedRecord {
        let mut kept = self.kept.take().unwrap_or_default();
        let Kept { noise, bodies } = &mut *kept;
        if noise.is_empty() {
            noise.resize(NOISE_LENGTH, 0);
            self.rng.fill(noise);
        }
        let [small, varied, large, full_pages] = bodies;
        let bodies = match mix {
            RecordMix::Small => small,
            RecordMix::Varied => varied,
            RecordMix::Large => large,
            RecordMix::FullPages => full_pages,
        };
        if bodies.is_empty() {
            bodies.extend((0..BODIES).map(|_| self.body_of(mix, noise)));
        }
        let chosen = bodies.get(self.rng.usize(..BODIES));
        let (body, crc) = chosen.map_or((&[][..], 0), |body| {
            let bytes = noise.get(body.from..body.to);
            (bytes.unwrap_or_default(), body.crc)
        });
        let record = self.any_kind(body, crc);
        self.kept = Some(kept);
        record
    }

    fn body_of(&mut self, mix: RecordMix, noise: &[u8]) -> Body {
        let length = match mix {
            RecordMix::Small => self.rng.usize(20..92),
            RecordMix::Varied => usize::try_from(self.any_length()).unwrap_or_default(),
            RecordMix::Large => self.rng.usize(20_000..40_000),
            // The image with its block's header and the record's data.
            RecordMix::FullPages => 8_192 + 50,
        };
        let from = self.rng.usize(..(NOISE_LENGTH - length) / NOISE_STEP) * NOISE_STEP;
        let to = from + length;
        let crc = crc32c::crc32c(noise.get(from..to).unwrap_or_default());
        Body { from, to, crc }
    }
}
