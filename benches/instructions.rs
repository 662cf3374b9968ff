//! How many instructions every hot path takes, counted by valgrind's callgrind and compared with
//! `instructions.txt`: a guard that no other load on the machine disturbs.
//!
//! Fails when a path takes more than [`TOLERANCE`] more than is written there. With `--bless`, what
//! was counted is written there instead; with `--test`, nothing is counted and each path is run
//! once.

#![expect(
    clippy::print_stdout,
    reason = "the counts are what this program is for"
)]

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// How much more a path may take than what is written, in percent: compilers and C libraries
/// differ by less.
const TOLERANCE: u64 = 10;

/// Counted is what happens in this function, as callgrind matches its name.
const COUNTED: &str = "*instructions_are_counted_here*";

/// The baselines, a path a line: the count, then the name.
const BASELINES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.txt");

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let given = |option: &str| arguments.iter().any(|argument| argument == option);
    let result = if let Some(path) = arguments.iter().find_map(|a| a.strip_prefix("--run=")) {
        run(path)
    } else if given("--test") {
        benches::hot::paths()
            .iter_mut()
            .for_each(|path| (path.run)());
        Ok(true)
    } else {
        compare(given("--bless"))
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one path, the first time for what is done only once.
fn run(name: &str) -> Result<bool, Box<dyn Error>> {
    let mut paths = benches::hot::paths().into_iter();
    let mut path = paths.find(|path| path.name == name).ok_or("no such path")?;
    (path.run)();
    instructions_are_counted_here(&mut path.run);
    Ok(true)
}

#[inline(never)]
fn instructions_are_counted_here(run: &mut dyn FnMut()) {
    run();
    // So that this is not the caller's tail.
    std::hint::black_box(());
}

/// Counts all paths and compares them with what is written, or writes them.
fn compare(bless: bool) -> Result<bool, Box<dyn Error>> {
    let written = read_baselines()?;
    let mut counted = String::new();
    let mut good = true;
    println!("{:>12} {:>12} {:>8}  path", "written", "counted", "change");
    for path in benches::hot::paths() {
        let name = path.name;
        let count = count(&name)?;
        writeln!(counted, "{count} {name}")?;
        let Some(&before) = written.get(&name) else {
            println!("{:>12} {count:>12} {:>8}  {name}", "-", "-");
            good = false;
            continue;
        };
        let tenths = (i128::from(count) - i128::from(before)) * 1000 / i128::from(before.max(1));
        let sign = if tenths < 0 { '-' } else { '+' };
        let change = format!("{sign}{}.{}%", tenths.abs() / 10, tenths.abs() % 10);
        let exceeded = u128::from(count) * 100 > u128::from(before) * u128::from(100 + TOLERANCE);
        let remark = if exceeded { ": too many" } else { "" };
        println!("{before:>12} {count:>12} {change:>8}  {name}{remark}");
        good &= !exceeded;
    }
    if bless {
        std::fs::write(BASELINES, counted)?;
        return Ok(true);
    }
    if !good {
        println!(
            "If that is what the change is worth, write the counts anew: \
             cargo bench --package benches --bench instructions -- --bless"
        );
    }
    Ok(good)
}

fn read_baselines() -> Result<BTreeMap<String, u64>, Box<dyn Error>> {
    if !Path::new(BASELINES).exists() {
        return Ok(BTreeMap::new());
    }
    let text = std::fs::read_to_string(BASELINES)?;
    let lines = text.lines().map(|line| {
        let (count, name) = line
            .split_once(' ')
            .ok_or_else(|| format!("no count: {line}"))?;
        Ok((name.to_owned(), count.parse()?))
    });
    lines.collect()
}

/// Counts the instructions of one path in a process of its own.
fn count(name: &str) -> Result<u64, Box<dyn Error>> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args([
            "--collect-atstart=no",
            &format!("--toggle-collect={COUNTED}"),
        ])
        .arg(std::env::current_exe()?)
        .arg(format!("--run={name}"))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("valgrind: {error}; install it"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let count = collected.and_then(|(_, count)| count.trim().parse().ok());
    match count {
        Some(count) if output.status.success() && count > 0 => Ok(count),
        _ => Err(format!("{name}: callgrind counted nothing: {said}").into()),
    }
}
