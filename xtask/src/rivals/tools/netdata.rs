//! Netdata with its stock alarms, on the loopback only, told by nobody what to watch.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::super::http;
use super::super::load::unix_s;
use super::super::rival::{Rival, Running, Surroundings};
use super::super::seen::{Kills, Leak, Seen};
use super::super::truth::Truth;
use crate::vmstat::kernel_kills;

const PORT: u16 = 19_998;
const START_PATIENCE: Duration = Duration::from_secs(60);
/// As netdata names the cgroups of the load: `/` becomes `_`.
const CHART: &str = "cgroup_mt-rivals_";
const EVERY: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Netdata {
    running: Running,
    begun_unix_s: f64,
    kernel_before: u64,
    next: Duration,
    /// Cgroups of the load that had a chart at a look.
    charted: BTreeSet<String>,
}

pub fn start(around: &Surroundings) -> Result<Option<Box<dyn Rival>>> {
    let Some(program) = around.program("netdata") else {
        return Ok(None);
    };
    let own = around.scratch.join("netdata");
    for directory in ["etc/health.d", "cache", "lib", "log"] {
        fs::create_dir_all(own.join(directory))?;
    }
    // It would tell its makers of itself otherwise.
    fs::write(own.join("etc/.opt-out-from-anonymous-statistics"), "")?;
    let file = own.join("etc/netdata.conf");
    fs::write(&file, configuration(&own, &around.packages, around.v2))?;
    let mut command = around.command(&program);
    command.arg("-D").arg("-c").arg(&file);
    let running = Running::start(command, "netdata", &around.scratch)?;
    let begun = Instant::now();
    while http::get(PORT, "/api/v1/info").is_err() {
        if begun.elapsed() > START_PATIENCE {
            bail!("netdata does not answer: {}", running.text()?.trim());
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(Some(Box::new(Netdata {
        running,
        begun_unix_s: unix_s()?,
        kernel_before: kernel_kills()?,
        next: EVERY,
        charted: BTreeSet::new(),
    })))
}

/// Its defaults but for directories, the address, and what would leave the host. Where memory is on
/// version 1 beside a mount of version 2 it would look at the latter.
fn configuration(own: &Path, packages: &Path, v2: bool) -> String {
    let (own, packages) = (own.display(), packages.display());
    let unified = if v2 { "yes" } else { "no" };
    format!(
        "[global]\n run as user = root\n\
         [directories]\n config = {own}/etc\n log = {own}/log\n cache = {own}/cache\n lib = {own}/lib\n \
         stock config = {packages}/usr/lib/netdata/conf.d\n web = {packages}/usr/share/netdata/web\n \
         plugins = {packages}/usr/lib/netdata/plugins.d\n health config = {own}/etc/health.d\n \
         stock health config = {packages}/usr/lib/netdata/conf.d/health.d\n\
         [web]\n bind to = 127.0.0.1:{PORT}\n\
         [cloud]\n enabled = no\n[registry]\n enabled = no\n[statsd]\n enabled = no\n\
         [plugin:cgroups]\n use unified cgroups = {unified}\n"
    )
}

impl Netdata {
    fn look(&mut self) -> Result<()> {
        let charts: Value = serde_json::from_str(&http::get(PORT, "/api/v1/charts")?)?;
        let charts = charts["charts"].as_object().into_iter().flatten();
        let cgroups = charts.filter_map(|(name, _)| {
            let cgroup = name.strip_prefix(CHART)?;
            Some(cgroup.split('.').next()?.to_owned())
        });
        self.charted.extend(cgroups);
        Ok(())
    }
}

impl Rival for Netdata {
    fn name(&self) -> String {
        "netdata, stock alarms".to_owned()
    }

    fn pid(&self) -> u32 {
        self.running.pid()
    }

    fn tick(&mut self, elapsed: Duration) -> Result<()> {
        if elapsed < self.next {
            return Ok(());
        }
        self.next += EVERY;
        self.look()
    }

    fn end(mut self: Box<Self>, truth: &Truth) -> Result<Seen> {
        self.look()?;
        let seconds = (unix_s()? - self.begun_unix_s).ceil() as u64;
        let kernel = kernel_kills()? - self.kernel_before;
        // A second per point, so that the rate of a second is the number of kills in it.
        let path = format!("/api/v1/data?chart=mem.oom_kill&after=-{seconds}&format=json");
        let data: Value = serde_json::from_str(&http::get(PORT, &path)?)?;
        let rows = data["data"].as_array().context("netdata has no data")?;
        let kills: f64 = rows.iter().filter_map(|row| row[1].as_f64()).sum();
        let alarms: Value = serde_json::from_str(&http::get(PORT, "/api/v1/alarm_log")?)?;
        let mut notes = vec![format!(
            "charts of {} of the load's {} cgroups",
            self.charted.len(),
            truth.cgroups.len()
        )];
        let alarms = alarms.as_array().map_or(&[][..], Vec::as_slice);
        let raised =
            |alarm: &&Value| matches!(alarm["status"].as_str(), Some("WARNING" | "CRITICAL"));
        let raised: Vec<&Value> = alarms.iter().filter(raised).collect();
        let names: BTreeSet<&str> = raised
            .iter()
            .filter(|alarm| alarm["when"].as_f64() >= Some(truth.begun_unix_s))
            .filter(|alarm| about_memory(alarm))
            .filter_map(|alarm| alarm["name"].as_str())
            .collect();
        if !names.is_empty() {
            let names: Vec<_> = names.into_iter().collect();
            notes.push(format!("alarms about memory: {}", names.join(", ")));
        }
        // Without a chart there is nothing that an alarm could be raised of.
        let leak = (!self.charted.is_empty()).then(|| Leak {
            told_after: first_alarm(&raised, &truth.leak.cgroup, truth),
            false_alarms: truth
                .innocent
                .iter()
                .filter(|cgroup| first_alarm(&raised, cgroup, truth).is_some())
                .cloned()
                .collect(),
        });
        self.running.end(libc::SIGTERM)?;
        Ok(Seen {
            kills: Kills::OfMachine {
                told: kills.round() as u64,
                kernel,
            },
            leak,
            notes,
            ..Seen::default()
        })
    }
}

fn about_memory(alarm: &Value) -> bool {
    let text = |field: &str| alarm[field].as_str().unwrap_or_default();
    let words = ["ram", "oom", "mem", "swap"];
    words.iter().any(|word| text("name").contains(word)) || text("component") == "Memory"
}

fn first_alarm(raised: &[&Value], cgroup: &str, truth: &Truth) -> Option<Duration> {
    let chart = format!("cgroup{}.", cgroup.replace('/', "_"));
    let of_it = raised.iter().filter(|alarm| {
        about_memory(alarm)
            && alarm["chart"]
                .as_str()
                .is_some_and(|name| name.starts_with(&chart))
    });
    let times = of_it.filter_map(|alarm| alarm["when"].as_f64());
    let first = times
        .map(|when| when - truth.begun_unix_s)
        .min_by(f64::total_cmp)?;
    Some(Duration::from_secs_f64(first.max(0.0)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_alarm_of_a_cgroup_counts_and_one_of_a_namesake_does_not() {
        let truth = Truth {
            begun_unix_s: 100.0,
            ..Truth::default()
        };
        let alarm = |chart: &str, when: u64| json!({"name": "cgroup_ram_in_use", "chart": chart, "when": when, "status": "WARNING"});
        let alarms = [
            alarm("cgroup_mt-rivals_leak.mem_usage", 160),
            alarm("cgroup_mt-rivals_leak.mem_usage", 130),
            alarm("cgroup_mt-rivals_leak2.mem_usage", 110),
        ];
        let alarms: Vec<&Value> = alarms.iter().collect();
        let first = |cgroup| first_alarm(&alarms, cgroup, &truth);
        assert_eq!(first("/mt-rivals/leak"), Some(Duration::from_secs(30)));
        assert_eq!(first("/mt-rivals/cache"), None);
    }
}
