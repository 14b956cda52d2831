//! The loop: OOM records before all else, until a signal, the duration or a closed output ends it.

mod actions;
mod asked;
mod claims;
mod counting;
mod details;
mod growth;
mod incidents;
mod limits;
mod naming;
mod pods;
mod reload;
mod reports;
mod rows;
mod stacks;
mod standing;
mod telling;
mod timelines;
mod witness;

use std::{
    collections::HashSet,
    io,
    time::{Duration, Instant, SystemTime},
};

use tokio::time::{MissedTickBehavior, interval_at};

use crate::{
    actions::Actions,
    api::server::ApiServer,
    export::prometheus::Endpoint,
    host::{hierarchy::CgroupHierarchy, pattern::unmatched, process::ProcRoot},
    identity::facts::KnownPlace,
    loader::{Loader, catalog::Family, counts::Counts, ring::Ring},
    model::{
        cgroup::Serving,
        cgroups::Cgroups,
        processes::Processes,
        snapshot::{HostReading, MemoryReading},
    },
    probes::{lifecycle, lifecycle::LifecycleEvent},
    store::{StateLock, Store, StoreLimits},
};

use super::{
    active_processes,
    clock::{self, AgentClock},
    config::{Config, Output, RunError},
    otlp::OtlpExport,
    output::Outputs,
    readings::{Done, Readings},
    running_commands::RunningCommands,
    signals::{Asked, Signals},
    stacks::Stacks,
};
use growth::Judging;
use incidents::Incidents;
use naming::Naming;
pub use pods::Pods;
use reports::Reports;
use timelines::Chronicle;
use witness::{KillsBefore, Witness, read_since};

/// Removed cgroups are kept this long: two scrapes a minute apart still see their last numbers.
const GRACE: Duration = Duration::from_secs(130);
/// The allocator is asked this often for memory that nobody uses: what comes and goes leaves holes.
const GIVE_BACK: Duration = Duration::from_secs(60);
/// Time that a reader has for the last lines.
const LAST_LINES: Duration = Duration::from_millis(500);
/// Cgroups read between two looks at the ring of OOM records.
const READ_AT_A_TIME: usize = 128;

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
    /// `None`: nobody can ask.
    endpoint: Option<Endpoint>,
    /// `None`: no other program of this host can ask.
    api: Option<ApiServer>,
    naming: Naming,
    reports: Reports,
    limit_pace: limits::Pace,
    incidents: Incidents,
    witness: Witness,
    /// `None`: no process is told with its command line.
    running_commands: Option<RunningCommands>,
    /// `None`: growth is not judged.
    judging: Option<Judging>,
    actions: Actions,
    /// The history of each cgroup.
    chronicle: Chronicle,
    /// `None`: pages are not sampled.
    stacks: Option<Stacks>,
    serving: Serving,
    /// Every cgroup that comes or goes is told by the kernel.
    sees_cgroups: bool,
    /// As of the last interval.
    host: HostReading,
    /// When the last interval ended.
    read_at: SystemTime,
    started: SystemTime,
    clock: AgentClock,
    rediscovered: Instant,
    rediscovery_took: Duration,
    gave_back: Instant,
    event_drops: u64,
    /// Cgroups whose growers were not told because there were too many.
    leaks_without_processes: u64,
    undecoded: u64,
    /// Files of the host that could not be read.
    host_unreadable: u64,
    buffer: Vec<u8>,
    page_size: u64,
    /// Last: what is above may write when it is dropped.
    _state_lock: Option<StateLock>,
}

