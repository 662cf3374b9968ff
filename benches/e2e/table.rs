//! Results as tables in Markdown, for the terminal and for BENCHMARKS.md.

use std::fmt::Write as _;

use crate::lab::OURS;
use crate::record::{Report, Summary};
use crate::{catch_up, commits, generated, live, probes, serving, validation};

/// A scenario as it is shown.
struct Shown {
    scenario: &'static str,
    title: &'static str,
    /// Name of the figure, heading with its unit, digits after the point. The first one is what
    /// systems are compared by.
    columns: &'static [(&'static str, &'static str, usize)],
}

const SHOWN: [Shown; 8] = [
    Shown {
        scenario: catch_up::SCENARIO,
        title: "Catching up",
        columns: &[
            ("gb_per_s", "GB/s", 2),
            ("cpu_s_per_gb", "CPU s/GB", 2),
            ("server_cpu_s_per_gb", "server's CPU s/GB", 2),
            ("peak_mib", "peak MiB", 1),
        ],
    },
    Shown {
        scenario: generated::SCENARIO,
        title: "Receiving from a sender that makes its WAL up",
        columns: &[
            ("gb_per_s", "GB/s", 2),
            ("cpu_s_per_gb", "CPU s/GB", 2),
            ("ack_p50_ms", "acknowledged after, p50 ms", 2),
            ("ack_p99_ms", "p99 ms", 2),
            ("peak_mib", "peak MiB", 1),
        ],
    },
    Shown {
        scenario: probes::SCENARIO,
        title: "Disk and network alone",
        columns: &[("p50_us", "p50 us", 0), ("p99_us", "p99 us", 0)],
    },
    Shown {
        scenario: commits::SCENARIO,
        title: "Synchronous commits",
        columns: COMMITS,
    },
    Shown {
        scenario: commits::WITH_BULK,
        title: "Synchronous commits beside a bulk load",
        columns: COMMITS,
    },
    Shown {
        scenario: serving::SCENARIO,
        title: "Serving from files",
        columns: MOVED,
    },
    Shown {
        scenario: live::SCENARIO,
        title: "Live streaming through a relay",
        columns: &[
            ("p50_us", "delay p50 us", 0),
            ("p99_us", "delay p99 us", 0),
            ("cpu_us_per_message", "CPU us a message", 1),
            ("cpu_share", "processors", 2),
            ("memory_mib", "MiB", 1),
        ],
    },
    Shown {
        scenario: validation::SCENARIO,
        title: "Validation",
        columns: MOVED,
    },
];

const MOVED: &[(&str, &str, usize)] = &[
    ("gb_per_s", "GB/s", 2),
    ("cpu_s_per_gb", "CPU s/GB", 2),
    ("peak_mib", "MiB", 1),
];

const COMMITS: &[(&str, &str, usize)] = &[
    ("commits_per_s", "commits/s", 0),
    ("p50_ms", "p50 ms", 2),
    ("p99_ms", "p99 ms", 2),
    ("p999_ms", "p99.9 ms", 2),
    ("wal_mb_per_s", "WAL MB/s", 1),
    ("cpu_us_per_commit", "standby's CPU us/commit", 0),
    ("peak_mib", "peak MiB", 1),
];

/// All tables.
pub(crate) fn tables(report: &Report) -> String {
    let mut text = String::new();
    for shown in &SHOWN {
        if !report.rows(shown.scenario).is_empty() {
            table(&mut text, report, shown);
        }
    }
    text
}

fn table(text: &mut String, report: &Report, shown: &Shown) {
    let Some((first, ..)) = shown.columns.first() else {
        return;
    };
    let compared = report.rows(shown.scenario).iter().any(|row| row.1 == OURS);
    let mut lines = vec![headings(shown, compared)];
    let mut last_case = "";
    for (case, system) in report.rows(shown.scenario) {
        let summary = |value| report.summary(shown.scenario, case, system, value);
        let named = if case == last_case { "" } else { case };
        let mut cells = vec![named.to_owned(), system.to_owned()];
        last_case = case;
        let figures = shown.columns.iter();
        cells.extend(figures.map(|(value, _, digits)| cell(summary(value), *digits)));
        if compared {
            let ratio = report.ratio(shown.scenario, case, first, OURS, system);
            cells.push(cell(ratio.filter(|_| system != OURS), 2));
        }
        lines.push(cells);
    }
    let _infallible = write!(text, "### {}\n\n{}\n", shown.title, markdown(&lines));
}

fn headings(shown: &Shown, compared: bool) -> Vec<String> {
    let mut headings = vec!["".to_owned(), "".to_owned()];
    headings.extend(shown.columns.iter().map(|column| column.1.to_owned()));
    if compared {
        let compared_by = shown.columns.first().map_or("", |column| column.1);
        headings.push(format!("{compared_by}, ours ÷ this"));
    }
    headings
}

/// The median, and the least and the most.
fn cell(summary: Option<Summary>, digits: usize) -> String {
    match summary {
        None => String::new(),
        Some(Summary {
            median,
            least,
            most,
        }) if least == most => format!("{median:.digits$}"),
        Some(Summary {
            median,
            least,
            most,
        }) => format!("{median:.digits$} ({least:.digits$}–{most:.digits$})"),
    }
}

/// A table whose first line is the headings, aligned so that it reads on a terminal as well.
pub(crate) fn markdown(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column| {
        let cells = lines
            .iter()
            .filter_map(|line: &Vec<String>| line.get(column));
        cells
            .map(|cell: &String| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        for (cell, width) in line.iter().zip(&widths) {
            let _infallible = write!(text, "| {cell:width$} ");
        }
        text.push_str("|\n");
        if index == 0 {
            for width in &widths {
                let _infallible = write!(text, "|{}", "-".repeat(width + 2));
            }
            text.push_str("|\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_have_the_spread_if_there_is_one() {
        let spread = Summary::of([1.0, 3.0, 2.0]);
        assert_eq!(cell(spread, 1), "2.0 (1.0–3.0)");
        assert_eq!(cell(Summary::of([2.0]), 2), "2.00");
        assert_eq!(cell(None, 2), "");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let lines = [vec!["a", "bcd"], vec!["ef÷", "g"]];
        let lines = lines.map(|line| line.into_iter().map(str::to_owned).collect());
        assert_eq!(
            markdown(&lines),
            "| a   | bcd |\n|-----|-----|\n| ef÷ | g   |\n"
        );
    }
}
