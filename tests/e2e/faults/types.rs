//! The kernel's type information (BTF) that is away or damaged, in a mount namespace of memtrace's own.

use std::fs;
use std::path::Path;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use memtrace_tests::{agent, own_mounts};
use nix::mount::{MsFlags, mount};

const TYPES: &str = "/sys/kernel/btf/vmlinux";

/// What a command of memtrace says where something else is in the place of `over`.
fn with_another(arguments: &[&str], over: &'static str, other: &Path) -> Result<Output> {
    let other = other.to_owned();
    let mut command = agent::command(arguments)?;
    own_mounts::give(&mut command, move || {
        let none = None::<&str>;
        mount(Some(&other), over, none, MsFlags::MS_BIND, none)
    });
    Ok(command.output()?)
}

#[test]
fn without_whole_type_information_the_start_fails_and_names_it() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let whole = fs::read(TYPES)?;
    let mut no_magic = whole.clone();
    no_magic[..2].fill(0);
    let mut no_kind = whole.clone();
    let first_kind = u32::from_ne_bytes(whole[4..8].try_into()?) as usize + 4;
    no_kind[first_kind..first_kind + 4].fill(0xff);
    let noise: Vec<u8> = (0..whole.len()).map(|at| (at * 31 % 251) as u8).collect();
    let damages: [(&str, Vec<u8>); 5] = [
        ("empty", Vec::new()),
        ("half", whole[..whole.len() / 2].to_vec()),
        ("no magic", no_magic),
        ("no such kind", no_kind),
        ("noise", noise),
    ];
    let state = directory.path().join("state");
    let state = state.to_str().context("no text")?;
    let run = ["run", "--duration", "1s", "--state-dir", state];
    let none = directory.path().join("none");
    fs::create_dir(&none)?;
    fails(&run, "absent", "/sys/kernel/btf", &none)?;
    for (name, bytes) in damages {
        let file = directory.path().join(name);
        fs::write(&file, bytes)?;
        fails(&run, name, TYPES, &file)?;
    }
    Ok(())
}

/// The agent ends at once, and `doctor` says what keeps it from running.
fn fails(run: &[&str], damage: &str, over: &'static str, other: &Path) -> Result<()> {
    let output = with_another(run, over, other)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{damage}: {said}");
    ensure!(said.contains(TYPES), "{damage}: {said}");
    ensure!(!said.contains("panicked"), "{damage}: {said}");
    let output = with_another(&["doctor"], over, other)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(2), "{damage}: {said}");
    ensure!(said.contains(TYPES), "{damage}: {said}");
    Ok(())
}
