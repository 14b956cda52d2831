//! The loop: rings first, then the interval, until a signal, the duration or a closed output ends it.

use std::{
    collections::HashSet,
    io,
    time::{Duration, Instant, SystemTime},
};

use tokio::time::{MissedTickBehavior, interval_at};

use crate::{
    host::{hierarchy::CgroupHierarchy, process::ProcRoot},
    loader::{Loader, catalog::Family, counts::Counts, ring::Ring},
    model::{
        cgroups::{Cgroups, Counted, Serving},
        processes::Processes,
        snapshot::{HostReading, OomKill, SelfReading, Snapshot},
    },
    probes::{heap, lifecycle, lifecycle::LifecycleEvent, oom, reclaim},
};

use super::{
    active_processes, clock,
    config::{Config, Output, RunError},
    otlp::OtlpExport,
    output::Outputs,
    own,
    readings::Readings,
    signals::Signals,
};

/// Removed cgroups are kept this long.
const GRACE: Duration = Duration::from_secs(60);
/// All cgroups are looked for this often, in case an event was lost.
const REDISCOVER: Duration = Duration::from_secs(60);
/// Counts of unknown cgroups call for a search, at most this often.
const UNKNOWN_AFTER: Duration = Duration::from_secs(10);
/// So many cgroups forgotten at once are worth asking the allocator for their memory.
const MANY_EVICTED: usize = 256;
/// Time that a reader has for the last lines.
const LAST_LINES: Duration = Duration::from_millis(500);
/// Growing processes told per cgroup.
const PROCESSES_PER_CGROUP: usize = 3;

