//! Programs under measurement, and what the operating system says that they used.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ::tests::{children_of, wait_for};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tempfile::TempDir;

/// How long a program may run that has to end by itself.
const LONGEST_RUN: Duration = Duration::from_secs(900);

/// How often the memory of a program is looked at that ends by itself. The kernel keeps the peak,
/// so only what comes in a program's last moments may be missed.
const MEMORY_INTERVAL: Duration = Duration::from_millis(20);

/// What a process, or several, have used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// Processor time in user and kernel mode.
    pub(crate) cpu_seconds: f64,
    /// The most resident memory, `VmHWM`.
    pub(crate) peak_bytes: u64,
}

/// A program under measurement; killed when it goes out of scope.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    log: PathBuf,
    _directory: TempDir,
}

impl Program {
    /// Starts it. What it prints is its log.
    pub(crate) fn start(mut command: Command) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let output = File::create(&log).unwrap();
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        let child = command
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self {
            child,
            log,
            _directory: directory,
        }
    }

    /// Runs it to its end, which must be a good one, and tells what it took.
    pub(crate) fn run(command: Command) -> (Duration, Usage) {
        let started = Instant::now();
        let mut program = Self::start(command);
        let pid = program.pid();
        let (ended, peak) = (AtomicBool::new(false), AtomicU64::new(0));
        let took = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    peak.fetch_max(peak_bytes(pid), Ordering::Relaxed);
                    if started.elapsed() > LONGEST_RUN {
                        send(pid, Signal::KILL);
                    }
                    std::thread::sleep(MEMORY_INTERVAL);
                }
            });
            // It stays a zombie, whose processor time can be read.
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            waitid(WaitId::Pid(raw(pid)), options).unwrap();
            let took = started.elapsed();
            ended.store(true, Ordering::Relaxed);
            took
        });
        let usage = Usage {
            cpu_seconds: cpu_seconds(pid),
            peak_bytes: peak.into_inner(),
        };
        let status = program.child.wait().unwrap();
        assert!(status.success(), "{status}\n{}", program.log());
        (took, usage)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits for a line that contains `text`, and gives what follows in that line.
    pub(crate) fn wait_for_log(&mut self, text: &str) -> String {
        wait_for(&format!("a line with {text:?}"), || {
            let ended = self.child.try_wait().unwrap();
            let log = self.log();
            assert!(ended.is_none(), "the program has ended: {ended:?}\n{log}");
            let complete = log.rsplit_once('\n')?.0;
            let (_, rest) = complete.split_once(text)?;
            Some(rest.lines().next().unwrap_or_default().to_owned())
        })
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(mut self) -> ExitStatus {
        send(self.pid(), Signal::INT);
        wait_for("the program to stop", || self.child.try_wait().unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}

fn raw(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

fn send(pid: u32, signal: Signal) {
    match kill_process(raw(pid), signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => panic!("signal {signal:?} to process {pid}: {error}"),
    }
}

/// What a process has used, of which children count only once they have ended.
fn usage(pid: u32) -> Usage {
    Usage {
        cpu_seconds: cpu_seconds(pid),
        peak_bytes: peak_bytes(pid),
    }
}

/// What a process and all of its children have used, those included that have ended.
///
/// The kernel keeps no peak of what several hold together. In its place stands what they hold now,
/// memory that they share counted once (`Pss`, proportional set size).
pub(crate) fn tree_usage(pid: u32) -> Usage {
    let children = children_of(pid);
    if children.is_empty() {
        return usage(pid);
    }
    let processes = || children.iter().copied().chain([pid]);
    Usage {
        cpu_seconds: processes().map(cpu_seconds).sum(),
        peak_bytes: processes().map(shared_memory).sum(),
    }
}

/// The memory that a process holds, its share of what it has together with others included.
fn shared_memory(pid: u32) -> u64 {
    field(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
}

/// The most memory that a process had resident; 0 for one that has ended.
fn peak_bytes(pid: u32) -> u64 {
    field(&format!("/proc/{pid}/status"), "VmHWM:")
}

/// A field in kB of a file in `/proc`, in bytes; 0 for a process that has ended.
fn field(path: &str, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|rest| rest.split_whitespace().next());
    kib.map_or(0, |kib| kib.parse::<u64>().unwrap() << 10)
}

/// The processor time of a process, with that of its children that have ended.
///
/// Source: proc(5), `/proc/pid/stat`, which counts in ticks of 10 ms and knows threads that have
/// ended; the kernel's scheduler/sched-stats.rst, `schedstat`, which counts in ns. Of many processes
/// that have each done a little the ticks would miss most.
fn cpu_seconds(pid: u32) -> f64 {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return 0.0;
    };
    // The name of the program stands in parentheses and may hold anything; the third field follows.
    let (_, rest) = stat.rsplit_once(')').unwrap();
    let ticks: Vec<u64> = rest
        .split_whitespace()
        .skip(11)
        .take(4)
        .map(|ticks| ticks.parse().unwrap())
        .collect();
    let seconds = |ticks: u64| ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
    let own = seconds(ticks[0] + ticks[1]).max(threads_seconds(pid));
    own + seconds(ticks[2] + ticks[3])
}

/// The processor time of the threads that a process has now.
fn threads_seconds(pid: u32) -> f64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return 0.0;
    };
    let of_thread = |path: PathBuf| {
        // A thread may end at any time.
        let text = fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        let nanos = text
            .split(' ')
            .next()
            .and_then(|nanos| nanos.parse::<u64>().ok());
        nanos.unwrap_or(0) as f64 / 1e9
    };
    threads
        .filter_map(|entry| Some(of_thread(entry.ok()?.path())))
        .sum()
}

/// The processor time of the calling thread.
pub(crate) fn thread_cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_computes_has_used_processor_time_and_memory() {
        let mut command = Command::new("sh");
        command.args(["-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"]);
        let (took, usage) = Program::run(command);
        assert!(usage.cpu_seconds > 0.0 && usage.cpu_seconds < took.as_secs_f64() * 2.0 + 0.02);
        assert!(usage.peak_bytes > 100 << 10, "{usage:?}");
    }

    #[test]
    fn a_tree_has_what_its_children_have() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & echo started; wait"]);
        let mut program = Program::start(command);
        program.wait_for_log("started");
        let own = shared_memory(program.pid());
        let tree = tree_usage(program.pid());
        assert!(own > 0 && tree.peak_bytes > own, "{tree:?} {own}");
        for child in children_of(program.pid()) {
            send(child, Signal::KILL);
        }
    }
}
