//! JSON lines: the documented schema (docs/json-lines.md). One object a line, `type` first.
//!
//! Unknown is `null`. Names carry their unit; all but rates are cumulative.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use serde::Serialize;

use crate::{
    analysis::{Estimate, Signal, State},
    growth::GrowthChange,
    identity::names::Names,
    incident::{Incident, record::KubernetesReport},
    loader::Verdict,
    model::snapshot::{
        CgroupSnapshot, EffectiveLimit, LeakSnapshot, Limit, LimitChange, OomKill, ProcessSnapshot,
        SelfReading, Snapshot,
    },
    probes::lifecycle::LifecycleEvent,
};

use super::timestamp;

#[derive(Serialize)]
struct Line<'a, T: Serialize> {
    #[serde(rename = "type")]
    kind: &'static str,
    time: &'a str,
    #[serde(flatten)]
    body: T,
}

#[derive(Serialize)]
struct CgroupLine<'a> {
    cgroup: &'a str,
    cgroup_id: u64,
    #[serde(flatten)]
    names: &'a Names,
    since: String,
    removed: bool,
    usage_bytes: Option<u64>,
    working_set_bytes: Option<u64>,
    anon_bytes: Option<u64>,
    file_bytes: Option<u64>,
    shmem_bytes: Option<u64>,
    kernel_bytes: Option<u64>,
    slab_bytes: Option<u64>,
    slab_reclaimable_bytes: Option<u64>,
    sock_bytes: Option<u64>,
    swap_bytes: Option<u64>,
    peak_bytes: Option<u64>,
    limit_bytes: Option<u64>,
    high_bytes: Option<u64>,
    effective_limit_bytes: Option<u64>,
    effective_limit_cgroup: Option<&'a str>,
    growth_bytes_per_second: Option<f64>,
    anon_growth_bytes_per_second: Option<f64>,
    minor_faults: Option<u64>,
    major_faults: Option<u64>,
    refaults: Option<u64>,
    mmap_bytes: Option<u64>,
    munmap_bytes: Option<u64>,
    brk_grow_bytes: Option<u64>,
    brk_shrink_bytes: Option<u64>,
    madvise_free_bytes: Option<u64>,
    reclaim_count: Option<u64>,
    reclaim_stall_ns: Option<u64>,
    reclaimed_pages: Option<u64>,
    /// Stalls by floor of the binary logarithm of their nanoseconds, trailing zeros left out.
    reclaim_stall_log2_ns: Option<Vec<u64>>,
    execs: Option<u64>,
    exits: Option<u64>,
    exited_minor_faults: Option<u64>,
    exited_major_faults: Option<u64>,
    exited_peak_rss_bytes: Option<u64>,
    events: Events,
    events_local: Events,
    pressure_some_ns: Option<u64>,
    pressure_full_ns: Option<u64>,
    /// What the growth analysis says; null while the cgroup is not judged.
    leak: Option<Leak>,
}

/// The verdict in short; a `leak` line tells each change of it with its evidence.
#[derive(Serialize)]
struct Leak {
    state: State,
    signal: Option<Signal>,
    rate_bytes_per_hour: Option<Estimate>,
    since: Option<String>,
    time_to_limit_s: Option<Estimate>,
    near_limit: Option<bool>,
    unreclaimable_bytes: Option<u64>,
}

#[derive(Serialize)]
struct Events {
    low: Option<u64>,
    high: Option<u64>,
    max: Option<u64>,
    oom: Option<u64>,
    oom_kill: Option<u64>,
    oom_group_kill: Option<u64>,
}

#[derive(Serialize)]
struct ProcessLine<'a> {
    cgroup: &'a str,
    cgroup_id: u64,
    pid: u32,
    comm: Option<&'a str>,
    rss_bytes: Option<u64>,
    rss_anon_bytes: Option<u64>,
    growth_bytes_per_second: Option<f64>,
    minor_faults: Option<u64>,
    major_faults: Option<u64>,
    mmap_bytes: Option<u64>,
    munmap_bytes: Option<u64>,
    brk_grow_bytes: Option<u64>,
    brk_shrink_bytes: Option<u64>,
    madvise_free_bytes: Option<u64>,
}

/// Writes lines to any sink, one `write` per line.
#[derive(Debug)]
pub struct Json<W> {
    out: W,
    buffer: Vec<u8>,
}

