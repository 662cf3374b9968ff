//! Reading segments and checking what is in them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use walproto::{Lsn, TimelineHistory};

use super::plan::Run;
use super::segment::{Segment, Why};
use super::weak::SaidSettings;
use crate::archive::segment_files::SegmentFiles;
use crate::disk::aligned::AlignedBuffer;
use crate::disk::filled;
use crate::error::ArchiveError;
use crate::wal::page::LONG_HEADER_LENGTH;
use crate::wal::record::RecordHeader;
use crate::wal::settings::{Settings, SettingsReader, SettingsVisitor};
use crate::wal::validator::{RecordVisitor, Validator, WalFormat};

/// What is read at once. It stays in the processor's cache until it is checked.
const BLOCK: usize = 128 << 10;

/// WAL that was checked in one go from the start of a segment on.
#[derive(Debug)]
pub(super) struct Stretch {
    pub(super) first: FirstRecord,
    /// As it was at the end, or at what is wrong there.
    pub(super) walk: Walk,
    /// Why it ends before its chunk.
    pub(super) stop: Option<Stop>,
}

/// The state of the check at a position in the WAL, from which the check can continue.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    pub(super) validator: Validator,
    settings: SettingsReader,
}

impl Walk {
    fn new(validator: Validator) -> Self {
        Self {
            validator,
            settings: SettingsReader::default(),
        }
    }

    /// Switches to another history, which must be identical up to this position.
    pub(super) fn onto(self, history: Arc<TimelineHistory>) -> Self {
        Self {
            validator: self.validator.onto(history),
            ..self
        }
    }
}

/// Sees the records of a walk.
struct Seen<'a, F> {
    first: &'a mut FirstRecord,
    settings: SettingsVisitor<'a, F>,
}

impl<F: FnMut(Lsn, Settings)> RecordVisitor for Seen<'_, F> {
    fn begin(&mut self, start: Lsn, header: &RecordHeader) {
        self.first.begin(start, header);
        self.settings.begin(start, header);
    }

    fn body(&mut self, bytes: &[u8]) {
        self.settings.body(bytes);
    }

    fn end(&mut self, end: Lsn) {
        self.first.end(end);
        self.settings.end(end);
    }

    fn abandon(&mut self) {
        self.first.abandon();
        self.settings.abandon();
    }
}

/// Why it did not go on.
#[derive(Debug)]
pub(super) struct Stop {
    /// The index of the segment in its run.
    pub(super) segment: usize,
    pub(super) why: Why,
}

/// What was found in chunks of the plan, by their indices.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub(super) chunks: BTreeMap<usize, Vec<Stretch>>,
    pub(super) segments: u64,
    pub(super) bytes: u64,
    pub(super) said: SaidSettings,
}

/// The first record that starts in a stretch and was not overwritten.
#[derive(Clone, Copy, Debug)]
pub(super) struct FirstRecord {
    stretch: Lsn,
    start: Option<Lsn>,
    end: Option<Lsn>,
}

impl FirstRecord {
    pub(super) const fn of_stretch(start: Lsn) -> Self {
        Self {
            stretch: start,
            start: None,
            end: None,
        }
    }

    /// Whether it is complete, and so all is known that there is to know of what came before it.
    pub(super) const fn is_complete(&self) -> bool {
        self.end.is_some()
    }

    /// Where what a stretch can vouch for by itself begins.
    pub(super) fn good_from(&self) -> Option<Lsn> {
        let start = self.start?;
        let after_header = start.bytes_since(self.stretch) == LONG_HEADER_LENGTH as u64;
        Some(if after_header { self.stretch } else { start })
    }
}

impl RecordVisitor for FirstRecord {
    fn begin(&mut self, start: Lsn, _: &RecordHeader) {
        if self.start.is_none() && start >= self.stretch {
            self.start = Some(start);
        }
    }

    fn end(&mut self, end: Lsn) {
        if self.end.is_none() && self.start.is_some() {
            self.end = Some(end);
        }
    }

    fn abandon(&mut self) {
        if self.end.is_none() {
            self.start = None;
        }
    }
}

/// Reads and checks for one thread.
#[derive(Debug)]
pub(super) struct Checker<'a> {
    files: &'a SegmentFiles,
    format: WalFormat,
    block: AlignedBuffer,
    segments: u64,
    bytes: u64,
    said: SaidSettings,
}

