//! Each hook fails alone: its signal is gone and said to be, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memtrace_tests::agent::{self, Agent, about, of_type};
use memtrace_tests::backend::{free_port, request};
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::incident::{is_complete, victim, victims};
use memtrace_tests::refused_calls::{Call, Kind, Refusals};
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
        ..hook(probe, programs, 0)
    }
}

const HOOKS: &[Hook] = &[
    hook("oom.mark_victim", &["oom_mark_victim"], ANY),
    refinement("oom.kill_process", &["oom_kill_proces"]),
    hook("oom.signal", &["oom_signal"], 0),
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
    for hook in HOOKS.iter().filter(|hook| hooks[hook.probe].is_some()) {
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
    let usual = Agent::start(&[])?;
    let told = Told::by(&usual)?;
    let start = usual.last(of_type("start")).context("no start line")?;
    usual.stop()?;
    for hook in HOOKS {
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
    let (_, status) = request(port, "GET", "/status", "")?;
    let status: Value = serde_json::from_str(&status)?;
    let mut probes = status["probes"].as_array().context("no probes")?.iter();
    let probe = probes.find(|probe| probe["probe"] == hook.probe);
    let probe = probe.context("not in /status")?;
    ensure!(probe["hook"].is_null(), "{probe}");
    ensure!(probe["rejected"].to_string().contains(REFUSAL), "{probe}");

    assert_eq!(Told::by(&agent)?, usual.without(hook.probe));
    if hook.probe == "fault.user" {
        let stderr = agent.stderr();
        ensure!(stderr.contains("no stacks of resident memory"), "{stderr}");
    }
    agent.stop().map(drop)
}

/// Which signals came of one kill in one cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    kill_line: bool,
    /// Otherwise a kill that the kernel counted is told as missed.
    incident: bool,
    limit: bool,
    killed: bool,
    executable: bool,
    command_line: bool,
    heap: bool,
    reclaim: bool,
    execs: bool,
    exits: bool,
    died: bool,
    /// The cgroup was seen to come and to go.
    born: bool,
    gone: bool,
}

impl Told {
    fn by(agent: &Agent) -> Result<Self> {
        let cgroup = Cgroup::new("hook-fails")?;
        let id = cgroup.id()?;
        let pid = run_into_limit(&cgroup, b"mt-hook-fails")?;
        let path = cgroup.path();
        let seen = agent.wait_for("the kill", Duration::from_secs(20), |line| {
            let missed = line["kind"] == "missed_kills" && line["charged"]["cgroup_id"] == id;
            missed || is_complete(line) && victim(line, pid).is_ok()
        })?;
        let missed = seen["kind"] == "missed_kills";
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
        cgroup.remove()?;
        let gone = agent.wait_for("the end of the cgroup", Duration::from_secs(10), |line| {
            about("cgroup", id)(line) && line["removed"] == true
        });
        let of_victim = victims(&seen).first().cloned().unwrap_or_default();
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
        Ok(Self {
            kill_line: !agent.all(is_kill).is_empty(),
            incident: !missed,
            limit: seen["charged"]["limit_bytes"].is_u64(),
            killed: of_victim["killed"] == true,
            executable: of_victim["executable"].is_string(),
            command_line: of_victim["command_line"].is_string(),
            heap: heap.into_iter().all(has),
            reclaim: reclaim.into_iter().all(has),
            execs: has("execs"),
            exits: has("exits"),
            died: of_victim["died"].is_string(),
            born: line["cgroup"] == path.as_str(),
            gone: gone.is_ok(),
        })
    }

    /// The same but for what that probe alone tells.
    fn without(&self, probe: &str) -> Self {
        let mut left = self.clone();
        let lost: Vec<&mut bool> = match probe {
            "oom.mark_victim" => vec![
                &mut left.kill_line,
                &mut left.incident,
                &mut left.killed,
                &mut left.executable,
                &mut left.command_line,
                &mut left.died,
            ],
            "oom.signal" => vec![&mut left.killed],
            "oom.command_exec" => vec![&mut left.executable, &mut left.command_line],
            "lifecycle.process_exec" => vec![&mut left.execs],
            "lifecycle.process_exit" => vec![&mut left.exits, &mut left.died],
            _ if probe.starts_with("reclaim.") => vec![&mut left.reclaim],
            _ if probe.starts_with("heap.") => vec![&mut left.heap],
            _ => Vec::new(),
        };
        for field in lost {
            *field = false;
        }
        left
    }
}
