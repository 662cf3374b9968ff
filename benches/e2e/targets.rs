//! The targets of this project, beside what was measured.

use std::fmt::Write as _;

use crate::lab::OURS;
use crate::record::{Report, Run, Summary};
use crate::table::markdown;
use crate::{catch_up, commits, generated, live, probes, serving, validation};

/// A figure that has to be at least, or at most, so much.
struct Target {
    path: &'static str,
    what: String,
    limit: Limit,
    found: Option<Summary>,
}

#[derive(Clone, Copy)]
enum Limit {
    AtLeast(f64),
    AtMost(f64),
    /// Shown beside a target, to see what can be reached here.
    Compared,
}

impl Limit {
    fn met(self, value: f64) -> &'static str {
        let is_met = match self {
            Self::AtLeast(limit) => value >= limit,
            Self::AtMost(limit) => value <= limit,
            Self::Compared => return "",
        };
        if is_met { "yes" } else { "no" }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(limit) => format!(">= {limit:.2}"),
            Self::AtMost(limit) => format!("<= {limit:.2}"),
            Self::Compared => String::new(),
        }
    }
}

/// The table of all targets for which something was measured.
pub(crate) fn table(report: &Report) -> String {
    let mut targets = catching_up(report);
    targets.extend(committing(report));
    targets.extend(under_bulk_load(report));
    targets.extend(serving_files(report));
    targets.extend(streaming_live(report));
    targets.extend(validating(report));
    let mut lines = vec![
        ["path", "figure", "target", "measured", "met"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for target in targets {
        let Some(Summary {
            median,
            least,
            most,
        }) = target.found
        else {
            continue;
        };
        lines.push(vec![
            target.path.to_owned(),
            target.what,
            target.limit.text(),
            format!("{median:.2} ({least:.2}–{most:.2})"),
            target.limit.met(median).to_owned(),
        ]);
    }
    if lines.len() == 1 {
        return String::new();
    }
    let mut text = String::new();
    let _infallible = write!(text, "### Targets\n\n{}\n", markdown(&lines));
    text
}

fn catching_up(report: &Report) -> Vec<Target> {
    let (scenario, case) = (catch_up::SCENARIO, catch_up::WARM);
    let ratio = |value, other| report.ratio(scenario, case, value, OURS, other);
    let target = |what: &str, limit, found| Target {
        path: "catch-up, warm",
        what: what.to_owned(),
        limit,
        found,
    };
    vec![
        target(
            "GB/s ÷ pg_receivewal's",
            Limit::AtLeast(2.5),
            ratio("gb_per_s", catch_up::PG_RECEIVEWAL),
        ),
        target(
            "CPU s/GB ÷ pg_receivewal's",
            Limit::AtMost(1.0 / 3.0),
            ratio("cpu_s_per_gb", catch_up::PG_RECEIVEWAL),
        ),
        target(
            "GB/s ÷ the floor that drains and writes",
            Limit::AtLeast(0.8),
            ratio("gb_per_s", catch_up::DRAIN_AND_WRITE),
        ),
        target(
            "peak MiB",
            Limit::AtMost(32.0),
            report.summary(scenario, case, OURS, "peak_mib"),
        ),
        Target {
            path: "receiving as fast as it can",
            what: "peak MiB".to_owned(),
            limit: Limit::AtMost(32.0),
            found: report.summary(generated::SCENARIO, generated::FASTEST, OURS, "peak_mib"),
        },
    ]
}

fn committing(report: &Report) -> Vec<Target> {
    let scenario = commits::SCENARIO;
    let ratio = |clients, other, least| {
        let case = commits::case(clients);
        Target {
            path: "synchronous commits",
            what: format!("commits/s ÷ {other}, {case}"),
            limit: Limit::AtLeast(least),
            found: report.ratio(scenario, &case, "commits_per_s", OURS, other),
        }
    };
    vec![
        ratio(1, commits::PG_RECEIVEWAL, 1.05),
        Target {
            path: "synchronous commits",
            what: "added p50 ÷ (fdatasync + round trip), 1 client".to_owned(),
            limit: Limit::AtMost(1.3),
            found: added_latency(report),
        },
        ratio(8, commits::PG_RECEIVEWAL, 1.15),
        ratio(32, commits::PG_RECEIVEWAL, 1.15),
        ratio(8, commits::STANDBY, 1.4),
        ratio(32, commits::STANDBY, 1.4),
    ]
}

/// How much longer a commit takes with our receiver than alone, as a multiple of what the disk and
/// the network take, round by round.
fn added_latency(report: &Report) -> Option<Summary> {
    let case = commits::case(1);
    let of = |scenario: &str, case: &str, system: &str, round, value: &str| {
        let mut runs = report.runs_of(scenario, case, system);
        runs.find(|run| run.round == round)?
            .values
            .get(value)
            .copied()
    };
    let rounds = report.runs_of(commits::SCENARIO, &case, OURS);
    let ratios = rounds.filter_map(|run| {
        let round = run.round;
        let ours = run.values.get("p50_ms")?;
        let alone = of(commits::SCENARIO, &case, commits::ALONE, round, "p50_ms")?;
        let probe = |system| of(probes::SCENARIO, probes::CASE, system, round, "p50_us");
        let least = probe(probes::SYNC)? + probe(probes::ROUND_TRIP)?;
        Some((ours - alone) * 1e3 / least)
    });
    Summary::of(ratios)
}

fn under_bulk_load(report: &Report) -> Vec<Target> {
    let (scenario, other) = (commits::WITH_BULK, commits::PG_RECEIVEWAL);
    let target = |clients| {
        let case = commits::case(clients);
        Target {
            path: "the same beside a bulk load",
            what: format!("p99 ÷ {other}, {case}"),
            limit: Limit::AtMost(1.0 / 3.0),
            found: report.ratio(scenario, &case, "p99_ms", OURS, other),
        }
    };
    [1, 8, 32].map(target).into()
}

fn serving_files(report: &Report) -> Vec<Target> {
    let of_case = |path: &'static str, case: &str| {
        let ratio = |what: &str, value, other, limit| Target {
            path,
            what: what.to_owned(),
            limit,
            found: report.ratio(serving::SCENARIO, case, value, OURS, other),
        };
        [
            ratio(
                "GB/s ÷ PostgreSQL's walsender",
                "gb_per_s",
                serving::WALSENDER,
                Limit::AtLeast(1.3),
            ),
            ratio(
                "GB/s ÷ sendfile",
                "gb_per_s",
                serving::SENDFILE,
                Limit::AtLeast(0.9),
            ),
            ratio(
                "CPU s/GB ÷ PostgreSQL's walsender",
                "cpu_s_per_gb",
                serving::WALSENDER,
                Limit::AtMost(0.75),
            ),
        ]
    };
    let warm = of_case("serve, one stream from files", &serving::case(1));
    let cold = of_case("the same, cold page cache", serving::COLD);
    warm.into_iter().chain(cold).collect()
}

fn streaming_live(report: &Report) -> Vec<Target> {
    let scenario = live::SCENARIO;
    let rows = report.rows(scenario);
    // All that were measured; what one client has is compared with.
    let one = live::case(1);
    let Some((many, _)) = rows.iter().rev().find(|row| row.0 != one) else {
        return Vec::new();
    };
    let path = "serve, live clients";
    let more_clients = |system: &'static str| {
        let p99 = |run: &Run| Some((run.round, *run.values.get("p99_us")?));
        let one: Vec<_> = report
            .runs_of(scenario, &one, system)
            .filter_map(p99)
            .collect();
        let many = report.runs_of(scenario, many, system).filter_map(p99);
        Summary::of(many.filter_map(|(round, many)| {
            let pair = one.iter().find(|one| one.0 == round)?;
            Some(many / pair.1)
        }))
    };
    vec![
        Target {
            path,
            what: format!("MiB, {many}"),
            limit: Limit::AtMost(64.0),
            found: report.summary(scenario, many, OURS, "memory_mib"),
        },
        Target {
            path,
            what: format!("p99 delay of {many} ÷ of 1 client"),
            limit: Limit::AtMost(2.0),
            found: more_clients(OURS),
        },
        Target {
            path,
            what: "the same of the floor, bare sends".to_owned(),
            limit: Limit::Compared,
            found: more_clients(live::BARE),
        },
        Target {
            path,
            what: format!("p99 delay of {many} ÷ the floor's"),
            limit: Limit::Compared,
            found: report.ratio(scenario, many, "p99_us", OURS, live::BARE),
        },
    ]
}

fn validating(report: &Report) -> Vec<Target> {
    let ratio = |what: &str, one, other, least| Target {
        path: "validation",
        what: what.to_owned(),
        limit: Limit::AtLeast(least),
        found: report.ratio(
            validation::SCENARIO,
            validation::CASE,
            "gb_per_s",
            one,
            other,
        ),
    };
    vec![
        ratio("GB/s ÷ pg_waldump -q", OURS, validation::PG_WALDUMP, 3.0),
        ratio("GB/s of 2 jobs ÷ of 1 job", validation::TWO_JOBS, OURS, 1.8),
    ]
}
