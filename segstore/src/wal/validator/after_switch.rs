//! What may follow `XLOG_SWITCH` in its segment.
//!
//! The server writes zeros there (src/backend/access/transam/xlog.c, `CopyXLogRecordToWAL`,
//! PG 15), and no reader looks at them. But when it crashes in the middle of that, recovery is
//! content with the switch record and goes on in the next segment. What the file held before is
//! then left for ever, and is sent like the rest: the pages of the older segment that was
//! recycled. So whole pages of such a segment are let pass, and one page may be torn between the
//! zeros and them. Other bytes are corruption.

use walproto::Lsn;

use super::{Content, RecordVisitor, Validator};
use crate::wal::corruption::{Corruption, CorruptionReason};
use crate::wal::page::{self, BLOCK_SIZE, PageHeader};

/// What a disk writes at once at the least, in bytes.
const SECTOR: u64 = 512;

/// What the current page is, after a switch.
#[derive(Clone, Copy, Debug)]
pub(super) enum Leftover {
    /// Zeros. From `sector_end` on another sector begins, which may be left over.
    Zeros { sector_end: Lsn },
    /// The zeros ended with the byte `found` at `lsn`, at which the page was torn if the next
    /// one is left over.
    Doubt { lsn: Lsn, found: u8 },
    /// Left over from an older segment.
    Recycled,
}

impl Leftover {
    /// Zeros are expected from the end of the switch record on.
    pub(super) fn after_record(end: Lsn) -> Self {
        let sector_end = Lsn(end.0.next_multiple_of(SECTOR));
        Self::Zeros { sector_end }
    }

    /// The position, or that of the bytes in doubt.
    pub(super) fn doubt_or(self, position: Lsn) -> Lsn {
        match self {
            Self::Doubt { lsn, .. } => lsn,
            Self::Zeros { .. } | Self::Recycled => position,
        }
    }

    /// The page at `page` begins, with zeros or a header of its own if it is `written`, with that
    /// of another one if it is `recycled`. If it is wrong, where and what the wrong byte is.
    pub(super) fn at_page(
        self,
        page: Lsn,
        written: bool,
        recycled: bool,
        first: u8,
    ) -> Result<Self, (Lsn, u8)> {
        match self {
            _ if recycled => Ok(Self::Recycled),
            Self::Doubt { lsn, found } => Err((lsn, found)),
            _ if written => Ok(Self::after_record(Lsn(page.0 + 1))),
            _ => Err((page, first)),
        }
    }
}

impl Validator {
    /// Whether `header` was left at `page` by an older segment: files are reused whole.
    pub(super) fn is_recycled(&self, page: Lsn, header: &PageHeader) -> bool {
        let size = self.format.segment_size;
        self.format.page_magic == Some(header.magic)
            && header.flags & !page::ALL_FLAGS == 0
            && size.offset_of(header.address) == size.offset_of(page)
            && (header.address != page || header.timeline() != Some(self.timeline))
    }

    /// Takes bytes that follow a switch, up to the end of the page.
    pub(super) fn push_after_switch<'a, V: RecordVisitor>(
        &mut self,
        bytes: &'a [u8],
        start: Lsn,
        leftover: Leftover,
        visitor: &mut V,
    ) -> Result<&'a [u8], Corruption> {
        let from = self.position;
        let mut leftover = leftover;
        if let Leftover::Zeros { sector_end } = leftover
            && let Some((index, found)) = first_nonzero(bytes)
        {
            let lsn = Lsn(from.0 + index as u64);
            if lsn < sector_end {
                return Err(self.fail(lsn, lsn, CorruptionReason::AfterSwitch { found }));
            }
            leftover = Leftover::Doubt { lsn, found };
        }
        let end = Lsn(from.0 + bytes.len() as u64);
        let at_segment_end = self.format.segment_size.offset_of(end) == 0;
        if at_segment_end && let Leftover::Doubt { lsn, found } = leftover {
            let last = Lsn(end.0 - 1);
            self.content = Content::Switched { start, leftover };
            return Err(self.fail(last, lsn, CorruptionReason::AfterSwitch { found }));
        }
        self.advance(bytes);
        self.content = Content::Switched { start, leftover };
        if at_segment_end {
            self.finish_record(start, visitor);
        }
        Ok(&[])
    }
}

/// The first byte that is not zero, and its index.
fn first_nonzero(bytes: &[u8]) -> Option<(usize, u8)> {
    const STEP: usize = 64;
    let (steps, _) = bytes.as_chunks::<STEP>();
    // Whole steps without a branch for each byte, which the compiler turns into wide loads.
    let zero_steps = steps
        .iter()
        .take_while(|step| step.iter().fold(0, |all, byte| all | byte) == 0)
        .count();
    let skipped = zero_steps * STEP;
    let mut rest = bytes.iter().enumerate().skip(skipped);
    rest.find(|(_, byte)| **byte != 0)
        .map(|(index, byte)| (index, *byte))
}

const _: () = assert!(BLOCK_SIZE.is_multiple_of(SECTOR));