impl Agent {
    async fn start(mut config: Config) -> Result<Self, RunError> {
        // Before anything reads or writes there.
        let state_lock = match &config.state_dir {
            Some(directory) => Some(StateLock::take(directory)?),
            None => None,
        };
        let hierarchy =
            CgroupHierarchy::detect(&ProcRoot::default(), config.cgroup_root.as_deref())?;
        let unmatched = config
            .cgroup
            .as_ref()
            .and_then(|glob| unmatched(&hierarchy, glob));
        if let Some(unmatched) = unmatched {
            log::warn!("{unmatched}");
        }
        stacks::fit(&mut config, &hierarchy);
        let mode = hierarchy.mode;
        let most = config.kernel.max_cgroups as usize;
        // Before the hooks: a kill from here on is seen, or missed.
        let kills_before = KillsBefore::read();
        let mut loader = Loader::load(&config.kernel)?;
        let only_incidents = matches!(config.output, Output::Incidents | Output::IncidentsJson);
        if only_incidents && !loader.has("oom.mark_victim") {
            return Err(RunError::NoOomHook);
        }
        let counts = loader.counts()?;
        let with_arguments = config.kernel.command_lines;
        let commands = loader.commands()?;
        // What they are now would be told of the programs that they execute later.
        let running_commands = loader
            .has("oom.command_exec")
            .then(|| RunningCommands::start(commands, with_arguments));
        let oom_ring = loader.oom_ring()?;
        let event_ring = loader.event_ring()?;
        let node = config.naming.options.node.clone();
        let place = KnownPlace::default();
        let otlp = match config.otlp.take() {
            Some(otlp) => Some(
                OtlpExport::start(&otlp, node.as_deref(), &place)
                    .map_err(|error| RunError::Otlp(error.to_string()))?,
            ),
            None => None,
        };
        let endpoint = match config.listen {
            Some(address) => Some(asked::endpoint(
                address,
                config.interval,
                node.as_deref(),
                &place,
            )?),
            None => None,
        };
        let api = asked::api(&config.api, config.state_dir.clone())?;
        let readings = Readings::new(hierarchy, most);
        let store = match &config.state_dir {
            Some(directory) => Some(Store::open(directory, StoreLimits::default())?),
            None => None,
        };
        let page_size = crate::loader::attach::page_size();
        // One moment on two clocks: what is told by one is compared with the other.
        let (started, clock) = (SystemTime::now(), AgentClock::begin());
        let mut agent = Self {
            witness: Witness::new(config.stall_after, page_size, config.state_dir.clone()),
            naming: Naming::start(std::mem::take(&mut config.naming), place)?,
            reports: Reports::default(),
            limit_pace: limits::Pace::new(Instant::now()),
            incidents: Incidents::new(&loader, readings.swap_counts_memory(), store),
            judging: config
                .thresholds
                .take()
                .map(|thresholds| Judging::new(thresholds, config.state_dir.as_deref())),
            chronicle: Chronicle::new(config.interval, started, most, config.state_dir.as_deref()),
            serving: Serving {
                heap: loader.serves_whole(Family::Heap),
                reclaim: loader.serves_whole(Family::Reclaim),
                execs: loader.has("lifecycle.process_exec"),
                exits: loader.has("lifecycle.process_exit"),
                oom_kills: loader.has("oom.mark_victim"),
            },
            sees_cgroups: loader.has("lifecycle.cgroup_mkdir")
                && loader.has("lifecycle.cgroup_rmdir"),
            stacks: None,
            running_commands,
            actions: Actions::new(std::mem::take(&mut config.rules)),
            outputs: Outputs::new(config.output, config.cgroup.take()).map_err(RunError::Output)?,
            readings,
            cgroups: Cgroups::new(most, GRACE),
            processes: Processes::new(config.interval, clock.beginning()),
            proc: ProcRoot::default(),
            host: HostReading::default(),
            read_at: started,
            started,
            clock,
            rediscovered: Instant::now(),
            rediscovery_took: Duration::ZERO,
            gave_back: Instant::now(),
            event_drops: 0,
            leaks_without_processes: 0,
            undecoded: 0,
            host_unreadable: 0,
            buffer: Vec::with_capacity(16 * 1024),
            page_size,
            config,
            loader,
            counts,
            oom_ring,
            event_ring,
            otlp,
            endpoint,
            api,
            _state_lock: state_lock,
        };
        agent.start_stacks()?;
        let sends_profiles = agent.otlp.as_ref().is_some_and(OtlpExport::sends_profiles);
        if sends_profiles && agent.stacks.is_none() {
            log::warn!("no profiles are sent: pages are not sampled here (--stacks)");
        }
        // Loading parsed the kernel's types.
        give_memory_back();
        agent.cgroups.overflow += agent.rediscover()?;
        agent.warn_of_missing_probes();
        active_processes::look_first(
            &mut agent.processes,
            &agent.proc,
            agent.clock,
            &mut agent.buffer,
        );
        if let Some(running_commands) = &mut agent.running_commands {
            running_commands.wait().await;
        }
        agent
            .outputs
            .start(
                agent.started,
                &agent.loader.support.release,
                mode.name(),
                &agent.loader.verdicts,
            )
            .map_err(RunError::Output)?;
        agent.begin_witness(kills_before)?;
        Ok(agent)
    }

    async fn trace(&mut self, signals: &mut Signals) -> Result<(), RunError> {
        let traced = self.trace_until_told(signals).await;
        // Also when the output failed: the store, the backend and commands are told all the same.
        traced.and(self.finish_incidents())
    }

