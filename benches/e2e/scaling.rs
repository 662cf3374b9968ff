//! What many primaries and standbys need, computed from what one unit costs here: the tables of
//! docs/scaling.md.

use std::fmt::Write as _;

use crate::fan_out::{Relay, Tree};
use crate::lab::OURS;
use crate::record::{Report, Summary, quantile};
use crate::table::markdown;
use crate::{catch_up, commits, live, probes, serving};

/// The load of a primary in the example: as in the measurement of live streaming.
const MESSAGES_PER_S: f64 = 100.0;
const WAL_MB_PER_S: f64 = 1.0;
const PRIMARIES: u32 = 1_000;
const STANDBYS: u32 = 10_000;

/// A network card of 10 Gbit/s, in MB/s.
const NETWORK_MB_PER_S: f64 = 1_250.0;

/// Pieces of WAL in a simulation.
const PIECES: u32 = 200;

/// What one unit costs, by the medians of the results.
#[derive(Clone, Debug, PartialEq)]
struct Costs {
    /// Processor time for receiving, checking and writing in bulk, s/GB.
    receive_s_per_gb: f64,
    /// Processor time for sending from files, s/GB.
    serve_s_per_gb: f64,
    /// Processor time of a relay with one client for a message, in us: what was synced at a time.
    relay_message_us: f64,
    /// Processor time for one more client and message, in us.
    client_message_us: f64,
    /// Memory of a relay with one client, MiB.
    relay_mib: f64,
    /// Memory of one more client, KiB.
    client_kib: f64,
    /// Write and fdatasync of 8 KiB, in us.
    sync_us: f64,
    /// How many clients were measured beside one.
    clients: u32,
    /// Points (share, us) of the delay with one client.
    hop: Vec<[f64; 2]>,
    /// The delay with all of them, in us.
    p50_us: f64,
    p99_us: f64,
}

impl Costs {
    /// `None` if a scenario that they are taken from was not measured.
    fn of(report: &Report) -> Option<Self> {
        let median = |scenario: &str, case: &str, system: &str, value: &str| {
            let summary = report.summary(scenario, case, system, value);
            summary.map(|summary: Summary| summary.median)
        };
        let one = live::case(1);
        let rows = report.rows(live::SCENARIO);
        let (many, _) = *rows.iter().rev().find(|row| row.0 != one)?;
        let clients: u32 = many.split(' ').next()?.parse().ok()?;
        let of_live = |case: &str, value: &str| median(live::SCENARIO, case, OURS, value);
        let a_commit = |case: &str, clients: u32| {
            Some(of_live(case, "cpu_us_per_message")? * f64::from(clients))
        };
        let more = f64::from(clients - 1);
        let relay_message_us = a_commit(&one, 1)?;
        let relay_mib = of_live(&one, "memory_mib")?;
        let runs = report.runs_of(live::SCENARIO, &one, OURS);
        Some(Self {
            receive_s_per_gb: median(catch_up::SCENARIO, catch_up::WARM, OURS, "cpu_s_per_gb")?,
            serve_s_per_gb: median(serving::SCENARIO, &serving::case(1), OURS, "cpu_s_per_gb")?,
            relay_message_us,
            client_message_us: ((a_commit(many, clients)? - relay_message_us) / more).max(0.0),
            relay_mib,
            client_kib: ((of_live(many, "memory_mib")? - relay_mib) * 1024.0 / more).max(0.0),
            sync_us: median(probes::SCENARIO, probes::CASE, probes::SYNC, "p50_us")?,
            clients,
            hop: runs
                .map(|run| run.curve.clone())
                .find(|curve| !curve.is_empty())?,
            p50_us: of_live(many, "p50_us")?,
            p99_us: of_live(many, "p99_us")?,
        })
    }

    /// Processors that a relay of the example's primary keeps busy, with so many clients.
    fn processors(&self, messages_per_s: f64, wal_mb_per_s: f64, clients: f64) -> f64 {
        let commits = self.relay_message_us + (clients - 1.0) * self.client_message_us;
        let bulk = self.receive_s_per_gb + clients * self.serve_s_per_gb;
        commits * messages_per_s / 1e6 + bulk * wal_mb_per_s / 1e3
    }