/// Traces until told to stop. Needs a tokio runtime with I/O and time.
pub async fn run(config: Config) -> Result<(), RunError> {
    let mut signals = Signals::new().map_err(RunError::Signals)?;
    let mut agent = Agent::start(config).await?;
    let result = agent.trace(&mut signals).await;
    // A reader that went away is the usual end of a pipe.
    let result = match result {
        Err(RunError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    };
    agent.stop();
    result
}

/// Returns what the allocator holds but nobody uses to the system.
fn give_memory_back() {
    // SAFETY: takes no pointer and touches only free memory.
    unsafe { libc::malloc_trim(0) };
}

struct Agent {
    config: Config,
    loader: Loader,
    counts: Counts,
    oom_ring: Ring,
    event_ring: Ring,
    readings: Readings,
    cgroups: Cgroups,
    processes: Processes,
    proc: ProcRoot,
    outputs: Outputs,
    otlp: Option<OtlpExport>,
    serving: Serving,
    started: SystemTime,
    clock: Instant,
    rediscovered: Instant,
    event_drops: u64,
    undecoded: u64,
    buffer: Vec<u8>,
    page_size: u64,
}

impl Agent {
    async fn start(mut config: Config) -> Result<Self, RunError> {
        let hierarchy =
            CgroupHierarchy::detect(&ProcRoot::default(), config.cgroup_root.as_deref())?;
        let mode = hierarchy.mode;
        let most = config.kernel.max_cgroups as usize;
        let mut loader = Loader::load(&config.kernel)?;
        let counts = loader.counts()?;
        let oom_ring = loader.oom_ring()?;
        let event_ring = loader.event_ring()?;
        let otlp = match config.otlp.take() {
            Some(otlp) => {
                Some(OtlpExport::start(&otlp).map_err(|error| RunError::Otlp(error.to_string()))?)
            }
            None => None,
        };
        let mut agent = Self {
            serving: Serving {
                heap: loader.serves(Family::Heap),
                reclaim: loader.serves(Family::Reclaim),
                lifecycle: loader.serves(Family::Lifecycle),
            },
            outputs: Outputs::new(config.output, config.cgroup.take()).map_err(RunError::Output)?,
            readings: Readings::new(hierarchy, most),
            cgroups: Cgroups::new(most, GRACE),
            processes: Processes::default(),
            proc: ProcRoot::default(),
            started: SystemTime::now(),
            clock: Instant::now(),
            rediscovered: Instant::now(),
            event_drops: 0,
            undecoded: 0,
            buffer: Vec::with_capacity(16 * 1024),
            page_size: crate::loader::attach::page_size(),
            config,
            loader,
            counts,
            oom_ring,
            event_ring,
            otlp,
        };
        // Loading parsed the kernel's types.
        give_memory_back();
        agent.cgroups.overflow = agent.rediscover();
        agent.warn_of_missing_probes();
        agent
            .outputs
            .start(
                agent.started,
                &agent.loader.support.release,
                mode.name(),
                &agent.loader.verdicts,
            )
            .map_err(RunError::Output)?;
        Ok(agent)
    }

    async fn trace(&mut self, signals: &mut Signals) -> Result<(), RunError> {
        // A first picture at once, against which the first interval has rates.
        self.interval().await?;
        let period = self.config.interval;
        let mut ticks = interval_at(tokio::time::Instant::now() + period, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = self
            .config
            .duration
            .unwrap_or(Duration::from_secs(u64::MAX / 4));
        let end = tokio::time::sleep(end);
        tokio::pin!(end);
        loop {
            let mut marks = Vec::new();
            let mut events = Vec::new();
            tokio::select! {
                biased;
                ready = self.oom_ring.drain(|record| marks.push(record.to_vec())) => {
                    ready.map_err(RunError::Ring)?;
                }
                ready = self.event_ring.drain(|record| events.push(record.to_vec())) => {
                    ready.map_err(RunError::Ring)?;
                }
                () = signals.any() => break,
                () = &mut end => break,
                _ = ticks.tick() => {
                    self.interval().await?;
                    continue;
                }
            }
            for record in events {
                self.event(&record)?;
            }
            for record in marks {
                self.mark(&record)?;
            }
        }
        // What happened since the last interval is told too.
        self.interval().await
    }

    fn stop(mut self) {
        self.outputs.finish(LAST_LINES);
        if let Some(otlp) = self.otlp.take() {
            let host = self.proc.machine(&mut self.buffer).unwrap_or_default();
            let own = self.own();
            let snapshot = self.full_snapshot(host, own, otlp.offered());
            otlp.stop(snapshot);
        }
    }

    /// A lifecycle record.
    fn event(&mut self, record: &[u8]) -> Result<(), RunError> {
        match lifecycle::decode(record, self.page_size) {
            None => self.undecoded += 1,
            Some(LifecycleEvent::CgroupMade { id, path, time_ns }) => {
                let since = clock::wall_clock(time_ns);
                if !self.readings.made(&mut self.cgroups, id, &path, since) {
                    self.cgroups.overflow += 1;
                }
            }
            Some(LifecycleEvent::CgroupRemoved { id }) => {
                self.readings
                    .removed(&mut self.cgroups, id, self.clock.elapsed());
            }
            Some(
                event @ LifecycleEvent::ProcessExited {
                    cgroup_id, time_ns, ..
                },
            ) => {
                let cgroup = self.cgroups.get(cgroup_id);
                let time = clock::wall_clock(time_ns);
                self.outputs
                    .process_exit(time, &event, cgroup)
                    .map_err(RunError::Output)?;
            }
        }
        Ok(())
    }

    /// A victim mark. Cgroups made just before are taken in first, for their names.
    fn mark(&mut self, record: &[u8]) -> Result<(), RunError> {
        self.drain_events()?;
        let Some(mut kill) = oom::decode(record, self.page_size, clock::wall_clock) else {
            self.undecoded += 1;
            return Ok(());
        };
        self.name_cgroups(&mut kill);
        let victim = kill.cgroup_id.and_then(|id| self.cgroups.get(id));
        if victim.is_some_and(|cgroup| !self.outputs.wants(cgroup)) {
            return Ok(());
        }
        self.outputs.oom_kill(&kill).map_err(RunError::Output)
    }

    fn name_cgroups(&self, kill: &mut OomKill) {
        let name = |id: Option<u64>| {
            id.and_then(|id| self.cgroups.get(id))
                .map(|cgroup| cgroup.display.to_string())
        };
        kill.cgroup = name(kill.cgroup_id);
        kill.trigger_cgroup = name(kill.trigger_cgroup_id);
    }

    fn drain_events(&mut self) -> Result<(), RunError> {
        let mut events = Vec::new();
        self.event_ring
            .drain_now(|record| events.push(record.to_vec()));
        for event in events {
            self.event(&event)?;
        }
        Ok(())
    }

    /// Looks for all cgroups; gives how many there is no room for.
    fn rediscover(&mut self) -> u64 {
        self.rediscovered = Instant::now();
        self.readings
            .rediscover(&mut self.cgroups, self.started, self.clock.elapsed())
    }

    /// Reads everything, closes the interval, tells it.
    async fn interval(&mut self) -> Result<(), RunError> {
        self.drain_events()?;
        let mut marks = Vec::new();
        self.oom_ring
            .drain_now(|record| marks.push(record.to_vec()));
        for mark in marks {
            self.mark(&mark)?;
        }

        let now = self.clock.elapsed();
        let host = self.proc.machine(&mut self.buffer).unwrap_or_default();
        self.cgroups.machine_bytes = host.mem_total_bytes;
        let active = self.count();
        if self.rediscovered.elapsed() >= self.rediscover_after() {
            self.rediscover();
        }
        self.readings.read(&mut self.cgroups, &active, now);
        active_processes::look(
            &mut self.processes,
            &mut self.counts,
            &self.proc,
            self.serving.heap,
            now,
            &mut self.buffer,
        );
        self.cgroups.close_interval(now);
        let evicted = self.cgroups.evict(now);
        for &id in &evicted {
            self.counts.forget_cgroup(id);
        }
        if evicted.len() >= MANY_EVICTED {
            give_memory_back();
        }

        let own = self.own();
        let mut growing = self.processes.growing(PROCESSES_PER_CGROUP);
        let told = match self.config.output {
            Output::None => Vec::new(),
            Output::Table => self
                .cgroups
                .live()
                .filter(|cgroup| self.outputs.wants(cgroup))
                .map(|cgroup| {
                    cgroup.snapshot(self.serving, growing.remove(&cgroup.id).unwrap_or_default())
                })
                .collect(),
            Output::Json => {
                let outputs = &self.outputs;
                let serving = self.serving;
                self.cgroups
                    .take_changed()
                    .filter(|cgroup| outputs.wants(cgroup))
                    .map(|cgroup| {
                        cgroup.snapshot(serving, growing.remove(&cgroup.id).unwrap_or_default())
                    })
                    .collect()
            }
        };
        let snapshot = Snapshot {
            time: SystemTime::now(),
            started: self.started,
            host,
            cgroups: told,
            own,
        };
        self.outputs.interval(&snapshot).map_err(RunError::Output)?;
        self.export(host, snapshot.own);
        Ok(())
    }

    /// Without the lifecycle probes every cgroup has to be looked for.
    fn rediscover_after(&mut self) -> Duration {
        let drops = self
            .counts
            .drops()
            .iter()
            .filter(|(cause, _)| *cause == "event_ring_full")
            .map(|(_, count)| *count)
            .sum();
        if drops != self.event_drops {
            self.event_drops = drops;
            return Duration::ZERO;
        }
        if self.serving.lifecycle {
            REDISCOVER
        } else {
            Duration::ZERO
        }
    }

    /// Takes in the BPF totals; gives the cgroups in which something happened.
    fn count(&mut self) -> HashSet<u64> {
        let mut active = HashSet::new();
        let mut unknown = Vec::new();
        for (id, counts) in self.counts.cgroups() {
            let counted = Counted {
                heap: heap::totals(&counts.heap),
                lifecycle: lifecycle::totals(&counts.lifecycle, self.page_size),
                sampled_faults: counts.heap.sampled_faults,
            };
            match self.cgroups.counted(id, counted) {
                Some(true) => {
                    active.insert(id);
                }
                Some(false) => {}
                None => unknown.push(id),
            }
        }
        for (id, counts) in self.counts.reclaim() {
            self.cgroups.reclaimed(id, reclaim::totals(&counts));
        }
        if !unknown.is_empty() && self.rediscovered.elapsed() >= UNKNOWN_AFTER {
            self.rediscover();
            // Ids that no cgroup has are leftovers of removed ones.
            for id in unknown {
                if self.cgroups.get(id).is_none() {
                    self.counts.forget_cgroup(id);
                }
            }
        }
        active
    }

    fn own(&mut self) -> SelfReading {
        let mut losses = self.counts.drops();
        losses.push(("cgroup_reading_failed", self.readings.failed));
        losses.push(("cgroup_not_tracked", self.cgroups.overflow));
        losses.push(("output_dropped", self.outputs.dropped()));
        losses.push(("record_not_decoded", self.undecoded));
        if let Some(otlp) = &self.otlp {
            losses.extend(otlp.losses());
        }
        let tracked = self.cgroups.live().count() as u64;
        own::read(&self.loader, losses, tracked, &mut self.buffer)
    }

    fn export(&mut self, host: HostReading, own: SelfReading) {
        let Some(offered) = self
            .otlp
            .as_ref()
            .filter(|otlp| otlp.due())
            .map(OtlpExport::offered)
        else {
            return;
        };
        let snapshot = self.full_snapshot(host, own, offered);
        if let Some(otlp) = &mut self.otlp {
            otlp.offer(snapshot, self.clock.elapsed());
        }
    }

    /// All cgroups that exist, and those removed since `since`: their last numbers.
    fn full_snapshot(&self, host: HostReading, own: SelfReading, since: Duration) -> Snapshot {
        Snapshot {
            time: SystemTime::now(),
            started: self.started,
            host,
            cgroups: self
                .cgroups
                .live_since(since)
                .filter(|cgroup| self.outputs.wants(cgroup))
                .map(|cgroup| cgroup.snapshot(self.serving, Vec::new()))
                .collect(),
            own,
        }
    }

    fn warn_of_missing_probes(&self) {
        let missing: Vec<&str> = self
            .loader
            .verdicts
            .iter()
            .filter(|verdict| verdict.attached.is_none() && verdict.essential)
            .map(|verdict| verdict.probe)
            .collect();
        if !missing.is_empty() {
            log::warn!(
                "no events of {} on this host; `memtrace doctor` says why",
                missing.join(", ")
            );
        }
    }
}
