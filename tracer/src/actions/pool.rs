//! The threads that run commands: few at a time, few that wait, and the rest refused.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::process::{self, End, Invocation, Ran};

/// Commands that run at a time.
const MOST_RUNNING: usize = 4;
/// Commands that wait for one of them to end.
const MOST_QUEUED: usize = 16;
/// Outcomes that the loop has not taken; a thread waits while there is no room.
const MOST_OUTCOMES: usize = 64;

/// A command and what it is of.
#[derive(Debug)]
pub struct Job {
    pub rule: String,
    pub event: &'static str,
    pub cgroup_id: Option<u64>,
    pub invocation: Invocation,
}

/// A command that ended.
#[derive(Debug)]
pub struct Done {
    pub job: Job,
    pub ran: Ran,
}

/// See the module.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    sender: mpsc::Sender<Done>,
    done: mpsc::Receiver<Done>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// A thread ended.
    ended: Condvar,
    stopping: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    threads: usize,
    queue: VecDeque<Job>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in it can be left half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Pool {
    fn default() -> Self {
        let (sender, done) = mpsc::channel(MOST_OUTCOMES);
        Self {
            shared: Arc::default(),
            sender,
            done,
        }
    }
}

impl Pool {
    /// Takes a job if there is room; never waits.
    pub fn submit(&self, job: Job) -> Result<(), Refused> {
        let mut state = self.shared.state();
        let may_start = state.threads < MOST_RUNNING;
        if !may_start && state.queue.len() >= MOST_QUEUED {
            return Err(Refused::Full);
        }
        state.queue.push_back(job);
        if !may_start {
            return Ok(());
        }
        let (shared, sender) = (Arc::clone(&self.shared), self.sender.clone());
        let thread = thread::Builder::new().name("memtrace-action".into());
        match thread.spawn(move || work(&shared, &sender)) {
            Ok(_) => {
                state.threads += 1;
                Ok(())
            }
            // Another thread will come to it.
            Err(_) if state.threads > 0 => Ok(()),
            Err(error) => {
                state.queue.pop_back();
                Err(Refused::NoThread(error.to_string()))
            }
        }
    }

    /// The next command that ended.
    pub async fn done(&mut self) -> Done {
        match self.done.recv().await {
            Some(done) => done,
            // This pool has a sender itself.
            None => std::future::pending().await,
        }
    }

    /// Waits until `deadline` for what runs, then ends it; gives what ended.
    pub fn stop(&mut self, deadline: Instant) -> Vec<Done> {
        let mut ended = Vec::new();
        self.wait_until(deadline, &mut ended);
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.shared.state().queue.clear();
        self.wait_until(Instant::now() + LAST, &mut ended);
        ended
    }

    fn wait_until(&mut self, deadline: Instant, ended: &mut Vec<Done>) {
        loop {
            // A thread may wait for room.
            while let Ok(done) = self.done.try_recv() {
                ended.push(done);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let state = self.shared.state();
            if state.threads == 0 || left.is_zero() {
                break;
            }
            let left = left.min(Duration::from_millis(50));
            drop(self.shared.ended.wait_timeout(state, left));
        }
        while let Ok(done) = self.done.try_recv() {
            ended.push(done);
        }
    }
}

/// Time that commands have between SIGTERM and the end of the agent: SIGKILL is within it.
const LAST: Duration = Duration::from_millis(2500);

/// Why a job was not taken.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    Full,
    NoThread(String),
}

/// Runs jobs until there is none.
fn work(shared: &Shared, sender: &mpsc::Sender<Done>) {
    loop {
        let job = {
            let mut state = shared.state();
            match state.queue.pop_front() {
                Some(job) => job,
                None => {
                    state.threads -= 1;
                    shared.ended.notify_all();
                    return;
                }
            }
        };
        let ran = if shared.stopping.load(Ordering::Relaxed) {
            Ran {
                end: End::Stopped,
                took: Duration::ZERO,
                output: Vec::new(),
            }
        } else {
            process::run(&job.invocation, &shared.stopping)
        };
        // Without the agent there is nobody to tell.
        let _ = sender.blocking_send(Done { job, ran });
    }
}
