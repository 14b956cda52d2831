//! What must not happen: listening unasked, secrets told, files outside the state directory, names that
//! command a terminal or a page, a crowd that hides others. Privileges are in `least_privilege`, the
//! socket's in `api`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memtrace_tests::agent::{Agent, about, command, number, of_type, run, text};
use memtrace_tests::backend::{free_port, request};
use memtrace_tests::cgroup::{Cgroup, unique};
use memtrace_tests::incident::of_victim;
use memtrace_tests::machine::MIB;
use memtrace_tests::workload::Workload;

use crate::api::ask;
use crate::oom::run_into_limit;

/// In a header, in a URL behind the host, and on the command line of a process that is killed, where it is
/// a number with zeros before it.
const HEADER: &str = "header-f3b1c0de";
const QUERY: &str = "query-f3b1c0de";
const ARGUMENT: &str = "000000000000000700";

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

/// Everything that an agent tells in any way about one kill in a small cgroup.
struct Told(Vec<(String, String)>);

impl Told {
    fn collect(arguments: &[&str]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = |name: &str| directory.path().join(name).display().to_string();
        let (state, socket) = (path("state"), path("run/agent.sock"));
        let port = free_port()?;
        let listen = format!("127.0.0.1:{port}");
        let endpoint = format!("http://127.0.0.1:1/?token={QUERY}");
        let headers = format!("authorization=Bearer%20{HEADER}");
        let environment = [("OTEL_EXPORTER_OTLP_HEADERS", headers.as_str())];
        let own = [
            "--state-dir",
            &state,
            "--api-socket",
            &socket,
            "--listen",
            &listen,
        ];
        let export = ["--otlp-endpoint", &endpoint];
        let agent = Agent::start_with(&[&own, &export[..], arguments].concat(), &environment)?;
        let cgroup = Cgroup::new("secret")?;
        cgroup.limit(32 * MIB)?;
        let life = ["oom", "--bytes", "134217728", "--calm-ms", ARGUMENT];
        let workload = Workload::start(&cgroup, &life)?;
        let pid = workload.pid();
        ensure!(workload.end()?.killed(), "it lives on");
        let id = of_victim(&agent, pid)?["id"]
            .as_str()
            .context("no id")?
            .to_owned();
        agent.wait_intervals(2)?;

        let mut told = Vec::new();
        for target in [
            "/v1/agent".to_owned(),
            "/v1/cgroups".to_owned(),
            format!("/v1/cgroups/{}", cgroup.id()?),
            "/v1/leaks".to_owned(),
            "/v1/incidents".to_owned(),
            format!("/v1/incidents/{id}"),
        ] {
            let (status, body) = ask(Path::new(&socket), "GET", &target)?;
            ensure!(status == 200, "{target}: {status}: {body}");
            told.push((target, body));
        }
        for target in ["/status", "/metrics", "/healthz", "/readyz"] {
            told.push((target.to_owned(), request(port, "GET", target, "")?.1));
        }
        let mut show = command(&["config", "show"])?;
        show.env("OTEL_EXPORTER_OTLP_HEADERS", &headers);
        show.env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint);
        told.push(("config show".to_owned(), text(&show.output()?)?));
        for arguments in [
            &["incidents", "--json"][..],
            &["incidents", "show", &id],
            &["incidents", "show", &id, "--json"],
            &["report", &id, "-o", &path("x.html"), "--socket", &socket],
            &["report", &id, "-o", &path("x.md"), "--socket", &socket],
            &["report", &id, "-o", &path("x.json"), "--socket", &socket],
        ] {
            let output = text(&run(&[arguments, &["--state-dir", &state]].concat())?)?;
            told.push((arguments.join(" "), output));
        }
        let lines: Vec<String> = agent
            .all(|_| true)
            .iter()
            .map(ToString::to_string)
            .collect();
        told.push(("stdout".to_owned(), lines.join("\n")));
        told.push(("stderr".to_owned(), agent.stderr()));
        agent.stop()?;
        for file in files_below(directory.path())? {
            let bytes = fs::read(&file)?;
            told.push((
                file.display().to_string(),
                String::from_utf8_lossy(&bytes).into_owned(),
            ));
        }
        Ok(Self(told))
    }

    /// Who tells this.
    fn places_of(&self, secret: &str) -> Vec<&str> {
        self.0
            .iter()
            .filter(|(_, text)| text.contains(secret))
            .map(|(place, _)| place.as_str())
            .collect()
    }
}

fn files_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}

#[test]
fn no_secret_is_told_by_any_command_answer_log_or_file() -> Result<()> {
    let told = Told::collect(&["--no-command-lines"])?;
    for secret in [HEADER, QUERY, ARGUMENT] {
        let places = told.places_of(secret);
        ensure!(places.is_empty(), "{secret} is told by {places:?}");
    }
    // What is asked for is told, so the search finds what there is.
    let told = Told::collect(&[])?;
    let places = told.places_of(ARGUMENT);
    for place in ["stdout", "incidents --json"] {
        ensure!(
            places.contains(&place),
            "{place} does not tell it: {places:?}"
        );
    }
    ensure!(told.places_of(HEADER).is_empty(), "the header is told");
    Ok(())
}

#[test]
fn names_that_climb_or_command_stay_in_the_state_directory_and_in_their_line() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let state = directory.path().join("state");
    let state = state.to_str().context("no text")?;
    let page = directory.path().join("x.html");
    let ticket = directory.path().join("x.md");
    let agent = Agent::start(&["--state-dir", state])?;
    // A name cannot have a slash; runtimes make names of containers of what users give them.
    let name = format!("{}..\\..\u{1b}]0;mt\u{7}<script>mt", unique("climb"));
    let cgroup = Cgroup::named(OsStr::from_bytes(name.as_bytes()))?;
    let pid = run_into_limit(&cgroup, b"../\x1b[2J<b>")?;
    let id = of_victim(&agent, pid)?["id"]
        .as_str()
        .context("no id")?
        .to_owned();
    agent.wait_for("an interval", Duration::from_secs(10), of_type("self"))?;
    agent.stop()?;

    for file in files_below(directory.path())? {
        ensure!(file.starts_with(state), "{} is elsewhere", file.display());
        let name = file
            .file_name()
            .and_then(OsStr::to_str)
            .context("no name")?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        ensure!(
            name.bytes().all(plain) && !name.contains("climb"),
            "{name:?}"
        );
    }

    let page_path = page.to_str().context("no text")?;
    let ticket_path = ticket.to_str().context("no text")?;
    let mut texts = Vec::new();
    for arguments in [
        &["incidents"][..],
        &["incidents", "--json"],
        &["incidents", "show", &id],
        &["report", &id, "--socket", "none"],
        &["report", &id, "--socket", "none", "-o", page_path],
        &["report", &id, "--socket", "none", "-o", ticket_path],
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
