//! atop as its service runs it, a raw log with process accounting, here every 10 s; read afterwards.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::super::load::COMM;
use super::super::rival::{Rival, Running, Surroundings};
use super::super::seen::{Process, Processes, Seen};
use super::super::truth::Truth;
use crate::process;

const EVERY_S: u64 = 10;

#[derive(Debug)]
pub struct Atop {
    running: Running,
    program: PathBuf,
    log: PathBuf,
}

pub fn start(around: &Surroundings) -> Result<Option<Box<dyn Rival>>> {
    let Some(program) = around.program("atop") else {
        return Ok(None);
    };
    let log = around.scratch.join("atop.log");
    // The kernel accounts no process while less than 4% of the disk is free that it writes to; there
    // atop would be blind for a reason that is none of its own. The mount is this process's alone.
    let in_memory = "mount -t tmpfs -o size=64m tmpfs /var/cache && exec \"$@\"";
    let mut command = around.command(Path::new("unshare"));
    command.args(["--mount", "sh", "-c", in_memory, "sh"]);
    command
        .arg(&program)
        .arg("-w")
        .arg(&log)
        .arg(EVERY_S.to_string());
    let running = Running::start(command, "atop", &around.scratch)?;
    Ok(Some(Box::new(Atop {
        running,
        program,
        log,
    })))
}

impl Rival for Atop {
    fn name(&self) -> String {
        format!("atop, log every {EVERY_S} s")
    }

    fn pid(&self) -> u32 {
        self.running.pid()
    }

    fn end(self: Box<Self>, _truth: &Truth) -> Result<Seen> {
        // Its last look.
        thread::sleep(Duration::from_secs(EVERY_S));
        self.running.end(libc::SIGTERM)?;
        let mut read = Command::new(&self.program);
        read.arg("-r").arg(&self.log).args(["-P", "PRM"]);
        let text = process::stdout(&mut read)?;
        let ends = text.lines().filter_map(end);
        Ok(Seen {
            processes: Processes::Each(ends.collect::<BTreeMap<_, _>>()),
            ..Seen::default()
        })
    }
}

/// Of a process of the load, from a line `PRM host epoch date time interval pid (name) state …`, whose
/// further fields are page size, five sizes, minor and major faults.
fn end(line: &str) -> Option<(u32, Process)> {
    let (before, behind) = line.split_once(&format!(" ({COMM}) E "))?;
    let pid = before.split_whitespace().last()?.parse().ok()?;
    let fields: Vec<&str> = behind.split_whitespace().collect();
    let faults = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let process = Process {
        faults: faults(6).zip(faults(7)).map(|(minor, major)| minor + major),
        cgroup: None,
    };
    Some((pid, process))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ended_processes_of_the_load_are_read() {
        let line =
            "PRM vm 1795339570 2026/11/22 09:26:10 5 11949 (mt-rival) E 4096 0 0 0 0 0 17 2 0 0";
        let (pid, process) = end(line).expect("a process");
        assert_eq!((pid, process.faults), (11_949, Some(19)));
        assert!(end(&line.replace(" E ", " S ")).is_none());
        assert!(end(&line.replace("mt-rival", "sh")).is_none());
    }
}
