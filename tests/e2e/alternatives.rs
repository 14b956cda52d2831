//! Every program on every hook that this kernel has for it: that it loads, attaches and tells the truth.
//!
//! Round after round memtrace may not use what it used before, once with its usual reads of kernel
//! memory and once with those for kernels before 5.11.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memtrace_tests::agent::{self, Agent, about, number, of_type};
use memtrace_tests::calls::Sums;
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::kernel_log::KernelLog;
use memtrace_tests::machine::{self, PAGE};
use memtrace_tests::matrix;
use memtrace_tests::verifier::{self, Load};
use memtrace_tests::workload::Workload;
use serde_json::Value;

use crate::oom::run_into_limit;
use crate::reclaim::stalled;

/// Has the kernel count how often each program runs.
const STATISTICS: &str = "/proc/sys/kernel/bpf_stats_enabled";
const PAGES: u64 = 20_000;
/// Of the perf event that stands in for the tracepoint of page faults.
const FAULT_PERIOD: u64 = 64;
/// More would be a loop: no probe has so many alternatives.
const MOST_ROUNDS: usize = 6;

/// Where it may give the victim itself or only the number of a thread.
const MARK_TRACEPOINT: &str = "tp_btf/mark_victim";

/// Probe to hook.
type Hooks = BTreeMap<String, String>;

/// What `doctor` finds.
#[derive(Default)]
struct Examined {
    hooks: Hooks,
    /// The tracepoint of marks is in use, although its argument is no task.
    victim_by_number: bool,
}

#[test]
fn every_alternative_of_every_probe_loads_and_tells_the_truth() -> Result<()> {
    each_alternative("usual", &[])
}

#[test]
fn every_alternative_with_the_reads_of_old_kernels_loads_and_tells_the_truth() -> Result<()> {
    if machine::kernel_before(5, 11) {
        machine::skip("these are its usual reads");
        return Ok(());
    }
    each_alternative("by helper", &["direct_reads"])
}

fn each_alternative(reads: &str, always_skipped: &[&str]) -> Result<()> {
    let _statistics = Statistics::on()?;
    let mut used: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut by_number = false;
    for round in 0..MOST_ROUNDS {
        let skipped: BTreeSet<&str> = used
            .values()
            .flatten()
            .map(String::as_str)
            .chain(always_skipped.iter().copied())
            .collect();
        let Examined {
            hooks,
            victim_by_number,
        } = examined(&skipped, reads)?;
        by_number |= victim_by_number;
        if hooks.is_empty() {
            ensure!(round > 0, "no probe found a hook");
            return Ok(());
        }
        // Probes that have no other hook left keep theirs.
        let mut skipped: BTreeSet<String> = skipped.into_iter().map(str::to_owned).collect();
        let mut expected = hooks.clone();
        for (probe, before) in used.iter().filter(|(probe, _)| !hooks.contains_key(*probe)) {
            if let Some(first) = before.first() {
                skipped.remove(first);
                expected.insert(probe.clone(), first.clone());
            }
        }
        let agent = Agent::start(&arguments(&skipped))?;
        assert_eq!(attached(&agent)?, expected, "round {round}");
        tells_the_truth(&agent, &hooks, by_number).with_context(|| format!("with {expected:?}"))?;
        agent.stop()?;
        for (probe, hook) in hooks {
            used.entry(probe).or_default().push(hook);
        }
    }
    anyhow::bail!("still other hooks after {MOST_ROUNDS} rounds: {used:?}")
}

fn arguments<S: AsRef<str>>(skipped: &BTreeSet<S>) -> Vec<&str> {
    let skipped = skipped.iter().map(AsRef::as_ref);
    skipped.flat_map(|hook| ["--skip-hook", hook]).collect()
}

