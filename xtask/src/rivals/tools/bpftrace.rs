//! bpftrace with the two scripts of this directory, as one writes them on the spot.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

use super::super::load::COMM;
use super::super::rival::{Rival, Running, Surroundings};
use super::super::seen::{Kill, Kills, Process, Processes, Seen};
use super::super::truth::Truth;

const OOM: &str = include_str!("../scripts/oom.bt");
const PROCESSES: &str = include_str!("../scripts/processes.bt");

#[derive(Debug)]
pub struct Oom(Running);

#[derive(Debug)]
pub struct Exits(Running);

pub fn oom(around: &Surroundings) -> Result<Option<Box<dyn Rival>>> {
    let running = start(around, OOM, "bpftrace oom")?;
    Ok(running.map(|running| Box::new(Oom(running)) as Box<dyn Rival>))
}

pub fn processes(around: &Surroundings) -> Result<Option<Box<dyn Rival>>> {
    let running = start(around, PROCESSES, "bpftrace processes")?;
    Ok(running.map(|running| Box::new(Exits(running)) as Box<dyn Rival>))
}

fn start(around: &Surroundings, script: &str, name: &'static str) -> Result<Option<Running>> {
    let Some(program) = around.program("bpftrace") else {
        return Ok(None);
    };
    let script = script.replace("[MEMORY]", &format!("[{}]", memory_controller()?));
    let mut command = std::process::Command::new(program);
    command.args(["-B", "line", "-e", &script]);
    let running = Running::start(command, name, &around.scratch)?;
    running.wait_for("attached\n").map(Some)
}

/// Its number in the kernel's table of controllers: its place among those of /proc/cgroups.
fn memory_controller() -> Result<usize> {
    let table = fs::read_to_string("/proc/cgroups").context("cannot read /proc/cgroups")?;
    let mut controllers = table.lines().filter(|line| !line.starts_with('#'));
    controllers
        .position(|line| line.split_whitespace().next() == Some("memory"))
        .context("/proc/cgroups has no memory controller")
}

impl Rival for Oom {
    fn name(&self) -> String {
        "bpftrace, `oom.bt`".to_owned()
    }

    fn pid(&self) -> u32 {
        self.0.pid()
    }

    fn end(self: Box<Self>, truth: &Truth) -> Result<Seen> {
        let text = self.0.end(libc::SIGINT)?;
        let kills = text.lines().filter_map(|line| kill(line, truth));
        Ok(Seen {
            kills: Kills::Each(kills.collect()),
            notes: lost(&text),
            ..Seen::default()
        })
    }
}

impl Rival for Exits {
    fn name(&self) -> String {
        "bpftrace, `processes.bt`".to_owned()
    }

    fn pid(&self) -> u32 {
        self.0.pid()
    }

    fn end(self: Box<Self>, truth: &Truth) -> Result<Seen> {
        let text = self.0.end(libc::SIGINT)?;
        let ends = text.lines().filter_map(|line| exit(line, truth));
        Ok(Seen {
            processes: Processes::Each(ends.collect::<BTreeMap<_, _>>()),
            notes: lost(&text),
            ..Seen::default()
        })
    }
}

fn kill(line: &str, truth: &Truth) -> Option<Kill> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [
        "victim",
        pid,
        "trigger",
        trigger,
        "trigger_cgroup",
        cgroup,
        "anon_kib",
        anon,
        ..,
    ] = words[..]
    else {
        return None;
    };
    let (pid, trigger) = (pid.parse().ok()?, trigger.parse().ok()?);
    let cgroup = truth.path(cgroup.parse().ok()?);
    Some(Kill {
        pid,
        cgroup: cgroup.filter(|_| pid == trigger),
        limit_cgroup: None,
        trigger_pid: Some(trigger),
        anon_bytes: anon.parse::<u64>().ok().map(|kib| kib << 10),
    })
}

/// Of the load's processes.
fn exit(line: &str, truth: &Truth) -> Option<(u32, Process)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let ["exit", pid, COMM, "faults", faults, "cgroup", cgroup] = words[..] else {
        return None;
    };
    let process = Process {
        faults: faults.parse().ok(),
        cgroup: truth.path(cgroup.parse().ok()?),
    };
    Some((pid.parse().ok()?, process))
}

fn lost(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| line.contains("Lost "));
    lines.map(str::to_owned).take(3).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_victim_that_ran_out_itself_has_a_cgroup_and_another_has_none() {
        let truth = Truth {
            cgroups: BTreeMap::from([(5, "/a".to_owned())]),
            ..Truth::default()
        };
        let line = "victim 7 trigger 7 trigger_cgroup 5 anon_kib 8 file_kib 1 shmem_kib 0";
        let own = kill(line, &truth).expect("a kill");
        assert_eq!(
            (own.cgroup.as_deref(), own.anon_bytes),
            (Some("/a"), Some(8192))
        );
        let other = line.replace("trigger 7", "trigger 8");
        let other = kill(&other, &truth).expect("a kill");
        assert_eq!((other.cgroup, other.trigger_pid), (None, Some(8)));
        assert!(kill("attached", &truth).is_none());
    }

    #[test]
    fn only_ends_of_the_load_are_read() {
        let truth = Truth::default();
        let (pid, process) = exit("exit 7 mt-rival faults 12 cgroup 5", &truth).expect("a process");
        assert_eq!((pid, process.faults, process.cgroup), (7, Some(12), None));
        assert!(exit("exit 7 sh faults 12 cgroup 5", &truth).is_none());
    }
}
