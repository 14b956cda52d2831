//! Boots one machine, shows its console and learns how its command ended.
//! Must not know what runs inside.

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::kernel::Files;
use crate::process::{self, progress};

/// Printed by init.sh before the exit status of the command.
const MARKER: &str = "MEMTRACE-VM-EXIT ";

/// Printed by init.sh first of all.
const STARTED: &str = "MEMTRACE-VM-STARTED";

/// Linux 6.12 under QEMU 7.2's TCG was seen to crash in device discovery (1 of 12 boots), long
/// before anything of ours runs; that is no verdict on memtrace.
const BOOT_ATTEMPTS: u32 = 3;

/// How a machine ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The command ran and this was its exit status.
    Reported(i32),
    /// Something in the command's time stopped the machine.
    Died,
    /// The machine stopped before anything of ours ran.
    NeverStarted,
}

/// How the control groups are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Cgroup {
    /// Version 1 only, as old distributions do
    V1,
    /// Version 2 only
    V2,
    /// The memory controller on version 1, and version 2 beside it
    Hybrid,
}

impl fmt::Display for Cgroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::Hybrid => "hybrid",
        })
    }
}

impl Cgroup {
    pub const ALL: [Self; 3] = [Self::V1, Self::Hybrid, Self::V2];

    /// Fails when the kernel was built without what this layout needs.
    pub fn check(self, kernel: &Files) -> Result<()> {
        if self != Self::V2 && !supports_v1(&kernel.config) {
            bail!(
                "Debian built {} without CONFIG_MEMCG_V1, so cgroup {self} is impossible; \
                 only 5.10 and 6.1 have it",
                kernel.release
            );
        }
        Ok(())
    }
}

/// Kernels before 6.11 have no such option and always support version 1.
fn supports_v1(config: &str) -> bool {
    !config
        .lines()
        .any(|line| line == "# CONFIG_MEMCG_V1 is not set")
}

/// One virtual machine.
#[derive(Debug)]
pub struct Machine<'a> {
    /// Prefix of console lines.
    pub label: String,
    /// What it boots.
    pub kernel: &'a Files,
    /// Its root file system.
    pub initramfs: &'a Path,
    /// A file of zeros that becomes its disk for swap.
    pub disk: &'a Path,
    /// Its control groups.
    pub cgroup: Cgroup,
    /// Its memory, as QEMU writes it.
    pub memory: &'a str,
    /// When it is killed.
    pub timeout: Duration,
}

impl Machine<'_> {
    /// Boots, streams the console to stdout, and succeeds when the command inside did.
    /// Gives how many boots that took.
    pub fn boot(&self) -> Result<u32> {
        let log = self.kernel.directory.join("console.log");
        for attempt in 1..=BOOT_ATTEMPTS {
            progress(format!("[{}] booting {}", self.label, self.kernel.release));
            match self.boot_once(&log)? {
                Ended::Reported(0) => return Ok(attempt),
                Ended::Reported(status) => bail!("exit status {status}"),
                Ended::Died => bail!(
                    "the machine stopped without reporting a status; a kernel panic? see {}",
                    log.display()
                ),
                Ended::NeverStarted => progress(format!(
                    "[{}] died before its init started (attempt {attempt} of {BOOT_ATTEMPTS})",
                    self.label
                )),
            }
        }
        bail!(
            "died before its init started in {BOOT_ATTEMPTS} attempts; see {}",
            log.display()
        )
    }

    fn boot_once(&self, log: &Path) -> Result<Ended> {
        let mut qemu = self.start()?;
        let result = self.follow(&mut qemu, log);
        // Whatever happened, nothing may stay behind; killing an ended process does nothing.
        drop(qemu.kill());
        qemu.wait().context("cannot wait for qemu")?;
        result
    }

    fn start(&self) -> Result<Child> {
        // oops=panic: a machine with a broken kernel must fail, not hang.
        // swapaccount=1: 5.10 limits swap only when asked.
        let parameters = format!(
            "console=ttyS0 quiet loglevel=3 panic=-1 oops=panic psi=1 swapaccount=1 \
             memtrace.cgroup={}",
            self.cgroup
        );
        // The one disk for which every Debian kernel has the driver built in.
        let mut drive = std::ffi::OsString::from("if=none,id=disk,format=raw,cache=unsafe,file=");
        drive.push(self.disk);
        let mut second_port = std::ffi::OsString::from("file:");
        second_port.push(self.kernel.directory.join("ttyS1"));
        let mut command = Command::new("qemu-system-x86_64");
        command
            // One thread for both processors takes as long, and on two the emulator was seen to run
            // breakpoints that the kernel had already taken out of its text.
            .args([
                "-accel",
                "tcg,thread=single",
                "-cpu",
                "max,-cx16",
                "-smp",
                "2",
                "-m",
                self.memory,
            ])
            .args([
                "-display",
                "none",
                "-monitor",
                "none",
                "-nic",
                "none",
                "-no-reboot",
            ])
            .arg("-drive")
            .arg(drive)
            .args(["-device", "nvme,drive=disk,serial=memtrace"])
            .args(["-serial", "stdio", "-serial"])
            .arg(second_port)
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(self.initramfs)
            .args(["-append", &parameters])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        // SAFETY: the closure only makes one async-signal-safe system call.
        unsafe {
            command.pre_exec(|| {
                // Otherwise a killed xtask would leave a machine running for ever.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        command
            .spawn()
            .with_context(|| format!("cannot start `{}`", process::shown(&command)))
    }

    /// Shows the console until it closes.
    fn follow(&self, qemu: &mut Child, log: &Path) -> Result<Ended> {
        let console = qemu.stdout.take().context("qemu has no console")?;
        let lines = read_lines(console);
        let mut log_file =
            fs::File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        let deadline = Instant::now() + self.timeout;
        let mut ended = Ended::NeverStarted;
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    ended = after(ended, &line);
                    writeln!(log_file, "{line}").context("cannot write the console's log")?;
                    println!("[{}] {line}", self.label);
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(ended),
                Err(RecvTimeoutError::Timeout) => bail!(
                    "still running after {} minutes, killed; see {}",
                    self.timeout.as_secs() / 60,
                    log.display()
                ),
            }
        }
    }
}