/// What `doctor` finds without some hooks. Records what the verifier says of each program.
fn examined(skipped: &BTreeSet<&str>, reads: &str) -> Result<Examined> {
    let mut line = vec!["doctor", "--json"];
    line.extend(arguments(skipped));
    let (findings, loads) = verifier::watch(agent::command(&line)?)?;
    let findings: Value =
        serde_json::from_str(&findings).with_context(|| format!("no findings: {findings}"))?;
    for load in loads.iter().filter(|load| !load.accepted) {
        // A refusal by policy comes without a word of the verifier.
        ensure!(
            load.instructions().is_none(),
            "the verifier refuses {}:\n{}",
            load.name,
            load.log
        );
    }
    let mut accepted = loads.iter().filter(|load| load.accepted);
    let mut examined = Examined::default();
    for probe in findings["probes"].as_array().context("no probes")? {
        let name = probe["probe"].as_str().context("no name")?;
        let Some(hook) = probe["hook"].as_str() else {
            continue;
        };
        let load = accepted.find(|load| load.fits(hook));
        let walked = load.and_then(Load::instructions);
        let walked =
            walked.with_context(|| format!("no statistics of {name} on {hook}: {loads:?}"))?;
        if let Some(told) = probe["verified_instructions"].as_u64() {
            assert_eq!(told, walked, "{name} on {hook}");
        }
        matrix::instructions(name, hook, reads, walked);
        let not_used = probe["not_used"].as_array().context("no not_used")?;
        // Two programs are for it, and the plan ruled the better one out.
        examined.victim_by_number |= hook == MARK_TRACEPOINT
            && not_used
                .iter()
                .any(|better| better["hook"] == MARK_TRACEPOINT);
        examined.hooks.insert(name.to_owned(), hook.to_owned());
    }
    Ok(examined)
}

fn attached(agent: &Agent) -> Result<Hooks> {
    let start = agent.last(of_type("start")).context("no start line")?;
    let probes = start["probes"].as_object().context("no probes")?;
    let attached = probes.iter().filter_map(|(probe, hook)| {
        let hook = hook.as_str()?;
        Some((probe.clone(), hook.to_owned()))
    });
    Ok(attached.collect())
}

/// Makes the events of the hooks that were not in use before.
fn tells_the_truth(agent: &Agent, fresh: &Hooks, victim_by_number: bool) -> Result<()> {
    let any = |family: &str| fresh.keys().any(|probe| probe.starts_with(family));
    // Without a hook on the calls themselves, nothing is told of the heap.
    if any("heap.") && attached(agent)?.contains_key("heap.mmap") {
        calls_are_counted(agent)?;
    }
    if any("fault.") || any("lifecycle.") {
        faults_are_seen(agent, fresh.get("fault.user"))?;
    }
    if any("oom.") || any("reclaim.") {
        let mark = attached(agent)?.remove("oom.mark_victim");
        let mark = mark.context("no hook on the mark")?;
        a_kill_is_told(agent, mark != MARK_TRACEPOINT || !victim_by_number)?;
    }
    Ok(())
}

fn calls_are_counted(agent: &Agent) -> Result<()> {
    let cgroup = Cgroup::new("alternative-heap")?;
    let id = cgroup.id()?;
    let totals = || {
        let line = agent.last(about("cgroup", id)).context("no line of it")?;
        Sums::of(&line).with_context(|| format!("no heap totals in {line}"))
    };
    let mut workload = Workload::start(&cgroup, &["calls"])?;
    workload.report()?;
    agent.wait_intervals(2)?;
    let before = totals()?;
    workload.resume()?;
    ensure!(workload.line()? == "done");
    agent.wait_intervals(2)?;
    let seen = totals()?.since(before);
    workload.resume()?;
    let expected = Sums::of(&workload.report()?).context("no sums in the report")?;
    workload.success()?;
    assert_eq!(seen, expected, "memtrace's totals and the program's");
    Ok(())
}

