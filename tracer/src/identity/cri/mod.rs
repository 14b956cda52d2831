//! Containers and sandboxes of the runtime, asked through its CRI socket.
//!
//! Owns when to ask and how a runtime that does not answer is told and tried again. Reads only; a runtime
//! that is slow is asked less.
//!
//! - `socket`: which one is connected to.
//! - `client`: the calls, and what their failures mean.
//! - `listing`: what is listed, as facts, within bounds.

mod client;
pub mod listing;
pub mod messages;
mod socket;

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{self, Instant},
};

use self::{
    client::{Client, CriError},
    listing::Listing,
};
use super::{
    facts::{Source, SourceState, Update, Wanted},
    wants::Wants,
};

pub use self::socket::CriConfig;

/// Between two lists that nobody asked for.
const EVERY: Duration = Duration::from_secs(30);
/// From the beginning of a list to that of the next, at least.
const GAP: Duration = Duration::from_millis(50);
/// Between two attempts to connect, at first and at most.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MOST_BACKOFF: Duration = Duration::from_secs(10);

/// Tells the runtime's containers for as long as somebody listens; looks at once when one is wanted.
/// Counts in `left_out` those that it has no room for.
pub async fn follow(
    mut config: CriConfig,
    updates: mpsc::Sender<Update>,
    wanted: mpsc::Receiver<Wanted>,
    left_out: Arc<AtomicU64>,
) {
    let mut follower = Follower {
        updates,
        wanted,
        wants: Wants::new(left_out),
        told: None,
        state: SourceState::Starting,
        most_left_out: 0,
    };
    let mut backoff = FIRST_BACKOFF;
    loop {
        let Some(socket) = config.locate() else {
            if follower.await_socket(&config).await.is_err() {
                return;
            }
            continue;
        };
        let Err(Stop::Failed { error, after_lists }) = follower.session(&socket).await else {
            return;
        };
        if after_lists {
            backoff = FIRST_BACKOFF;
            if error.is_lost_connection() {
                // A runtime that was restarted is there again, or the next attempt says why not.
                continue;
            }
        }
        let state = SourceState::Failing(error.to_string());
        if follower.tell_state(state).await.is_err() || follower.pause(backoff).await.is_err() {
            return;
        }
        backoff = (backoff * 2).min(MOST_BACKOFF);
    }
}

struct Follower {
    updates: mpsc::Sender<Update>,
    wanted: mpsc::Receiver<Wanted>,
    wants: Wants,
    /// The newest that was told.
    told: Option<Listing>,
    state: SourceState,
    /// As far as it was logged.
    most_left_out: usize,
}

enum Stop {
    /// Nobody listens any more.
    Closed,
    Failed {
        error: CriError,
        /// The connection has been good.
        after_lists: bool,
    },
}

impl From<Closed> for Stop {
    fn from(_: Closed) -> Self {
        Stop::Closed
    }
}

/// Nobody listens any more.
struct Closed;

impl Follower {
    /// One connection, from its beginning to its end.
    async fn session(&mut self, socket: &Path) -> Result<(), Stop> {
        let mut after_lists = false;
        let failed = |error, after_lists| Stop::Failed { error, after_lists };
        let mut client = Client::connect(socket)
            .await
            .map_err(|error| failed(error, after_lists))?;
        loop {
            let began = Instant::now();
            let listing = list(&mut client)
                .await
                .map_err(|error| failed(error, after_lists))?;
            after_lists = true;
            self.wants.looked(began, &listing.ids().collect());
            self.tell(listing).await?;
            self.tell_state(SourceState::Synced).await?;
            // Half of the time at most, however slow the runtime is.
            let not_before = (began + GAP).max(Instant::now() + began.elapsed());
            self.rest(began + EVERY, not_before).await?;
        }
    }

    /// Waits until `until`, or until a container that is not known is wanted, but that not before
    /// `not_before`.
    async fn rest(&mut self, until: Instant, not_before: Instant) -> Result<(), Closed> {
        loop {
            let look = self.wants.due().map(|due| due.max(not_before));
            let next = look.map_or(until, |look| look.min(until));
            tokio::select! {
                biased;
                () = self.updates.closed() => return Err(Closed),
                // Before the clock: all that are wanted by now are looked for together.
                Some(wanted) = self.wanted.recv() => self.want(wanted),
                () = time::sleep_until(next) => return Ok(()),
            }
        }
    }

    /// Waits until it is time to look for a socket again.
    async fn await_socket(&mut self, config: &CriConfig) -> Result<(), Closed> {
        let state = if config.is_optional() {
            SourceState::Absent
        } else {
            SourceState::Failing(config.missing())
        };
        self.tell_state(state).await?;
        let until = Instant::now() + config.look_every;
        loop {
            tokio::select! {
                () = self.updates.closed() => return Err(Closed),
                // The first list has them all.
                Some(_) = self.wanted.recv() => {}
                () = time::sleep_until(until) => return Ok(()),
            }
        }
    }

    /// Waits without a connection.
    async fn pause(&mut self, pause: Duration) -> Result<(), Closed> {
        let until = Instant::now() + pause;
        loop {
            tokio::select! {
                () = self.updates.closed() => return Err(Closed),
                Some(wanted) = self.wanted.recv() => self.want(wanted),
                () = time::sleep_until(until) => return Ok(()),
            }
        }
    }

    fn want(&mut self, wanted: Wanted) {
        let id = wanted.container_id;
        let told = self.told.as_ref();
        if !told.is_some_and(|told| told.ids().any(|known| known == id)) {
            self.wants.add(id, Instant::now());
        }
    }

    async fn tell(&mut self, listing: Listing) -> Result<(), Closed> {
        if listing.left_out > self.most_left_out {
            self.most_left_out = listing.left_out;
            log::warn!(
                "{} containers of the runtime are left out: more than {} are listed, or their ids \
                 are not sound",
                listing.left_out,
                listing::MOST_CONTAINERS
            );
        }
        if self.told.as_ref() == Some(&listing) {
            return Ok(());
        }
        let update = Update::RuntimeIs(Source::Cri, listing.containers.clone());
        self.told = Some(listing);
        self.updates.send(update).await.map_err(|_| Closed)
    }

    async fn tell_state(&mut self, state: SourceState) -> Result<(), Closed> {
        if self.state == state {
            return Ok(());
        }
        self.state = state.clone();
        let update = Update::Source(Source::Cri, state);
        self.updates.send(update).await.map_err(|_| Closed)
    }
}

/// Containers before sandboxes: what was made before the first list ended is in both.
async fn list(client: &mut Client) -> Result<Listing, CriError> {
    let containers = client.containers().await?;
    let sandboxes = client.sandboxes().await?;
    Ok(Listing::new(client.runtime, sandboxes, containers))
}

#[cfg(test)]
mod churn_tests;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
