//! Measures `wal-receiver` beside PostgreSQL's own programs: in one invocation, in turn, several
//! rounds, with real servers. `make bench` runs it; see BENCHMARKS.md.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a measurement that cannot be made ends by a panic that names what was missing"
)]

mod args;
mod arrivals;
mod bare_sender;
mod bulk_load;
mod catch_up;
mod chart;
mod client;
mod commits;
mod fan_out;
mod generated;
mod lab;
mod live;
mod machine;
mod output;
mod plots;
mod probes;
mod process;
mod record;
mod scaling;
mod serving;
mod source;
mod table;
mod targets;
mod upstream;
mod validation;

use std::process::ExitCode;

use args::{Arguments, Invocation};
use lab::Lab;
use source::Source;

fn main() -> ExitCode {
    match args::parse(std::env::args_os().skip(1)) {
        Ok(Invocation::Help) => println!("{}", args::help()),
        Ok(Invocation::Measure(arguments)) => measure(arguments),
        Ok(Invocation::Render(arguments)) => {
            output::write(&output::read(&arguments.output), &arguments);
        }
        Err(args::Refused(why)) => {
            eprintln!("harness: {why}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn measure(arguments: Arguments) {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let mut lab = Lab::new(arguments, words.join(" "));
    let of_source = [catch_up::SCENARIO, serving::SCENARIO, validation::SCENARIO];
    if of_source.iter().any(|scenario| lab.wants(scenario)) {
        measure_source(&mut lab);
    }
    if lab.wants(generated::SCENARIO) {
        generated::measure(&mut lab);
    }
    if lab.wants(commits::SCENARIO) || lab.wants(commits::WITH_BULK) {
        commits::measure(&mut lab);
    }
    if lab.wants(live::SCENARIO) {
        live::measure(&mut lab);
    }
    output::write(&lab.report, &lab.arguments);
}

/// What is done with much WAL that is there already.
fn measure_source(lab: &mut Lab) {
    let source = Source::make(lab.arguments.size);
    if lab.wants(catch_up::SCENARIO) {
        catch_up::measure(lab, &source);
    }
    if lab.wants(serving::SCENARIO) || lab.wants(validation::SCENARIO) {
        let archive = source.archive(lab);
        if lab.wants(serving::SCENARIO) {
            serving::measure(lab, &source, &archive);
        }
        if lab.wants(validation::SCENARIO) {
            validation::measure(lab, &source, &archive);
        }
    }
}
