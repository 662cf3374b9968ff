//! Which charts are made of the results.

use crate::chart::{Axis, Chart, Scale};
use crate::record::{Report, Run};
use crate::{catch_up, commits, live};

/// All charts: the name of the file, and its content.
pub(crate) fn all(report: &Report) -> Vec<(String, String)> {
    let mut plots = Vec::new();
    for (scenario, title, kind) in [
        (catch_up::SCENARIO, "Catching up", Kind::OverTime),
        (commits::SCENARIO, "Synchronous commits", Kind::Latency),
        (
            commits::WITH_BULK,
            "Commits beside a bulk load",
            Kind::Latency,
        ),
        (
            live::SCENARIO,
            "Live streaming through a relay",
            Kind::Delay,
        ),
    ] {
        let mut cases: Vec<&str> = report.rows(scenario).iter().map(|row| row.0).collect();
        cases.dedup();
        for case in cases {
            let series = series(report, scenario, case, kind);
            if series.is_empty() {
                continue;
            }
            let (x, y) = kind.axes();
            let chart = Chart {
                title: format!("{title}, {case}"),
                x,
                y,
                series,
            };
            let name = format!("{scenario}-{}.svg", case.replace(' ', "-"));
            plots.push((name, chart.svg()));
        }
    }
    plots
}

const SHARE: &str = "share of those that take no longer";

/// What the points of a run are.
#[derive(Clone, Copy)]
enum Kind {
    /// Throughput by time.
    OverTime,
    /// Latencies by the share of those that are not longer.
    Latency,
    /// The same of delays.
    Delay,
}

impl Kind {
    fn axes(self) -> (Axis, Axis) {
        let axis = |label, scale| Axis { label, scale };
        match self {
            Self::OverTime => (
                axis("time in s", Scale::Linear),
                axis("GB/s", Scale::Linear),
            ),
            Self::Latency => (axis(SHARE, Scale::Nines), axis("latency in ms", Scale::Log)),
            Self::Delay => (axis(SHARE, Scale::Nines), axis("delay in us", Scale::Log)),
        }
    }

    /// The figure whose median chooses the round that is shown.
    const fn compared(self) -> &'static str {
        match self {
            Self::OverTime => "gb_per_s",
            Self::Latency => "p99_ms",
            Self::Delay => "p99_us",
        }
    }
}

/// A line for each system: of the round in which it was as in the median, or nearest to it.
fn series(report: &Report, scenario: &str, case: &str, kind: Kind) -> Vec<(String, Vec<[f64; 2]>)> {
    let rows = report.rows(scenario).into_iter();
    rows.filter(|row| row.0 == case)
        .filter_map(|(_, system)| {
            let value = kind.compared();
            let median = report.summary(scenario, case, system, value)?.median;
            let distance = |run: &Run| {
                let figure = run.values.get(value).copied().unwrap_or(f64::INFINITY);
                (figure - median).abs()
            };
            let shown = report
                .runs_of(scenario, case, system)
                .filter(|run| !run.curve.is_empty())
                .min_by(|one, other| distance(one).total_cmp(&distance(other)))?;
            Some((system.to_owned(), shown.curve.clone()))
        })
        .collect()
}
