//! `memtrace top` in a terminal of tmux: what it shows of a real agent, and what it leaves behind.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use memtrace_tests::agent::Agent;
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::machine::{self, MIB};
use memtrace_tests::workload::Workload;
use tempfile::TempDir;

const USUAL: Duration = Duration::from_secs(30);

/// A shell in a detached terminal of a tmux of its own, gone when dropped.
struct Terminal {
    directory: TempDir,
    name: String,
}

impl Terminal {
    /// `None` where there is no tmux.
    fn open(width: u16, height: u16) -> Result<Option<Self>> {
        if machine::in_path("tmux").is_none() {
            machine::skip("no tmux");
            return Ok(None);
        }
        let directory = tempfile::tempdir()?;
        let name = format!("memtrace-top-{}", std::process::id());
        let terminal = Self { directory, name };
        terminal.tmux(&[
            "new-session",
            "-d",
            "-x",
            &width.to_string(),
            "-y",
            &height.to_string(),
            "env PS1='ready> ' sh",
        ])?;
        terminal.wait("ready>")?;
        Ok(Some(terminal))
    }

    fn tmux(&self, arguments: &[&str]) -> Result<Output> {
        let output = Command::new("tmux")
            .args(["-u", "-L", &self.name, "-f", "/dev/null"])
            .args(arguments)
            .env("TMUX_TMPDIR", self.directory.path())
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .output()
            .context("cannot run tmux")?;
        ensure!(output.status.success(), "tmux {arguments:?}: {output:?}");
        Ok(output)
    }

    fn press(&self, keys: &[&str]) -> Result<()> {
        let arguments: Vec<&str> = ["send-keys"].iter().chain(keys).copied().collect();
        self.tmux(&arguments).map(|_| ())
    }

    fn screen(&self) -> Result<String> {
        let output = self.tmux(&["capture-pane", "-p"])?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Waits until the screen has it; gives the screen.
    fn wait(&self, wanted: &str) -> Result<String> {
        let mut last = String::new();
        let found = machine::poll(wanted, USUAL, || {
            std::thread::sleep(Duration::from_millis(100));
            last = self.screen()?;
            Ok(last.contains(wanted).then_some(()))
        });
        match found {
            Ok(()) => Ok(last),
            Err(error) => bail!("{error}; the screen:\n{last}"),
        }
    }

    /// The settings of the terminal, as the shell sees them.
    fn settings(&self, name: &str) -> Result<String> {
        let file = self.directory.path().join(name);
        self.press(&[
            &format!("stty -a > {0}.new; mv {0}.new {0}", file.display()),
            "Enter",
        ])?;
        machine::poll("stty", USUAL, || {
            Ok(file
                .exists()
                .then(|| fs::read_to_string(&file))
                .transpose()?)
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]);
    }
}

fn agent(socket: &Path) -> Result<Agent> {
    Agent::start(&["--api-socket", socket.to_str().context("not text")?])
}

#[test]
fn top_shows_a_cgroup_survives_its_agent_and_leaves_the_terminal_as_it_was() -> Result<()> {
    let Some(terminal) = Terminal::open(80, 24)? else {
        return Ok(());
    };
    let socket = terminal.directory.path().join("api").join("agent.sock");
    let cgroup = Cgroup::new("top")?;
    cgroup.limit(256 * MIB)?;
    let bytes = (64 * MIB).to_string();
    let _workload = Workload::start(&cgroup, &["touch", "--bytes", &bytes])?;
    let first = agent(&socket)?;

    let before = terminal.settings("before")?;
    let name = cgroup
        .path()
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .to_owned();
    terminal.press(&[
        &format!(
            "{} top -i 200ms --flat --cgroup '*{name}' --socket {}",
            machine::memtrace()?.display(),
            socket.display()
        ),
        "Enter",
    ])?;
    let list = terminal.wait("live")?;
    ensure!(
        list.contains("memtrace top") && list.contains("q quit"),
        "{list}"
    );
    let list = terminal.wait(&name)?;
    let row = list
        .lines()
        .find(|line| line.contains(&name) && line.starts_with('>'));
    let row = row.with_context(|| format!("no row of {name}:\n{list}"))?;
    ensure!(row.contains('█') && row.contains("256M"), "{list}");

    terminal.press(&["Enter"])?;
    let details = terminal.wait("Verdict")?;
    ensure!(details.contains("of 256M, its own limit"), "{details}");
    ensure!(!details.contains("CGROUP"), "{details}");

    first.kill()?;
    let gone = terminal.wait("no answer since")?;
    ensure!(gone.contains("LOST") && gone.contains("Verdict"), "{gone}");
    let second = agent(&socket)?;
    terminal.wait("live")?;

    terminal.press(&["C-z"])?;
    terminal.wait("Stopped")?;
    terminal.press(&["fg; echo status=$?", "Enter"])?;
    terminal.wait("Verdict")?;

    terminal.press(&["q"])?;
    let shell = terminal.wait("status=0")?;
    ensure!(
        shell.contains("ready>") && !shell.contains("Verdict"),
        "{shell}"
    );
    assert_eq!(terminal.settings("after")?, before);
    second.stop()?;
    Ok(())
}

#[test]
fn top_without_a_terminal_says_what_scripts_use() -> Result<()> {
    let output = memtrace_tests::agent::command(&["top"])?.output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    ensure!(stderr.contains("memtrace run --output json"), "{stderr}");
    ensure!(output.stdout.is_empty(), "{output:?}");
    Ok(())
}

#[test]
fn top_ends_quietly_when_its_terminal_is_gone() -> Result<()> {
    let Some(terminal) = Terminal::open(80, 24)? else {
        return Ok(());
    };
    let place = tempfile::tempdir()?;
    let socket = terminal.directory.path().join("api").join("agent.sock");
    let agent = agent(&socket)?;
    let status = place.path().join("status");
    // This shell outlives its terminal, to tell how top ended.
    terminal.press(&[
        &format!(
            "sh -c \"trap '' HUP; {} top --socket {}; echo \\$? > {}\"",
            machine::memtrace()?.display(),
            socket.display(),
            status.display()
        ),
        "Enter",
    ])?;
    terminal.wait("live")?;
    terminal.tmux(&["kill-server"])?;
    let ended = machine::poll("the end of top", USUAL, || {
        let status = fs::read_to_string(&status).unwrap_or_default();
        Ok(status.ends_with('\n').then_some(status))
    })?;
    assert_eq!(ended.trim(), "0");
    agent.stop().map(drop)
}
