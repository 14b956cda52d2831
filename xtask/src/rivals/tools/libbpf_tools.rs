//! Programs of bcc's libbpf-tools: `oomkill`, which needs kprobes, and `exitsnoop`.

use std::collections::BTreeMap;

use anyhow::Result;

use super::super::load::COMM;
use super::super::rival::{Rival, Running, Surroundings};
use super::super::seen::{Kill, Kills, Process, Processes, Seen};
use super::super::truth::Truth;

#[derive(Debug)]
pub struct Exitsnoop(Running);

#[derive(Debug)]
pub struct Oomkill(Running);

pub fn exitsnoop(around: &Surroundings) -> Result<Option<Box<dyn Rival>>> {
    let running = start(around, "exitsnoop")?;
    Ok(running.map(|running| Box::new(Exitsnoop(running)) as Box<dyn Rival>))
}

pub fn oomkill(around: &Surroundings) -> Result<Option<Box<dyn Rival>>> {
    let running = start(around, "oomkill")?;
    Ok(running.map(|running| Box::new(Oomkill(running)) as Box<dyn Rival>))
}

fn start(around: &Surroundings, program: &'static str) -> Result<Option<Running>> {
    let Some(path) = around.program(program) else {
        return Ok(None);
    };
    let running = Running::start(around.command(&path), program, &around.scratch)?;
    running.wait_for_programs().map(Some)
}

impl Rival for Exitsnoop {
    fn name(&self) -> String {
        "libbpf-tools `exitsnoop`".to_owned()
    }

    fn pid(&self) -> u32 {
        self.0.pid()
    }

    fn end(self: Box<Self>, _truth: &Truth) -> Result<Seen> {
        let text = self.0.end(libc::SIGINT)?;
        let ends = text.lines().filter_map(exit);
        Ok(Seen {
            processes: Processes::Each(ends.collect::<BTreeMap<_, _>>()),
            notes: lost(&text),
            ..Seen::default()
        })
    }
}

impl Rival for Oomkill {
    fn name(&self) -> String {
        "libbpf-tools `oomkill`".to_owned()
    }

    fn pid(&self) -> u32 {
        self.0.pid()
    }

    fn end(self: Box<Self>, _truth: &Truth) -> Result<Seen> {
        let text = self.0.end(libc::SIGINT)?;
        Ok(Seen {
            kills: Kills::Each(text.lines().filter_map(kill).collect()),
            notes: lost(&text),
            ..Seen::default()
        })
    }
}

fn lost(text: &str) -> Vec<String> {
    let lines = text
        .lines()
        .filter(|line| line.to_lowercase().contains("lost "));
    lines.map(str::to_owned).take(3).collect()
}

/// `PCOMM PID PPID TID AGE EXIT_CODE`, of a process of the load, not of one of its threads.
fn exit(line: &str) -> Option<(u32, Process)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        [COMM, pid, _, tid, ..] if pid == tid => Some((pid.parse().ok()?, Process::default())),
        _ => None,
    }
}

/// `TIME Triggered by PID 1 ("a"), OOM kill of PID 2 ("b"), 3 pages, loadavg: …`.
fn kill(line: &str) -> Option<Kill> {
    let number = |words: &str| -> Option<u32> {
        let behind = line.split_once(words)?.1;
        behind.split_whitespace().next()?.parse().ok()
    };
    Some(Kill {
        pid: number("OOM kill of PID ")?,
        trigger_pid: number("Triggered by PID "),
        ..Kill::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oomkill_names_trigger_and_victim() {
        let line = "10:00:00 Triggered by PID 12 (\"a\"), OOM kill of PID 13 (\"b\"), 2048 pages, loadavg: 1";
        let kill = kill(line).expect("a kill");
        assert_eq!((kill.pid, kill.trigger_pid), (13, Some(12)));
    }

    #[test]
    fn exitsnoop_names_processes_and_threads_and_only_the_former_count() {
        assert!(exit("mt-rival 12 1 12 0.01 0").is_some_and(|(pid, _)| pid == 12));
        assert!(exit("mt-rival 12 1 13 0.01 0").is_none());
        assert!(exit("sh 12 1 12 0.01 0").is_none());
    }
}
