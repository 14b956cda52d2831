//! `cargo xtask vm`: runs the end-to-end tests, or any command, on other kernels in QEMU.
//! Must not know what the tests check.

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
use crate::{artifacts, process};
use boot::{Cgroup, Machine};
use image::Image;
use kernel::Kernel;
use results::Results;

/// Size of a machine's disk, which has nothing on it.
const DISK_BYTES: u64 = 128 << 20;

/// Emulation makes every start of the agent seconds long.
const TIMEOUT_MINUTES: u64 = 25;

/// Modules of the tests that no kernel can change the result of: what is behind the model.
const SAME_ON_EVERY_KERNEL: &[&str] = &[
    "analyze::",
    "api::",
    "cli::",
    "config::",
    "identity_kubernetes::",
    "incident_store::",
    "leak_programs::",
    "leak_state::",
    "listen::",
    "names::",
    "otlp",
    "report::",
    "security::",
    "top::",
];

/// Modules that take an emulated machine longer than a change may wait: the host runs them.
const TOO_LONG_FOR_EVERY_CHANGE: &[&str] = &["faults::"];

/// Arguments of `cargo xtask vm`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Kernels to boot; 7.x (or sid) is Debian's newest. Delete target/vm/<KERNEL> to refresh one
    #[arg(long, value_delimiter = ',', default_value = "5.10,6.1,6.12")]
    kernel: Vec<Kernel>,
    /// How the control groups are mounted; of several, those that a kernel lacks are left out
    #[arg(long, value_enum, value_delimiter = ',', default_value = "v2")]
    cgroup: Vec<Cgroup>,
    /// Memory of the machine, as QEMU writes it
    #[arg(long, default_value = "1G")]
    memory: String,
    /// Minutes after which a machine is killed and counts as failed
    #[arg(long, default_value_t = TIMEOUT_MINUTES)]
    timeout: u64,
    /// Run this shell command instead of the tests; what it writes to /dev/ttyS1 arrives in
    /// target/vm/<KERNEL>/ttyS1
    #[arg(long, value_name = "CMD")]
    shell_command: Option<String>,
    /// Put another program of this host into the machine's /bin
    #[arg(long, value_name = "PATH")]
    include: Vec<PathBuf>,
    /// Leave memtrace and its workload out of the machine, and do not build them
    #[arg(long, requires = "shell_command")]
    bare: bool,
    /// Commit the verifier's instruction counts of these kernels instead of comparing with them
    #[arg(long, conflicts_with = "shell_command")]
    update_instructions: bool,
    /// Write docs/kernels.md from all results kept in target/vm/results
    #[arg(long, conflicts_with = "shell_command")]
    docs: bool,
    /// Arguments of the test executable, such as a filter
    #[arg(last = true)]
    test_args: Vec<String>,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            kernel: kernel::tested(),
            cgroup: vec![Cgroup::V2],
            memory: "1G".to_owned(),
            timeout: TIMEOUT_MINUTES,
            shell_command: None,
            include: Vec::new(),
            bare: false,
            update_instructions: false,
            docs: false,
            test_args: Vec::new(),
        }
    }
}

impl Args {
    /// What every change has to pass on every kernel: the tests that depend on it.
    pub fn every_change() -> Self {
        let skipped = SAME_ON_EVERY_KERNEL
            .iter()
            .chain(TOO_LONG_FOR_EVERY_CHANGE)
            .flat_map(|module| ["--skip".to_owned(), (*module).to_owned()]);
        Self {
            test_args: skipped.collect(),
            ..Self::default()
        }
    }

    /// Runs a command on one kernel, with these programs and nothing else of this checkout.
    pub fn shell(kernel: &str, command: &str, include: Vec<PathBuf>) -> Result<Self> {
        Ok(Self {
            kernel: vec![kernel.parse().map_err(anyhow::Error::msg)?],
            shell_command: Some(command.to_owned()),
            include,
            bare: true,
            ..Self::default()
        })
    }

    /// Runs the test that takes all memory of a machine.
    pub fn little_memory() -> Self {
        Self {
            memory: "448M".to_owned(),
            test_args: vec![
                "--ignored".to_owned(),
                "a_machine_without_memory".to_owned(),
            ],
            ..Self::default()
        }
    }
}

struct Row {
    machine: String,
    result: String,
    elapsed: Duration,
    failed: bool,
    /// Of this run alone.
    results: Results,
}

/// Boots every asked kernel with every asked layout in turn and prints a table of the results.
pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("`cargo xtask vm` boots amd64 kernels with this host's binaries: x86_64 only");
    }
    deps::ensure(&[Purpose::Vm])?;
    let _lock = lock(&workspace.target().join("vm"))?;
    let image = image(workspace, args)?;
    let mut rows = Vec::new();
    for kernel in &args.kernel {
        for cgroup in &args.cgroup {
            rows.push(row(workspace, args, &image, kernel, *cgroup));
        }
    }
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

fn row(workspace: &Workspace, args: &Args, image: &Image, kernel: &Kernel, cgroup: Cgroup) -> Row {
    let started = Instant::now();
    let mut results = Results::default();
    let outcome = boot(workspace, args, image, kernel, cgroup, &mut results);
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
    image: &Image,
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
        results.clone().keep(&path)?;
    }
    booted?;
    if args.update_instructions {
        instructions::update(workspace.root(), &kernel.to_string(), &results.instructions)?;
    } else {
        instructions::compare(workspace.root(), &kernel.to_string(), &results.instructions)?;
    }
    Ok(format!("ok ({})", files.release))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn the_command_lines_defaults_are_the_ones_in_code() {
        let parsed = Cli::parse_from(["vm"]).args;
        assert_eq!(format!("{parsed:?}"), format!("{:?}", Args::default()));
    }

    #[test]
    fn kernels_come_as_a_list_and_test_arguments_after_two_dashes() {
        let line = [
            "vm",
            "--kernel",
            "6.1,sid",
            "--cgroup",
            "v1,hybrid",
            "--",
            "oom",
            "--nocapture",
        ];
        let parsed = Cli::parse_from(line).args;
        let kernels: Vec<_> = parsed.kernel.iter().map(ToString::to_string).collect();
        assert_eq!(kernels, ["6.1", "7.x"]);
        assert_eq!(parsed.cgroup, [Cgroup::V1, Cgroup::Hybrid]);
        assert_eq!(parsed.test_args, ["oom", "--nocapture"]);
        assert!(Cli::try_parse_from(["vm", "--kernel", "4.19"]).is_err());
        assert!(Cli::try_parse_from(["vm", "--bare"]).is_err());
    }
}
