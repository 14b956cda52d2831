//! What memtrace told of each kill, where, and how long after it.
//! Must not make kills or start anything.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::ChildStdout;
use std::sync::mpsc::Sender;
use std::time::Duration;

use serde_json::Value;

use super::priority;
use super::receiver::Arrival;
use crate::bench::clock;

/// An `oom_kill`, `oom_incident` or `self` line.
#[derive(Debug)]
pub struct Line {
    /// `CLOCK_BOOTTIME` when it had been read to its end.
    pub at_ns: u64,
    pub text: Vec<u8>,
}

/// Passes these lines on and no others; gives the last `self` when the output ends.
pub fn read(mut output: BufReader<ChildStdout>, lines: &Sender<Line>) -> Option<Value> {
    // Told by `Latency::read_at_once`.
    let _ = priority::raise();
    let mut own = None;
    let mut text = Vec::new();
    while output
        .read_until(b'\n', &mut text)
        .is_ok_and(|read| read > 0)
    {
        let at_ns = clock::boot_time_ns().ok()?;
        let is_own = text.starts_with(br#"{"type":"self""#);
        if is_own {
            own = Some(text.clone());
        }
        if is_own || text.starts_with(br#"{"type":"oom_"#) {
            let text = std::mem::take(&mut text);
            // Nobody asks any more when the measurement is over.
            let _ = lines.send(Line { at_ns, text });
        }
        text.clear();
    }
    serde_json::from_slice(&own?).ok()
}

/// Lines and events, by victim.
#[derive(Debug, Default)]
pub struct Told {
    marks: BTreeMap<u64, u64>,
    incidents: BTreeMap<u64, Incident>,
    events: Vec<(u64, String)>,
}

/// An `oom_incident` line about a victim.
#[derive(Debug)]
struct Incident {
    at_ns: u64,
    /// The mark, on the same clock.
    killed_ns: u64,
    id: String,
    died_after_ns: Option<u64>,
}

/// How long after the kill, for each one that was told; shortest first.
#[derive(Debug, Default)]
pub struct Delays {
    /// To the `oom_kill` line.
    pub mark: Vec<Duration>,
    /// To the `oom_incident` line.
    pub incident: Vec<Duration>,
    /// To the OTLP event.
    pub event: Vec<Duration>,
    /// To the end of the victim's last thread, which an incident waits for.
    pub death: Vec<Duration>,
}

impl Told {
    /// Takes a line in; what is no complete JSON object about a victim counts as not told.
    pub fn line(&mut self, line: &Line) {
        let Ok(value) = serde_json::from_slice::<Value>(&line.text) else {
            return;
        };
        if value["type"] == "oom_kill" {
            if let Some(pid) = value["victim_pid"].as_u64() {
                self.marks.entry(pid).or_insert(line.at_ns);
            }
            return;
        }
        let (Some(killed_ns), Some(id)) = (value["boot_time_ns"].as_u64(), value["id"].as_str())
        else {
            return;
        };
        for victim in value["victims"].as_array().into_iter().flatten() {
            if let Some(pid) = victim["pid"].as_u64() {
                self.incidents.entry(pid).or_insert_with(|| Incident {
                    at_ns: line.at_ns,
                    killed_ns,
                    id: id.to_owned(),
                    died_after_ns: victim["died_after_ns"].as_u64(),
                });
            }
        }
    }

    pub fn arrival(&mut self, arrival: &Arrival) {
        let text = String::from_utf8_lossy(&arrival.body).into_owned();
        self.events.push((arrival.at_ns, text));
    }

    /// Whether all three ways told of every one of these victims.
    pub fn is_complete(&self, victims: &BTreeSet<u64>) -> bool {
        let delays = self.delays(victims);
        [&delays.mark, &delays.incident, &delays.event]
            .iter()
            .all(|delays| delays.len() == victims.len())
    }

    /// Of these victims. The moment of a kill is that of the incident: one without is told by
    /// nobody here.
    pub fn delays(&self, victims: &BTreeSet<u64>) -> Delays {
        let mut delays = Delays::default();
        for pid in victims {
            let Some(incident) = self.incidents.get(pid) else {
                continue;
            };
            let after = |at_ns: u64| Duration::from_nanos(at_ns.saturating_sub(incident.killed_ns));
            delays.incident.push(after(incident.at_ns));
            delays.mark.extend(self.marks.get(pid).copied().map(after));
            delays.event.extend(self.event(&incident.id).map(after));
            let death = incident.died_after_ns.map(Duration::from_nanos);
            delays.death.extend(death);
        }
        for sorted in [
            &mut delays.mark,
            &mut delays.incident,
            &mut delays.event,
            &mut delays.death,
        ] {
            sorted.sort_unstable();
        }
        delays
    }

    /// When the first event with this id arrived.
    fn event(&self, id: &str) -> Option<u64> {
        let about = self.events.iter().filter(|(_, text)| text.contains(id));
        about.map(|(at_ns, _)| *at_ns).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(at_ns: u64, text: &str) -> Line {
        let text = text.as_bytes().to_vec();
        Line { at_ns, text }
    }

    #[test]
    fn a_line_and_an_event_are_joined_with_the_kill_by_victim_and_id() {
        let mut told = Told::default();
        told.line(&line(1_500, r#"{"type":"oom_kill","victim_pid":7}"#));
        told.line(&line(
            9_000,
            r#"{"type":"oom_incident","id":"a-1","boot_time_ns":1000,
                "victims":[{"pid":7,"died_after_ns":300}]}"#,
        ));
        let both = BTreeSet::from([7, 8]);
        let seven = BTreeSet::from([7]);
        assert!(!told.is_complete(&seven), "no event yet");
        told.arrival(&Arrival {
            at_ns: 9_100,
            body: b"\x0a\xffid\x12\x05a-1\x00".to_vec(),
        });
        assert!(told.is_complete(&seven));
        assert!(!told.is_complete(&both));
        let delays = told.delays(&both);
        let ns = Duration::from_nanos;
        assert_eq!(delays.mark, [ns(500)]);
        assert_eq!(delays.incident, [ns(8_000)]);
        assert_eq!(delays.event, [ns(8_100)]);
        assert_eq!(delays.death, [ns(300)]);
    }

    #[test]
    fn a_kill_without_an_incident_has_no_moment_to_count_from() {
        let mut told = Told::default();
        told.line(&line(1_500, r#"{"type":"oom_kill","victim_pid":7}"#));
        told.line(&line(1_600, r#"{"type":"oom_inci"#));
        assert!(told.delays(&BTreeSet::from([7])).mark.is_empty());
    }
}
