//! Timelines and the files that tell where one left another.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use bytes::Bytes;

use crate::Lsn;

/// The number of a timeline, from 1 on (`TimeLineID`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TimelineId(NonZeroU32);

impl TimelineId {
    /// The timeline that `initdb` starts.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// The timeline of this number, or `None` for 0, which PostgreSQL uses for "no timeline".
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0.get()
    }

    /// The name of the timeline's history file, as in `00000002.history`.
    #[must_use]
    pub fn history_file_name(self) -> String {
        format!("{:08X}.history", self.number())
    }
}

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that is not the number of a timeline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid timeline {text:?}, expected a decimal number from 1 to 4294967295")]
pub struct ParseTimelineIdError {
    text: String,
}

impl FromStr for TimelineId {
    type Err = ParseTimelineIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.bytes().all(|b| b.is_ascii_digit())
            && let Some(timeline) = text.parse().ok().and_then(Self::new)
        {
            return Ok(timeline);
        }
        Err(ParseTimelineIdError {
            text: text.chars().take(64).collect(),
        })
    }
}

/// One line of a history file: an ancestor and where its successor left it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimelineSwitch {
    /// The ancestor.
    pub timeline: TimelineId,
    /// The switch point: the first position that is no longer the ancestor's.
    pub switch_point: Lsn,
}

/// The content of a timeline history file: the ancestors of a timeline, oldest first, and the
/// bytes they were read from.
///
/// The bytes are kept as they are. Every copy of a timeline's history must be the same to the
/// byte, since that is how a receiver tells that two servers mean the same timeline.
///
/// Source: src/backend/access/transam/timeline.c, `readTimeLineHistory` (PG 15).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TimelineHistory {
    timeline: TimelineId,
    ancestors: Vec<TimelineSwitch>,
    content: Bytes,
}

/// Why bytes are not the history file of a timeline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid history file of timeline {timeline}, line {line}: {reason}")]
pub struct ParseHistoryError {
    /// The timeline whose history was read.
    pub timeline: TimelineId,
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: HistoryFault,
}

/// What is wrong with a line of a history file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryFault {
    /// The file is longer than any real one.
    #[error("the file is longer than {} bytes", TimelineHistory::MAX_LENGTH)]
    TooLong,
    /// The line does not begin with a number.
    #[error("expected a numeric timeline ID")]
    Timeline,
    /// The second field is no LSN.
    #[error("expected a write-ahead log switchpoint location")]
    SwitchPoint,
    /// The timeline is not greater than the one on the line before.
    #[error("timeline IDs must be in increasing sequence")]
    NotIncreasing,
    /// The timeline is not less than the file's own.
    #[error("timeline IDs must be less than child timeline's ID")]
    NotBelowChild,
    /// The switch point lies before the one on the line before.
    #[error("switchpoint locations must not decrease")]
    SwitchPointDecreases,
}

impl TimelineHistory {
    /// The longest history file that is taken: some ten thousand promotions. It bounds what a
    /// peer can make us hold.
    pub const MAX_LENGTH: usize = 1 << 20;

    /// The history of a timeline without ancestors.
    #[must_use]
    pub const fn without_ancestors(timeline: TimelineId) -> Self {
        Self {
            timeline,
            ancestors: Vec::new(),
            content: Bytes::new(),
        }
    }