impl<'a> Checker<'a> {
    pub(super) fn new(files: &'a SegmentFiles, format: WalFormat) -> Self {
        Self {
            files,
            format,
            block: AlignedBuffer::new(BLOCK),
            segments: 0,
            bytes: 0,
            said: SaidSettings::default(),
        }
    }

    /// What records said about settings.
    pub(super) fn take_said(&mut self) -> SaidSettings {
        std::mem::take(&mut self.said)
    }

    /// How many segments were begun.
    pub(super) const fn segments(&self) -> u64 {
        self.segments
    }

    /// How many bytes of WAL were read.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) const fn files(&self) -> &'a SegmentFiles {
        self.files
    }

    pub(super) const fn format(&self) -> WalFormat {
        self.format
    }

    /// Checks segments of a run. After something wrong it begins anew with the next segment.
    pub(super) fn stretches(
        &mut self,
        run: &Run,
        chunk: Range<usize>,
    ) -> Result<Vec<Stretch>, ArchiveError> {
        let mut stretches = Vec::new();
        let mut at = chunk.start;
        while at < chunk.end
            && let Some(segment) = run.segments.get(at)
        {
            let history = Arc::clone(&run.history);
            let mut walk = Walk::new(Validator::new(self.format, history, segment.start)?);
            let mut first = FirstRecord::of_stretch(segment.start);
            let rest = at..chunk.end;
            let stop = self.go_on(run, rest, &mut walk, &mut first, |_| false);
            at = stop.as_ref().map_or(chunk.end, |stop| stop.segment + 1);
            stretches.push(Stretch { first, walk, stop });
        }
        Ok(stretches)
    }

    /// Goes on from the end of what comes before a chunk until the first record that starts in
    /// the chunk is complete, at most to the end of the chunk.
    pub(super) fn link(
        &mut self,
        run: &Run,
        chunk: Range<usize>,
        walk: &mut Walk,
    ) -> (FirstRecord, Option<Stop>) {
        let mut first = FirstRecord::of_stretch(walk.validator.position());
        let stop = self.go_on(run, chunk, walk, &mut first, FirstRecord::is_complete);
        (first, stop)
    }

    /// Checks segments that follow what `walk` has come to, until `enough`; `None` when
    /// nothing is wrong.
    fn go_on(
        &mut self,
        run: &Run,
        segments: Range<usize>,
        walk: &mut Walk,
        first: &mut FirstRecord,
        enough: impl Fn(&FirstRecord) -> bool,
    ) -> Option<Stop> {
        self.said.begin();
        for index in segments {
            let segment = run.segments.get(index)?;
            self.segments += 1;
            match self.segment(segment, run, walk, first, &enough) {
                Ok(true) => {}
                Ok(false) => return None,
                Err(why) => {
                    return Some(Stop {
                        segment: index,
                        why,
                    });
                }
            }
        }
        None
    }

    /// Checks one segment; `false` when it was enough before its end.
    fn segment(
        &mut self,
        segment: &Segment,
        run: &Run,
        walk: &mut Walk,
        first: &mut FirstRecord,
        enough: &impl Fn(&FirstRecord) -> bool,
    ) -> Result<bool, Why> {
        let end = self.files.end_of(segment.start);
        let mut bytes = segment.open(self.files)?;
        let Walk {
            validator,
            settings,
        } = walk;
        let Self { block, said, .. } = self;
        loop {
            let left = end.bytes_since(validator.position());
            let wanted = usize::try_from(left).map_or(BLOCK, |left| left.min(BLOCK));
            if wanted == 0 {
                let ended = bytes.check_end(self.files.size());
                return ended.map(|()| true).map_err(Why::Unreadable);
            }
            let block = block.bytes().get_mut(..wanted).unwrap_or_default();
            let count = bytes.read_full(block).map_err(Why::Unreadable)?;
            let block = filled(block, count);
            if block.is_empty() {
                return Err(Why::Ends);
            }
            self.bytes += count as u64;
            settings.set_page_magic(validator.page_magic());
            let mut seen = Seen {
                first: &mut *first,
                settings: SettingsVisitor {
                    reader: settings,
                    found: |lsn, found| said.add(run.history.timeline_of(lsn), lsn, found),
                },
            };
            validator
                .push_with(block, &mut seen)
                .map_err(Why::Corrupt)?;
            if enough(first) {
                return Ok(false);
            }
        }
    }
}
