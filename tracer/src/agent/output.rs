//! Standard output: one of table, JSON lines or nothing, filtered by cgroup.

use std::{
    io::{self, IsTerminal as _, Write as _, stdout},
    time::{Duration, SystemTime},
};

use globset::GlobMatcher;

use crate::{
    export::console::{
        incident as console_incident, json::Json, limit, size, table::Table, timestamp,
        writer::QueuedWriter,
    },
    growth::GrowthChange,
    incident::Incident,
    loader::Verdict,
    model::{
        cgroup::Cgroup,
        snapshot::{LimitChange, OomKill, Snapshot},
    },
    probes::lifecycle::LifecycleEvent,
};

use super::config::Output;

/// The chosen output and which cgroups it tells.
pub struct Outputs {
    sink: Sink,
    only: Option<GlobMatcher>,
}

enum Sink {
    Table(Table<QueuedWriter>),
    Json(Json<QueuedWriter>),
    Incidents(QueuedWriter),
    IncidentsJson(Json<QueuedWriter>),
    None,
}

impl Outputs {
    pub fn new(output: Output, only: Option<GlobMatcher>) -> io::Result<Self> {
        let out = || QueuedWriter::new(stdout());
        let sink = match output {
            Output::Table => {
                let colour = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
                Sink::Table(Table::new(out()?, colour).chosen_by(only.as_ref()))
            }
            Output::Json => Sink::Json(Json::new(out()?)),
            Output::Incidents => Sink::Incidents(out()?),
            Output::IncidentsJson => Sink::IncidentsJson(Json::new(out()?)),
            Output::None => Sink::None,
        };
        Ok(Self { sink, only })
    }

    fn writer(&mut self) -> Option<&mut QueuedWriter> {
        match &mut self.sink {
            Sink::Table(table) => Some(table.out()),
            Sink::Json(json) | Sink::IncidentsJson(json) => Some(json.out()),
            Sink::Incidents(out) => Some(out),
            Sink::None => None,
        }
    }

    /// Chunks of lines that a slow reader cost.
    pub fn dropped(&mut self) -> u64 {
        self.writer().map_or(0, |writer| writer.dropped())
    }

    /// Waits for the reader to take the rest, for a bounded time.
    pub fn finish(&mut self, deadline: Duration) {
        if let Some(writer) = self.writer() {
            writer.finish(deadline);
        }
    }

    /// Tells only cgroups that match from now on; `None`: all.
    pub fn tell_only(&mut self, only: Option<GlobMatcher>) {
        if let Sink::Table(table) = &mut self.sink {
            table.choose_by(only.as_ref());
        }
        self.only = only;
    }

    /// Whether a cgroup is among those to tell.
    pub fn wants(&self, cgroup: &Cgroup) -> bool {
        self.only
            .as_ref()
            .is_none_or(|only| only.is_match(&cgroup.path))
    }

    pub fn start(
        &mut self,
        time: SystemTime,
        kernel: &str,
        mode: &str,
        verdicts: &[Verdict],
    ) -> io::Result<()> {
        match &mut self.sink {
            Sink::Json(json) => json.start(&timestamp(time), kernel, mode, verdicts),
            Sink::Table(table) => {
                let attached = verdicts
                    .iter()
                    .filter(|verdict| verdict.attached.is_some())
                    .count();
                table.line(&format!(
                    "memtrace {} on Linux {kernel}, cgroup {mode}, {attached} of {} probes attached",
                    env!("CARGO_PKG_VERSION"),
                    verdicts.len()
                ))
            }
            Sink::Incidents(_) | Sink::IncidentsJson(_) | Sink::None => Ok(()),
        }
    }

    pub fn interval(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        match &mut self.sink {
            Sink::Json(json) => json.interval(snapshot),
            Sink::Table(table) => {
                let (width, height) = terminal_size::terminal_size()
                    .map_or((100, 24), |(width, height)| {
                        (width.0.into(), height.0.into())
                    });
                table.interval(snapshot, width, height)
            }
            Sink::Incidents(_) | Sink::IncidentsJson(_) | Sink::None => Ok(()),
        }
    }

    pub fn oom_kill(&mut self, kill: &OomKill) -> io::Result<()> {
        if let Some(writer) = self.writer() {
            writer.urgent();
        }
        match &mut self.sink {
            Sink::Json(json) => json.oom_kill(kill),
            Sink::Table(table) => table.oom_kill(kill),
            Sink::Incidents(_) | Sink::IncidentsJson(_) | Sink::None => Ok(()),
        }
    }

    /// A change of a verdict.
    pub fn leak(&mut self, change: &GrowthChange) -> io::Result<()> {
        match &mut self.sink {
            Sink::Json(json) => json.leak(change),
            Sink::Table(table) => table.leak(change),
            Sink::Incidents(_) | Sink::IncidentsJson(_) | Sink::None => Ok(()),
        }
    }

    /// A complete incident.
    pub fn incident(&mut self, incident: &Incident) -> io::Result<()> {
        if let Some(writer) = self.writer() {
            writer.urgent();
        }
        match &mut self.sink {
            Sink::Json(json) | Sink::IncidentsJson(json) => json.incident(incident),
            Sink::Table(table) => {
                let width = terminal_size::terminal_size().map_or(100, |(width, _)| width.0.into());
                table.incident(incident, width)
            }
            Sink::Incidents(out) => {
                writeln!(out, "{}", console_incident::line(incident))?;
                out.flush()
            }
            Sink::None => Ok(()),
        }
    }

    /// A limit that changed.
    pub fn limit_changed(&mut self, change: &LimitChange) -> io::Result<()> {
        match &mut self.sink {
            Sink::Json(json) => json.limit_changed(change),
            Sink::Table(table) => table.line(&limit::line(change)),
            Sink::Incidents(_) | Sink::IncidentsJson(_) | Sink::None => Ok(()),
        }
    }

    /// What Kubernetes says of an incident that was told before.
    pub fn kubernetes_report(&mut self, incident: &Incident) -> io::Result<()> {
        match &mut self.sink {
            Sink::Json(json) | Sink::IncidentsJson(json) => json.kubernetes_report(incident),
            Sink::Table(table) => table.line(&console_incident::reported(incident)),
            Sink::Incidents(out) => {
                writeln!(out, "{}", console_incident::reported(incident))?;
                out.flush()
            }
            Sink::None => Ok(()),
        }
    }

    pub fn process_exit(
        &mut self,
        time: SystemTime,
        event: &LifecycleEvent,
        cgroup: Option<&Cgroup>,
    ) -> io::Result<()> {
        if cgroup.is_some_and(|cgroup| !self.wants(cgroup)) {
            return Ok(());
        }
        let name = cgroup.map(|cgroup| &*cgroup.display);
        match (&mut self.sink, event) {
            (Sink::Json(json), _) => json.process_exit(&timestamp(time), event, name),
            (
                Sink::Table(table),
                LifecycleEvent::ProcessExited {
                    tgid,
                    comm,
                    peak_rss_bytes,
                    ..
                },
            ) if *peak_rss_bytes >= 1 << 30 => table.line(&format!(
                "{comm} (pid {tgid}) ended in {} after a peak of {}",
                name.unwrap_or("an unknown cgroup"),
                size::bytes(*peak_rss_bytes)
            )),
            _ => Ok(()),
        }
    }
}
