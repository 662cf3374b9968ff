//! What was measured, and what it comes down to: medians, spreads, ratios pair by pair.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// All that one invocation has measured: the content of `results.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// On what.
    pub(crate) machine: Machine,
    /// The arguments of the harness.
    pub(crate) command: String,
    /// What a reader has to know beside the figures.
    pub(crate) notes: Vec<String>,
    /// In the order in which they were made.
    pub(crate) runs: Vec<Run>,
}

/// One run of one system.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    /// What was asked of it, as `catch-up`.
    pub(crate) scenario: String,
    /// Under which circumstances, as `warm page cache`.
    pub(crate) case: String,
    /// Of what, as `wal-receiver`.
    pub(crate) system: String,
    /// The round, from 1 on. Runs of one round are pairs.
    pub(crate) round: u32,
    /// The figures by name, whose end is the unit.
    pub(crate) values: BTreeMap<String, f64>,
    /// Points of a plot, if the scenario has one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) curve: Vec<[f64; 2]>,
}

/// What several rounds come down to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Summary {
    /// Of some values; `None` of none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Some(Self {
            median: median(&values)?,
            least: *values.first()?,
            most: *values.last()?,
        })
    }
}

/// The median of sorted values.
fn median(sorted: &[f64]) -> Option<f64> {
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(upper, *sorted.get(sorted.len() / 2 - 1)?))
}

/// The value below which a share of the sorted values lies: the nearest rank.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank within the values"
    )]
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1).min(last)).copied()
}

/// The shares that a plot of a distribution shows.
const SHARES: [f64; 16] = [
    0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9999, 1.0,
];

/// Points (share, value) of the distribution of sorted values.
pub(crate) fn distribution(sorted: &[f64]) -> Vec<[f64; 2]> {
    SHARES
        .iter()
        .filter_map(|&share| Some([share, quantile(sorted, share)?]))
        .collect()
}

impl Report {
    /// The runs of one system under one circumstance.
    pub(crate) fn runs_of<'a>(
        &'a self,
        scenario: &'a str,
        case: &'a str,
        system: &'a str,
    ) -> impl Iterator<Item = &'a Run> {
        self.runs
            .iter()
            .filter(move |run| run.scenario == scenario && run.case == case && run.system == system)
    }

    /// The pairs of circumstance and system that a scenario has, in their first order.
    pub(crate) fn rows<'a>(&'a self, scenario: &str) -> Vec<(&'a str, &'a str)> {
        let of_scenario = self.runs.iter().filter(|run| run.scenario == scenario);
        let mut cases: Vec<&str> = Vec::new();
        let mut rows: Vec<(&str, &str)> = Vec::new();
        for run in of_scenario {
            if !cases.contains(&run.case.as_str()) {
                cases.push(&run.case);
            }
            let row = (run.case.as_str(), run.system.as_str());
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
        let of_case = |case| rows.iter().copied().filter(move |row| row.0 == case);
        cases.into_iter().flat_map(of_case).collect()
    }

    /// A figure over all rounds.
    pub(crate) fn summary(
        &self,
        scenario: &str,
        case: &str,
        system: &str,
        value: &str,
    ) -> Option<Summary> {
        let runs = self.runs_of(scenario, case, system);
        Summary::of(runs.filter_map(|run| run.values.get(value).copied()))
    }

    /// One system's figure divided by another's, round by round.
    pub(crate) fn ratio(
        &self,
        scenario: &str,
        case: &str,
        value: &str,
        one: &str,
        other: &str,
    ) -> Option<Summary> {
        let pairs = self.runs_of(scenario, case, one).filter_map(|run| {
            let mut others = self.runs_of(scenario, case, other);
            let pair = others.find(|other| other.round == run.round)?;
            let (one, other) = (run.values.get(value)?, pair.values.get(value)?);
            (*other != 0.0).then(|| one / other)
        });
        Summary::of(pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(system: &str, round: u32, value: f64) -> Run {
        Run {
            scenario: "s".to_owned(),
            case: "c".to_owned(),
            system: system.to_owned(),
            round,
            values: BTreeMap::from([("v".to_owned(), value)]),
            curve: Vec::new(),
        }
    }

    fn report(runs: Vec<Run>) -> Report {
        Report {
            machine: Machine::default(),
            command: String::new(),
            notes: Vec::new(),
            runs,
        }
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        let summary = Summary::of([4.0, 1.0, 3.0, 100.0]).unwrap();
        assert_eq!(
            summary,
            Summary {
                median: 3.5,
                least: 1.0,
                most: 100.0
            }
        );
        assert_eq!(Summary::of([]), None);
    }

    #[test]
    fn quantiles_are_values_that_occurred() {
        let sorted: Vec<f64> = (1..=1000).map(f64::from).collect();
        assert_eq!(quantile(&sorted, 0.5), Some(500.0));
        assert_eq!(quantile(&sorted, 0.999), Some(999.0));
        assert_eq!(quantile(&sorted, 1.0), Some(1000.0));
        assert_eq!(quantile(&sorted, 0.0), Some(1.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The second round was slow for both; a ratio of medians would see 1.5.
        let runs = vec![
            run("ours", 1, 20.0),
            run("theirs", 1, 10.0),
            run("theirs", 2, 1.0),
            run("ours", 2, 2.0),
            run("ours", 3, 30.0),
        ];
        let ratio = report(runs).ratio("s", "c", "v", "ours", "theirs").unwrap();
        assert_eq!((ratio.median, ratio.least, ratio.most), (2.0, 2.0, 2.0));
    }

    #[test]
    fn rows_keep_the_order_of_the_first_round() {
        let runs = vec![run("b", 1, 1.0), run("a", 1, 1.0), run("a", 2, 1.0)];
        assert_eq!(report(runs).rows("s"), [("c", "b"), ("c", "a")]);
    }
}
