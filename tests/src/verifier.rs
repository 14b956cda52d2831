//! What the kernel's verifier says of each program that memtrace loads, also where the kernel keeps
//! no count of it (before 5.16).
//!
//! Traces memtrace with ptrace and has the kernel write the verifier's statistics of each load.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

/// Beginnings of the names of memtrace's programs; its questions about the kernel are programs too.
const FAMILIES: [&str; 5] = ["fault_", "heap_", "lifecycle_", "oom_", "reclaim_"];

// include/uapi/linux/bpf.h: the command, and offsets in `union bpf_attr`.
const BPF_PROG_LOAD: u64 = 5;
const PROG_TYPE: usize = 0;
const LOG_LEVEL: usize = 24;
const LOG_SIZE: usize = 28;
const LOG_BUF: usize = 32;
const PROG_NAME: usize = 48;
const ATTACH_TYPE: usize = 68;
const ATTR_BYTES: usize = 72;
const BPF_LOG_STATS: u32 = 4;

/// Room for the statistics, this far below the stack pointer.
const SCRATCH_BYTES: u32 = 4096;
const SCRATCH_BELOW: u64 = 8192;
/// Most of a log that is kept: its end names the fault.
const KEPT_LOG_BYTES: usize = 16 * 1024;
const LONGEST_LOG: usize = 16 << 20;

/// One program that was offered to the kernel.
#[derive(Debug, Clone)]
pub struct Load {
    /// The first 15 bytes of its name.
    pub name: String,
    program_type: u32,
    attach_type: u32,
    pub accepted: bool,
    /// The end of what the verifier wrote.
    pub log: String,
}

impl Load {
    /// Whether such a program can serve a hook, as `doctor` names it.
    pub fn fits(&self, hook: &str) -> bool {
        // enum bpf_prog_type and enum bpf_attach_type.
        let expected = match hook.split('/').next().unwrap_or_default() {
            "tp_btf" => (26, Some(23)),
            "fentry" => (26, Some(24)),
            "fexit" => (26, Some(25)),
            "kprobe" | "kretprobe" => (2, None),
            "tracepoint" => (5, None),
            "perf_event" => (7, None),
            _ => return false,
        };
        let (program_type, attach_type) = expected;
        self.program_type == program_type && attach_type.is_none_or(|t| t == self.attach_type)
    }

    /// Instructions that the verifier walked.
    pub fn instructions(&self) -> Option<u64> {
        let (_, behind) = self.log.rsplit_once("processed ")?;
        behind.split(' ').next()?.parse().ok()
    }
}

/// Runs the command; gives its stdout and the programs it loaded from its first thread.
pub fn watch(mut command: Command) -> Result<(String, Vec<Load>)> {
    command.stdout(Stdio::piped());
    // SAFETY: one async-signal-safe system call.
    unsafe { command.pre_exec(|| ptrace::traceme().map_err(Into::into)) };
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let mut stdout = child.stdout.take().context("no stdout")?;
    let reader = thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    });
    let loads = follow(&child);
    if loads.is_err() {
        // Otherwise it would stay stopped, and its stdout open.
        let _ = child.kill();
        let _ = child.wait();
    }
    let text = reader.join().ok().context("the reader panicked")?;
    Ok((text?, loads?))
}

fn follow(child: &Child) -> Result<Vec<Load>> {
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let stopped = waitpid(pid, None)?;
    ensure!(
        matches!(stopped, WaitStatus::Stopped(_, Signal::SIGTRAP)),
        "stopped by {stopped:?}, not by its start"
    );
    ptrace::setoptions(
        pid,
        ptrace::Options::PTRACE_O_TRACESYSGOOD | ptrace::Options::PTRACE_O_EXITKILL,
    )?;
    let memory = OpenOptions::new()
        .read(true)
        .write(true)
        .open(format!("/proc/{pid}/mem"))?;
    let mut loads = Vec::new();
    let mut open: Option<Open> = None;
    let mut signal = None;
    loop {
        ptrace::syscall(pid, signal.take())?;
        match waitpid(pid, None)? {
            WaitStatus::Exited(..) => return Ok(loads),
            WaitStatus::PtraceSyscall(_) => {
                let info = syscall_info(pid)?;
                match (info.op, open.take()) {
                    (libc::PTRACE_SYSCALL_INFO_ENTRY, _) => {
                        // SAFETY: the member that `op` names.
                        let entry = unsafe { info.u.entry };
                        if entry.nr == libc::SYS_bpf as u64 && entry.args[0] == BPF_PROG_LOAD {
                            open = Open::begin(&memory, entry.args[1], info.stack_pointer)?;
                        }
                    }
                    (libc::PTRACE_SYSCALL_INFO_EXIT, Some(load)) => {
                        // SAFETY: the member that `op` names.
                        let exit = unsafe { info.u.exit };
                        loads.push(load.end(&memory, exit.is_error == 0)?);
                    }
                    _ => {}
                }
            }
            WaitStatus::Stopped(_, received) => signal = Some(received),
            other => bail!("ended by {other:?}"),
        }
    }
}

