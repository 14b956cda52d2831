//! earlyoom with its thresholds, told to kill nobody: it looks at the memory of the machine.

use anyhow::Result;

use super::super::rival::{Rival, Running, Surroundings};
use super::super::seen::{Kill, Kills, Seen};
use super::super::truth::Truth;

#[derive(Debug)]
pub struct Earlyoom(Running);

pub fn start(around: &Surroundings) -> Result<Option<Box<dyn Rival>>> {
    let Some(program) = around.program("earlyoom") else {
        return Ok(None);
    };
    let mut command = around.command(&program);
    command.arg("--dryrun");
    let running = Running::start(command, "earlyoom", &around.scratch)?;
    Ok(Some(Box::new(Earlyoom(running))))
}

impl Rival for Earlyoom {
    fn name(&self) -> String {
        "earlyoom `--dryrun`".to_owned()
    }

    fn pid(&self) -> u32 {
        self.0.pid()
    }

    fn end(self: Box<Self>, _truth: &Truth) -> Result<Seen> {
        let text = self.0.end(libc::SIGTERM)?;
        let kills = text.lines().filter_map(kill);
        Ok(Seen {
            kills: Kills::Each(kills.collect()),
            notes: vec!["kills by itself when the machine runs short, and no cgroup".to_owned()],
            ..Seen::default()
        })
    }
}

fn kill(line: &str) -> Option<Kill> {
    let (_, behind) = line.split_once(" to process ")?;
    let pid = behind.split_whitespace().next()?.parse().ok()?;
    Some(Kill {
        pid,
        ..Kill::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_it_would_send_is_a_kill() {
        let line = "sending SIGTERM to process 12 uid 0 \"app\": badness 700, VmRSS 9 MiB";
        assert_eq!(kill(line).map(|kill| kill.pid), Some(12));
        assert!(kill("mem avail: 2000 of 7000 MiB (28.00%)").is_none());
    }
}
