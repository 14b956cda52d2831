//! What agents without eBPF do at best, as a shell loop: the kernel's count of kills of every cgroup, every 10 s.

use std::collections::BTreeMap;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::super::rival::{Rival, Running, Surroundings};
use super::super::seen::{Kills, Seen};
use super::super::truth::Truth;

const EVERY_S: u64 = 10;

#[derive(Debug)]
pub struct Poll {
    running: Running,
    file: &'static str,
    hierarchy: String,
}

pub fn start(around: &Surroundings) -> Result<Option<Box<dyn Rival>>> {
    let file = if around.v2 {
        "memory.events"
    } else {
        "memory.oom_control"
    };
    let hierarchy = around.hierarchy.display().to_string();
    let loop_text = format!(
        "while :; do find {hierarchy} -name {file} -exec grep -H '^oom_kill ' {{}} + 2>/dev/null; sleep {EVERY_S}; done"
    );
    let mut command = Command::new("sh");
    command.args(["-c", &loop_text]);
    let running = Running::start(command, "poll", &around.scratch)?;
    Ok(Some(Box::new(Poll {
        running,
        file,
        hierarchy,
    })))
}

impl Rival for Poll {
    fn name(&self) -> String {
        format!("shell loop over `{}`, every {EVERY_S} s", self.file)
    }

    fn pid(&self) -> u32 {
        self.running.pid()
    }

    fn end(self: Box<Self>, _truth: &Truth) -> Result<Seen> {
        thread::sleep(Duration::from_secs(1));
        let text = self.running.end(libc::SIGKILL)?;
        Ok(Seen {
            kills: Kills::OfCgroups(counts(&text, &self.hierarchy, self.file)),
            ..Seen::default()
        })
    }
}

/// The last count of each cgroup.
fn counts(text: &str, hierarchy: &str, file: &str) -> BTreeMap<String, u64> {
    let count = |line: &str| {
        let (path, count) = line.strip_prefix(hierarchy)?.rsplit_once(":oom_kill ")?;
        let cgroup = path.strip_suffix(file)?.strip_suffix('/')?;
        Some((cgroup.to_owned(), count.trim().parse().ok()?))
    };
    text.lines().filter_map(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_count_of_a_cgroup_stands() {
        let text = "/h/a/memory.events:oom_kill 1\n/h/b/memory.events:oom_kill 0\n\
                    /h/a/memory.events:oom_kill 3\n";
        let counts = counts(text, "/h", "memory.events");
        assert_eq!(counts["/a"], 3);
        assert_eq!(counts["/b"], 0);
    }
}