impl<W: Write> Json<W> {
    pub fn new(out: W) -> Self {
        Self {
            out,
            buffer: Vec::with_capacity(4096),
        }
    }

    /// Everything is attached; probe name to hook, `null` where the signal is missing.
    pub fn start(
        &mut self,
        time: &str,
        kernel: &str,
        mode: &str,
        verdicts: &[Verdict],
    ) -> io::Result<()> {
        let probes: BTreeMap<_, _> = verdicts
            .iter()
            .map(|verdict| {
                (
                    verdict.probe,
                    verdict.attached.as_ref().map(|(_, hook)| hook.as_str()),
                )
            })
            .collect();
        self.line(
            "start",
            time,
            serde_json::json!({
                "version": env!("CARGO_PKG_VERSION"),
                "kernel": kernel,
                "cgroup_mode": mode,
                "probes": probes,
            }),
        )?;
        self.flush()
    }

    /// An interval: cgroups that changed, their growing processes, the host, memtrace itself.
    pub fn interval(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        let time = timestamp(snapshot.time);
        for cgroup in &snapshot.cgroups {
            self.line("cgroup", &time, cgroup_line(cgroup))?;
            for process in &cgroup.processes {
                self.line("process", &time, process_line(cgroup, process))?;
            }
        }
        let host = &snapshot.host;
        self.line(
            "host",
            &time,
            serde_json::json!({
                "mem_total_bytes": host.mem_total_bytes,
                "mem_free_bytes": host.mem_free_bytes,
                "mem_available_bytes": host.mem_available_bytes,
                "buffers_bytes": host.buffers_bytes,
                "cached_bytes": host.cached_bytes,
                "shmem_bytes": host.shmem_bytes,
                "slab_bytes": host.slab_bytes,
                "swap_total_bytes": host.swap_total_bytes,
                "swap_free_bytes": host.swap_free_bytes,
                "faults": host.faults,
                "major_faults": host.major_faults,
                "oom_kills": host.oom_kills,
                "pressure_some_ns": host.pressure.some_ns,
                "pressure_full_ns": host.pressure.full_ns,
            }),
        )?;
        self.own(&time, &snapshot.own)?;
        self.flush()
    }

    /// A victim mark, at once.
    pub fn oom_kill(&mut self, kill: &OomKill) -> io::Result<()> {
        let body = serde_json::json!({
            "victim_pid": kill.victim_tgid,
            "victim_tid": kill.victim_tid,
            "victim_comm": kill.victim_comm,
            "victim_uid": kill.victim_uid,
            "cgroup": kill.cgroup,
            "cgroup_id": kill.cgroup_id,
            "total_vm_bytes": kill.total_vm_bytes,
            "anon_bytes": kill.anon_bytes,
            "file_bytes": kill.file_bytes,
            "shmem_bytes": kill.shmem_bytes,
            "swap_bytes": kill.swap_bytes,
            "page_table_bytes": kill.page_table_bytes,
            "oom_score_adj": kill.oom_score_adj,
            "trigger_pid": kill.trigger_tgid,
            "trigger_comm": kill.trigger_comm,
            "trigger_cgroup": kill.trigger_cgroup,
            "trigger_cgroup_id": kill.trigger_cgroup_id,
        });
        self.line("oom_kill", &timestamp(kill.time), body)?;
        self.flush()
    }

    /// A complete incident.
    pub fn incident(&mut self, incident: &Incident) -> io::Result<()> {
        self.whole("oom_incident", incident)
    }

