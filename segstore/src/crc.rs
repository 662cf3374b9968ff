//! The checksum of WAL records.

use crc_fast::{CrcAlgorithm, Digest};

/// From how many bytes on it pays to set up a digest.
const LONG: usize = 256;

/// The CRC-32C of what had `crc`, followed by `bytes`. The CRC of nothing is 0.
#[inline]
pub(crate) fn append(crc: u32, bytes: &[u8]) -> u32 {
    if crc == 0 {
        // Most records' bodies come in one piece.
        return crc_fast::crc32_iscsi(bytes);
    }
    if bytes.len() < LONG {
        return crc32c::crc32c_append(crc, bytes);
    }
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(!crc));
    digest.update(bytes);
    // The state is one of 32 bits.
    let [a, b, c, d, ..] = digest.get_state().to_le_bytes();
    !u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition: one bit after the other.
    fn plain(crc: u32, bytes: &[u8]) -> u32 {
        let mut state = !crc;
        for byte in bytes {
            state ^= u32::from(*byte);
            for _ in 0..8 {
                let carry = state & 1;
                state = (state >> 1) ^ (carry * 0x82f6_3b78);
            }
        }
        !state
    }

    #[test]
    fn it_is_that_of_the_catalogue() {
        assert_eq!(append(0, b"123456789"), 0xe306_9283);
        assert_eq!(append(0, b""), 0);
    }

    #[test]
    fn any_length_and_any_cut_give_the_same() {
        let bytes: Vec<u8> = (0..9000u32).map(|i| (i * i / 7).to_le_bytes()[0]).collect();
        for length in (0..600).chain([1000, 1023, 1024, 2047, 2049, 4097, 8192, 8999]) {
            // Records begin anywhere in memory.
            let bytes = &bytes[length % 9..(length % 9 + length).min(9000)];
            let whole = plain(0, bytes);
            assert_eq!(append(0, bytes), whole, "{length}");
            for cut in [1, 7, 20, 255, 256, 257, bytes.len() / 2] {
                let (first, second) = bytes.split_at(cut.min(bytes.len()));
                let first = append(0, first);
                assert_eq!(append(first, second), whole, "{length} cut at {cut}");
            }
        }
    }
}