    /// Reads a history file.
    ///
    /// # Errors
    /// When PostgreSQL would refuse the content, or its switch points decrease.
    pub fn parse(timeline: TimelineId, content: Bytes) -> Result<Self, ParseHistoryError> {
        let fault = |line, reason| ParseHistoryError {
            timeline,
            line,
            reason,
        };
        if content.len() > Self::MAX_LENGTH {
            return Err(fault(1, HistoryFault::TooLong));
        }
        let mut ancestors: Vec<TimelineSwitch> = Vec::new();
        for (index, line) in content.split(|&b| b == b'\n').enumerate() {
            let Some(switch) = parse_line(line).map_err(|reason| fault(index + 1, reason))? else {
                continue;
            };
            if let Some(last) = ancestors.last() {
                if switch.timeline <= last.timeline {
                    return Err(fault(index + 1, HistoryFault::NotIncreasing));
                }
                if switch.switch_point < last.switch_point {
                    return Err(fault(index + 1, HistoryFault::SwitchPointDecreases));
                }
            }
            if switch.timeline >= timeline {
                return Err(fault(index + 1, HistoryFault::NotBelowChild));
            }
            ancestors.push(switch);
        }
        Ok(Self {
            timeline,
            ancestors,
            content,
        })
    }

    /// The timeline whose history this is.
    #[must_use]
    pub const fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// The ancestors, oldest first.
    #[must_use]
    pub fn ancestors(&self) -> &[TimelineSwitch] {
        &self.ancestors
    }

    /// The file as it was read.
    #[must_use]
    pub const fn content(&self) -> &Bytes {
        &self.content
    }

    /// The timeline that the byte at `lsn` lies on, seen from this timeline: a switch point
    /// itself belongs to the newer one (`tliOfPointInHistory`).
    #[must_use]
    pub fn timeline_of(&self, lsn: Lsn) -> TimelineId {
        self.ancestors
            .iter()
            .find(|ancestor| lsn < ancestor.switch_point)
            .map_or(self.timeline, |ancestor| ancestor.timeline)
    }

    /// Where this timeline or its nearer ancestors left `ancestor`, `None` when `ancestor` is
    /// no ancestor (`tliSwitchPoint`).
    #[must_use]
    pub fn switch_point_of(&self, ancestor: TimelineId) -> Option<Lsn> {
        self.ancestors
            .iter()
            .find(|a| a.timeline == ancestor)
            .map(|a| a.switch_point)
    }

    /// Whether `timeline` is this one or one of its ancestors.
    #[must_use]
    pub fn contains(&self, timeline: TimelineId) -> bool {
        timeline == self.timeline || self.switch_point_of(timeline).is_some()
    }

    /// The timeline that follows `ancestor` on the way here, `None` when `ancestor` is no
    /// ancestor.
    #[must_use]
    pub fn successor_of(&self, ancestor: TimelineId) -> Option<TimelineId> {
        let index = self.ancestors.iter().position(|a| a.timeline == ancestor)?;
        Some(
            self.ancestors
                .get(index + 1)
                .map_or(self.timeline, |next| next.timeline),
        )
    }

    /// Where this timeline begins: the switch point of its parent, `None` for one without.
    #[must_use]
    pub fn begin(&self) -> Option<Lsn> {
        self.ancestors.last().map(|parent| parent.switch_point)
    }
}

