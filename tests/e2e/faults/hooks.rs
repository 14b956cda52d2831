//! Each hook fails alone: its signal is gone and said to be, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memtrace_tests::agent::{self, Agent, about, number, of_type};
use memtrace_tests::backend::{free_port, request};
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::incident::{is_complete, of_victim, victim, victims};
use memtrace_tests::machine::MIB;
use memtrace_tests::refused_calls::{Call, Kind, Refusals};
use memtrace_tests::workload::Workload;
use nix::errno::Errno;
use serde_json::Value;

use crate::oom::run_into_limit;

/// One row of the catalog of probes.
#[derive(Debug, Clone, Copy)]
struct Hook {
    probe: &'static str,
    /// How the names of its programs begin, of which the kernel has 15 bytes.
    programs: &'static [&'static str],
    /// Of those of one name, this one in the order in which they are loaded.
    nth: usize,
    /// Without it memtrace is degraded.
    essential: bool,
}

const fn hook(probe: &'static str, programs: &'static [&'static str], nth: usize) -> Hook {
    Hook {
        probe,
        programs,
        nth,
        essential: true,
    }
}

const fn refinement(probe: &'static str, programs: &'static [&'static str]) -> Hook {
    Hook {
        essential: false,
        ..hook(probe, programs, ANY)
    }
}

const HOOKS: &[Hook] = &[
    hook("oom.mark_victim", &["oom_mark_victim"], ANY),
    refinement("oom.kill_process", &["oom_kill_proces"]),
    hook("oom.signal", &["oom_signal"], 0),
    hook("oom.process_exit", &["oom_process_exi"], 0),
    refinement("oom.reaped", &["oom_finish_task"]),
    refinement("oom.command_exec", &["oom_command_exe"]),
    refinement("oom.command_fork", &["oom_command_for"]),
    hook("lifecycle.cgroup_mkdir", &["lifecycle_cgrou"], 0),
    hook("lifecycle.cgroup_rmdir", &["lifecycle_cgrou"], 1),
    hook("lifecycle.process_exec", &["lifecycle_proce"], 0),
    hook("lifecycle.process_exit", &["lifecycle_proce"], 1),
    hook("reclaim.direct_begin", &["reclaim_direct_"], 0),
    hook("reclaim.direct_end", &["reclaim_direct_"], 1),
    hook("reclaim.memcg_begin", &["reclaim_memcg_b"], 0),
    hook("reclaim.memcg_end", &["reclaim_memcg_e"], 0),
    hook("fault.user", &["fault_user", "fault_perf"], 0),
    refinement("fault.kernel", &["fault_kernel"]),
    hook("heap.break_fork", &["heap_break_fork"], 0),
    hook("heap.break_exec", &["heap_break_exec"], 0),
    hook("heap.mmap", &["heap_mmap_"], ANY),
    hook("heap.munmap", &["heap_munmap_"], ANY),
    hook("heap.mremap", &["heap_mremap_"], ANY),
    hook("heap.brk", &["heap_brk_"], ANY),
    hook("heap.madvise", &["heap_madvise_"], ANY),
];

/// All programs of that name serve the same probe.
const ANY: usize = usize::MAX;
const REFUSAL: &str = "Cannot allocate memory";

/// Refuses to load the programs of one hook.
fn refuses(hook: Hook) -> impl FnMut(&Call) -> Option<Errno> + Send + 'static {
    let mut seen: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    move |call| {
        let name = call.program_name()?;
        hook.programs
            .iter()
            .find(|start| name.starts_with(*start))?;
        let attach_type = call.attach_type()?;
        let types = seen.entry(name).or_default();
        let nth = types.iter().position(|known| *known == attach_type);
        let nth = nth.unwrap_or_else(|| {
            types.push(attach_type);
            types.len() - 1
        });
        (hook.nth == ANY || hook.nth == nth).then_some(Errno::ENOMEM)
    }
}

/// What `doctor` finds: its JSON, with a hook that fails.
fn doctor(failing: Option<Hook>) -> Result<Value> {
    let mut command = agent::command(&["doctor", "--json"])?;
    let mut refusals = None;
    if let Some(hook) = failing {
        refusals = Some(Refusals::of(
            &mut command,
            &[Kind::LOAD_PROGRAM],
            refuses(hook),
        )?);
    }
    let output = command.output()?;
    let refused = refusals.as_ref().map_or(0, Refusals::count);
    ensure!(failing.is_some() == (refused > 0), "{refused} refused");
    serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Each probe and its hook.
fn served(findings: &Value) -> Result<BTreeMap<String, Option<String>>> {
    let probes = findings["probes"].as_array().context("no probes")?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    probes
        .iter()
        .map(|probe| {
            Ok((
                text(&probe["probe"]).context("no name")?,
                text(&probe["hook"]),
            ))
        })
        .collect()
}

fn problem_of(findings: &Value, probe: &str) -> Option<String> {
    let problems = findings["problems"].as_array()?.iter();
    let mut texts = problems.filter_map(Value::as_str);
    let problem = texts.find(|text| text.starts_with(&format!("{probe} has no hook")));
    problem.map(str::to_owned)
}

#[test]
fn doctor_names_each_hook_that_fails_with_its_cause_and_no_other() -> Result<()> {
    let usual = doctor(None)?;
    let hooks = served(&usual)?;
    let known: BTreeSet<&str> = HOOKS.iter().map(|hook| hook.probe).collect();
    let there: BTreeSet<&str> = hooks.keys().map(String::as_str).collect();
    assert_eq!(known, there, "the table of hooks");
    let there = HOOKS.iter().filter(|hook| hooks[hook.probe].is_some());
    for hook in there.step_by(super::step()) {
        let findings = doctor(Some(*hook))?;
        let mut expected = hooks.clone();
        expected.insert(hook.probe.to_owned(), None);
        if hook.probe == "oom.command_exec" {
            // It would tell a parent's command line of its child.
            expected.insert("oom.command_fork".to_owned(), None);
        }
        assert_eq!(served(&findings)?, expected);
        let probes = findings["probes"].as_array().context("no probes")?;
        let probe = probes.iter().find(|probe| probe["probe"] == hook.probe);
        let not_used = probe.context("no such probe")?["not_used"].to_string();
        ensure!(not_used.contains(REFUSAL), "{}: {not_used}", hook.probe);
        let problem = problem_of(&findings, hook.probe);
        assert_eq!(problem.is_some(), hook.essential, "{findings}");
        ensure!(!hook.essential || findings["verdict"] == "degraded");
        if let Some(problem) = problem {
            ensure!(problem.contains(REFUSAL), "{problem}");
        }
    }
    Ok(())
}

#[test]
fn a_hook_that_fails_costs_its_own_signal_and_nothing_else() -> Result<()> {
    let port = free_port()?;
    let usual = Agent::start(&["--listen", &format!("127.0.0.1:{port}")])?;
    let told = Told::by(&usual, port)?;
    let start = usual.last(of_type("start")).context("no start line")?;
    usual.stop()?;
    for hook in HOOKS.iter().step_by(super::step()) {
        if start["probes"][hook.probe].is_string() {
            fails(*hook, &told).with_context(|| hook.probe)?;
        }
    }
    Ok(())
}

fn fails(hook: Hook, usual: &Told) -> Result<()> {
    let port = free_port()?;
    let listen = format!("127.0.0.1:{port}");
    let agent = Agent::start_refused(
        &["--listen", &listen],
        &[],
        &[Kind::LOAD_PROGRAM],
        refuses(hook),
    )?;
    ensure!(agent.refused() > 0, "nothing was refused");
    let start = agent.last(of_type("start")).context("no start line")?;
    ensure!(start["probes"][hook.probe].is_null(), "{start}");
    let warned = agent.stderr().contains(hook.probe);
    assert_eq!(warned, hook.essential, "{}", agent.stderr());
    let status = status(port)?;
    let mut probes = status["probes"].as_array().context("no probes")?.iter();
    let probe = probes.find(|probe| probe["probe"] == hook.probe);
    let probe = probe.context("not in /status")?;
    ensure!(probe["hook"].is_null(), "{probe}");
    ensure!(probe["rejected"].to_string().contains(REFUSAL), "{probe}");

    assert_eq!(Told::by(&agent, port)?, usual.without(hook.probe));
    if hook.probe == "fault.user" {
        let stderr = agent.stderr();
        ensure!(stderr.contains("no stacks of resident memory"), "{stderr}");
    }
    agent.stop().map(drop)
}

fn status(port: u16) -> Result<Value> {
    let (_, status) = request(port, "GET", "/status", "")?;
    serde_json::from_str(&status).with_context(|| status.clone())
}

/// Which signals came of a kill, of that of a child that executed nothing, and of a cgroup that was gone at once.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    kill_line: bool,
    /// Otherwise a kill that the kernel counted is told as missed.
    incident: bool,
    limit: bool,
    /// The kernel said whose limit it was.
    oom_control: bool,
    request: bool,
    badness: bool,
    killed: bool,
    executable: bool,
    command_line: bool,
    /// A child that executes nothing is told with what its parent was started as.
    inherited: bool,
    heap: bool,
    reclaim: bool,
    execs: bool,
    exits: bool,
    died: bool,
    /// The cgroup is told as of its birth, not as of memtrace's start.
    born: bool,
    gone: bool,
    /// A cgroup is told that came and went between two readings.
    brief: bool,
    stacks: bool,
}

impl Told {
    fn by(agent: &Agent, port: u16) -> Result<Self> {
        let start = agent.last(of_type("start")).context("no start line")?;
        // All that follows until the kill begins right behind a reading.
        agent.wait_intervals(0)?;
        let brief = Cgroup::new("hook-brief")?;
        let brief_id = brief.id()?;
        brief.remove()?;
        let cgroup = Cgroup::new("hook-fails")?;
        let id = cgroup.id()?;
        let pid = run_into_limit(&cgroup, b"mt-hook-fails")?;
        let path = cgroup.path();
        let seen = agent.wait_for("the kill", Duration::from_secs(20), |line| {
            let missed = line["kind"] == "missed_kills" && line["charged"]["cgroup_id"] == id;
            missed || is_complete(line) && victim(line, pid).is_ok()
        })?;
        let missed = seen["kind"] == "missed_kills";
        let inherited = !missed && is_told_as_its_parent(agent)?;
        agent.wait_intervals(1)?;
        let lost = agent.last(of_type("self")).context("no self line")?["lost"].clone();
        ensure!(
            !missed || lost["oom_kills_missed"].as_u64() > Some(0),
            "{lost}"
        );
        let about_it =
            |line: &Value| line["kind"] == "missed_kills" && line["charged"]["cgroup_id"] == id;
        assert_eq!(agent.all(about_it).len(), usize::from(missed));
        let line = agent.last(about("cgroup", id)).context("no cgroup line")?;
        assert_eq!(line["cgroup"], path.as_str(), "{line}");
        cgroup.remove()?;
        let gone = agent.wait_for("the end of the cgroup", Duration::from_secs(10), |line| {
            about("cgroup", id)(line) && line["removed"] == true
        });
        let killed = victims(&seen).first().cloned().unwrap_or_default();
        let has = |field: &str| line[field].is_u64();
        let is_kill = |line: &Value| of_type("oom_kill")(line) && line["victim_pid"] == pid;
        let heap = [
            "mmap_bytes",
            "munmap_bytes",
            "brk_grow_bytes",
            "madvise_free_bytes",
        ];
        let reclaim = ["reclaim_count", "reclaim_stall_ns"];
        for fields in [&heap[..], &reclaim, &["exits", "exited_minor_faults"]] {
            let same = fields.iter().all(|field| has(field) == has(fields[0]));
            ensure!(same, "a part of {fields:?}: {line}");
        }
        let asked = &seen["request"];
        let request = ["order", "gfp_mask", "total_bytes"].map(|field| asked[field].is_i64());
        ensure!(
            request.iter().all(|told| *told == request[0]),
            "a part of the request: {seen}"
        );
        let was_brief =
            agent.all(|line| about("cgroup", brief_id)(line) && line["removed"] == true);
        Ok(Self {
            kill_line: !agent.all(is_kill).is_empty(),
            incident: !missed,
            limit: seen["charged"]["limit_bytes"].is_u64(),
            oom_control: seen["charged"]["known_by"] == "oom_control",
            request: request[0],
            badness: killed["badness"].is_i64(),
            killed: killed["killed"] == true,
            executable: killed["executable"].is_string(),
            command_line: killed["command_line"].is_string(),
            inherited,
            heap: heap.into_iter().all(has),
            reclaim: reclaim.into_iter().all(has),
            execs: has("execs"),
            exits: has("exits"),
            died: killed["died"].is_string(),
            born: line["since"] != start["time"],
            gone: gone.is_ok(),
            brief: !was_brief.is_empty(),
            stacks: status(port)?["stacks"].is_object(),
        })
    }

    /// The same but for what that probe alone tells.
    fn without(&self, probe: &str) -> Self {
        let mut left = self.clone();
        let lost: Vec<&mut bool> = match probe {
            "oom.mark_victim" => vec![
                &mut left.kill_line,
                &mut left.incident,
                &mut left.oom_control,
                &mut left.request,
                &mut left.badness,
                &mut left.killed,
                &mut left.executable,
                &mut left.command_line,
                &mut left.inherited,
                &mut left.died,
            ],
            "oom.kill_process" => {
                vec![&mut left.oom_control, &mut left.request, &mut left.badness]
            }
            "oom.signal" => vec![&mut left.killed],
            "oom.command_exec" => vec![
                &mut left.executable,
                &mut left.command_line,
                &mut left.inherited,
            ],
            "oom.command_fork" => vec![&mut left.inherited],
            "lifecycle.cgroup_mkdir" => vec![&mut left.born, &mut left.brief],
            "lifecycle.process_exec" => vec![&mut left.execs],
            "lifecycle.process_exit" => vec![&mut left.exits],
            "oom.process_exit" => vec![&mut left.died],
            _ if probe.starts_with("reclaim.") => vec![&mut left.reclaim],
            "fault.user" => vec![&mut left.stacks],
            _ if probe.starts_with("heap.") => vec![&mut left.heap],
            // The kernel reaps nobody who dies within two seconds (`OOM_REAPER_DELAY`).
            "oom.reaped" => Vec::new(),
            // The end of a cgroup is found by the next reading, at the latest.
            "lifecycle.cgroup_rmdir" => Vec::new(),
            // Counts the pages that the kernel touches for a process: none of the victim's memory.
            "fault.kernel" => Vec::new(),
            other => unreachable!("what {other} costs is not written down"),
        };
        for field in lost {
            *field = false;
        }
        left
    }
}

/// Kills a child that executed nothing; whether the incident has its parent's command line.
fn is_told_as_its_parent(agent: &Agent) -> Result<bool> {
    let cgroup = Cgroup::new("hook-child")?;
    cgroup.limit(32 * MIB)?;
    let bytes = (128 * MIB).to_string();
    let mut parent = Workload::start(&cgroup, &["child-first", "--bytes", &bytes])?;
    let child = u32::try_from(number(&parent.report()?, "child")?)?;
    parent.resume()?;
    let end = parent.report()?;
    assert_eq!(end["signal"], libc::SIGKILL, "{end}");
    let incident = of_victim(agent, child)?;
    parent.success()?;
    let victim = victim(&incident, child)?;
    let line = victim["command_line"].as_str();
    assert_eq!(line.is_some(), victim["executable"].is_string(), "{victim}");
    Ok(line.is_some_and(|line| line.contains("child-first")))
}