/// Faults, and the ends of processes.
fn faults_are_seen(agent: &Agent, hook: Option<&String>) -> Result<()> {
    let cgroup = Cgroup::new("alternative-fault")?;
    let id = cgroup.id()?;
    agent.wait_intervals(1)?;
    let before = faults_seen(agent)?;
    let bytes = (PAGES * PAGE).to_string();
    let mut workload = Workload::start(&cgroup, &["touch", "--bytes", &bytes])?;
    workload.report()?;
    let end = workload.success()?;
    ensure!(end.faults() >= PAGES, "the workload lied: {end:?}");
    let line = agent.wait_for("the end of the process", Duration::from_secs(15), |line| {
        about("cgroup", id)(line) && line["exits"].as_u64() >= Some(1)
    })?;
    assert_eq!(line["exits"], 1, "{line}");
    assert_eq!(line["execs"], 1, "{line}");
    let faults = number(&line, "exited_minor_faults")? + number(&line, "exited_major_faults")?;
    ensure!(
        faults.abs_diff(end.faults()) * 100 <= end.faults(),
        "wait4 counted {}: {line}",
        end.faults()
    );
    let Some(hook) = hook else {
        return Ok(());
    };
    agent.wait_intervals(1)?;
    let seen = faults_seen(agent)?.context("no statistics")? - before.context("no statistics")?;
    let sampled = hook.starts_with("perf_event");
    // Each CPU samples by its own count.
    let expected = if sampled {
        PAGES / FAULT_PERIOD - 2 * cpus()?
    } else {
        PAGES
    };
    ensure!(seen >= expected, "{hook} ran {seen} times for {end:?}");
    ensure!(
        !sampled || seen < PAGES / 2,
        "{hook} ran {seen} times: no sampling"
    );
    Ok(())
}

fn cpus() -> Result<u64> {
    Ok(std::thread::available_parallelism()?.get() as u64)
}

/// How often the program ran that sees page faults.
fn faults_seen(agent: &Agent) -> Result<Option<u64>> {
    let line = agent.last(of_type("self")).context("no self line")?;
    let probes = line["probes"].as_array().context("no probes")?;
    let fault = probes.iter().find(|probe| probe["probe"] == "fault.user");
    Ok(fault.and_then(|fault| fault["run_count"].as_u64()))
}

/// An OOM kill against the kernel log, and the stall before it.
fn a_kill_is_told(agent: &Agent, has_task: bool) -> Result<()> {
    let cgroup = Cgroup::new("alternative-oom")?;
    let mut log = KernelLog::open()?;
    let pid = run_into_limit(&cgroup, b"mt-alternative")?;
    let kernel = log.kill_of(pid)?;
    let line = agent.wait_for("the oom_kill line", Duration::from_secs(15), |line| {
        of_type("oom_kill")(line) && line["victim_tid"] == pid
    })?;
    let told = |field: &str, kernel: Value| match has_task {
        true => matrix::assert_right(field, &line[field], kernel, &line),
        false => matrix::assert_absent(field, &line[field], &line),
    };
    told("victim_pid", pid.into());
    told("victim_comm", kernel.comm.into());
    told("victim_uid", kernel.uid.into());
    told("total_vm_bytes", (kernel.total_vm_kib * 1024).into());
    told("page_table_bytes", (kernel.page_tables_kib * 1024).into());
    told("oom_score_adj", kernel.oom_score_adj.into());
    match has_task {
        true => matrix::assert_right("victim_cgroup", &line["cgroup"], cgroup.path(), &line),
        false => matrix::assert_absent("victim_cgroup", &line["cgroup"], &line),
    }
    // The only process there is its own trigger.
    matrix::assert_right("trigger_pid", &line["trigger_pid"], pid, &line);
    matrix::assert_right(
        "trigger_cgroup",
        &line["trigger_cgroup"],
        cgroup.path(),
        &line,
    );
    let stall = stalled(agent, cgroup.id()?)?;
    ensure!(number(&stall, "reclaim_stall_ns")? > 0, "{stall}");
    ensure!(cgroup.oom_kills()? == 1);
    Ok(())
}

/// As it was before, when dropped.
struct Statistics {
    before: String,
}

impl Statistics {
    fn on() -> Result<Self> {
        let before = fs::read_to_string(STATISTICS)?.trim().to_owned();
        fs::write(STATISTICS, "1")?;
        Ok(Self { before })
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        let _ = fs::write(STATISTICS, &self.before);
    }
}