/// nix 0.30 asks for it without its size and gets nothing.
fn syscall_info(pid: Pid) -> Result<libc::ptrace_syscall_info> {
    // SAFETY: plain data, for which zero is valid.
    let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::ptrace_syscall_info>();
    // SAFETY: our own stopped child, and room of the size that is told.
    let told = unsafe {
        libc::ptrace(
            libc::PTRACE_GET_SYSCALL_INFO,
            pid.as_raw(),
            size,
            &raw mut info,
        )
    };
    ensure!(told > 0, std::io::Error::last_os_error());
    Ok(info)
}

/// A load that is under way.
struct Open {
    address: u64,
    attr: [u8; ATTR_BYTES],
    log: u64,
    log_bytes: usize,
    /// The log is ours, not memtrace's own.
    asked: bool,
}

impl Open {
    /// `None`: not one of memtrace's programs.
    fn begin(memory: &File, address: u64, stack_pointer: u64) -> Result<Option<Self>> {
        let mut attr = [0; ATTR_BYTES];
        memory.read_exact_at(&mut attr, address)?;
        let name = name(&attr);
        if !FAMILIES.iter().any(|family| name.starts_with(family)) {
            return Ok(None);
        }
        let asked = u32_at(&attr, LOG_LEVEL) == 0;
        let mut changed = attr;
        if asked {
            let log = stack_pointer - SCRATCH_BELOW;
            changed[LOG_LEVEL..LOG_SIZE].copy_from_slice(&BPF_LOG_STATS.to_ne_bytes());
            changed[LOG_SIZE..LOG_BUF].copy_from_slice(&SCRATCH_BYTES.to_ne_bytes());
            changed[LOG_BUF..LOG_BUF + 8].copy_from_slice(&log.to_ne_bytes());
            // What is left of an earlier load is no log of this one.
            memory.write_all_at(&[0], log)?;
            memory.write_all_at(&changed, address)?;
        }
        let log: [u8; 8] = changed[LOG_BUF..LOG_BUF + 8].try_into()?;
        Ok(Some(Self {
            address,
            attr,
            log: u64::from_ne_bytes(log),
            log_bytes: u32_at(&changed, LOG_SIZE) as usize,
            asked,
        }))
    }

    fn end(self, memory: &File, accepted: bool) -> Result<Load> {
        let mut log = vec![0; self.log_bytes.min(LONGEST_LOG)];
        memory.read_exact_at(&mut log, self.log)?;
        if self.asked {
            memory.write_all_at(&self.attr, self.address)?;
        }
        let length = log.iter().position(|byte| *byte == 0);
        log.truncate(length.unwrap_or(log.len()));
        let end = log.split_off(log.len().saturating_sub(KEPT_LOG_BYTES));
        Ok(Load {
            name: name(&self.attr),
            program_type: u32_at(&self.attr, PROG_TYPE),
            attach_type: u32_at(&self.attr, ATTACH_TYPE),
            accepted,
            log: String::from_utf8_lossy(&end).into_owned(),
        })
    }
}

fn name(attr: &[u8; ATTR_BYTES]) -> String {
    let name = &attr[PROG_NAME..PROG_NAME + 16];
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

fn u32_at(attr: &[u8; ATTR_BYTES], offset: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&attr[offset..offset + 4]);
    u32::from_ne_bytes(bytes)
}
