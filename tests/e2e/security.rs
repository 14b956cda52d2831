//! What must not happen: listening unasked, files outside the state directory, names that command a terminal
//! or a page, a crowd that hides others. Secrets are in `secrets`, privileges in `least_privilege`, a socket
//! that is asked for in `api`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memtrace_tests::agent::{Agent, about, number, of_type, run, text};
use memtrace_tests::backend::free_port;
use memtrace_tests::cgroup::{Cgroup, unique};
use memtrace_tests::incident::{of_victim, victim};
use memtrace_tests::kube_api::KubeApi;
use memtrace_tests::machine::MIB;
use memtrace_tests::own_mounts;
use memtrace_tests::workload::Workload;
use nix::mount::{MsFlags, mount};
use serde_json::json;

use crate::api::ask;
use crate::identity_kubernetes::{NODE, Pod, SOON, kill_in};
use crate::oom::run_into_limit;

/// Local addresses of the sockets of a process on which others can begin a conversation.
fn listening(pid: u32) -> Result<Vec<String>> {
    let mut inodes = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let target = fs::read_link(entry?.path()).unwrap_or_default();
        let target = target.to_string_lossy();
        if let Some(inode) = target.strip_prefix("socket:[") {
            inodes.insert(inode.trim_end_matches(']').to_owned());
        }
    }
    let mut found = Vec::new();
    // Position of state and inode; a datagram socket without a peer is in state 7.
    for (file, state, inode, open) in [
        ("tcp", 3, 9, "0A"),
        ("tcp6", 3, 9, "0A"),
        ("udp", 3, 9, "07"),
        ("udp6", 3, 9, "07"),
        ("raw", 3, 9, "07"),
        ("raw6", 3, 9, "07"),
    ] {
        let table = fs::read_to_string(format!("/proc/{pid}/net/{file}")).unwrap_or_default();
        for line in table.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let own = words
                .get(inode)
                .is_some_and(|inode| inodes.contains(*inode));
            if own && words.get(state) == Some(&open) {
                found.push(format!("{file} {}", words[1]));
            }
        }
    }
    let unix = fs::read_to_string(format!("/proc/{pid}/net/unix"))?;
    for line in unix.lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        // __SO_ACCEPTCON of include/linux/net.h.
        let accepts = words.get(3) == Some(&"00010000");
        if accepts && words.get(6).is_some_and(|inode| inodes.contains(*inode)) {
            found.push(format!("unix {}", words.get(7).unwrap_or(&"?")));
        }
    }
    Ok(found)
}

#[test]
fn nothing_listens_but_what_was_asked_for() -> Result<()> {
    let agent = Agent::start(&[])?;
    let none = listening(agent.pid())?;
    ensure!(none.is_empty(), "{none:?}");
    agent.stop()?;

    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("run/agent.sock");
    let socket = socket.to_str().context("no text")?;
    let port = free_port()?;
    let address = format!("127.0.0.1:{port}");
    let agent = Agent::start(&["--api-socket", socket, "--listen", &address])?;
    let asked = listening(agent.pid())?;
    let expected = [format!("tcp 0100007F:{port:04X}"), format!("unix {socket}")];
    assert_eq!(asked, expected);
    agent.stop().map(drop)
}

/// An agent that is not told where its socket is to be, with a `/run` of its own.
fn start_with_the_usual_socket() -> Result<Agent> {
    Agent::start_prepared(&[], &[], |command| {
        command.env_remove("MEMTRACE_API_SOCKET");
        own_mounts::give(command, || {
            let (kind, options) = (Some("tmpfs"), Some("mode=755"));
            mount(kind, "/run", kind, MsFlags::empty(), options)
        });
        Ok(())
    })
}

