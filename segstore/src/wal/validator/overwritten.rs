//! What `XLOG_OVERWRITE_CONTRECORD` says about the record whose rest was lost.

use walproto::Lsn;

use crate::wal::corruption::CorruptionReason;

/// `XLR_BLOCK_ID_DATA_SHORT`, which begins the record's only data.
const SHORT_DATA: u8 = 0xFF;

/// A record that is overwritten, and as much as is needed of the record that says so: the
/// identifier and length of its data, then the position that it names.
///
/// A standby refuses to replay one that names another record.
///
/// Source: src/backend/access/transam/xlogrecovery.c, `VerifyOverwriteContrecord` (PG 15).
#[derive(Clone, Copy, Debug)]
pub(super) struct Overwritten {
    record: Lsn,
    body: [u8; 10],
    have: usize,
}

impl Overwritten {
    pub(super) const fn new(record: Lsn) -> Self {
        Self {
            record,
            body: [0; 10],
            have: 0,
        }
    }

    /// Takes the next bytes of the body.
    pub(super) fn collect(&mut self, bytes: &[u8]) {
        let free = self.body.iter_mut().skip(self.have);
        for (place, byte) in free.zip(bytes) {
            *place = *byte;
            self.have += 1;
        }
    }

    /// Whether the record names another one. Data of another form than today's servers write
    /// is let pass.
    pub(super) fn mismatch(&self) -> Option<CorruptionReason> {
        let [SHORT_DATA, _, position @ ..] = self.body else {
            return None;
        };
        let found = Lsn(u64::from_le_bytes(position));
        let expected = self.record;
        (self.have == self.body.len() && found != expected)
            .then_some(CorruptionReason::OverwrittenRecord { expected, found })
    }
}