    async fn trace_until_told(&mut self, signals: &mut Signals) -> Result<(), RunError> {
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
            let mut events = Vec::new();
            let closes_in = [self.incidents.closes_in(), self.reports.due_in()];
            let closes_in = closes_in.into_iter().flatten().min();
            let close = tokio::time::sleep(closes_in.unwrap_or_default());
            // A tick before the rings: an interval looks at them first, and a storm never holds it up.
            tokio::select! {
                biased;
                asked = signals.asked() => match asked {
                    Asked::End => break,
                    Asked::Reload => self.reload(),
                },
                () = &mut end => break,
                _ = ticks.tick() => {
                    self.interval().await?;
                    continue;
                }
                ready = self.oom_ring.ready() => {
                    ready.map_err(RunError::Ring)?;
                    self.incidents.called();
                }
                ready = self.event_ring.drain(|record| events.push(record.to_vec())) => {
                    ready.map_err(RunError::Ring)?;
                }
                () = close, if closes_in.is_some() => {}
                update = Naming::heard(&mut self.naming) => self.hear(update)?,
                found = Stacks::heard(&mut self.stacks) => self.found_stacks(found),
                ask = asked::next(&mut self.endpoint) => self.answer(ask),
                outcome = self.actions.ended() => self.tell_action(&outcome),
                ask = asked::next_of_api(&mut self.api) => self.answer_api(ask),
            }
            let taken = self.take_events(&events);
            self.attend_oom().and(taken)?;
        }
        // What happened since the last interval is told too.
        self.interval().await
    }

    fn stop(mut self) {
        self.stop_actions();
        if let Some(judging) = &mut self.judging {
            judging.keep_all();
        }
        self.chronicle.stop();
        self.outputs.finish(LAST_LINES);
        if let Some(otlp) = self.otlp.take() {
            let host = self
                .proc
                .machine(&mut self.buffer, &mut self.host_unreadable);
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
                if self.readings.made(&mut self.cgroups, id, &path, since) {
                    self.naming.name_new(&mut self.cgroups);
                    self.cgroups.born(id, Duration::from_nanos(time_ns));
                    self.incidents.born_cgroup(id);
                } else {
                    self.cgroups.overflow += 1;
                }
            }
            Some(LifecycleEvent::CgroupRemoved { id }) => {
                self.cgroup_gone(id, self.clock.elapsed())?;
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

    fn drain_events(&mut self) -> Result<(), RunError> {
        let mut events = Vec::new();
        self.event_ring
            .drain_now(|record| events.push(record.to_vec()));
        self.take_events(&events)
    }

    /// Takes in all of them, also past an output that failed.
    fn take_events(&mut self, records: &[Vec<u8>]) -> Result<(), RunError> {
        let mut result = Ok(());
        for record in records {
            result = result.and(self.event(record));
        }
        result
    }

    /// Reads everything, closes the interval, tells it.
    async fn interval(&mut self) -> Result<(), RunError> {
        self.drain_events()?;
        self.attend_oom()?;
        let now = self.clock.elapsed();
        // Before the totals are taken in: whoever is found to be gone has its last ones then.
        if self.rediscovered.elapsed() >= self.rediscover_after() {
            self.rediscover()?;
        }
        let active = self.count()?;
        let at = clock::boot_time();
        let read = self.read_cgroups(&active, now)?;
        let at = read_since(at);
        // After the cgroups: what they counted is in the host's count too.
        let host_at = clock::boot_time();
        let host = self
            .proc
            .machine(&mut self.buffer, &mut self.host_unreadable);
        let host_at = read_since(host_at);
        self.cgroups.machine_bytes = host.mem_total_bytes;
        active_processes::look(
            &mut self.processes,
            &mut self.counts,
            &self.proc,
            self.serving.heap,
            now,
            &mut self.buffer,
        );
        self.attend_oom()?;
        self.cgroups.close_interval(now);
        self.look_at_files(&read, at, host.oom_kills, host_at)?;
        self.tell_limit_changes()?;
        self.watch_stacks();
        self.judge(&host)?;
        self.chronicle.interval(&self.cgroups);
        let evicted = self.cgroups.evict(self.clock.awake());
        for &id in &evicted {
            self.counts.forget_cgroup(id);
            self.incidents.forget_cgroup(id);
            self.forget_files(id)?;
        }
        self.attend_oom()?;
        if self.gave_back.elapsed() >= GIVE_BACK {
            self.gave_back = Instant::now();
            give_memory_back();
        }

        self.host = host;
        self.read_at = SystemTime::now();
        self.follow_names()?;
        self.tell_interval(host)?;
        if let Some(endpoint) = &self.endpoint {
            endpoint.health.interval_ended();
        }
        Ok(())
    }

    /// An OOM is told between the readings of an interval, not after thousands of them.
    fn read_cgroups(&mut self, active: &HashSet<u64>, now: Duration) -> Result<Vec<u64>, RunError> {
        let mut done = Done::default();
        for ids in self.readings.begin().chunks(READ_AT_A_TIME) {
            let witness = &self.witness;
            let deserves = |memory: &MemoryReading| witness.deserves_reading(memory);
            self.readings
                .read(ids, &mut self.cgroups, active, &deserves, &mut done);
            self.attend_oom()?;
        }
        for id in done.gone {
            self.cgroup_gone(id, now)?;
        }
        Ok(done.in_full)
    }

    /// With its last totals: this may be behind those of the interval, also where an OOM has events taken in.
    fn cgroup_gone(&mut self, id: u64, now: Duration) -> Result<(), RunError> {
        self.readings.removed(&mut self.cgroups, id, now);
        self.count_last(id);
        self.forget_files(id)
    }
}
