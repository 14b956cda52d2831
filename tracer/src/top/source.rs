//! The connection: asks the agent again and again for what is on the screen, on a thread of its own, so that
//! a slow answer never holds up a key.

use std::{
    io,
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::app::{Told, Wants};
use crate::{
    api::{
        client::{Blocking, Client, ClientError},
        query::{CgroupQuery, IncidentQuery},
    },
    model::history::SAMPLES,
};

/// Time for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries while nobody answers.
const LEAST_BACKOFF: Duration = Duration::from_millis(500);
const MOST_BACKOFF: Duration = Duration::from_secs(8);
/// While an agent of this process starts.
const STARTING: Duration = Duration::from_millis(200);
/// The agent reads its store for them.
const INCIDENTS_EVERY: Duration = Duration::from_secs(10);
/// After so many intervals without a list its histories are asked for, too.
const MISSED_INTERVALS: f64 = 2.5;

/// What is asked, and how often.
#[derive(Debug, Clone)]
pub struct Asked {
    pub cgroups: CgroupQuery,
    pub incidents: IncidentQuery,
    pub every: Duration,
    /// The agent is of this process and may still be starting.
    pub own: bool,
}

/// A client with the patience that a screen has.
///
/// # Errors
/// No event loop can be made.
pub fn client(socket: &Path) -> io::Result<Blocking> {
    Blocking::new(Client::new(socket).within(PATIENCE))
}

/// Starts to ask. `tell` gives what was told away, or `false`: nobody hears it any more. What is wanted is
/// sent to what is returned; the thread ends when that is dropped.
///
/// # Errors
/// No thread can be started.
pub fn start(
    client: Blocking,
    asked: Asked,
    tell: impl Fn(Told) -> bool + Send + 'static,
) -> io::Result<Sender<Wants>> {
    let (sender, wanted) = channel();
    let mut source = Source {
        client,
        asked,
        tell,
        wants: Wants::default(),
        list: None,
        incidents: None,
        answered: false,
        failures: 0,
    };
    thread::Builder::new()
        .name("source".into())
        .spawn(move || source.run(&wanted))?;
    Ok(sender)
}

struct Source<T> {
    client: Blocking,
    asked: Asked,
    tell: T,
    wants: Wants,
    /// The interval of the newest list, and when it came.
    list: Option<(Timestamp, Instant)>,
    /// When they were told.
    incidents: Option<Instant>,
    /// At least once.
    answered: bool,
    /// In a row.
    failures: u32,
}

/// Nobody hears what is told.
struct Unheard;

impl<T: Fn(Told) -> bool> Source<T> {
    fn run(&mut self, wanted: &Receiver<Wants>) {
        loop {
            if !self.wants.paused && self.round().is_err() {
                return;
            }
            let wait = match self.wants.paused {
                true => Duration::MAX,
                false => self.wait(),
            };
            match wanted.recv_timeout(wait) {
                Ok(wants) => {
                    let wants = wanted.try_iter().last().unwrap_or(wants);
                    if wants.incidents && !self.wants.incidents {
                        self.incidents = None;
                    }
                    self.wants = wants;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn wait(&self) -> Duration {
        if self.failures == 0 {
            return self.asked.every;
        }
        if self.is_starting() {
            return STARTING;
        }
        let doubled = LEAST_BACKOFF.saturating_mul(1 << (self.failures - 1).min(8));
        doubled.min(MOST_BACKOFF)
    }

    fn is_starting(&self) -> bool {
        self.asked.own && !self.answered
    }

    fn tell(&self, told: Told) -> Result<(), Unheard> {
        match (self.tell)(told) {
            true => Ok(()),
            false => Err(Unheard),
        }
    }

    fn round(&mut self) -> Result<(), Unheard> {
        match self.ask() {
            Ok(told) => {
                self.failures = 0;
                self.answered = true;
                told.into_iter().try_for_each(|told| self.tell(told))
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                if self.is_starting() {
                    return Ok(());
                }
                let error = error.to_string();
                self.tell(Told::Lost {
                    time: Timestamp::now(),
                    // The remedy has no room.
                    why: error.lines().next().unwrap_or_default().to_owned(),
                })
            }
        }
    }

    /// What is on the screen.
    fn ask(&mut self) -> Result<Vec<Told>, ClientError> {
        let agent = self.client.agent()?;
        let (time, interval) = (agent.time, agent.interval_seconds);
        let mut told = vec![Told::Agent(Box::new(agent))];
        if self.wants.incidents {
            let is_due = |last: Instant| last.elapsed() >= INCIDENTS_EVERY;
            if self.incidents.is_none_or(is_due) {
                let answer = self.client.incidents(&self.asked.incidents);
                told.push(Told::Incidents(refused(answer)?));
                self.incidents = Some(Instant::now());
            }
        } else if let Some(id) = self.wants.details {
            let answer = self.client.cgroup(id).map(Box::new);
            told.push(Told::Details(id, refused(answer)?));
        } else if self.list.is_none_or(|(newest, _)| newest != time) {
            let missed = |(_, at): (Timestamp, Instant)| {
                at.elapsed().as_secs_f64() > interval * MISSED_INTERVALS
            };
            let query = CgroupQuery {
                recent: if self.list.is_none_or(missed) {
                    SAMPLES
                } else {
                    0
                },
                ..self.asked.cgroups.clone()
            };
            let list = self.client.cgroups(&query)?;
            self.list = Some((list.time, Instant::now()));
            told.push(Told::Cgroups(list));
        }
        Ok(told)
    }
}

/// What the agent refuses, or tells in a way that this memtrace does not understand, is told in its place.
fn refused<A>(answer: Result<A, ClientError>) -> Result<Result<A, String>, ClientError> {
    match answer {
        Ok(answer) => Ok(Ok(answer)),
        Err(error @ (ClientError::Refused { .. } | ClientError::BadAnswer { .. })) => {
            Ok(Err(error.to_string()))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
