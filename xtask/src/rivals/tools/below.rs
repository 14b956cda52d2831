//! below (Meta's recorder) with its defaults, a sample every 5 s and its eBPF program for processes that end;
//! read afterwards. Of cgroups it reads cgroup v2 alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use super::super::load::COMM;
use super::super::rival::{Rival, Running, Surroundings};
use super::super::seen::{Kills, Process, Processes, Seen};
use super::super::truth::Truth;
use crate::process;
use crate::vmstat::kernel_kills;

/// By default it listens on 1989.
const PORT: &str = "19989";
const EVERY: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Below {
    running: Running,
    program: PathBuf,
    settings: PathBuf,
    begun_unix_s: u64,
    kernel_before: u64,
    v2: bool,
}

pub fn start(around: &Surroundings) -> Result<Option<Box<dyn Rival>>> {
    let Some(program) = around.program("below") else {
        return Ok(None);
    };
    let (log, store) = (
        around.scratch.join("below-log"),
        around.scratch.join("below-store"),
    );
    fs::create_dir_all(&log)?;
    fs::create_dir_all(&store)?;
    let hierarchy = if around.v2 {
        &around.hierarchy
    } else {
        Path::new("/sys/fs/cgroup/unified")
    };
    let settings = around.scratch.join("below.conf");
    let text = format!("log_dir = {log:?}\nstore_dir = {store:?}\ncgroup_root = {hierarchy:?}\n");
    fs::write(&settings, text)?;
    let begun_unix_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let kernel_before = kernel_kills()?;
    let mut command = around.command(&program);
    command.arg("--config").arg(&settings);
    command.args(["record", "--port", PORT]);
    let running = Running::start(command, "below", &around.scratch)?.wait_for_programs()?;
    Ok(Some(Box::new(Below {
        running,
        program,
        settings,
        begun_unix_s,
        kernel_before,
        v2: around.v2,
    })))
}

impl Rival for Below {
    fn name(&self) -> String {
        format!("below, record every {} s", EVERY.as_secs())
    }

    fn pid(&self) -> u32 {
        self.running.pid()
    }

    fn end(self: Box<Self>, _truth: &Truth) -> Result<Seen> {
        // Its last sample.
        thread::sleep(EVERY * 2);
        let kernel = kernel_kills()? - self.kernel_before;
        self.running.end(libc::SIGINT)?;
        let dump = |what: &str, fields: &[&str]| -> Result<String> {
            let mut dump = Command::new(&self.program);
            dump.arg("--config").arg(&self.settings);
            dump.args(["dump", what, "--begin", &self.begun_unix_s.to_string()]);
            dump.args(["--output-format", "csv", "--raw", "--fields"]);
            process::stdout(dump.args(fields))
        };
        let counts = dump("system", &["vm.oom_kill"])?;
        let kills = Kills::OfMachine {
            told: of_machine(&counts).context("below recorded no vm.oom_kill")?,
            kernel,
        };
        let processes = dump("process", &["pid", "comm", "cgroup"])?;
        let processes = processes.lines().filter_map(|line| process(line, self.v2));
        let mut notes = Vec::new();
        if self.v2 {
            notes.push(
                "tells the kills of a cgroup as a rate per second without decimals, so one kill in 5 s is 0"
                    .to_owned(),
            );
        }
        Ok(Seen {
            kills,
            notes,
            processes: Processes::Each(processes.collect::<BTreeMap<_, _>>()),
            ..Seen::default()
        })
    }
}

/// From the first to the last sample.
fn of_machine(text: &str) -> Option<u64> {
    let mut counts = text
        .lines()
        .filter_map(|line| line.trim_end_matches(',').parse::<u64>().ok());
    let first = counts.next()?;
    Some(counts.next_back().unwrap_or(first) - first)
}

/// Of a process of the load, from `pid,comm,cgroup,`; of one that had ended the cgroup is `?`.
fn process(line: &str, v2: bool) -> Option<(u32, Process)> {
    let mut fields = line.split(',');
    let pid = fields.next()?.parse().ok()?;
    if fields.next()? != COMM {
        return None;
    }
    let cgroup = fields.next().filter(|cgroup| v2 && *cgroup != "?");
    let process = Process {
        faults: None,
        cgroup: cgroup.map(str::to_owned),
    };
    Some((pid, process))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_of_the_machine_are_those_since_the_first_sample() {
        assert_eq!(of_machine("OOM Kills,\n7,\n7,\n12,\n"), Some(5));
        assert_eq!(of_machine("OOM Kills,\n"), None);
    }

    #[test]
    fn only_processes_of_the_load_are_read() {
        let (pid, seen) = process("12,mt-rival,?,", true).expect("a process");
        assert_eq!((pid, seen.cgroup), (12, None));
        let (_, seen) = process("12,mt-rival,/a,", true).expect("a process");
        assert_eq!(seen.cgroup.as_deref(), Some("/a"));
        assert!(process("Pid,Comm,Cgroup,", true).is_none());
        assert!(process("12,sh,/a,", true).is_none());
    }
}
