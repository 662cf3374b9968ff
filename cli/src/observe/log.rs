//! The receiver's events in the words of `pg_receivewal`.

use std::time::Duration;

use segstore::WeakSetting;
use tracing::{error, info, warn};
use walproto::SlotName;
use walreceiver::{ReceiveError, ReceiverEvent, TimelineId, Warning};

use super::event::Event;
use super::model::News;
use crate::error::hint_of;
use crate::logging::{chain, without_numbers};

/// Logs the events of a receiver.
///
/// Source: src/bin/pg_basebackup/pg_receivewal.c, `stop_streaming`, `StreamLog` and `main`;
/// receivelog.c, `close_walfile` (PG 15).
#[derive(Debug)]
pub(super) struct Log {
    /// Whether progress is logged, not only errors and warnings.
    verbose: bool,
    /// Whether to log warnings that `pg_receivewal` does not have, and to log a repeated error only
    /// at intervals.
    advice: bool,
}

impl Log {
    /// `advice` is for the program by its own name.
    pub(super) const fn new(verbose: bool, advice: bool) -> Self {
        Self { verbose, advice }
    }

    fn disconnected(&self, error: &ReceiveError, retry_in: Option<Duration>, news: &News) {
        let Some(retry_in) = retry_in else {
            return tell_loss(error);
        };
        let repeated = if self.advice { news.repeated } else { Some(0) };
        let Some(repeated) = repeated else { return };
        tell_loss(error);
        let seconds = whole_seconds(retry_in);
        let suffix = match repeated {
            0 => String::new(),
            more => format!("; the same error occurred {more} more times since it was last logged"),
        };
        info!(
            event = "disconnected",
            retry_in_ms = u64::try_from(retry_in.as_millis()).unwrap_or(u64::MAX),
            repeated,
            "disconnected; waiting {seconds} seconds to try again{suffix}"
        );
    }

    /// Logs an event, as far as it is news.
    pub(super) fn write(&self, event: &ReceiverEvent<'_>, news: &News) {
        match event {
            ReceiverEvent::SegmentLeftPartial { file_name } => info!(
                event = "segment_left_partial",
                file = file_name,
                "not renaming \"{file_name}\", segment is not complete"
            ),
            ReceiverEvent::Disconnected { error, retry_in } => {
                self.disconnected(error, *retry_in, news)
            }
            ReceiverEvent::Unreachable { .. } if !self.advice => {}
            ReceiverEvent::Unreachable { lasted, error } => error!(
                event = "unreachable",
                lasted_ms = u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX),
                "{}",
                unreachable(*lasted, *error)
            ),
            ReceiverEvent::DiskWritable => {
                info!(event = "disk_writable", "there is room on the disk again");
            }
            ReceiverEvent::AcknowledgementsGoOn { needed } => info!(
                event = "acknowledgements_go_on",
                needed,
                "{needed} of {needed} standbys present, WAL is acknowledged as they have it"
            ),
            ReceiverEvent::Warning(
                Warning::SlotUnlimited { .. } | Warning::ForeignFiles { .. },
            ) if !self.advice => {}
            ReceiverEvent::Warning(warning) => warn(warning),
            // What `status` shows, and no news for a log.
            ReceiverEvent::ArchiveOpened
            | ReceiverEvent::Connecting
            | ReceiverEvent::Connected { .. } => {}
            event if self.verbose => progress(event),
            _ => {}
        }
    }
}

/// Tells why a try has ended, and where if that is at a position.
pub(super) fn tell_loss(error: &ReceiveError) {
    let (timeline, lsn) = error.position().unzip();
    error!(
        event = "connection_lost",
        timeline = timeline.map(TimelineId::number),
        lsn = lsn.map(display),
        hint = hint_of(error),
        "{}",
        chain(error)
    );
}

/// What is said of an outage.
pub(super) fn unreachable(lasted: Duration, error: Option<&ReceiveError>) -> String {
    let seconds = lasted.as_secs();
    match error {
        Some(error) => format!(
            "no WAL streamed for {seconds} seconds, retrying: {}",
            chain(error)
        ),
        None => {
            format!("no WAL streamed for {seconds} seconds: still connecting for the first time")
        }
    }
}

/// Logs that a slot is lost.
pub(super) fn slot_lost(name: &SlotName, event: &Event) {
    let (timeline, lsn) = event.position.unzip();
    error!(
        event = "slot_lost",
        slot = name.as_str(),
        timeline = timeline.map(TimelineId::number),
        lsn = lsn.map(display),
        "{}",
        event.message
    );
}