#[test]
fn what_listens_unasked_is_the_usual_socket_alone_and_roots_alone() -> Result<()> {
    let agent = start_with_the_usual_socket()?;
    let listens = listening(agent.pid())?;
    assert_eq!(listens, ["unix /run/memtrace/agent.sock"]);

    let root = format!("/proc/{}/root", agent.pid());
    let directory = &Path::new(&root).join("run/memtrace");
    let socket = directory.join("agent.sock");
    ensure!(
        fs::symlink_metadata(&socket)?.file_type().is_socket(),
        "no socket"
    );
    for (path, mode) in [(directory, 0o700), (&socket, 0o600)] {
        let metadata = fs::symlink_metadata(path)?;
        assert_eq!(metadata.mode() & 0o777, mode, "{}", path.display());
        assert_eq!(metadata.uid(), 0, "{}", path.display());
    }
    let (status, body) = ask(&socket, "GET", "/v1/agent")?;
    ensure!(status == 200, "{status}: {body}");
    agent.stop().map(drop)
}

/// Files and directories.
fn entries_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        entries.push(entry.path());
        if entry.file_type()?.is_dir() {
            entries.extend(entries_below(&entry.path())?);
        }
    }
    Ok(entries)
}

pub fn files_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = entries_below(directory)?;
    files.retain(|path| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file()));
    Ok(files)
}

/// The directory has nothing but the state directory, and that nothing by the name `climb`.
fn assert_only_state_in(directory: &Path, state: &str) -> Result<()> {
    let entries = entries_below(directory)?;
    ensure!(
        !files_below(Path::new(state))?.is_empty(),
        "nothing is kept"
    );
    for entry in entries {
        let is_above = Path::new(state).starts_with(&entry);
        let is_elsewhere = !entry.starts_with(state) && !is_above;
        ensure!(!is_elsewhere, "{} is elsewhere", entry.display());
        let name = entry
            .file_name()
            .and_then(OsStr::to_str)
            .context("no name")?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        ensure!(
            name.bytes().all(plain) && !name.contains("climb"),
            "{name:?}"
        );
    }
    Ok(())
}

/// Whatever tells of the incident, which is about `climb`, does it without control characters and markup.
fn assert_told_in_its_line(state: &str, id: &str) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (page, ticket) = (path("x.html"), path("x.md"));
    let mut texts = Vec::new();
    for arguments in [
        &["incidents"][..],
        &["incidents", "--json"],
        &["incidents", "show", id],
        &["report", id, "--socket", "none"],
        &["report", id, "--socket", "none", "-o", &page],
        &["report", id, "--socket", "none", "-o", &ticket],
    ] {
        let output = run(&[arguments, &["--state-dir", state]].concat())?;
        texts.push((arguments.join(" "), text(&output)?));
    }
    texts.push(("x.md".to_owned(), fs::read_to_string(&ticket)?));
    let page = fs::read_to_string(&page)?;
    ensure!(page.contains("climb"), "the page is about something else");
    ensure!(
        !page.contains("<script>mt") && !page.contains("<b>"),
        "the name is markup"
    );
    texts.push(("x.html".to_owned(), page));
    for (place, text) in &texts {
        let control = text.chars().find(|c| c.is_control() && *c != '\n');
        ensure!(control.is_none(), "{place} has {control:?}");
    }
    ensure!(texts[0].1.contains("climb"), "{}", texts[0].1);
    Ok(())
}

#[test]
fn names_that_climb_or_command_stay_in_the_state_directory_and_in_their_line() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let state = directory.path().join("state");
    let state = state.to_str().context("no text")?;
    let agent = Agent::start(&["--state-dir", state])?;
    // A cgroup cannot have a slash in its name; pods and containers can say they do.
    let name = format!("{}..\\..\u{1b}]0;mt\u{7}<script>mt", unique("climb"));
    let cgroup = Cgroup::named(OsStr::from_bytes(name.as_bytes()))?;
    let pid = run_into_limit(&cgroup, b"../\x1b[2J<b>")?;
    let id = of_victim(&agent, pid)?["id"]
        .as_str()
        .context("no id")?
        .to_owned();
    agent.wait_for("an interval", Duration::from_secs(10), of_type("self"))?;
    agent.stop()?;
    assert_only_state_in(directory.path(), state)?;
    assert_told_in_its_line(state, &id)
}

