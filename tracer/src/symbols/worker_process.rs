//! The worker as the agent sees it: started on demand, asked, killed.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::{net::UnixStream, process::ExitStatusExt as _},
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::wire::{Reply, Request, WorkerLimits, receive, send};

/// A killed worker is gone by then, unless the kernel waits for a disk.
const TIME_TO_DIE: Duration = Duration::from_secs(1);
/// Killed workers that are not gone yet; with more, no other is started.
const MOST_DYING: usize = 4;

/// What runs [`serve`](super::serve).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    pub path: PathBuf,
    pub arguments: Vec<OsString>,
}

impl Default for Program {
    /// memtrace itself, as it was started, though the file may have been replaced since.
    fn default() -> Self {
        Program {
            path: "/proc/self/exe".into(),
            arguments: vec!["symbolize".into()],
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    #[error("the symbolization worker did not start: {0}")]
    Start(#[source] io::Error),
    /// `fresh`: it had nothing to do before, so this request was it.
    #[error("the symbolization worker ended: {error}")]
    Died {
        fresh: bool,
        #[source]
        error: io::Error,
    },
    /// Most likely for want of memory of the host, or of its cgroup: it is made to be the first.
    #[error("the symbolization worker was killed")]
    Killed,
    #[error("the symbolization worker took too long")]
    TimedOut,
}

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    OutOfCpuTime,
    /// By somebody else.
    Killed,
    Other,
}

/// Workers, one at a time.
#[derive(Debug)]
pub struct Workers {
    program: Program,
    limits: WorkerLimits,
    timeout: Duration,
    current: Option<Worker>,
    dying: Vec<Child>,
}

#[derive(Debug)]
struct Worker {
    child: Child,
    socket: UnixStream,
    answered: bool,
}

impl Workers {
    pub fn new(program: Program, limits: WorkerLimits, timeout: Duration) -> Self {
        Workers {
            program,
            limits,
            timeout,
            current: None,
            dying: Vec::new(),
        }
    }

    /// The process id of the worker that runs.
    pub fn pid(&self) -> Option<u32> {
        self.current.as_ref().map(|worker| worker.child.id())
    }

    /// Asks a worker; after an error it is ended.
    ///
    /// # Errors
    /// None starts, or it does not live to answer in time.
    pub fn ask(
        &mut self,
        request: &Request,
        file: Option<BorrowedFd<'_>>,
    ) -> Result<Reply, NoAnswer> {
        let worker = match &mut self.current {
            Some(worker) => worker,
            none => {
                self.dying
                    .retain_mut(|child| matches!(child.try_wait(), Ok(None)));
                if self.dying.len() >= MOST_DYING {
                    let error = "those that were killed do not end";
                    return Err(NoAnswer::Start(io::Error::other(error)));
                }
                let worker = Worker::start(&self.program).map_err(NoAnswer::Start)?;
                none.insert(worker)
            }
        };
        let fresh = !worker.answered;
        match worker.ask(request, file, &self.limits, self.timeout) {
            Ok(reply) => {
                worker.answered = true;
                Ok(reply)
            }
            Err(error) => {
                let late = matches!(
                    error.kind(),
                    io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
                );
                match self.wind_up(late) {
                    _ if late => Err(NoAnswer::TimedOut),
                    End::OutOfCpuTime => Err(NoAnswer::TimedOut),
                    End::Killed => Err(NoAnswer::Killed),
                    End::Other => Err(NoAnswer::Died { fresh, error }),
                }
            }
        }
    }

    /// Ends the worker, if there is one.
    pub fn end(&mut self) {
        self.wind_up(true);
    }

    /// Waits for the end of the worker; `kill`: it has not ended of itself.
    fn wind_up(&mut self, kill: bool) -> End {
        let Some(Worker {
            mut child, socket, ..
        }) = self.current.take()
        else {
            return End::Other;
        };
        drop(socket);
        let mut killed = kill;
        if kill {
            let _ = child.kill();
        }
        let mut deadline = Instant::now() + TIME_TO_DIE;
        loop {
            match child.try_wait() {
                Ok(Some(status)) => {
                    return match status.signal() {
                        Some(libc::SIGXCPU) => End::OutOfCpuTime,
                        Some(libc::SIGKILL) if !killed => End::Killed,
                        _ => End::Other,
                    };
                }
                Ok(None) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(None) if !killed => {
                    let _ = child.kill();
                    killed = true;
                    deadline = Instant::now() + TIME_TO_DIE;
                }
                Ok(None) => {
                    self.dying.push(child);
                    return End::Other;
                }
                Err(_) => return End::Other,
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.end();
    }
}

impl Worker {
    fn start(program: &Program) -> io::Result<Worker> {
        let (socket, theirs) = UnixStream::pair()?;
        let child = Command::new(&program.path)
            .args(&program.arguments)
            // It may hold secrets, such as headers for exports.
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Worker {
            child,
            socket,
            answered: false,
        })
    }

    fn ask(
        &mut self,
        request: &Request,
        file: Option<BorrowedFd<'_>>,
        limits: &WorkerLimits,
        timeout: Duration,
    ) -> io::Result<Reply> {
        self.socket.set_write_timeout(Some(timeout))?;
        if !self.answered {
            send(&self.socket, &Request::Limits(*limits), None)?;
        }
        send(&self.socket, request, file)?;
        let deadline = Instant::now() + timeout;
        match receive(&self.socket, Some(deadline))? {
            Some((reply, _)) => Ok(reply),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
