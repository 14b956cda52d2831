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
        // So many wait for less than all threads only where no thread can be started.
        if state.queue.len() >= MOST_QUEUED {
            return Err(Refused::Full);
        }
        state.queue.push_back(job);
        if state.threads >= MOST_RUNNING {
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

    /// Waits until `deadline` for what runs, then ends it; gives what ended and what was not run.
    pub fn stop(&mut self, deadline: Instant) -> Vec<Done> {
        let mut ended = Vec::new();
        self.wait_until(deadline, &mut ended);
        self.shared.stopping.store(true, Ordering::Relaxed);
        let waiting = std::mem::take(&mut self.shared.state().queue);
        ended.extend(waiting.into_iter().map(not_run));
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
        let done = if shared.stopping.load(Ordering::Relaxed) {
            not_run(job)
        } else {
            let ran = process::run(&job.invocation, &shared.stopping);
            Done { job, ran }
        };
        // Without the agent there is nobody to tell.
        let _ = sender.blocking_send(done);
    }
}

/// Of one that still waited.
fn not_run(job: Job) -> Done {
    let ran = Ran {
        end: End::NotRun,
        took: Duration::ZERO,
        output: Vec::new(),
    };
    Done { job, ran }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Job {
        Job {
            rule: "test".into(),
            event: "incident",
            cgroup_id: None,
            invocation: Invocation {
                program: "/bin/true".into(),
                arguments: Vec::new(),
                environment: Vec::new(),
                input: Arc::default(),
                timeout: Duration::from_secs(1),
            },
        }
    }

    /// A pool in which nothing takes what waits.
    fn waiting(threads: usize, jobs: usize) -> Pool {
        let pool = Pool::default();
        let mut state = pool.shared.state();
        state.threads = threads;
        state.queue.extend((0..jobs).map(|_| job()));
        drop(state);
        pool
    }

    #[test]
    fn what_waits_is_bounded_also_where_no_more_threads_can_be_started() {
        let pool = waiting(1, MOST_QUEUED);
        assert_eq!(pool.submit(job()), Err(Refused::Full));
        assert_eq!(pool.shared.state().queue.len(), MOST_QUEUED);
    }

    #[test]
    fn what_waits_at_the_end_is_told_as_not_run() {
        let mut pool = waiting(0, 3);
        let ended = pool.stop(Instant::now());
        assert_eq!(ended.len(), 3);
        assert!(ended.iter().all(|done| done.ran.end == End::NotRun));
    }
}