    /// A limit that changed.
    pub fn limit_changed(&mut self, change: &LimitChange) -> io::Result<()> {
        #[derive(Serialize)]
        struct Changed<'a> {
            time: String,
            cgroup: &'a str,
            cgroup_id: u64,
            #[serde(flatten)]
            names: &'a Names,
            limit_bytes_before: Option<u64>,
            limit_bytes: Option<u64>,
            usage_bytes: Option<u64>,
        }
        self.whole(
            "limit_changed",
            &Changed {
                time: timestamp(change.time),
                cgroup: &change.cgroup,
                cgroup_id: change.cgroup_id,
                names: &change.names,
                limit_bytes_before: change.from.bytes(),
                limit_bytes: change.to.bytes(),
                usage_bytes: change.usage_bytes,
            },
        )
    }

    /// What Kubernetes says of an incident that was told before.
    pub fn kubernetes_report(&mut self, incident: &Incident) -> io::Result<()> {
        #[derive(Serialize)]
        struct Report<'a> {
            time: jiff::Timestamp,
            incident_id: &'a str,
            cgroup: Option<&'a str>,
            names: Option<&'a Names>,
            kubernetes: Option<&'a KubernetesReport>,
        }
        let victim = incident.victims.first();
        let finished = incident
            .kubernetes
            .as_ref()
            .and_then(|report| report.finished);
        self.whole(
            "oom_report",
            &Report {
                time: finished.unwrap_or(incident.time),
                incident_id: &incident.id,
                cgroup: victim.and_then(|victim| victim.cgroup.as_deref()),
                names: victim.and_then(|victim| victim.names.as_deref()),
                kubernetes: incident.kubernetes.as_ref(),
            },
        )
    }

    /// A change of a verdict.
    pub fn leak(&mut self, change: &GrowthChange) -> io::Result<()> {
        self.whole("leak", change)
    }

    /// A record that has its time itself.
    fn whole(&mut self, kind: &'static str, record: &impl Serialize) -> io::Result<()> {
        #[derive(Serialize)]
        struct Whole<'a, T: Serialize> {
            #[serde(rename = "type")]
            kind: &'static str,
            #[serde(flatten)]
            record: &'a T,
        }
        self.buffer.clear();
        serde_json::to_writer(&mut self.buffer, &Whole { kind, record })?;
        self.buffer.push(b'\n');
        self.out.write_all(&self.buffer)?;
        self.flush()
    }

    /// The end of a process that was big.
    pub fn process_exit(
        &mut self,
        time: &str,
        event: &LifecycleEvent,
        cgroup: Option<&str>,
    ) -> io::Result<()> {
        let LifecycleEvent::ProcessExited {
            tgid,
            comm,
            cgroup_id,
            peak_rss_bytes,
            minor_faults,
            major_faults,
            ..
        } = event
        else {
            return Ok(());
        };
        let body = serde_json::json!({
            "pid": tgid,
            "comm": comm,
            "cgroup": cgroup,
            "cgroup_id": cgroup_id,
            "peak_rss_bytes": peak_rss_bytes,
            "minor_faults": minor_faults,
            "major_faults": major_faults,
        });
        self.line("process_exit", time, body)
    }

    fn own(&mut self, time: &str, own: &SelfReading) -> io::Result<()> {
        let lost: BTreeMap<_, _> = own
            .losses
            .iter()
            .map(|loss| (loss.cause, loss.count))
            .collect();
        let probes: Vec<_> = own
            .probes
            .iter()
            .map(|run| {
                serde_json::json!({
                    "probe": run.probe,
                    "run_time_ns": run.run_time_ns,
                    "run_count": run.run_count,
                })
            })
            .collect();
        self.line(
            "self",
            time,
            serde_json::json!({
                "rss_bytes": own.rss_bytes,
                "cpu_ns": own.cpu_ns,
                "cgroups": own.cgroups_tracked,
                "lost": lost,
                "probes": probes,
            }),
        )
    }

    fn line(&mut self, kind: &'static str, time: &str, body: impl Serialize) -> io::Result<()> {
        self.buffer.clear();
        serde_json::to_writer(&mut self.buffer, &Line { kind, time, body })?;
        self.buffer.push(b'\n');
        self.out.write_all(&self.buffer)
    }

    /// What the lines go to.
    pub fn out(&mut self) -> &mut W {
        &mut self.out
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn cgroup_line(cgroup: &CgroupSnapshot) -> CgroupLine<'_> {
    let memory = &cgroup.memory;
    let (heap, reclaim, exits) = (&cgroup.heap, &cgroup.reclaim, &cgroup.exits);
    let limit = cgroup.effective_limit.as_ref();
    CgroupLine {
        cgroup: &cgroup.cgroup,
        cgroup_id: cgroup.cgroup_id,
        names: &cgroup.names,
        since: timestamp(cgroup.since),
        removed: cgroup.removed,
        usage_bytes: memory.usage_bytes,
        working_set_bytes: memory.working_set_bytes(),
        anon_bytes: memory.anon_bytes,
        file_bytes: memory.file_bytes,
        shmem_bytes: memory.shmem_bytes,
        kernel_bytes: memory.kernel_bytes,
        slab_bytes: memory.slab_bytes,
        slab_reclaimable_bytes: memory.slab_reclaimable_bytes,
        sock_bytes: memory.sock_bytes,
        swap_bytes: memory.swap_bytes,
        peak_bytes: memory.peak_bytes,
        limit_bytes: memory.limit.and_then(Limit::bytes),
        high_bytes: memory.high.and_then(Limit::bytes),
        effective_limit_bytes: limit.map(|limit| limit.bytes),
        effective_limit_cgroup: limit.and_then(|limit: &EffectiveLimit| limit.cgroup.as_deref()),
        growth_bytes_per_second: cgroup.rates.growth_bytes_per_second,
        anon_growth_bytes_per_second: cgroup.rates.anon_growth_bytes_per_second,
        minor_faults: memory.minor_faults(),
        major_faults: memory.major_faults,
        refaults: memory.refaults,
        mmap_bytes: heap.map(|heap| heap.mmap_bytes),
        munmap_bytes: heap.map(|heap| heap.munmap_bytes),
        brk_grow_bytes: heap.map(|heap| heap.brk_grow_bytes),
        brk_shrink_bytes: heap.map(|heap| heap.brk_shrink_bytes),
        madvise_free_bytes: heap.map(|heap| heap.madvise_free_bytes),
        reclaim_count: reclaim
            .as_ref()
            .map(|reclaim| reclaim.direct + reclaim.memcg),
        reclaim_stall_ns: reclaim.as_ref().map(|reclaim| reclaim.stall_ns),
        reclaimed_pages: reclaim.as_ref().map(|reclaim| reclaim.reclaimed_pages),
        reclaim_stall_log2_ns: reclaim.as_ref().map(|reclaim| {
            let histogram = &reclaim.stall_histogram;
            let used = histogram
                .iter()
                .rposition(|&count| count != 0)
                .map_or(0, |last| last + 1);
            histogram[..used].to_vec()
        }),
        execs: cgroup.execs,
        exits: exits.map(|exits| exits.processes),
        exited_minor_faults: exits.map(|exits| exits.minor_faults),
        exited_major_faults: exits.map(|exits| exits.major_faults),
        exited_peak_rss_bytes: exits.map(|exits| exits.peak_rss_bytes),
        events: events(&memory.events),
        events_local: events(&memory.events_local),
        pressure_some_ns: memory.pressure.some_ns,
        pressure_full_ns: memory.pressure.full_ns,
        leak: cgroup.leak.as_ref().map(leak),
    }
}

