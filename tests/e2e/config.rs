//! The configuration file: a reload, a command at an event, a file that is wrong.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memtrace_tests::agent::{self, Agent, about, of_type};
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::incident::of_victim;
use memtrace_tests::machine::{self, MIB};
use memtrace_tests::workload::Workload;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::oom::run_into_limit;

/// A directory with a configuration file.
struct Configured {
    directory: TempDir,
}

impl Configured {
    fn new(text: &str) -> Result<Self> {
        let configured = Self {
            directory: tempfile::tempdir()?,
        };
        configured.write(text)?;
        Ok(configured)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, text: &str) -> Result<()> {
        Ok(fs::write(self.path("memtrace.toml"), text)?)
    }

    fn start(&self) -> Result<Agent> {
        let file = self.path("memtrace.toml");
        Agent::start(&["--config", file.to_str().context("no UTF-8")?])
    }
}

/// Sends SIGHUP and waits for what the agent says to it.
fn reload(agent: &Agent, said: &str) -> Result<()> {
    kill(Pid::from_raw(agent.pid() as i32), Signal::SIGHUP)?;
    let waited = machine::poll(said, Duration::from_secs(10), || {
        Ok(agent.stderr().contains(said).then_some(()))
    });
    waited.with_context(|| agent.stderr())
}

#[test]
fn a_reload_takes_over_the_filter_and_says_what_needs_a_restart() -> Result<()> {
    let configured = Configured::new("cgroup = \"/no-such-cgroup*\"\n")?;
    let agent = configured.start()?;
    let cgroup = Cgroup::new("reload")?;
    let bytes = (8 * MIB).to_string();
    let mut workload = Workload::start(&cgroup, &["touch", "--bytes", &bytes])?;
    workload.report()?;
    let id = cgroup.id()?;
    agent.wait_intervals(3)?;
    ensure!(agent.last(about("cgroup", id)).is_none(), "told before");

    configured.write("cgroup = \"*\"\nintervall = 3\n")?;
    reload(&agent, "memtrace.toml:2: unknown key `intervall`")?;
    ensure!(
        agent.stderr().contains("stays as it was"),
        "{}",
        agent.stderr()
    );
    agent.wait_intervals(2)?;
    ensure!(agent.last(about("cgroup", id)).is_none(), "told too early");

    configured.write("cgroup = \"*\"\nmax_cgroups = 4096\n")?;
    reload(&agent, "took over cgroup")?;
    reload(&agent, "needs a restart: max_cgroups")?;
    // Something has to change for a line.
    let mut other = Workload::start(&cgroup, &["touch", "--bytes", &bytes])?;
    other.report()?;
    agent.wait_for("the cgroup", Duration::from_secs(20), about("cgroup", id))?;
    agent.stop().map(drop)
}

#[test]
fn without_a_file_a_hangup_changes_nothing() -> Result<()> {
    let agent = Agent::start(&["--config", "none"])?;
    reload(&agent, "nothing to reload")?;
    agent.wait_intervals(2)?;
    agent.stop().map(drop)
}

#[test]
fn a_command_runs_at_a_kill_with_its_facts_and_its_line() -> Result<()> {
    let cgroup = Cgroup::new("on-event")?;
    let configured = Configured::new("")?;
    let (environment, line) = (configured.path("environment"), configured.path("line"));
    configured.write(&format!(
        "[[on_event]]\n\
         name = \"note\"\n\
         on = [\"incident\"]\n\
         kinds = [\"cgroup_oom\"]\n\
         cgroup = \"{}\"\n\
         shell = \"env > {}; cat > {}; echo noted; exit 3\"\n",
        cgroup.path(),
        environment.display(),
        line.display(),
    ))?;
    let agent = configured.start()?;
    let pid = run_into_limit(&cgroup, b"mt-on-event")?;
    let incident = of_victim(&agent, pid)?;
    let said = "\"note\" ran for incident: exit code 3";
    let told = machine::poll(said, Duration::from_secs(20), || {
        Ok(agent.stderr().contains(said).then_some(()))
    });
    told.with_context(|| agent.stderr())?;
    ensure!(
        agent.stderr().contains("its output: noted"),
        "{}",
        agent.stderr()
    );

    let environment = fs::read_to_string(&environment)?;
    let variable = |name: &str| {
        let mut lines = environment.lines();
        lines.find_map(|line| {
            line.strip_prefix(&format!("MEMTRACE_{name}="))
                .map(str::to_owned)
        })
    };
    assert_eq!(
        variable("EVENT").as_deref(),
        Some("incident"),
        "{environment}"
    );
    assert_eq!(variable("INCIDENT_KIND").as_deref(), Some("cgroup_oom"));
    assert_eq!(variable("PID"), Some(pid.to_string()), "{environment}");
    assert_eq!(variable("COMM").as_deref(), Some("mt-on-event"));
    assert_eq!(variable("CGROUP"), Some(cgroup.path()), "{environment}");
    assert_eq!(variable("CGROUP_ID"), Some(cgroup.id()?.to_string()));
    assert_eq!(variable("LIMIT_BYTES"), Some((32 * MIB).to_string()));
    assert_eq!(variable("POD"), None, "{environment}");
    ensure!(!environment.contains("HOME="), "not clean: {environment}");
    let line: Value = serde_json::from_slice(&fs::read(&line)?)?;
    assert_eq!(line, incident, "the same as on standard output");

    agent.wait_for("counters of commands", Duration::from_secs(10), |line| {
        of_type("self")(line) && line["lost"]["action_queue_full"] == 0
    })?;
    agent.stop().map(drop)
}

#[test]
fn signals_that_were_blocked_or_ignored_before_it_break_neither_commands_nor_its_end() -> Result<()>
{
    let cgroup = Cgroup::new("deaf")?;
    let configured = Configured::new(&format!(
        "[[on_event]]\n\
         name = \"note\"\n\
         on = [\"incident\"]\n\
         cgroup = \"{}\"\n\
         shell = \"exit 3\"\n",
        cgroup.path(),
    ))?;
    let file = configured.path("memtrace.toml");
    let agent = Agent::start_deaf(&["--config", file.to_str().context("no UTF-8")?])?;
    run_into_limit(&cgroup, b"mt-deaf")?;
    let said = "\"note\" ran for incident: exit code 3";
    let told = machine::poll(said, Duration::from_secs(20), || {
        Ok(agent.stderr().contains(said).then_some(()))
    });
    told.with_context(|| agent.stderr())?;
    // By SIGTERM.
    agent.stop().map(drop)
}

#[test]
fn a_file_that_is_wrong_ends_it_with_2_and_names_the_line() -> Result<()> {
    let configured = Configured::new("interval = \"1s\"\n\nheep = true\nstall_after = 5\n")?;
    let file = configured.path("memtrace.toml");
    let path = file.to_str().context("no UTF-8")?;
    let missing = configured.path("missing.toml");
    let missing = missing.to_str().context("no UTF-8")?;
    for (arguments, code, said) in [
        (
            ["run", "--config", path],
            2,
            ":3: unknown key `heep`; did you mean `heap`?",
        ),
        (["run", "--config", path], 2, ":4: stall_after:"),
        (["config", "check", path], 1, ":3: unknown key `heep`"),
        (["run", "--config", missing], 2, "cannot be read"),
    ] {
        let output = agent::command(&arguments)?.output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        ensure!(stderr.contains(said), "{arguments:?}: {stderr}");
        ensure!(output.stdout.is_empty(), "{output:?}");
    }
    Ok(())
}
