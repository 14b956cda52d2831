//! The thread on which samples are unwound and pages verified, and what can be asked of it.
//!
//! Nobody waits for it who does not ask.

use std::{
    io,
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::{agent::clock, loader::stacks::StackSamples};

use super::{
    collector::Collector,
    limits::CollectorLimits,
    losses::StackLosses,
    raw::{RawProfile, Selection},
};

/// Samples and questions wait at most this long for each other.
const TURN: Duration = Duration::from_millis(50);
/// Records taken in between two looks at the questions.
const RECORDS_AT_A_TIME: usize = 1024;
/// New pages are looked at this often: how large their folio is shows soon, or not at all.
const VERIFY_NEW: Duration = Duration::from_secs(1);
/// All pages are looked at this often, or so seldom that it takes a hundredth of the time.
const VERIFY_ALL: Duration = Duration::from_secs(10);
const VERIFY_SHARE: u32 = 100;
/// How long the end of the agent waits for the thread, which may hang at a file of somebody else.
const END_WITHIN: Duration = Duration::from_secs(1);

/// What the collector holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StackSizes {
    pub address_spaces: usize,
    pub pages: usize,
    pub call_paths: usize,
    pub losses: StackLosses,
}

enum Ask {
    Profile(Selection, Box<dyn FnOnce(RawProfile) + Send>),
    Include(u64),
    Restart,
    /// What it holds is dropped when the thread is about to end.
    End(Sender<()>),
}

/// Samples until it is dropped.
#[derive(Debug)]
pub struct StackService {
    asks: Sender<Ask>,
    sizes: Arc<Mutex<StackSizes>>,
    thread: Option<JoinHandle<()>>,
}

impl StackService {
    /// `rebase`: how often the base of growth moves on; `None`: only when told.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(
        kernel: StackSamples,
        limits: CollectorLimits,
        rebase: Option<Duration>,
    ) -> io::Result<Self> {
        let (asks, asked) = mpsc::channel();
        let sizes = Arc::default();
        let shared = Arc::clone(&sizes);
        let thread = thread::Builder::new()
            .name("stacks".to_owned())
            .spawn(move || {
                let collector = Collector::start(kernel, limits, now_ns());
                collect(collector, &asked, &shared, rebase);
            })?;
        Ok(Self {
            asks,
            sizes,
            thread: Some(thread),
        })
    }

    /// What is resident now; `None` if the thread has ended.
    pub async fn profile(&self, selection: Selection) -> Option<RawProfile> {
        let (reply, answer) = oneshot::channel();
        self.profile_then(selection, |profile| {
            let _ = reply.send(profile);
        });
        answer.await.ok()
    }

    /// Hands what is resident to `then`, on the thread that samples: it must not wait there.
    pub fn profile_then(
        &self,
        selection: Selection,
        then: impl FnOnce(RawProfile) + Send + 'static,
    ) {
        let _ = self.asks.send(Ask::Profile(selection, Box::new(then)));
    }

    /// What is held and lost, as of a second ago.
    pub fn sizes_now(&self) -> StackSizes {
        self.sizes.lock().map(|sizes| *sizes).unwrap_or_default()
    }

    /// One more cgroup is sampled, where only some are.
    pub fn include(&self, cgroup_id: u64) {
        let _ = self.asks.send(Ask::Include(cgroup_id));
    }

    /// Growth counts from now on.
    pub fn restart(&self) {
        let _ = self.asks.send(Ask::Restart);
    }
}

impl Drop for StackService {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take()
            && !end(&self.asks, thread, END_WITHIN)
        {
            log::warn!("stacks: the thread that unwinds did not end, and is left behind");
        }
    }
}

/// Ends the thread; `false`: not within `most`, it goes on by itself.
fn end(asks: &Sender<Ask>, thread: JoinHandle<()>, most: Duration) -> bool {
    let (ending, ended) = mpsc::channel();
    let _ = asks.send(Ask::End(ending));
    if let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(most) {
        return false;
    }
    let _ = thread.join();
    true
}

fn now_ns() -> u64 {
    u64::try_from(clock::boot_time().as_nanos()).unwrap_or(u64::MAX)
}

fn collect(
    mut collector: Collector,
    asked: &Receiver<Ask>,
    sizes: &Mutex<StackSizes>,
    rebase: Option<Duration>,
) {
    let mut verified_new = Instant::now();
    let mut verified_all = Instant::now();
    let mut verify_all = VERIFY_ALL;
    let mut rebased = Instant::now();
    loop {
        collector.take_in(TURN, RECORDS_AT_A_TIME);
        loop {
            match asked.try_recv() {
                Ok(Ask::Profile(selection, then)) => {
                    then(collector.profile(&selection, now_ns()));
                    measure(&collector, sizes);
                }
                Ok(Ask::Include(cgroup_id)) => collector.include(cgroup_id),
                Ok(Ask::Restart) => collector.restart(now_ns()),
                Ok(Ask::End(ending)) => {
                    drop(ending);
                    return;
                }
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => break,
            }
        }
        if verified_all.elapsed() >= verify_all {
            let began = Instant::now();
            collector.verify(true);
            verify_all = VERIFY_ALL.max(began.elapsed() * VERIFY_SHARE);
            verified_all = Instant::now();
            verified_new = verified_all;
            measure(&collector, sizes);
        } else if verified_new.elapsed() >= VERIFY_NEW {
            collector.verify(false);
            collector.adjust();
            verified_new = Instant::now();
            measure(&collector, sizes);
        }
        if rebase.is_some_and(|after| rebased.elapsed() >= after) {
            collector.rebase(now_ns());
            rebased = Instant::now();
        }
    }
}

fn measure(collector: &Collector, sizes: &Mutex<StackSizes>) {
    let (address_spaces, pages, call_paths) = collector.sizes();
    if let Ok(mut sizes) = sizes.lock() {
        *sizes = StackSizes {
            address_spaces,
            pages,
            call_paths,
            losses: collector.losses(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_hangs_is_left_behind() {
        let (asks, asked) = mpsc::channel();
        let (release, hangs) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            let _ = hangs.recv();
            drop(asked);
        });
        assert!(!end(&asks, thread, Duration::from_millis(10)));
        drop(release);
    }

    #[test]
    fn a_thread_that_listens_and_one_that_is_gone_end() {
        let (asks, asked) = mpsc::channel();
        let thread = thread::spawn(move || {
            let _ = asked.recv();
        });
        assert!(end(&asks, thread, Duration::from_secs(60)));
        let (asks, _) = mpsc::channel();
        assert!(end(&asks, thread::spawn(|| {}), Duration::from_secs(60)));
    }
}
