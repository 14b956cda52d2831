//! `dmesg --follow-new`: the kernel's own words about an OOM, which it holds back when there are many.

use anyhow::Result;

use super::super::rival::{Rival, Running, Surroundings};
use super::super::seen::{Kill, Kills, Seen};
use super::super::truth::Truth;

#[derive(Debug)]
pub struct KernelLog(Running);

pub fn start(around: &Surroundings) -> Result<Option<Box<dyn Rival>>> {
    let Some(dmesg) = around.program("dmesg") else {
        return Ok(None);
    };
    let mut command = std::process::Command::new(dmesg);
    command.arg("--follow-new");
    let running = Running::start(command, "kernel log", &around.scratch)?;
    Ok(Some(Box::new(KernelLog(running))))
}

impl Rival for KernelLog {
    fn name(&self) -> String {
        "kernel log (`dmesg --follow-new`)".to_owned()
    }

    fn pid(&self) -> u32 {
        self.0.pid()
    }

    fn end(self: Box<Self>, _truth: &Truth) -> Result<Seen> {
        let text = self.0.end(libc::SIGTERM)?;
        let held_back = text.matches("callbacks suppressed").count();
        let notes = (held_back > 0)
            .then(|| format!("the kernel said {held_back} times that it held lines back"));
        Ok(Seen {
            kills: Kills::Each(kills(&text)),
            notes: notes.into_iter().collect(),
            ..Seen::default()
        })
    }
}

/// The kernel holds a lock while it writes about one kill, so lines of two do not mix; what stands before
/// the line of the kill itself is left out when there are more than ten in five seconds.
fn kills(log: &str) -> Vec<Kill> {
    let mut kills = Vec::new();
    let mut next = Kill::default();
    for line in log.lines() {
        if line.contains(" invoked oom-killer: ") {
            next = Kill::default();
        } else if let Some(rest) = after(line, "CPU: ")
            && let Some(pid) = after(rest, " PID: ")
        {
            next.trigger_pid = number(pid).map(|pid| pid as u32);
        } else if let Some(rest) = after(line, "oom-kill:constraint=") {
            let field = |name: &str| {
                let value = after(rest, name)?;
                // A path may contain anything but is followed by the next field.
                Some(value.split(",task").next()?.to_owned())
            };
            next.limit_cgroup = field(",oom_memcg=");
            next.cgroup = field(",task_memcg=");
        } else if let Some(rest) = after(line, "Killed process ") {
            next.pid = number(rest).unwrap_or(0) as u32;
            next.anon_bytes = after(rest, "anon-rss:")
                .and_then(number)
                .map(|kib| kib << 10);
            kills.push(std::mem::take(&mut next));
        }
    }
    kills
}

fn after<'a>(line: &'a str, words: &str) -> Option<&'a str> {
    Some(line.split_once(words)?.1)
}

fn number(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "\
[1.0] app invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0
[1.0] CPU: 1 UID: 0 PID: 77 Comm: app Not tainted 6.18 #1
[1.0] oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/pod,task_memcg=/pod/a,task=app,pid=78,uid=0
[1.0] Memory cgroup out of memory: Killed process 78 (app) total-vm:69064kB, anon-rss:8192kB, file-rss:2180kB
";
    const SHORT: &str =
        "[1.1] Memory cgroup out of memory: Killed process 79 (app) total-vm:9kB, anon-rss:4kB\n";

    #[test]
    fn a_whole_report_names_everybody_and_a_shortened_one_only_the_victim() {
        let kills = kills(&format!("{WHOLE}{SHORT}"));
        assert_eq!(kills.len(), 2);
        assert_eq!((kills[0].pid, kills[0].trigger_pid), (78, Some(77)));
        assert_eq!(kills[0].limit_cgroup.as_deref(), Some("/pod"));
        assert_eq!(kills[0].cgroup.as_deref(), Some("/pod/a"));
        assert_eq!((kills[1].pid, kills[1].anon_bytes), (79, Some(4096)));
        assert_eq!((&kills[1].cgroup, kills[1].trigger_pid), (&None, None));
    }
}
