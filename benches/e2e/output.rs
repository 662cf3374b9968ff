//! What is left of an invocation: `results.json`, plots, and the part of BENCHMARKS.md that is made
//! from them.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::args::Arguments;
use crate::record::Report;
use crate::{machine, plots, scaling, table, targets};

const FILE: &str = "results.json";
const BEGIN: &str = "<!-- results: begin -->\n";
const END: &str = "<!-- results: end -->\n";

/// Writes all, and prints the tables.
pub(crate) fn write(report: &Report, arguments: &Arguments) {
    let directory = &arguments.output;
    fs::create_dir_all(directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    put(&directory.join(FILE), &json(report));
    let plots = plots::all(report);
    for (name, plot) in &plots {
        put(&directory.join(name), plot);
    }
    let mut text = markdown(report);
    println!("\n{text}");
    if let Some(document) = &arguments.document {
        text.push_str(&links(&plots, document, directory));
        replace(document, &text);
    }
    if let Some(document) = &arguments.scaling {
        let text = scaling::tables(report);
        replace(
            document,
            &text.unwrap_or_else(|why| panic!("--scaling: {why}")),
        );
    }
}

/// A list of the plots, with links from the document's directory if they lie below it.
fn links(plots: &[(String, String)], document: &Path, directory: &Path) -> String {
    let from = document.parent().unwrap_or(Path::new(""));
    let directory = directory.strip_prefix(from).unwrap_or(directory);
    let mut text = String::new();
    for (name, _) in plots {
        if text.is_empty() {
            text.push_str("### Plots\n\n");
        }
        let title = name.trim_end_matches(".svg").replace('-', " ");
        let path = directory.join(name);
        let _infallible = writeln!(text, "- [{title}]({})", path.display());
    }
    text
}

fn replace(document: &Path, text: &str) {
    let old = fs::read_to_string(document)
        .unwrap_or_else(|error| panic!("{}: {error}", document.display()));
    let new = replaced(&old, text).unwrap_or_else(|| {
        panic!(
            "{} does not have the two lines {BEGIN:?} and {END:?} once each",
            document.display()
        )
    });
    put(document, &new);
}

/// Reads what an earlier invocation has left.
pub(crate) fn read(directory: &Path) -> Report {
    let path = directory.join(FILE);
    let text =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn put(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// A run a line, so that two files can be compared.
fn json(report: &Report) -> String {
    let runs: Vec<String> = report.runs.iter().map(line).collect();
    format!(
        "{{\"machine\":{},\n\"command\":{},\n\"notes\":{},\n\"runs\":[\n{}\n]}}\n",
        line(&report.machine),
        line(&report.command),
        line(&report.notes),
        runs.join(",\n")
    )
}

fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap()
}

/// Machine, targets, tables, notes.
fn markdown(report: &Report) -> String {
    let mut text = format!(
        "{}\n- `harness {}`; medians of {} rounds, least and most in parentheses; ratios are taken \
         within a round\n\n",
        report.machine,
        report.command,
        report.runs.iter().map(|run| run.round).max().unwrap_or(0)
    );
    if report.machine.load > machine::QUIET_LOAD {
        text.push_str(
            "**The machine was busy with other work before this began: the figures are not to be \
             relied on.**\n\n",
        );
    }
    text.push_str(&targets::table(report));
    text.push_str(&table::tables(report));
    for note in &report.notes {
        let _infallible = writeln!(text, "- {note}");
    }
    text
}

/// A document with another text between its markers, of which there must be one pair.
fn replaced(document: &str, text: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    if after.contains(BEGIN) {
        return None;
    }
    Some(format!("{before}{BEGIN}\n{text}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_between_the_markers_is_replaced() {
        let document = format!("a\n{BEGIN}old\n{END}b\n");
        let expected = format!("a\n{BEGIN}\nnew\n{END}b\n");
        assert_eq!(replaced(&document, "new"), Some(expected));
        assert_eq!(replaced("no markers", "new"), None);
        assert_eq!(replaced(&document.repeat(2), "new"), None);
    }

    #[test]
    fn plots_are_linked_from_where_the_document_is() {
        let run = crate::record::Run {
            scenario: crate::live::SCENARIO.to_owned(),
            case: crate::live::case(1),
            system: "any".to_owned(),
            round: 1,
            values: [("p99_us".to_owned(), 1.0)].into(),
            curve: vec![[0.5, 1.0]],
        };
        let mut report = Report {
            machine: machine::Machine::default(),
            command: String::new(),
            notes: Vec::new(),
            runs: Vec::new(),
        };
        let (document, directory) = (Path::new("a/B.md"), Path::new("a/c"));
        assert_eq!(links(&plots::all(&report), document, directory), "");
        report.runs.push(run);
        let expected = "### Plots\n\n- [live 1 client](c/live-1-client.svg)\n";
        assert_eq!(links(&plots::all(&report), document, directory), expected);
    }

    #[test]
    fn results_are_read_as_they_were_written() {
        let text = concat!(
            "{\"machine\":{\"date\":\"\",\"processor\":\"\",\"processors\":2,\"memory_mib\":1,\"load\":0.5,",
            "\"kernel\":\"\",\"file_system\":\"\",\"commit\":\"\",\"wal_receiver\":\"\",",
            "\"profile\":\"\",\"postgres\":\"\"},\n\"command\":\"--quick\",\n\"notes\":[\"n\"],\n",
            "\"runs\":[\n",
            "{\"scenario\":\"s\",\"case\":\"c\",\"system\":\"y\",\"round\":1,",
            "\"values\":{\"v\":1.5},\"curve\":[[0.0,1.0]]}\n]}\n"
        );
        let report: Report = serde_json::from_str(text).unwrap();
        assert_eq!(json(&report), text);
    }
}
