//! The status for people, as psql shows rows in its expanded form.

use std::fmt::Write;

use super::{ArchiveDocument, Status};
use crate::observe::control::document::{
    ReceiverDocument, ServerDocument, SlotDocument, StandbyDocument, SynchronousDocument,
};
use crate::observe::last_end::End;
use crate::shown::on_one_line;

/// The names and values of a record, in the order in which they are shown.
type Fields = Vec<(&'static str, String)>;

/// The status as records, each with a heading.
pub(super) fn of(status: &Status) -> String {
    let mut records = vec![("ARCHIVE".to_owned(), archive(&status.archive))];
    if let Some(shown) = &status.receiver {
        records.push(("RECEIVER".to_owned(), receiver(shown)));
    }
    if let Some(shown) = &status.server {
        records.push(("SERVER".to_owned(), server(shown)));
        let standbys = shown.standbys.iter().map(standby);
        let slots = shown.slots.iter().map(slot);
        for (index, fields) in standbys.enumerate() {
            records.push((format!("STANDBY {}", index + 1), fields));
        }
        for (index, fields) in slots.enumerate() {
            records.push((format!("SLOT {}", index + 1), fields));
        }
    }
    for (heading, end) in [
        ("LAST END OF RECEIVER", &status.last_end.receiver),
        ("LAST END OF SERVE", &status.last_end.serve),
    ] {
        if let Some(end) = end {
            records.push((heading.to_owned(), last_end(end)));
        }
    }
    let names = records.iter().flat_map(|(_, fields)| fields);
    let width = names.map(|(name, _)| name.len()).max().unwrap_or_default();
    let mut text = String::new();
    for (heading, fields) in records {
        let heading = format!("-[ {heading} ]");
        // Writing to a string does not fail.
        let _ = writeln!(text, "{heading:-<width$}-+-", width = width);
        for (name, value) in fields {
            let line = format!("{name:<width$} | {}", on_one_line(&value));
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
    text
}

fn shown<T: ToString>(value: Option<&T>) -> String {
    value.map(T::to_string).unwrap_or_default()
}

fn seconds(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| format!("{value:.6} s"))
}

const fn yes_or_no(value: bool) -> &'static str {
    if value { "t" } else { "f" }
}

fn archive(archive: &ArchiveDocument) -> Fields {
    let mut fields = vec![
        ("directory", archive.directory.clone()),
        (
            "system_identifier",
            shown(archive.system_identifier.as_ref()),
        ),
        ("server_version", shown(archive.server_version.as_ref())),
        ("timeline", shown(archive.timeline.as_ref())),
        ("durable_lsn", shown(archive.durable_lsn.as_ref())),
    ];
    if let Some(error) = &archive.error {
        fields.push(("error", error.clone()));
    }
    fields
}

fn receiver(receiver: &ReceiverDocument) -> Fields {
    let mut fields = vec![
        ("pid", receiver.pid.to_string()),
        ("state", receiver.state.name().to_owned()),
        ("host", shown(receiver.host.as_ref())),
        ("port", shown(receiver.port.as_ref())),
        ("server_version", shown(receiver.server_version.as_ref())),
        (
            "system_identifier",
            shown(receiver.system_identifier.as_ref()),
        ),
        ("slot_name", shown(receiver.slot_name.as_ref())),
        ("timeline", shown(receiver.timeline.as_ref())),
        ("received_lsn", shown(receiver.received_lsn.as_ref())),
        ("durable_lsn", shown(receiver.durable_lsn.as_ref())),
        (
            "acknowledged_lsn",
            shown(receiver.acknowledged_lsn.as_ref()),
        ),
        ("server_lsn", shown(receiver.server_lsn.as_ref())),
        ("lag_bytes", shown(receiver.lag_bytes.as_ref())),
        ("lag_seconds", seconds(receiver.lag_seconds)),
    ];
    if let Some(error) = &receiver.last_error {
        fields.push(("last_error", error.clone()));
    }
    if let Some(since) = &receiver.disconnected_since {
        fields.push(("disconnected_since", since.clone()));
    }
    if receiver.retry_in_seconds.is_some() {
        fields.push(("retry_in_seconds", seconds(receiver.retry_in_seconds)));
    }
    let held = receiver.held.iter();
    fields.extend(held.map(|held| ("held", held.message.clone())));
    fields
}

fn server(server: &ServerDocument) -> Fields {
    let mut fields = vec![
        ("pid", server.pid.to_string()),
        ("timeline", shown(server.timeline.as_ref())),
        ("durable_lsn", shown(server.durable_lsn.as_ref())),
        ("standbys", server.standbys.len().to_string()),
        ("slots", server.slots.len().to_string()),
    ];
    if let Some(policy) = &server.synchronous {
        fields.extend(synchronous(policy));
    }
    if let Some(error) = &server.slots_error {
        fields.push(("slots_error", error.clone()));
    }
    if let Some(failed) = &server.failed_connections {
        let counts = format!(
            "{} unauthenticated, {} refused, {} ended by an error",
            failed.unauthenticated, failed.refused, failed.ended
        );
        fields.push(("failed_connections", counts));
    }
    fields
}

fn synchronous(policy: &SynchronousDocument) -> Fields {
    let mut fields = vec![("sync_met", yes_or_no(policy.met).to_owned())];
    if let (Some(present), Some(needed)) = (policy.present, policy.needed) {
        fields.push(("sync_standbys", format!("{present} of {needed}")));
    }
    if policy.met {
        fields.extend([
            ("sync_timeline", policy.timeline.to_string()),
            ("sync_write_lsn", shown(policy.write_lsn.as_ref())),
            ("sync_flush_lsn", shown(policy.flush_lsn.as_ref())),
            ("sync_replay_lsn", shown(policy.replay_lsn.as_ref())),
        ]);
    }
    fields
}

fn standby(standby: &StandbyDocument) -> Fields {
    vec![
        ("pid", standby.pid.to_string()),
        ("usename", standby.usename.clone()),
        ("application_name", standby.application_name.clone()),
        ("client_addr", shown(standby.client_addr.as_ref())),
        ("client_port", shown(standby.client_port.as_ref())),
        ("backend_start", standby.backend_start.clone()),
        ("state", standby.state.clone()),
        ("sent_lsn", shown(standby.sent_lsn.as_ref())),
        ("write_lsn", shown(standby.write_lsn.as_ref())),
        ("flush_lsn", shown(standby.flush_lsn.as_ref())),
        ("replay_lsn", shown(standby.replay_lsn.as_ref())),
        ("write_lag", seconds(standby.write_lag)),
        ("flush_lag", seconds(standby.flush_lag)),
        ("replay_lag", seconds(standby.replay_lag)),
        ("sync_priority", standby.sync_priority.to_string()),
        ("sync_state", standby.sync_state.clone()),
        ("reply_time", shown(standby.reply_time.as_ref())),
        ("timeline", shown(standby.timeline.as_ref())),
        ("slot_name", shown(standby.slot_name.as_ref())),
        ("ssl", yes_or_no(standby.ssl).to_owned()),
    ]
}

fn slot(slot: &SlotDocument) -> Fields {
    vec![
        ("slot_name", slot.slot_name.clone()),
        ("slot_type", slot.slot_type.clone()),
        ("temporary", yes_or_no(slot.temporary).to_owned()),
        ("active", yes_or_no(slot.active).to_owned()),
        ("active_pid", shown(slot.active_pid.as_ref())),
        ("xmin", shown(slot.xmin.as_ref())),
        ("catalog_xmin", shown(slot.catalog_xmin.as_ref())),
        ("restart_lsn", shown(slot.restart_lsn.as_ref())),
        ("wal_status", shown(slot.wal_status.as_ref())),
        ("safe_wal_size", shown(slot.safe_wal_size.as_ref())),
        ("timeline", shown(slot.timeline.as_ref())),
    ]
}

fn last_end(end: &End) -> Fields {
    let mut fields = vec![
        ("time", shown(end.time.as_ref())),
        ("pid", end.pid.to_string()),
        ("started", end.started.clone()),
        ("outcome", end.outcome.name().to_owned()),
        ("exit_code", shown(end.exit_code.as_ref())),
    ];
    if let Some(event) = &end.event {
        fields.push(("event", event.clone()));
    }
    if let (Some(timeline), Some(lsn)) = (&end.timeline, &end.lsn) {
        fields.extend([("timeline", timeline.to_string()), ("lsn", lsn.clone())]);
    }
    fields.push(("message", end.message.clone()));
    if let Some(hint) = &end.hint {
        fields.push(("hint", hint.clone()));
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::status::LastEnds;
    use crate::observe::last_end::Outcome;

    #[test]
    fn records_are_aligned_and_a_value_is_one_line() {
        let status = Status {
            archive: ArchiveDocument {
                directory: "/srv/wal".to_owned(),
                durable_lsn: Some("0/3000060".to_owned()),
                error: Some("bad\nnews\x1b[1m".to_owned()),
                ..ArchiveDocument::default()
            },
            receiver: None,
            server: None,
            last_end: LastEnds {
                receiver: Some(End {
                    pid: 7,
                    started: "2026-03-01T12:00:00.000000Z".to_owned(),
                    time: None,
                    outcome: Outcome::Killed,
                    exit_code: None,
                    event: None,
                    timeline: None,
                    lsn: None,
                    message: "it was killed".to_owned(),
                    hint: None,
                }),
                serve: None,
            },
        };
        assert_eq!(
            of(&status),
            "-[ ARCHIVE ]------+-\n\
             directory         | /srv/wal\n\
             system_identifier |\n\
             server_version    |\n\
             timeline          |\n\
             durable_lsn       | 0/3000060\n\
             error             | bad\\nnews\\u{1b}[1m\n\
             -[ LAST END OF RECEIVER ]-+-\n\
             time              |\n\
             pid               | 7\n\
             started           | 2026-03-01T12:00:00.000000Z\n\
             outcome           | killed\n\
             exit_code         |\n\
             message           | it was killed\n"
        );
    }
}
