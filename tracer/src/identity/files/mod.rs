//! Containers of Docker, Podman and CRI-O, from the files that these write, without their sockets.
//!
//! Owns when to look, and how a file system that does not answer is told. Reads only, on a thread of its own:
//! one that hangs holds up nobody else.
//!
//! - `stores`: where the files are; `root`: how they are opened.
//! - `docker`, `storage`: what they say.
//! - `reader`: looks containers up, remembers what was found.

pub mod docker;
mod reader;
pub mod root;
pub mod storage;
mod stores;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::mpsc,
    task,
    time::{self, Instant},
};

use self::reader::{Looked, Reader};
use super::{
    facts::{Source, SourceState, Update, Wanted},
    wants::Wants,
};

#[cfg(test)]
pub(super) use self::root::Root;
pub use self::stores::FilesConfig;

/// Between two looks at all that was found, and for stores.
const PACE: Pace = Pace {
    with_stores: Duration::from_secs(30),
    without: Duration::from_secs(10),
};
/// From the beginning of a look to that of the next, at least: what is wanted at once is looked for together.
const GAP: Duration = Duration::from_millis(20);
/// For a look. A file system on a network may hang for ever.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy)]
struct Pace {
    with_stores: Duration,
    without: Duration,
}

/// Tells wanted containers for as long as somebody listens, and which of them are gone. Counts in `left_out`
/// those that there is no room for, and says in `present` whether there are stores to look in.
pub async fn follow(
    config: FilesConfig,
    updates: mpsc::Sender<Update>,
    wanted: mpsc::Receiver<Wanted>,
    left_out: Arc<AtomicU64>,
    present: Arc<AtomicBool>,
) {
    follow_at(PACE, config, updates, wanted, left_out, present).await;
}

async fn follow_at(
    pace: Pace,
    config: FilesConfig,
    updates: mpsc::Sender<Update>,
    wanted: mpsc::Receiver<Wanted>,
    left_out: Arc<AtomicU64>,
    present: Arc<AtomicBool>,
) {
    let mut follower = Follower {
        reader: Some(Reader::new(&config)),
        pace,
        config,
        updates,
        wanted,
        wants: Wants::new(Arc::clone(&left_out)),
        left_out,
        present,
        state: SourceState::Starting,
    };
    // It ends when nobody listens any more.
    let Closed = follower.run().await;
}

struct Follower {
    pace: Pace,
    config: FilesConfig,
    /// `None`: it is looking.
    reader: Option<Reader>,
    updates: mpsc::Sender<Update>,
    wanted: mpsc::Receiver<Wanted>,
    wants: Wants,
    left_out: Arc<AtomicU64>,
    present: Arc<AtomicBool>,
    state: SourceState,
}

/// Nobody listens any more.
struct Closed;

impl Follower {
    async fn run(&mut self) -> Closed {
        let mut all_at = Instant::now();
        loop {
            let began = Instant::now();
            let all = began >= all_at;
            let told = match self.look(began, all).await {
                Ok(looked) => self.tell(began, looked, all).await,
                Err(closed) => return closed,
            };
            if all {
                all_at = began
                    + match self.config.is_empty() {
                        true => self.pace.without,
                        false => self.pace.with_stores,
                    };
            }
            // Half of the time at most, however slow the files are.
            let not_before = (began + GAP).max(Instant::now() + began.elapsed());
            if told.is_err() || self.rest(all_at, not_before).await.is_err() {
                return Closed;
            }
        }
    }

    /// On a thread that may hang.
    async fn look(&mut self, began: Instant, all: bool) -> Result<Looked, Closed> {
        let mut reader = self
            .reader
            .take()
            .unwrap_or_else(|| Reader::new(&self.config));
        let wanted = self.wants.due_by(began);
        let mut looking = task::spawn_blocking(move || {
            let looked = reader.look(wanted, all);
            (reader, looked)
        });
        let mut patience = Some(began + PATIENCE);
        loop {
            let out_of_patience = time::sleep_until(patience.unwrap_or(began));
            tokio::select! {
                biased;
                () = self.updates.closed() => return Err(Closed),
                ended = &mut looking => {
                    let Ok((reader, looked)) = ended else {
                        let problem = Some("looking at the files failed".to_owned());
                        return Ok(Looked { problem, ..Looked::default() });
                    };
                    self.reader = Some(reader);
                    return Ok(looked);
                }
                Some(wanted) = self.wanted.recv(), if self.wants.have_room() => self.want(wanted),
                () = out_of_patience, if patience.is_some() => {
                    patience = None;
                    let why = format!(
                        "{} do not answer within {} s: does their file system hang?",
                        self.config.describe(),
                        PATIENCE.as_secs()
                    );
                    self.tell_state(SourceState::Failing(why)).await?;
                }
            }
        }
    }

    async fn tell(&mut self, began: Instant, looked: Looked, all: bool) -> Result<(), Closed> {
        if let Some(stores) = looked.stores {
            if !stores.is_empty() {
                log::info!("another source of names: {}", stores.describe());
            }
            self.config = stores;
            self.present
                .store(!self.config.is_empty(), Ordering::Relaxed);
        }
        let known = looked.known.iter().map(String::as_str).collect();
        self.wants.looked(began, &known);
        let left_out = u64::try_from(looked.left_out).unwrap_or(u64::MAX);
        self.left_out.fetch_add(left_out, Ordering::Relaxed);
        if !looked.containers.is_empty() || !looked.gone.is_empty() {
            let update = Update::RuntimeChanged {
                source: Source::Files,
                containers: looked.containers,
                gone: looked.gone,
            };
            self.updates.send(update).await.map_err(|_| Closed)?;
        }
        match looked.problem {
            Some(problem) => self.tell_state(SourceState::Failing(problem)).await,
            None if all && self.config.is_empty() => self.tell_state(SourceState::Absent).await,
            // Only such a look has seen every store.
            None if all => self.tell_state(SourceState::Synced).await,
            None => Ok(()),
        }
    }

    /// Waits until `until`, or until a container is to be looked for, but that not before `not_before`.
    async fn rest(&mut self, until: Instant, not_before: Instant) -> Result<(), Closed> {
        loop {
            let look = self.wants.due().map_or(until, |due| due.min(until));
            tokio::select! {
                biased;
                () = self.updates.closed() => return Err(Closed),
                // Before the clock: all that are wanted by now are looked for together.
                Some(wanted) = self.wanted.recv(), if self.wants.have_room() => self.want(wanted),
                () = time::sleep_until(look.max(not_before)) => return Ok(()),
            }
        }
    }

    fn want(&mut self, wanted: Wanted) {
        self.wants.add(wanted.container_id, Instant::now());
    }

    async fn tell_state(&mut self, state: SourceState) -> Result<(), Closed> {
        if self.state == state {
            return Ok(());
        }
        self.state = state.clone();
        let update = Update::Source(Source::Files, state);
        self.updates.send(update).await.map_err(|_| Closed)
    }
}

#[cfg(test)]
mod tests;
