//! Telemetry backends that the end-to-end tests send to, fetched into target/backends.
//! Must not start them. Delete target/backends to refresh them.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{self, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::apt::Suite;
use crate::process::{self, progress};
use crate::workspace::Workspace;

struct Backend {
    /// What tells the tests where the program is.
    variable: &'static str,
    program: &'static str,
    /// Downloads into an own directory and says where the program is in it.
    download: fn(&Path) -> Result<PathBuf>,
}

const FETCHED: &[Backend] = &[
    Backend {
        variable: "MEMTRACE_VICTORIAMETRICS",
        program: "victoria-metrics",
        download: victoria_metrics,
    },
    Backend {
        variable: "MEMTRACE_ROTEL",
        program: "rotel-agent",
        download: rotel,
    },
    Backend {
        variable: "MEMTRACE_PROMETHEUS",
        program: "prometheus",
        download: prometheus,
    },
];
/// Pinned, because the test reads its log.
const ROTEL: &str = "rotel==0.0.1a15";

/// The variables that tell the tests where the backends are. One that the caller has set stays.
pub fn variables(workspace: &Workspace) -> Result<Vec<(&'static str, PathBuf)>> {
    let directory = workspace.target().join("backends");
    resolve(
        |name| env::var_os(name),
        |backend| {
            fetch(backend, &directory).with_context(|| {
                format!(
                    "cannot get {}; {} may name one",
                    backend.program, backend.variable
                )
            })
        },
    )
}

fn resolve(
    given: impl Fn(&str) -> Option<OsString>,
    fetch: impl Fn(&Backend) -> Result<PathBuf>,
) -> Result<Vec<(&'static str, PathBuf)>> {
    // The tests run in another directory than the caller.
    let given = |variable| -> Result<Option<PathBuf>> {
        given(variable)
            .map(|path| path::absolute(path).with_context(|| format!("{variable} is not a path")))
            .transpose()
    };
    let mut variables = Vec::new();
    for backend in FETCHED {
        let path = match given(backend.variable)? {
            Some(path) => path,
            None => fetch(backend)?,
        };
        variables.push((backend.variable, path));
    }
    Ok(variables)
}

fn fetch(backend: &Backend, directory: &Path) -> Result<PathBuf> {
    let program = directory.join(backend.program);
    if program.is_file() {
        return Ok(program);
    }
    progress(format!("downloading {}", backend.program));
    let unpacked = directory.join(format!("{}.download", backend.program));
    if unpacked.exists() {
        fs::remove_dir_all(&unpacked)
            .with_context(|| format!("cannot delete {}", unpacked.display()))?;
    }
    fs::create_dir_all(&unpacked)
        .with_context(|| format!("cannot create {}", unpacked.display()))?;
    let found = (backend.download)(&unpacked)?;
    ensure!(
        found.is_file(),
        "what was downloaded has no {}",
        found.display()
    );
    // Last and in one step, because its presence says that it is complete.
    fs::rename(&found, &program).with_context(|| format!("cannot move {}", found.display()))?;
    fs::remove_dir_all(&unpacked)
        .with_context(|| format!("cannot delete {}", unpacked.display()))?;
    Ok(program)
}

fn victoria_metrics(directory: &Path) -> Result<PathBuf> {
    let suite = Suite::open("trixie", &directory.join("apt"))?;
    let tree = suite.unpack(["victoria-metrics"])?;
    Ok(tree.join("usr/bin/victoria-metrics"))
}

/// It scrapes, but has no OTLP receiver: Debian builds it without.
fn prometheus(directory: &Path) -> Result<PathBuf> {
    let suite = Suite::open("trixie", &directory.join("apt"))?;
    // Only unpacked: nothing starts its service.
    let tree = suite.unpack(["prometheus"])?;
    Ok(tree.join("usr/bin/prometheus"))
}

fn rotel(directory: &Path) -> Result<PathBuf> {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--no-deps"])
        // A source package would run its build script, and compile for minutes.
        .args(["--only-binary", ":all:"])
        // The program is linked with the libpython of its package's Python: Debian 12's.
        .args(["--python-version", "3.11", "--target"])
        .arg(directory)
        .arg(ROTEL);
    process::quiet(&mut pip)?;
    Ok(directory.join("rotel/rotel-agent"))
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    fn fetched(backend: &Backend) -> Result<PathBuf> {
        Ok(Path::new("/fetched").join(backend.program))
    }

    #[test]
    fn the_tests_are_told_of_every_backend_that_can_be_fetched() {
        let variables = resolve(|_| None, fetched).unwrap();
        let expected = [
            ("MEMTRACE_VICTORIAMETRICS", "/fetched/victoria-metrics"),
            ("MEMTRACE_ROTEL", "/fetched/rotel-agent"),
            ("MEMTRACE_PROMETHEUS", "/fetched/prometheus"),
        ];
        assert_eq!(variables, expected.map(|(name, path)| (name, path.into())));
    }

    #[test]
    fn what_the_caller_names_is_not_fetched() {
        let variables = resolve(
            |variable| Some(format!("/given/{variable}").into()),
            |backend| bail!("fetched {}", backend.program),
        );
        let variables = variables.unwrap();
        assert_eq!(variables.len(), FETCHED.len());
        for (name, path) in variables {
            assert_eq!(path, Path::new("/given").join(name));
        }
    }

    #[test]
    fn a_given_path_does_not_depend_on_the_directory() {
        let given = |name: &str| (name == "MEMTRACE_PROMETHEUS").then(|| "prometheus".into());
        let variables = resolve(given, fetched).unwrap();
        let (name, path) = variables.last().unwrap();
        assert_eq!(*name, "MEMTRACE_PROMETHEUS");
        assert_eq!(*path, env::current_dir().unwrap().join("prometheus"));
    }

    #[test]
    fn a_failed_download_is_an_error() {
        assert!(resolve(|_| None, |_| bail!("no network")).is_err());
    }
}