/// What is told only with `--verbose`.
fn progress(event: &ReceiverEvent<'_>) {
    match event {
        ReceiverEvent::StreamingStarted { timeline, lsn } => info!(
            event = "streaming_started",
            timeline = timeline.number(),
            %lsn,
            "starting log streaming at {lsn} (timeline {timeline})"
        ),
        ReceiverEvent::SegmentFinished { timeline, end } => info!(
            event = "segment_finished",
            timeline = timeline.number(),
            lsn = %end,
            "finished segment at {end} (timeline {timeline})"
        ),
        ReceiverEvent::TimelineSwitched {
            timeline,
            switch_point,
        } => info!(
            event = "timeline_switched",
            timeline = timeline.number(),
            lsn = %switch_point,
            "switched to timeline {timeline} at {switch_point}"
        ),
        ReceiverEvent::EndReached { timeline, lsn } => info!(
            event = "end_reached",
            timeline = timeline.number(),
            %lsn,
            "stopped log streaming at {lsn} (timeline {timeline})"
        ),
        ReceiverEvent::StopRequested => {
            info!(
                event = "stop_requested",
                "received interrupt signal, exiting"
            );
        }
        // A library newer than this list may have more to tell.
        other => info!("{other:?}"),
    }
}

fn warn(warning: &Warning<'_>) {
    match warning {
        Warning::DiskFull { timeline, lsn } => warn!(
            event = "disk_full",
            timeline = timeline.number(),
            %lsn,
            "{warning}"
        ),
        Warning::AcknowledgementsHeld {
            timeline,
            lsn,
            present,
            needed,
        } => warn!(
            event = "acknowledgements_held",
            timeline = timeline.number(),
            %lsn,
            present,
            needed,
            "{warning}"
        ),
        Warning::IncompleteTail(tail) => warn!(
            event = "record_incomplete",
            timeline = tail.timeline.number(),
            lsn = %tail.lsn,
            "{warning}"
        ),
        Warning::ForkFollowed {
            timeline,
            fork,
            old_timeline,
            old_end,
        } => warn!(
            event = "fork_followed",
            timeline = timeline.number(),
            lsn = %fork,
            old_timeline = old_timeline.number(),
            old_end = %old_end,
            "{warning}"
        ),
        Warning::WeakSetting {
            timeline,
            lsn,
            setting,
        } => warn!(
            event = "weak_setting",
            timeline = timeline.number(),
            %lsn,
            hint = remedy(*setting),
            "{warning}"
        ),
        Warning::SlotUnlimited { slot } => warn!(
            event = "slot_unlimited",
            slot = slot.as_str(),
            hint = "Set max_slot_wal_keep_size on the server.",
            "{warning}"
        ),
        other => warn!("{}", without_numbers(&other.to_string())),
    }
}

/// What to do about a setting under which WAL is too little for a base backup.
pub(crate) const fn remedy(setting: WeakSetting) -> Option<&'static str> {
    match setting {
        WeakSetting::MinimalWalLevel => Some(
            "Set wal_level to replica or higher, restart the server and take a new base backup.",
        ),
        WeakSetting::NoFullPageWrites => {
            Some("Set full_page_writes to on and run CHECKPOINT on the primary before the backup.")
        }
        _ => None,
    }
}