fn parse_line(line: &[u8]) -> Result<Option<TimelineSwitch>, HistoryFault> {
    let line = line.trim_ascii();
    if line.is_empty() || line.starts_with(b"#") {
        return Ok(None);
    }
    let mut fields = line
        .split(u8::is_ascii_whitespace)
        .filter(|field| !field.is_empty());
    let mut text = || {
        fields
            .next()
            .and_then(|field| std::str::from_utf8(field).ok())
    };
    let timeline = text()
        .and_then(|t| t.parse().ok())
        .ok_or(HistoryFault::Timeline)?;
    let switch_point = text()
        .and_then(|t| t.parse().ok())
        .ok_or(HistoryFault::SwitchPoint)?;
    Ok(Some(TimelineSwitch {
        timeline,
        switch_point,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn timeline(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    fn parse(number: u32, content: &'static str) -> Result<TimelineHistory, HistoryFault> {
        TimelineHistory::parse(timeline(number), Bytes::from_static(content.as_bytes()))
            .map_err(|error| error.reason)
    }

    /// In the form that `writeTimeLineHistory` (PG 15) gives it, after timeline 3 was abandoned.
    const GOLDEN: &str = "1\t0/3000060\tno recovery target specified\n\n\
                          2\t0/5000000\tno recovery target specified\n";

    #[test]
    fn a_history_file_answers_where_a_position_lies() {
        let history = parse(4, GOLDEN).unwrap();
        let at = |lsn: u64| history.timeline_of(Lsn(lsn)).number();
        assert_eq!((at(0), at(0x300_005F), at(0x300_0060)), (1, 1, 2));
        assert_eq!((at(0x4FF_FFFF), at(0x500_0000), at(u64::MAX)), (2, 4, 4));
        assert_eq!(history.switch_point_of(timeline(1)), Some(Lsn(0x300_0060)));
        assert_eq!(history.switch_point_of(timeline(3)), None);
        assert_eq!(history.successor_of(timeline(1)), Some(timeline(2)));
        assert_eq!(history.successor_of(timeline(2)), Some(timeline(4)));
        assert_eq!(history.successor_of(timeline(4)), None);
        assert_eq!(history.begin(), Some(Lsn(0x500_0000)));
        assert!(history.contains(timeline(4)) && !history.contains(timeline(3)));
        assert_eq!(history.content(), GOLDEN.as_bytes());
    }

    #[test]
    fn a_history_file_that_postgresql_refuses_is_refused() {
        assert_eq!(parse(3, "one\t0/1\n"), Err(HistoryFault::Timeline));
        assert_eq!(parse(3, "0\t0/1\n"), Err(HistoryFault::Timeline));
        assert_eq!(parse(3, "1\n"), Err(HistoryFault::SwitchPoint));
        assert_eq!(parse(3, "1\t0-1\n"), Err(HistoryFault::SwitchPoint));
        assert_eq!(
            parse(3, "2\t0/1\n1\t0/2\n"),
            Err(HistoryFault::NotIncreasing)
        );
        assert_eq!(parse(3, "3\t0/1\n"), Err(HistoryFault::NotBelowChild));
        assert_eq!(
            parse(3, "1\t0/2\n2\t0/1\n"),
            Err(HistoryFault::SwitchPointDecreases)
        );
        let long = Bytes::from(vec![b'#'; TimelineHistory::MAX_LENGTH + 1]);
        let error = TimelineHistory::parse(timeline(2), long).unwrap_err();
        assert_eq!(error.reason, HistoryFault::TooLong);
    }

    #[test]
    fn comments_and_empty_lines_are_skipped_and_counted() {
        let error = TimelineHistory::parse(timeline(3), Bytes::from_static(b"# c\n\n  x\n"));
        assert_eq!(error.unwrap_err().line, 3);
        assert_eq!(parse(3, "  # only a comment").unwrap().ancestors(), []);
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused_and_kept(content: Vec<u8>, number in 1u32..) {
            let bytes = Bytes::from(content);
            if let Ok(history) = TimelineHistory::parse(timeline(number), bytes.clone()) {
                prop_assert_eq!(history.content(), &bytes);
            }
        }

        #[test]
        fn every_position_lies_on_a_known_timeline(
            steps in prop::collection::vec((1u32..1000, 0u64..1 << 40, "[ -~]{0,20}"), 0..20),
            lsn: u64,
        ) {
            let (mut number, mut switch_point, mut content) = (0, 0, String::new());
            for (step, bytes, reason) in steps {
                (number, switch_point) = (number + step, switch_point + bytes);
                content += &format!("{number}\t{}\t{reason}\n", Lsn(switch_point));
            }
            let history = TimelineHistory::parse(timeline(number + 1), content.into()).unwrap();
            let lies_on = history.timeline_of(Lsn(lsn));
            prop_assert!(history.contains(lies_on));
            if let Some(end) = history.switch_point_of(lies_on) {
                prop_assert!(Lsn(lsn) < end);
            } else {
                prop_assert!(history.begin().is_none_or(|begin| begin <= Lsn(lsn)));
            }
        }
    }
}