    /// Its memory in MiB.
    fn memory_mib(&self, clients: f64) -> f64 {
        self.relay_mib + (clients - 1.0) * self.client_kib / 1024.0
    }

    /// How many clients keep one processor busy: more are for another process.
    fn most_clients(&self, messages_per_s: f64, wal_mb_per_s: f64) -> f64 {
        let one = self.processors(messages_per_s, wal_mb_per_s, 1.0);
        let two = self.processors(messages_per_s, wal_mb_per_s, 2.0);
        (1.0 + (1.0 - one) / (two - one)).floor().max(0.0)
    }

    fn relay(&self) -> Relay {
        Relay {
            hop: self.hop.clone(),
            message_us: self.client_message_us,
        }
    }
}

/// All tables, or why there are none.
///
/// # Errors
/// When a scenario that they are taken from was not measured.
pub(crate) fn tables(report: &Report) -> Result<String, String> {
    let costs = Costs::of(report).ok_or_else(|| {
        format!(
            "the results lack one of {}, {}, {} and {}",
            catch_up::SCENARIO,
            serving::SCENARIO,
            commits::SCENARIO,
            live::SCENARIO
        )
    })?;
    let machine = &report.machine;
    let mut text = format!(
        "From the results of {}, commit {}, {} processors ({}).\n\n",
        machine.date, machine.commit, machine.processors, machine.processor
    );
    for (title, lines) in [
        ("What a unit costs", units(&costs)),
        (
            "A thousand primaries with ten standbys each",
            example(&costs),
        ),
        ("Where one process stops", limits(&costs)),
        ("Ten thousand standbys of one primary", trees(&costs)),
    ] {
        let _infallible = write!(text, "### {title}\n\n{}\n", markdown(&lines));
    }
    Ok(text)
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

fn units(costs: &Costs) -> Vec<Vec<String>> {
    let clients = costs.clients;
    let line =
        |what: &str, value: String, from: &str| vec![what.to_owned(), value, from.to_owned()];
    vec![
        row(["unit", "cost", "from"]),
        line(
            "receive, check and write in bulk",
            format!("{:.2} CPU s/GB", costs.receive_s_per_gb),
            "catch-up, warm",
        ),
        line(
            "serve from files",
            format!("{:.2} CPU s/GB", costs.serve_s_per_gb),
            "serving, 1 stream",
        ),
        line(
            "a message through a relay with one client",
            format!("{:.0} CPU us", costs.relay_message_us),
            "live, 1 client",
        ),
        line(
            "one more client of it",
            format!("{:.1} CPU us", costs.client_message_us),
            &format!("live, {clients} clients less 1 client"),
        ),
        line(
            "a relay with one client",
            format!("{:.1} MiB", costs.relay_mib),
            "live, 1 client",
        ),
        line(
            "one more client of it",
            format!("{:.0} KiB", costs.client_kib),
            &format!("live, {clients} clients less 1 client"),
        ),
        line(
            "a sync of one page",
            format!("{:.0} us", costs.sync_us),
            "probes",
        ),
    ]
}

fn example(costs: &Costs) -> Vec<Vec<String>> {
    let each = f64::from(STANDBYS / PRIMARIES);
    let all = f64::from(PRIMARIES);
    let mut lines = vec![row(["", "a primary", "all"])];
    let mut line = |what: &str, unit: &str, one: f64, digits: usize| {
        let total = one * all;
        lines.push(vec![
            format!("{what}, {unit}"),
            format!("{one:.digits$}"),
            format!("{total:.0}"),
        ]);
    };
    line(
        "processors",
        "busy",
        costs.processors(MESSAGES_PER_S, WAL_MB_PER_S, each),
        4,
    );
    line("memory", "MiB", costs.memory_mib(each), 1);
    line("connections", "in and out", 1.0 + each, 0);
    line("network in", "MB/s", WAL_MB_PER_S, 1);
    line("network out", "MB/s", WAL_MB_PER_S * each, 1);
    line("disk", "GB a day of retention", WAL_MB_PER_S * 86.4, 1);
    line("syncs", "a second at most", MESSAGES_PER_S, 0);
    line(
        "a disk's time for them",
        "s/s",
        MESSAGES_PER_S * costs.sync_us / 1e6,
        4,
    );
    lines
}

fn limits(costs: &Costs) -> Vec<Vec<String>> {
    let mut lines = vec![row([
        "messages/s",
        "WAL MB/s",
        "clients of one processor",
        "clients of 10 Gbit/s",
        "memory for the fewer, MiB",
    ])];
    for (messages_per_s, wal_mb_per_s) in [(10.0, 0.1), (100.0, 1.0), (1_000.0, 10.0)] {
        let processor = costs.most_clients(messages_per_s, wal_mb_per_s);
        let network = (NETWORK_MB_PER_S / wal_mb_per_s).floor();
        lines.push(vec![
            format!("{messages_per_s}"),
            format!("{wal_mb_per_s}"),
            format!("{processor}"),
            format!("{network}"),
            format!("{:.0}", costs.memory_mib(processor.min(network).max(1.0))),
        ]);
    }
    lines
}

fn trees(costs: &Costs) -> Vec<Vec<String>> {
    let interval_us = 1e6 / MESSAGES_PER_S;
    let relay = costs.relay();
    let mut lines = vec![row([
        "standbys",
        "fan-out",
        "relays",
        "relays on the way",
        "processors a relay",
        "p50 us",
        "p99 us",
        "",
    ])];
    let mut line = |standbys: u32, fan_out: u32| {
        let tree = Tree::of(standbys, fan_out);
        let delays = relay.simulate(tree, standbys, PIECES, interval_us);
        let share = |share| quantile(&delays, share).unwrap_or_default();
        let processors = costs.processors(MESSAGES_PER_S, WAL_MB_PER_S, f64::from(fan_out));
        lines.push(vec![
            standbys.to_string(),
            fan_out.to_string(),
            tree.relays(standbys).to_string(),
            tree.depth.to_string(),
            format!("{processors:.3}"),
            format!("{:.0}", share(0.5)),
            format!("{:.0}", share(0.99)),
            "simulated".to_owned(),
        ]);
    };
    line(costs.clients, costs.clients);
    for fan_out in [22, 100, 200] {
        line(STANDBYS, fan_out);
    }
    let clients = costs.clients.to_string();
    let measured = vec![
        clients.clone(),
        clients,
        "1".to_owned(),
        "1".to_owned(),
        String::new(),
        format!("{:.0}", costs.p50_us),
        format!("{:.0}", costs.p99_us),
        "measured".to_owned(),
    ];
    lines.insert(1, measured);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs() -> Costs {
        Costs {
            receive_s_per_gb: 0.5,
            serve_s_per_gb: 0.3,
            relay_message_us: 200.0,
            client_message_us: 10.0,
            relay_mib: 10.0,
            client_kib: 64.0,
            sync_us: 100.0,
            clients: 200,
            hop: vec![[0.0, 500.0], [1.0, 500.0]],
            p50_us: 1_500.0,
            p99_us: 2_400.0,
        }
    }

    #[test]
    fn a_process_stops_where_its_processor_is_busy() {
        let costs = costs();
        // 100 commits/s: 200 us and 10 us for each client but one; 1 MB/s: 0.5 ms and 0.3 ms each.
        let ten = costs.processors(100.0, 1.0, 10.0);
        assert!(
            (ten - (0.02 + 0.009 + 0.0005 + 0.003)).abs() < 1e-9,
            "{ten}"
        );
        let most = costs.most_clients(100.0, 1.0);
        assert!(costs.processors(100.0, 1.0, most) <= 1.0);
        assert!(costs.processors(100.0, 1.0, most + 1.0) > 1.0);
        assert!((costs.memory_mib(17.0) - 11.0).abs() < 1e-9);
    }

    #[test]
    fn a_measured_tree_stands_beside_the_simulated_one() {
        let lines = trees(&costs());
        assert_eq!(lines[1][5..], ["1500", "2400", "measured"]);
        // A hop, and half of 200 messages, or all but two.
        assert_eq!(lines[2][5..], ["1500", "2480", "simulated"]);
        assert_eq!(lines[3][..4], ["10000", "22", "477", "3"]);
    }
}