/// Rounded up: "waiting 0 seconds" would look like an endless loop.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::sync::watch;
    use walproto::Lsn;

    use super::super::model::Model;
    use super::*;
    use crate::flags::LogFormat;
    use crate::logging::tests::logged;

    const TIMELINE: TimelineId = TimelineId::FIRST;
    const LSN: Lsn = Lsn(0x1_0300_0000);

    fn model() -> Model {
        Model::new(watch::Sender::new(None).subscribe())
    }

    fn report(format: LogFormat, verbose: bool, event: &ReceiverEvent<'_>) -> String {
        logged(format, || {
            let news = model().take(event, Instant::now());
            Log::new(verbose, true).write(event, &news);
        })
    }

    #[test]
    fn progress_is_told_in_pg_receivewal_s_words_and_only_when_verbose() {
        for (event, expected) in [
            (
                ReceiverEvent::StreamingStarted {
                    timeline: TIMELINE,
                    lsn: LSN,
                },
                "starting log streaming at 1/3000000 (timeline 1)",
            ),
            (
                ReceiverEvent::SegmentFinished {
                    timeline: TIMELINE,
                    end: LSN,
                },
                "finished segment at 1/3000000 (timeline 1)",
            ),
            (
                ReceiverEvent::TimelineSwitched {
                    timeline: TIMELINE,
                    switch_point: LSN,
                },
                "switched to timeline 1 at 1/3000000",
            ),
            (
                ReceiverEvent::EndReached {
                    timeline: TIMELINE,
                    lsn: LSN,
                },
                "stopped log streaming at 1/3000000 (timeline 1)",
            ),
            (
                ReceiverEvent::StopRequested,
                "received interrupt signal, exiting",
            ),
        ] {
            assert_eq!(report(LogFormat::Text, false, &event), "");
            assert_eq!(
                report(LogFormat::Text, true, &event),
                format!("prog: {expected}\n")
            );
        }
    }

    #[test]
    fn trouble_is_told_always() {
        let error = ReceiveError::ServerEnded {
            timeline: TIMELINE,
            lsn: LSN,
        };
        for (event, expected) in [
            (
                ReceiverEvent::SegmentLeftPartial {
                    file_name: "000000010000000000000003.partial",
                },
                "prog: not renaming \"000000010000000000000003.partial\", segment is not \
                 complete\n",
            ),
            (
                ReceiverEvent::Warning(Warning::AcknowledgementsHeld {
                    timeline: TIMELINE,
                    lsn: LSN,
                    present: 1,
                    needed: 2,
                }),
                "prog: warning: 1 of 2 standbys present on timeline 1, nothing is acknowledged \
                 until there are enough\n",
            ),
            (
                ReceiverEvent::AcknowledgementsGoOn { needed: 2 },
                "prog: 2 of 2 standbys present, WAL is acknowledged as they have it\n",
            ),
            (
                ReceiverEvent::Disconnected {
                    error: &error,
                    retry_in: Some(Duration::from_secs(5)),
                },
                "prog: error: server ended the stream at 1/3000000 (timeline 1)\n\
                 prog: disconnected; waiting 5 seconds to try again\n",
            ),
            (
                ReceiverEvent::Disconnected {
                    error: &ReceiveError::NoServer,
                    retry_in: Some(Duration::from_millis(1200)),
                },
                "prog: error: no server to connect to\n\
                 prog: disconnected; waiting 2 seconds to try again\n",
            ),
            (
                ReceiverEvent::Unreachable {
                    lasted: Duration::from_secs(60),
                    error: Some(&ReceiveError::NoServer),
                },
                "prog: error: no WAL streamed for 60 seconds, retrying: no server to connect to\n",
            ),
            (
                ReceiverEvent::Warning(Warning::SlotUnlimited {
                    slot: &SlotName::new("s").unwrap(),
                }),
                "prog: warning: max_slot_wal_keep_size is -1 on the server: WAL held by slot \
                 \"s\" can fill its disk\n\
                 prog: hint: Set max_slot_wal_keep_size on the server.\n",
            ),
        ] {
            assert_eq!(report(LogFormat::Text, false, &event), expected);
        }
    }

    #[test]
    fn the_same_error_is_logged_once_in_a_while_but_always_as_pg_receivewal() {
        for (advice, lines) in [(true, 2), (false, 6)] {
            let text = logged(LogFormat::Text, || {
                let (mut model, now) = (model(), Instant::now());
                let event = ReceiverEvent::Disconnected {
                    error: &ReceiveError::NoServer,
                    retry_in: Some(Duration::from_secs(1)),
                };
                for _ in 0..3 {
                    let news = model.take(&event, now);
                    Log::new(false, advice).write(&event, &news);
                }
            });
            assert_eq!(text.lines().count(), lines, "{text}");
        }
    }

    #[test]
    fn json_carries_positions_as_fields() {
        let error = ReceiveError::ServerEnded {
            timeline: TIMELINE,
            lsn: LSN,
        };
        for (event, name) in [
            (
                ReceiverEvent::SegmentFinished {
                    timeline: TIMELINE,
                    end: LSN,
                },
                "segment_finished",
            ),
            (
                ReceiverEvent::Disconnected {
                    error: &error,
                    retry_in: Some(Duration::from_secs(1)),
                },
                "connection_lost",
            ),
        ] {
            let text = report(LogFormat::Json, true, &event);
            let line = text.lines().next().unwrap();
            let event = format!("\"event\":\"{name}\"");
            for part in [&event, "\"timeline\":1", "\"lsn\":\"1/3000000\""] {
                assert!(line.contains(part), "{part} in {text}");
            }
        }
        let without = ReceiverEvent::Disconnected {
            error: &ReceiveError::NoServer,
            retry_in: Some(Duration::from_secs(1)),
        };
        let text = report(LogFormat::Json, true, &without);
        assert!(
            !text.contains("timeline") && !text.contains("lsn"),
            "{text}"
        );
    }
}
