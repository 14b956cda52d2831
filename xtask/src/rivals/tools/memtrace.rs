//! memtrace with its defaults, JSON lines into a file.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::super::rival::{Rival, Running, Surroundings};
use super::super::seen::{Ended, Kill, Kills, Leak, Processes, Seen};
use super::super::truth::Truth;
use crate::process;

#[derive(Debug)]
pub struct Memtrace(Running);

pub fn start(around: &Surroundings) -> Result<Option<Box<dyn Rival>>> {
    let mut command = Command::new(&around.memtrace);
    command
        .args(["run", "--output", "json", "--config", "none"])
        .args(["--api-socket", "none", "--identity", "none", "--state-dir"])
        .arg(around.scratch.join("memtrace-state"));
    let running = Running::start(command, "memtrace", &around.scratch)?;
    let running = running.wait_for("\"type\":\"start\"")?;
    Ok(Some(Box::new(Memtrace(running))))
}

impl Rival for Memtrace {
    fn name(&self) -> String {
        "memtrace run".to_owned()
    }

    fn pid(&self) -> u32 {
        self.0.pid()
    }

    fn end(self: Box<Self>, truth: &Truth) -> Result<Seen> {
        let text = self.0.end(libc::SIGTERM)?;
        let mut told = Told::default();
        for line in text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
        {
            told.add(&line, truth);
        }
        let told_after = match &told.leak_time {
            Some(time) => Some(Duration::from_secs_f64(
                (unix_s(time)? - truth.begun_unix_s).max(0.0),
            )),
            None => None,
        };
        let lost = told
            .lost
            .iter()
            .map(|(cause, count)| format!("{cause} {count}"));
        let lost: Vec<_> = lost.collect();
        let mut notes = vec![if lost.is_empty() {
            "counted no loss of its own".to_owned()
        } else {
            format!("losses that it counted: {}", lost.join(", "))
        }];
        notes.extend(told.leak_words);
        Ok(Seen {
            kills: Kills::Each(told.kills.into_values().collect()),
            processes: Processes::OfCgroups(told.ended),
            leak: Some(Leak {
                told_after,
                false_alarms: told.false_alarms,
            }),
            notes,
        })
    }
}

#[derive(Debug, Default)]
struct Told {
    /// By pid: an incident that is completed later comes twice.
    kills: BTreeMap<u32, Kill>,
    ended: BTreeMap<String, Ended>,
    leak_time: Option<String>,
    leak_words: Option<String>,
    false_alarms: Vec<String>,
    lost: BTreeMap<String, u64>,
}

impl Told {
    fn add(&mut self, line: &Value, truth: &Truth) {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        match line["type"].as_str() {
            Some("oom_incident") => {
                for victim in line["victims"].as_array().into_iter().flatten() {
                    let Some(pid) = victim["pid"].as_u64() else {
                        continue;
                    };
                    if victim["killed"] != true {
                        continue;
                    }
                    let kill = Kill {
                        pid: pid as u32,
                        cgroup: text(&victim["cgroup"]),
                        limit_cgroup: text(&line["charged"]["cgroup"]),
                        trigger_pid: line["trigger"]["pid"].as_u64().map(|pid| pid as u32),
                        anon_bytes: victim["anon_bytes"].as_u64(),
                    };
                    self.kills.insert(kill.pid, kill);
                }
            }
            Some("cgroup") => {
                let number = |field: &str| line[field].as_u64().unwrap_or(0);
                if let Some(cgroup) = text(&line["cgroup"])
                    && number("exits") > 0
                {
                    let ended = Ended {
                        processes: number("exits"),
                        faults: number("exited_minor_faults") + number("exited_major_faults"),
                    };
                    self.ended.insert(cgroup, ended);
                }
            }
            Some("leak") => {
                let is_told = matches!(line["event"].as_str(), Some("suspected" | "confirmed"));
                let cgroup = text(&line["cgroup"]).unwrap_or_default();
                if is_told && cgroup == truth.leak.cgroup && self.leak_time.is_none() {
                    self.leak_time = text(&line["time"]);
                    let rate = line["rate_bytes_per_hour"]["mid"].as_f64();
                    let real = truth.leak.bytes_per_second as f64 * 3600.0;
                    self.leak_words = rate.map(|rate| {
                        format!(
                            "the leak's rate was told as {:.2} times the real one",
                            rate / real
                        )
                    });
                } else if is_told && truth.innocent.contains(&cgroup) {
                    self.false_alarms.push(cgroup);
                }
            }
            Some("self") => {
                let lost = line["lost"].as_object().into_iter().flatten();
                let lost = lost.filter_map(|(cause, count)| Some((cause.clone(), count.as_u64()?)));
                self.lost = lost.filter(|(_, count)| *count > 0).collect();
            }
            _ => {}
        }
    }
}

/// Of a time in RFC 3339.
fn unix_s(time: &str) -> Result<f64> {
    let mut date = Command::new("date");
    date.args(["-d", time, "+%s.%N"]);
    Ok(process::stdout(&mut date)?.trim().parse()?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_victim_is_a_kill_once_and_a_mark_is_none() {
        let truth = Truth::default();
        let mut told = Told::default();
        let incident = json!({"type": "oom_incident", "charged": {"cgroup": "/pod"},
            "trigger": {"pid": 8}, "victims": [
                {"pid": 7, "cgroup": "/pod/a", "anon_bytes": 4096, "killed": true},
                {"pid": 9, "cgroup": "/pod/a", "killed": false}]});
        told.add(&incident, &truth);
        told.add(&incident, &truth);
        assert_eq!(told.kills.len(), 1);
        let kill = &told.kills[&7];
        assert_eq!(kill.limit_cgroup.as_deref(), Some("/pod"));
        assert_eq!((kill.trigger_pid, kill.anon_bytes), (Some(8), Some(4096)));
    }

    #[test]
    fn only_a_told_leak_counts_and_one_of_a_cache_is_a_false_alarm() {
        let truth = Truth {
            leak: super::super::super::truth::Growth {
                cgroup: "/leak".to_owned(),
                bytes_per_second: 1024,
                limit_bytes: 1 << 20,
            },
            innocent: vec!["/cache".to_owned()],
            ..Truth::default()
        };
        let mut told = Told::default();
        let leak = |cgroup: &str, event: Value| json!({"type": "leak", "cgroup": cgroup, "event": event, "time": "t"});
        told.add(&leak("/leak", Value::Null), &truth);
        assert_eq!(told.leak_time, None);
        told.add(&leak("/leak", json!("suspected")), &truth);
        told.add(&leak("/cache", json!("suspected")), &truth);
        assert_eq!(told.leak_time.as_deref(), Some("t"));
        assert_eq!(told.false_alarms, ["/cache"]);
    }
}
