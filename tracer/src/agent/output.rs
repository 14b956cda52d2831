//! Standard output: one of table, JSON lines or nothing, filtered by cgroup.

use std::{
    io::{self, IsTerminal as _, stdout},
    time::{Duration, SystemTime},
};

use globset::GlobMatcher;

use crate::{
    export::console::{json::Json, size, table::Table, timestamp, writer::QueuedWriter},
    loader::Verdict,
    model::{
        cgroups::Cgroup,
        snapshot::{OomKill, Snapshot},
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
    None,
}

impl Outputs {
    pub fn new(output: Output, only: Option<GlobMatcher>) -> io::Result<Self> {
        let out = || QueuedWriter::new(stdout());
        let sink = match output {
            Output::Table => {
                let colour = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
                Sink::Table(Table::new(out()?, colour))
            }
            Output::Json => Sink::Json(Json::new(out()?)),
            Output::None => Sink::None,
        };
        Ok(Self { sink, only })
    }

    fn writer(&mut self) -> Option<&mut QueuedWriter> {
        match &mut self.sink {
            Sink::Table(table) => Some(table.out()),
            Sink::Json(json) => Some(json.out()),
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
            Sink::None => Ok(()),
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
            Sink::None => Ok(()),
        }
    }

    pub fn oom_kill(&mut self, kill: &OomKill) -> io::Result<()> {
        if let Some(writer) = self.writer() {
            writer.urgent();
        }
        match &mut self.sink {
            Sink::Json(json) => json.oom_kill(kill),
            Sink::Table(table) => table.oom_kill(kill),
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