fn leak(leak: &LeakSnapshot) -> Leak {
    let since = leak
        .since
        .and_then(|since| jiff::Timestamp::from_millisecond(since.time_ms).ok());
    Leak {
        state: leak.state,
        signal: leak.signal,
        rate_bytes_per_hour: leak.rate_bytes_per_hour,
        since: since.map(|since| format!("{since:.3}")),
        time_to_limit_s: leak.time_to_limit.map(|time| time.seconds),
        near_limit: leak.near_limit.map(|near| near.near),
        unreclaimable_bytes: leak.near_limit.map(|near| near.unreclaimable_bytes),
    }
}

fn events(events: &crate::model::snapshot::MemoryEvents) -> Events {
    Events {
        low: events.low,
        high: events.high,
        max: events.max,
        oom: events.oom,
        oom_kill: events.oom_kill,
        oom_group_kill: events.oom_group_kill,
    }
}

fn process_line<'a>(cgroup: &'a CgroupSnapshot, process: &'a ProcessSnapshot) -> ProcessLine<'a> {
    let heap = process.heap.as_ref();
    ProcessLine {
        cgroup: &cgroup.cgroup,
        cgroup_id: cgroup.cgroup_id,
        pid: process.tgid,
        comm: process.comm.as_deref(),
        rss_bytes: process.rss_bytes,
        rss_anon_bytes: process.rss_anon_bytes,
        growth_bytes_per_second: process.growth_bytes_per_second,
        minor_faults: process.minor_faults,
        major_faults: process.major_faults,
        mmap_bytes: heap.map(|heap| heap.mmap_bytes),
        munmap_bytes: heap.map(|heap| heap.munmap_bytes),
        brk_grow_bytes: heap.map(|heap| heap.brk_grow_bytes),
        brk_shrink_bytes: heap.map(|heap| heap.brk_shrink_bytes),
        madvise_free_bytes: heap.map(|heap| heap.madvise_free_bytes),
    }
}
