//! What was found, as text and as JSON.

use std::fmt::Write;

use segstore::{Fault, Problem, Verification, WeakRange};
use serde_json::{Value, json};

use crate::logging::without_numbers;
use crate::shown::{self, on_one_line};

/// A line for each range that is good, each problem and each file that was not looked at, then one
/// that sums them up.
pub(super) fn text(found: &Verification) -> String {
    let mut text = String::new();
    let mut line = |arguments: std::fmt::Arguments<'_>| {
        // Writing to a string does not fail.
        let _always = writeln!(text, "{}", on_one_line(&arguments.to_string()));
    };
    for range in &found.good {
        line(format_args!("good: {range}"));
    }
    for problem in &found.problems {
        line(format_args!("bad: {}", one_line(problem)));
    }
    for range in &found.warnings {
        line(format_args!("warning: {range}"));
    }
    for name in &found.foreign {
        line(format_args!("ignored: \"{}\"", name.display()));
    }
    if let Some(durable) = found.durable {
        line(format_args!(
            "durable when this began: timeline {} up to {}",
            durable.timeline, durable.record_end
        ));
    }
    let problems = match found.problems.len() {
        0 => "all good".to_owned(),
        1 => "1 problem".to_owned(),
        count => format!("{count} problems"),
    };
    let segments = match found.segments {
        1 => "1 segment".to_owned(),
        count => format!("{count} segments"),
    };
    line(format_args!(
        "{segments}, {} bytes of WAL: {problems}",
        found.bytes
    ));
    text
}

/// The same as one object on one line.
pub(super) fn json(found: &Verification) -> serde_json::Result<String> {
    let good: Vec<_> = found
        .good
        .iter()
        .map(|range| {
            json!({
                "timeline": range.timeline.number(),
                "start": range.start.to_string(),
                "end": range.end.to_string(),
            })
        })
        .collect();
    let durable = found.durable.map(|durable| {
        json!({
            "timeline": durable.timeline.number(),
            "lsn": durable.record_end.to_string(),
        })
    });
    let ignored = found.foreign.iter().map(|name| name.to_string_lossy());
    let object = json!({
        "good": found.problems.is_empty(),
        "system_identifier": found.system_id.to_string(),
        "segment_size": found.segment_size.bytes(),
        "segments": found.segments,
        "bytes": found.bytes,
        "durable": durable,
        "ranges": good,
        "problems": found.problems.iter().map(problem).collect::<Vec<_>>(),
        "warnings": found.warnings.iter().map(warning).collect::<Vec<_>>(),
        "ignored": ignored.collect::<Vec<_>>(),
    });
    Ok(shown::json(&object)? + "\n")
}

fn problem(problem: &Problem) -> Value {
    let (path, offset) = problem.place.as_ref().map(|(path, at)| (path, *at)).unzip();
    let end = match problem.fault {
        Fault::Missing { end, .. } => Some(end.to_string()),
        Fault::MinimalWal { end } => end.map(|end| end.to_string()),
        _ => None,
    };
    json!({
        "kind": problem.fault.kind(),
        "timeline": problem.timeline.number(),
        "lsn": problem.lsn.to_string(),
        "end": end,
        "file": path.map(|path| path.to_string_lossy()),
        "offset": offset,
        "message": without_numbers(&problem.fault.to_string()),
    })
}

fn warning(range: &WeakRange) -> Value {
    json!({
        "kind": range.kind(),
        "timeline": range.timeline.number(),
        "start": range.start.to_string(),
        "end": range.end.map(|end| end.to_string()),
        "message": range.to_string(),
    })
}

fn one_line(problem: &Problem) -> String {
    without_numbers(&problem.to_string())
}