fn after(ended: Ended, line: &str) -> Ended {
    match (ended, exit_status(line)) {
        (_, Some(status)) => Ended::Reported(status),
        (Ended::NeverStarted, None) if line.trim() == STARTED => Ended::Died,
        (ended, None) => ended,
    }
}

fn exit_status(line: &str) -> Option<i32> {
    line.trim().strip_prefix(MARKER)?.parse().ok()
}

/// Reads in a thread, because a pipe cannot be read with a time-out.
fn read_lines(console: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(console);
        let mut bytes = Vec::new();
        while reader
            .read_until(b'\n', &mut bytes)
            .is_ok_and(|count| count > 0)
        {
            let line = String::from_utf8_lossy(&bytes)
                .trim_end_matches(['\r', '\n'])
                .to_owned();
            if sender.send(line).is_err() {
                break;
            }
            bytes.clear();
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_marker_line_is_a_status() {
        assert_eq!(exit_status("MEMTRACE-VM-EXIT 0"), Some(0));
        assert_eq!(exit_status("MEMTRACE-VM-EXIT 101\r"), Some(101));
        assert_eq!(exit_status("echo MEMTRACE-VM-EXIT 0"), None);
        assert_eq!(exit_status("MEMTRACE-VM-EXIT "), None);
    }

    #[test]
    fn only_a_death_before_init_may_be_tried_again() {
        let ended = |lines: &[&str]| lines.iter().fold(Ended::NeverStarted, |e, l| after(e, l));
        assert_eq!(ended(&["Kernel panic - not syncing"]), Ended::NeverStarted);
        assert_eq!(ended(&["MEMTRACE-VM-STARTED", "Kernel panic"]), Ended::Died);
        let whole = [
            "MEMTRACE-VM-STARTED",
            "test a ... ok",
            "MEMTRACE-VM-EXIT 0",
            "Power down",
        ];
        assert_eq!(ended(&whole), Ended::Reported(0));
    }

    #[test]
    fn version_1_is_missing_only_where_the_config_says_so() {
        assert!(supports_v1("CONFIG_MEMCG=y\n"));
        assert!(supports_v1("CONFIG_MEMCG_V1=y\n"));
        assert!(!supports_v1(
            "CONFIG_MEMCG=y\n# CONFIG_MEMCG_V1 is not set\n"
        ));
    }

    #[test]
    fn console_lines_lose_their_line_ends_and_nothing_else() {
        let lines: Vec<_> = read_lines(&b"a\r\nb \xff\n\nlast"[..])
            .into_iter()
            .collect();
        assert_eq!(lines, ["a", "b \u{fffd}", "", "last"]);
    }
}