#[test]
fn names_of_kubernetes_that_climb_or_command_stay_there_too() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let inner = directory.path().join("outer/inner");
    fs::create_dir_all(&inner)?;
    let state = inner.join("state");
    let state = state.to_str().context("no text")?;
    // No API server lets such names in; who answers in its place may say anything.
    let absolute = directory.path().join("climb<script>mt");
    let absolute = absolute.to_str().context("no text")?;
    let container = "../climb\u{1b}]0;mt\u{7}<b>";
    let api = KubeApi::start()?;
    let pod = Pod::new("pod-of-security", '4')?;
    let mut object = pod.object();
    object["metadata"]["namespace"] = json!("../../climb");
    object["metadata"]["name"] = json!(absolute);
    object["spec"]["containers"][0]["name"] = json!(container);
    object["status"]["containerStatuses"][0]["name"] = json!(container);
    api.put(object)?;
    let elsewhere = tempfile::tempdir()?;
    let kubeconfig = elsewhere.path().join("kubeconfig");
    fs::write(&kubeconfig, api.kubeconfig("any"))?;
    let own = ["--state-dir", state, "--identity", "kubernetes"];
    let arguments = [&own[..], &["--node-name", NODE]].concat();
    let agent = Agent::start_prepared(&arguments, &[], |command| {
        // What climbs from here is seen too.
        command.current_dir(&inner).env("KUBECONFIG", &kubeconfig);
        Ok(())
    })?;
    let shown = r"../climb\x1b]0;mt\x07<b>";
    let about_it = about("cgroup", pod.cgroup.id()?);
    agent.wait_for("the container's name", SOON, |line| {
        about_it(line) && line["container"] == shown
    })?;
    let (pid, incident) = kill_in(&agent, &pod.cgroup)?;
    let names = &victim(&incident, pid)?["names"];
    assert_eq!(names["namespace"], "../../climb", "{incident}");
    assert_eq!(names["pod"], absolute, "{incident}");
    assert_eq!(names["container"], shown, "{incident}");
    let id = incident["id"].as_str().context("no id")?;
    agent.wait_intervals(1)?;
    agent.stop()?;
    assert_only_state_in(directory.path(), state)?;
    assert_told_in_its_line(state, id)
}

#[test]
fn whoever_makes_more_cgroups_than_there_are_places_hides_only_his_own() -> Result<()> {
    let crowd = Cgroup::new("crowd")?;
    let make = |index: usize| crowd.child(&index.to_string());
    let before: Vec<Cgroup> = (0..200).map(make).collect::<Result<_>>()?;
    let agent = Agent::start(&["--max-cgroups", "128"])?;
    let after: Vec<Cgroup> = (200..400).map(make).collect::<Result<_>>()?;
    let cgroup = Cgroup::new("alone")?;
    let id = cgroup.id()?;
    let _process = Workload::start(&cgroup, &["touch", "--bytes", "16777216"])?;
    agent.wait_for("its bytes", Duration::from_secs(10), |line| {
        let usage = number(line, "usage_bytes").unwrap_or_default();
        about("cgroup", id)(line) && usage >= 16 * MIB
    })?;
    let pid = run_into_limit(&Cgroup::new("full")?, b"mt-crowded")?;
    of_victim(&agent, pid)?;
    agent.wait_intervals(1)?;
    let own = agent.last(of_type("self")).context("no self line")?;
    let left_out = own["lost"]["cgroup_not_tracked"].as_u64();
    // Of 400 and the host's own there are 128 places.
    ensure!(left_out >= Some(272), "{own}");
    ensure!(number(&own, "cgroups")? <= 128 + 32, "{own}");
    drop((before, after));
    agent.stop().map(drop)
}
