//! What the processes that run already were started as: the programs see only those that start later.
//!
//! Reading a command line takes a lock of its process, and one that hangs (its file system is away, say) may
//! hold that for ever. So it is done on threads for which nobody waits long, not even at the end.

use std::{
    collections::{BTreeSet, VecDeque},
    fs,
    os::unix::ffi::OsStrExt as _,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use crate::{host::process::ProcRoot, loader::commands::Commands};

/// The start of memtrace waits for them this long: of a usual host all are known in some milliseconds.
const WAITED_FOR: Duration = Duration::from_secs(2);
/// While none of them tells anything for this long another thread goes on with the next process.
const PATIENCE: Duration = Duration::from_millis(100);
/// Threads, each of which may hang in a process.
const MOST_THREADS: usize = 16;

/// Where command lines are kept.
trait Kept: Send + 'static {
    /// `false` if there is one of that process already, or no room.
    fn add(&mut self, pid: u32, arguments: Option<&[u8]>, executable: &[u8]) -> bool;
    fn remove(&mut self, pid: u32);
}

impl Kept for Commands {
    fn add(&mut self, pid: u32, arguments: Option<&[u8]>, executable: &[u8]) -> bool {
        Commands::add(self, pid, arguments, executable)
    }

    fn remove(&mut self, pid: u32) {
        Commands::remove(self, pid);
    }
}

/// Processes that are told one after the other.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<u32>,
    /// A thread is at it.
    asked: BTreeSet<u32>,
}

/// The processes of the moment at which memtrace started, as they become known.
pub struct RunningCommands {
    queue: Arc<Mutex<Queue>>,
    /// Closed once all are known.
    known: mpsc::Receiver<()>,
    until: Instant,
    unread: u64,
}

impl RunningCommands {
    /// Begins to tell the programs of every process of this moment. One that ends or starts meanwhile is
    /// theirs; of one that does not tell neither command line nor executable is known.
    pub fn start(commands: Commands, with_arguments: bool) -> Self {
        Self::of(ProcRoot::default(), commands, with_arguments)
    }

    fn of(proc: ProcRoot, kept: impl Kept, with_arguments: bool) -> Self {
        let queue = Arc::new(Mutex::new(Queue {
            waiting: pids(&proc),
            asked: BTreeSet::new(),
        }));
        let kept = Mutex::new(kept);
        let tell = move |pid, buffer: &mut Vec<u8>| tell(&proc, &kept, pid, with_arguments, buffer);
        let (knowing, known) = mpsc::channel(1);
        let readers = Readers {
            queue: Arc::clone(&queue),
            tell: Arc::new(tell),
            knowing,
        };
        spawn(move || readers.supervise());
        Self {
            queue,
            known,
            until: Instant::now() + WAITED_FOR,
            unread: 0,
        }
    }

    /// Waits until all are known, at most until two seconds after the beginning: a victim that was there
    /// before memtrace is told with its command line from the first moment on.
    pub async fn wait(&mut self) {
        let _ = timeout_at(self.until, self.known.recv()).await;
        let queue = lock(&self.queue);
        self.unread = (queue.waiting.len() + queue.asked.len()) as u64;
        if let Some(pid) = queue.asked.first() {
            log::warn!(
                "the command lines of {} processes are not known yet: process {pid} does not tell its own",
                self.unread
            );
        }
    }

    /// Of processes that told nothing by the end of [`RunningCommands::wait`].
    pub fn losses(&self) -> [(&'static str, u64); 1] {
        [("command_line_unread", self.unread)]
    }
}

/// What the threads share.
struct Readers<T> {
    queue: Arc<Mutex<Queue>>,
    tell: Arc<T>,
    /// Dropped by the last of them.
    knowing: mpsc::Sender<()>,
}

impl<T: Fn(u32, &mut Vec<u8>) + Send + Sync + 'static> Readers<T> {
    /// As few threads as it takes: one, and one for each process that hangs.
    fn supervise(self) {
        let (progress, told) = channel();
        for _ in 0..MOST_THREADS {
            if !self.begin(&progress) || !self.has_hung(&told) {
                return;
            }
        }
    }

    fn begin(&self, progress: &Sender<()>) -> bool {
        let (queue, tell) = (Arc::clone(&self.queue), Arc::clone(&self.tell));
        let (knowing, progress) = (self.knowing.clone(), progress.clone());
        spawn(move || {
            let mut buffer = Vec::new();
            while let Some(pid) = next(&queue) {
                tell(pid, &mut buffer);
                lock(&queue).asked.remove(&pid);
                // The supervisor may have seen enough.
                let _ = progress.send(());
            }
            drop(knowing);
        })
    }

    /// Waits until there is none left to begin with (`false`), or nothing is told for a while.
    fn has_hung(&self, told: &Receiver<()>) -> bool {
        while !lock(&self.queue).waiting.is_empty() {
            if told.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                return true;
            }
        }
        false
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> bool {
    let thread = thread::Builder::new().name("memtrace-args".into());
    let spawned = thread.spawn(work);
    if let Err(error) = &spawned {
        log::warn!("cannot start a thread that reads command lines: {error}");
    }
    spawned.is_ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn next(queue: &Mutex<Queue>) -> Option<u32> {
    let mut queue = lock(queue);
    let pid = queue.waiting.pop_front()?;
    queue.asked.insert(pid);
    Some(pid)
}

fn pids(proc: &ProcRoot) -> VecDeque<u32> {
    let entries = fs::read_dir(proc.path("")).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Tells of one process. Whoever got its id since is not told as it.
fn tell(
    proc: &ProcRoot,
    kept: &Mutex<impl Kept>,
    pid: u32,
    with_arguments: bool,
    buffer: &mut Vec<u8>,
) {
    let start = || proc.program_of(pid).ok()?.0.start_ticks;
    let Some(started) = start() else {
        return;
    };
    // A kernel thread has no executable.
    let Ok(executable) = fs::read_link(proc.path(&format!("{pid}/exe"))) else {
        return;
    };
    let arguments = with_arguments
        .then(|| proc.command_line(pid, buffer).ok())
        .flatten();
    if start() != Some(started) {
        return;
    }
    let added = lock(kept).add(pid, arguments, executable.as_os_str().as_bytes());
    // The programs forget a process when it ends, which may have been just before that.
    if added && start() != Some(started) {
        lock(kept).remove(pid);
    }
}

#[cfg(test)]
#[path = "running_commands_tests.rs"]
mod tests;
