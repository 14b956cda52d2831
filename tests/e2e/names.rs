//! Names chosen to confuse: of cgroups and of processes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memtrace_tests::agent::{Agent, about};
use memtrace_tests::cgroup::{Cgroup, unique};
use memtrace_tests::workload::Workload;
use serde_json::Value;

use crate::oom::{line_about, run_into_limit};

/// Name and how it must look, behind a unique start.
const NAMES: &[(&[u8], &str)] = &[
    (b" with space", " with space"),
    (b"\"quoted\"", "\"quoted\""),
    (br"back\x2dslash", r"back\\x2dslash"),
    (b"tab\tand\x1b[31m", r"tab\tand\x1b[31m"),
    (b"bad\xff\xc3utf8", r"bad\xff\xc3utf8"),
    ("größe".as_bytes(), "größe"),
    ("rtl\u{202e}".as_bytes(), r"rtl\xe2\x80\xae"),
];

#[test]
fn hostile_cgroup_names_are_escaped_and_break_no_line() -> Result<()> {
    let agent = Agent::start(&[])?;
    for (name, shown) in NAMES {
        let start = unique("name");
        let mut bytes = start.clone().into_bytes();
        bytes.extend_from_slice(name);
        let cgroup = Cgroup::named(OsStr::from_bytes(&bytes))?;
        let id = cgroup.id()?;
        let expected = format!("/mt-e2e/{start}{shown}");
        let workload = Workload::start(&cgroup, &["pause"])?;
        named(&agent, "cgroup", id, &expected, false)?;
        workload.success()?;
        // From the kernel's event, not from a directory listing.
        cgroup.remove()?;
        named(&agent, "cgroup", id, &expected, true)?;
    }
    agent.stop().map(drop)
}

#[test]
fn a_newline_in_a_cgroup_name_breaks_no_line() -> Result<()> {
    let agent = Agent::start(&[])?;
    let start = unique("line");
    // Linux has refused them since 3.17, so that /proc/PID/cgroup can be parsed.
    let made = Cgroup::named(OsStr::from_bytes(format!("{start}\n{{}}").as_bytes()));
    if let Ok(cgroup) = made {
        let expected = format!("/mt-e2e/{start}\\n{{}}");
        named(&agent, "cgroup", cgroup.id()?, &expected, false)?;
    }
    agent.wait_intervals(1)?;
    agent.stop().map(drop)
}

#[test]
fn a_hostile_process_name_breaks_no_oom_line() -> Result<()> {
    let agent = Agent::start(&[])?;
    let cgroup = Cgroup::new("comm")?;
    let pid = run_into_limit(&cgroup, b"a\n\"b\\c\x1b\xff d")?;
    let line = line_about(&agent, pid)?;
    assert_eq!(line["victim_comm"], r#"a\n"b\\c\x1b\xff d"#, "{line}");
    assert_eq!(line["trigger_comm"], line["victim_comm"], "{line}");
    agent.stop().map(drop)
}

fn named(agent: &Agent, kind: &str, id: u64, expected: &str, removed: bool) -> Result<Value> {
    let line = agent.wait_for(
        &format!("{expected} (removed: {removed})"),
        Duration::from_secs(15),
        |line| about(kind, id)(line) && (!removed || line["removed"] == true),
    )?;
    let name = line["cgroup"].as_str().context("cgroup is no string")?;
    ensure!(name == expected, "expected {expected:?}: {line}");
    Ok(line)
}
