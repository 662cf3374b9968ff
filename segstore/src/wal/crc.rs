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

/// What [`append`] makes of `crc` and `bytes`, with the CRC of `bytes` alone. The two are worked
/// out side by side, where otherwise one has to wait for the other.
#[inline]
#[expect(clippy::indexing_slicing, reason = "a byte indexes 256 values")]
pub(crate) fn append_short(crc: u32, bytes: &[u8; SHORT]) -> u32 {
    // The bytes that follow move a CRC on by as many zero bytes, whatever they are, since it is
    // linear; and each of its bytes is moved on by itself.
    let [a, b, c, d] = crc.to_le_bytes().map(usize::from);
    let [first, second, third, fourth] = &MOVED;
    crc_fast::crc32_iscsi(bytes) ^ first[a] ^ second[b] ^ third[c] ^ fourth[d]
}

/// The length that [`append_short`] is for: that of a record's header without the CRC in it.
const SHORT: usize = 20;

/// What each byte of a CRC becomes by [`SHORT`] zero bytes after it.
#[expect(
    clippy::indexing_slicing,
    reason = "a wrong index in a constant does not compile"
)]
static MOVED: [[u32; 256]; 4] = {
    let mut tables = [[0; 256]; 4];
    let mut byte: u32 = 0;
    while byte < 256 {
        let mut place = 0;
        while place < 4 {
            let mut state = byte << (8 * place);
            let mut bit = 0;
            while bit < 8 * SHORT {
                state = (state >> 1) ^ ((state & 1) * POLYNOMIAL);
                bit += 1;
            }
            tables[place][byte as usize] = state;
            place += 1;
        }
        byte += 1;
    }
    tables
};

/// Castagnoli's, the lowest bit being that of the highest power.
const POLYNOMIAL: u32 = 0x82f6_3b78;

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
                state = (state >> 1) ^ (carry * POLYNOMIAL);
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
            if let Some((first, second)) = bytes.split_last_chunk() {
                assert_eq!(append_short(append(0, first), second), whole, "{length}");
            }
        }
    }
}
