//! `cargo xtask vm`: runs the end-to-end tests, or any command, on other kernels in QEMU.
//! Must not know what the tests check.

mod args;
mod boot;
mod document;
mod image;
mod instructions;
mod kernel;
mod results;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::deps::{self, Purpose};
use crate::process::progress;
use crate::workspace::Workspace;
use crate::{artifacts, beside, process};
pub use args::Args;
use boot::{Cgroup, Machine};
use image::Image;
use kernel::Kernel;
use results::{Build, Results};

/// Size of a machine's disk, which has nothing on it.
const DISK_BYTES: u64 = 128 << 20;

/// What runs containers.
const CONTAINERS: &[&str] = &["containerd", "containerd-shim-runc-v2", "ctr", "runc"];

struct Row {
    machine: String,
    result: String,
    elapsed: Duration,
    failed: bool,
    /// Of this run alone.
    results: Results,
}

/// Boots every asked kernel with every asked layout and prints a table of the results.
pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("`cargo xtask vm` boots amd64 kernels with this host's binaries: x86_64 only");
    }
    deps::ensure(&[Purpose::Vm])?;
    let _lock = lock(&workspace.target().join("vm"))?;
    if args.containers && process::find_program("containerd").is_none() {
        deps::ensure(&[Purpose::Containers])?;
    }
    let image = image(workspace, args)?;
    let build = Build::now(workspace)?;
    let rows = rows(workspace, args, (&image, &build));
    let families: Vec<(&str, _)> = rows
        .iter()
        .map(|row| (row.machine.as_str(), &row.results))
        .collect();
    for line in document::table(&families).lines() {
        progress(line);
    }
    progress(format!("{:<16} {:>9}  result", "machine", "elapsed"));
    for row in &rows {
        let seconds = row.elapsed.as_secs_f64();
        progress(format!(
            "{:<16} {seconds:>8.1}s  {}",
            row.machine, row.result
        ));
    }
    if args.docs {
        let names =
            kernel::all().flat_map(|kernel| Cgroup::ALL.map(|cgroup| name(&kernel, cgroup)));
        let names: Vec<String> = names.collect();
        document::write(workspace.root(), &results::kept(&kept(workspace), &names)?)?;
    }
    let failed = rows.iter().filter(|row| row.failed).count();
    if failed > 0 {
        bail!("{failed} of {} machines failed", rows.len());
    }
    Ok(())
}

fn name(kernel: &Kernel, cgroup: Cgroup) -> String {
    format!("{kernel} {cgroup}")
}

fn kept(workspace: &Workspace) -> PathBuf {
    workspace.target().join("vm/results")
}

/// Two runs would build the same image and write the same logs; the second one waits.
fn lock(directory: &Path) -> Result<File> {
    let path = directory.join("lock");
    let cannot = || format!("cannot lock {}", path.display());
    fs::create_dir_all(directory).with_context(cannot)?;
    let file = File::create(&path).with_context(cannot)?;
    if file.try_lock().is_err() {
        progress("waiting for another `cargo xtask vm` of this checkout");
        file.lock().with_context(cannot)?;
    }
    Ok(file)
}

fn image(workspace: &Workspace, args: &Args) -> Result<Image> {
    let mut image = Image::new(&workspace.target().join("vm/image"))?;
    for program in &args.include {
        image.add_program(program, None)?;
    }
    if args.containers {
        for program in CONTAINERS {
            let path = process::find_program(program).with_context(|| {
                format!("no {program} in PATH (apt-get install containerd runc)")
            })?;
            image.add_program(&path, Some(program))?;
        }
    }
    if !args.bare {
        image.add_program(&artifacts::memtrace(workspace)?, Some("memtrace"))?;
        image.add_program(&artifacts::workload(workspace)?, Some("memtrace-workload"))?;
    }
    match &args.shell_command {
        Some(command) => image.set_command(command)?,
        None => {
            image.add_program(&artifacts::e2e_tests(workspace)?, Some("e2e"))?;
            let mut command = std::process::Command::new("/bin/e2e");
            command.arg("--test-threads=1").args(&args.test_args);
            image.set_command(&format!("exec {}", process::shown(&command)))?;
        }
    }
    image.pack()?;
    Ok(image)
}

/// Makes a file of zeros that takes no room until it is written.
fn blank(path: &Path) -> Result<()> {
    File::create(path)
        .and_then(|file| file.set_len(DISK_BYTES))
        .with_context(|| format!("cannot create {}", path.display()))
}

/// Kernels beside each other, each with one layout after the other; in the order that was asked for.
fn rows(workspace: &Workspace, args: &Args, built: (&Image, &Build)) -> Vec<Row> {
    let jobs = args.jobs.unwrap_or_else(beside::cpus);
    let of_kernel = |kernel: &Kernel| -> Vec<Row> {
        let layouts = args.cgroup.iter();
        layouts
            .map(|cgroup| row(workspace, args, built, kernel, *cgroup))
            .collect()
    };
    let rows = beside::each(&args.kernel, jobs, of_kernel);
    rows.into_iter().flatten().collect()
}

fn row(
    workspace: &Workspace,
    args: &Args,
    built: (&Image, &Build),
    kernel: &Kernel,
    cgroup: Cgroup,
) -> Row {
    let started = Instant::now();
    let mut results = Results::default();
    let outcome = boot(workspace, args, built, kernel, cgroup, &mut results);
    let failed = outcome.is_err();
    let result = match outcome {
        Ok(note) => note,
        Err(error) => {
            progress(format!("[{kernel}] {error:#}"));
            format!("FAILED: {error:#}")
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned()
        }
    };
    Row {
        machine: name(kernel, cgroup),
        result,
        elapsed: started.elapsed(),
        failed,
        results,
    }
}

/// Gives a word on how it went; `results` are there even if it failed.
fn boot(
    workspace: &Workspace,
    args: &Args,
    (image, build): (&Image, &Build),
    kernel: &Kernel,
    cgroup: Cgroup,
    results: &mut Results,
) -> Result<String> {
    let files = kernel.fetch(workspace)?;
    if let Err(lacking) = cgroup.check(&files) {
        return match args.cgroup.len() {
            1 => Err(lacking),
            _ => Ok(format!("left out: {lacking}")),
        };
    }
    let disk = files.directory.join("disk");
    blank(&disk)?;
    let machine = Machine {
        label: kernel.to_string(),
        kernel: &files,
        initramfs: image.archive(),
        disk: &disk,
        cgroup,
        memory: &args.memory,
        timeout: Duration::from_secs(args.timeout * 60),
    };
    let booted = machine.boot();
    if args.shell_command.is_none() {
        let read = |name: &str| {
            let text = fs::read(files.directory.join(name)).unwrap_or_default();
            String::from_utf8_lossy(&text).into_owned()
        };
        *results = Results::parse(&files.release, &read("console.log"), &read("ttyS1"));
        let path = results::file(&kept(workspace), &name(kernel, cgroup));
        results.clone().keep(build, &path)?;
    }
    let boots = booted?;
    if args.update_instructions {
        instructions::update(workspace.root(), &kernel.to_string(), &results.instructions)?;
    } else {
        instructions::compare(workspace.root(), &kernel.to_string(), &results.instructions)?;
    }
    Ok(match boots {
        1 => format!("ok ({})", files.release),
        _ => format!("ok ({}, at boot {boots})", files.release),
    })
}
