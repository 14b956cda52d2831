//! Names of Podman's containers from its files, without its socket.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memtrace_tests::agent::{Agent, of_type};
use memtrace_tests::backend::{free_port, request, scraped};
use memtrace_tests::containerd::{WORKLOAD, fill_root, remove_cgroups};
use memtrace_tests::machine::{self, MIB, poll};
use nix::mount::{MntFlags, umount2};
use tempfile::TempDir;

const IMAGE: &str = "memtrace.test/podman-workload:1";
/// Where Podman keeps what it knows, which is where memtrace looks.
const HOME: &str = "/var/lib/containers";
const DRIVERS: [&str; 2] = ["storage/overlay", "storage/vfs"];
/// The cgroups of its containers.
const PARENT: &str = "/libpod_parent";
const LIMIT: u64 = 32 * MIB;

/// The host's Podman with an image of the workload; both gone as they came when dropped.
struct Podman {
    /// Of before the test.
    was_used: bool,
    /// For its networks, which it makes even if none is used.
    directory: TempDir,
    names: Vec<String>,
}

impl Podman {
    /// `None` and a message where it is not installed.
    fn start() -> Result<Option<Self>> {
        for program in ["podman", "tar"] {
            if machine::in_path(program).is_none() {
                machine::skip(&format!("no {program} in PATH"));
                return Ok(None);
            }
        }
        let podman = Self {
            was_used: Path::new(HOME).exists(),
            directory: TempDir::new()?,
            names: Vec::new(),
        };
        let directory = podman.directory.path();
        let (root, archive) = (directory.join("root"), directory.join("tar"));
        fill_root(&root)?;
        let mut tar = Command::new("tar");
        output(tar.arg("-C").arg(&root).arg("-cf").arg(&archive).arg("."))?;
        output(podman.command().arg("import").arg(&archive).arg(IMAGE))?;
        Ok(Some(podman))
    }

    fn command(&self) -> Command {
        let mut command = Command::new("podman");
        command.args(["--cgroup-manager", "cgroupfs", "--events-backend", "none"]);
        command
            .arg("--network-config-dir")
            .arg(self.directory.path());
        if machine::in_path("runc").is_some() {
            // crun refuses hosts with both versions of cgroups.
            command.args(["--runtime", "runc"]);
        }
        if !self.was_used {
            // Works on every file system.
            command.args(["--storage-driver", "vfs"]);
        }
        command
    }

    /// Starts a container; gives its id.
    fn run(&mut self, name: &str, more: &[&str], arguments: &[&str]) -> Result<String> {
        let name = format!("memtrace-{name}-{}", std::process::id());
        self.names.push(name.clone());
        let limit = LIMIT.to_string();
        let mut run = self.command();
        run.args(["run", "--detach", "--net", "none", "--name", &name]);
        run.args(["--memory", &limit, "--security-opt", "seccomp=unconfined"]);
        // Some hosts allow less than Podman asks for.
        run.args([
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=1024:1024",
        ]);
        run.args(more).args([IMAGE, WORKLOAD]).args(arguments);
        let id = output(&mut run)?;
        Ok(id.trim().to_owned())
    }

    fn name(&self, index: usize) -> Result<&str> {
        let name = self.names.get(index).context("no such container")?;
        Ok(name)
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = output(self.command().args(["rm", "--force", "--time", "0", name]));
        }
        let _ = output(self.command().args(["rmi", "--force", IMAGE]));
        if !self.was_used {
            for driver in DRIVERS {
                let _ = umount2(&Path::new(HOME).join(driver), MntFlags::MNT_DETACH);
            }
            let _ = fs::remove_dir_all(HOME);
            remove_cgroups(PARENT);
        }
    }
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {error}");
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn containers_of_podman_have_their_names_in_incidents_and_scrapes() -> Result<()> {
    let Some(mut podman) = Podman::start()? else {
        return Ok(());
    };
    // One is older than the agent. One is removed as it ends, and lives for a moment only.
    let old = podman.run("old", &[], &["sleep"])?;
    let port = free_port()?;
    let agent = Agent::start(&["--listen", &format!("127.0.0.1:{port}")])?;
    let young = podman.run("young", &[], &["sleep"])?;
    let brief = podman.run("brief", &["--rm"], &["oom", "--bytes", "134217728"])?;

    let incident = agent.wait_for("the incident", Duration::from_secs(20), |line| {
        of_type("oom_incident")(line)
            && line["complete"] == true
            && line["charged"]["names"]["container_id"] == brief.as_str()
    })?;
    let names = &incident["charged"]["names"];
    for (field, expected) in [
        ("container", podman.name(2)?),
        ("container_runtime", "podman"),
        ("image", IMAGE),
    ] {
        ensure!(
            names[field] == expected,
            "{field} should be {expected}: {incident}"
        );
    }
    ensure!(names["pod"].is_null(), "{incident}");

    for (index, id) in [(0, &old), (1, &young)] {
        let labels = [
            format!("container_id=\"{id}\""),
            format!("container_name=\"{}\"", podman.name(index)?),
        ];
        poll("the name in a scrape", Duration::from_secs(20), || {
            scraped(port, "container_memory_usage_bytes", &labels)
        })?;
    }
    let (_, status) = request(port, "GET", "/status", "")?;
    let status: serde_json::Value = serde_json::from_str(&status)?;
    ensure!(
        status.to_string().contains(r#""files":{"state":"synced"}"#),
        "{status}"
    );
    agent.stop().map(drop)
}
