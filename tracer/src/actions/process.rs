//! One run of a command: started apart from the agent, fed, read, and ended in time with all it started.
//!
//! Blocks, so it is called on a thread of its own. Must not decide what runs.

use std::{
    io::{self, PipeReader, Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, RawFd},
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::{
        signal::{SigSet, Signal, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};

/// What is kept of the output: its end.
const KEPT_OUTPUT: usize = 4096;
/// Output that is read after the command ended: what it left behind may go on writing.
const LAST_OUTPUT: usize = 64 * 1024;
/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// Between two looks whether it ended.
const LOOK_MS: libc::c_int = 50;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What to run.
#[derive(Debug, Clone)]
pub struct Invocation {
    pub program: String,
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// Its standard input.
    pub input: Arc<[u8]>,
    pub timeout: Duration,
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Exited(i32),
    Signalled(i32),
    /// It was ended after its timeout.
    TimedOut,
    /// It was ended because the agent ends.
    Stopped,
    /// It still waited when the agent ended.
    NotRun,
    NotStarted(String),
}

/// A run that is over.
#[derive(Debug)]
pub struct Ran {
    pub end: End,
    pub took: Duration,
    /// The last of standard output and standard error, as they came.
    pub output: Vec<u8>,
}

/// Runs it to its end. `stopping` ends it early.
pub fn run(invocation: &Invocation, stopping: &AtomicBool) -> Ran {
    let began = Instant::now();
    let mut output = Tail::default();
    let end = match start(invocation) {
        Ok((child, reader)) => attend(child, &reader, invocation, stopping, &mut output),
        Err(error) => End::NotStarted(error.to_string()),
    };
    Ran {
        end,
        took: began.elapsed(),
        output: output.0,
    }
}

fn start(invocation: &Invocation) -> io::Result<(Child, PipeReader)> {
    // One pipe, so that lines stay in their order.
    let (reader, writer) = io::pipe()?;
    set_nonblocking(reader.as_raw_fd())?;
    let mut command = Command::new(&invocation.program);
    command
        .args(&invocation.arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LANG", "C.UTF-8")
        .envs(
            invocation
                .environment
                .iter()
                .map(|(name, value)| (name, value)),
        )
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let is_protected = is_protected();
    // SAFETY: the closure calls only what is safe after a fork: system calls, no allocation, no lock.
    unsafe { command.pre_exec(move || set_apart(is_protected)) };
    let child = command.spawn()?;
    if let Some(stdin) = &child.stdin {
        set_nonblocking(stdin.as_raw_fd())?;
    }
    Ok((child, reader))
}

/// Whether the OOM killer spares the agent, which is no reason to spare a command.
fn is_protected() -> bool {
    let value = std::fs::read_to_string("/proc/self/oom_score_adj");
    let value = value.ok().and_then(|text| text.trim().parse::<i32>().ok());
    value.is_some_and(|value| value < 0)
}

/// In the child: a session of its own, none of the agent's descriptors, no life beyond the agent's, none of its
/// protection from the OOM killer, and no signal blocked.
fn set_apart(is_protected: bool) -> io::Result<()> {
    // The thread that starts it may block some.
    SigSet::empty().thread_set_mask()?;
    // SAFETY: takes no pointer.
    if unsafe { libc::setsid() } < 0 {
        return Err(io::Error::last_os_error());
    }
    let sigkill = Signal::SIGKILL as libc::c_ulong;
    // SAFETY: takes no pointer.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, sigkill) };
    const FIRST: libc::c_uint = 3;
    // All are opened with CLOEXEC; before Linux 5.11 that has to do.
    // SAFETY: takes no pointer; only marks descriptors.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            FIRST,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if is_protected {
        // SAFETY: the path ends with NUL; the descriptor is this function's own.
        unsafe {
            let file = libc::open(
                c"/proc/self/oom_score_adj".as_ptr(),
                libc::O_WRONLY | libc::O_CLOEXEC,
            );
            if file >= 0 {
                libc::write(file, c"0".as_ptr().cast(), 1);
                libc::close(file);
            }
        }
    }
    Ok(())
}

fn set_nonblocking(descriptor: RawFd) -> io::Result<()> {
    // SAFETY: the caller's descriptor is open for the length of the call.
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(descriptor) };
    fcntl(borrowed, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

fn attend(
    mut child: Child,
    reader: &PipeReader,
    invocation: &Invocation,
    stopping: &AtomicBool,
    output: &mut Tail,
) -> End {
    let group = Pid::from_raw(child.id().cast_signed());
    let mut input = Input {
        pipe: child.stdin.take(),
        rest: &invocation.input,
    };
    let mut reader_open = true;
    let deadline = Instant::now() + invocation.timeout;
    let mut why = None;
    let mut kill_at = None;
    while !has_ended(group) {
        wait(&input, reader_open.then_some(reader));
        input.write();
        reader_open = reader_open && output.read(reader, LAST_OUTPUT);
        let now = Instant::now();
        if why.is_none() {
            why = match stopping.load(Ordering::Relaxed) {
                true => Some(End::Stopped),
                false => (now >= deadline).then_some(End::TimedOut),
            };
            if why.is_some() {
                let _ = killpg(group, Signal::SIGTERM);
                kill_at = Some(now + GRACE);
            }
        }
        if kill_at.is_some_and(|at| now >= at) {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
    // Not reaped yet, so that the group is still this one's: ends what it left behind.
    let _ = killpg(group, Signal::SIGKILL);
    output.read(reader, LAST_OUTPUT);
    let status = child.wait();
    match (why, status) {
        (Some(why), _) => why,
        (None, Ok(status)) => match (status.code(), status.signal()) {
            (Some(code), _) => End::Exited(code),
            (None, signal) => End::Signalled(signal.unwrap_or_default()),
        },
        (None, Err(error)) => End::NotStarted(error.to_string()),
    }
}

/// Whether it ended; it stays to be reaped.
fn has_ended(pid: Pid) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    !matches!(
        waitid(Id::Pid(pid), flags),
        Ok(WaitStatus::StillAlive) | Err(nix::Error::EINTR)
    )
}

/// Until there is something to read or to write, or it is time to look.
fn wait(input: &Input<'_>, reader: Option<&PipeReader>) {
    let watch = |descriptor, events| libc::pollfd {
        fd: descriptor,
        events,
        revents: 0,
    };
    // A negative descriptor is left out.
    let stdin = input.pipe.as_ref().map_or(-1, |pipe| pipe.as_raw_fd());
    let stdout = reader.map_or(-1, |pipe| pipe.as_raw_fd());
    let mut watched = [watch(stdin, libc::POLLOUT), watch(stdout, libc::POLLIN)];
    // SAFETY: the array is valid for the call, and its length is given.
    unsafe { libc::poll(watched.as_mut_ptr(), watched.len() as libc::nfds_t, LOOK_MS) };
}

struct Input<'a> {
    /// `None`: closed.
    pipe: Option<ChildStdin>,
    rest: &'a [u8],
}

impl Input<'_> {
    /// What the command takes. One that closed its input wants no more.
    fn write(&mut self) {
        let Some(pipe) = &mut self.pipe else {
            return;
        };
        while !self.rest.is_empty() {
            match pipe.write(self.rest) {
                Ok(written) => self.rest = self.rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        self.pipe = None;
    }
}

/// The end of what was written.
#[derive(Debug, Default)]
struct Tail(Vec<u8>);

impl Tail {
    /// Reads what is there, at most `most`; `false` when there is no writer any more.
    fn read(&mut self, mut reader: &PipeReader, most: usize) -> bool {
        let mut buffer = [0; 4096];
        let mut taken = 0;
        while taken < most {
            match reader.read(&mut buffer) {
                Ok(0) => return false,
                Ok(read) => {
                    taken += read;
                    self.0
                        .extend_from_slice(buffer.get(..read).unwrap_or_default());
                    let surplus = self.0.len().saturating_sub(KEPT_OUTPUT);
                    self.0.drain(..surplus);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        true
    }
}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;
