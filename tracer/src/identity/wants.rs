//! Containers that the agent has asked for, and when to look for them next. Pure.
//!
//! Owns how often a source is asked: at once for what is new, less and less for what is never found.
//! Anybody may name a cgroup after a container that there is not.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// Looks after the first, since the container was wanted: some runtimes list a container only after
/// they have made its cgroup.
const AGAIN: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(500)];
/// Waiting at once.
const MOST: usize = 256;
/// What was looked for in vain is not looked for again for this long, at first and at most; then once.
const FIRST_ABSENCE: Duration = Duration::from_secs(2);
const MOST_ABSENCE: Duration = Duration::from_secs(64);
/// Remembered as looked for in vain.
const MOST_ABSENT: usize = 1024;
/// Looks in vain cost this much time each, and that many are free at first and after each success.
const COST: Duration = Duration::from_secs(1);
const FREE: u32 = 8;

/// Containers not found yet.
#[derive(Debug)]
pub struct Wants {
    waiting: HashMap<String, Waiting>,
    absent: HashMap<String, Absent>,
    /// All looks in vain are paid for at this time.
    paid_at: Instant,
    /// Those that there was no room for.
    left_out: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    looks: usize,
}

#[derive(Debug)]
struct Absent {
    until: Instant,
    pause: Duration,
}

impl Waiting {
    /// `None`: it was looked for often enough.
    fn due(&self) -> Option<Instant> {
        match self.looks.checked_sub(1) {
            None => Some(self.since),
            Some(again) => AGAIN.get(again).map(|after| self.since + *after),
        }
    }
}

impl Wants {
    /// None; adds to `left_out`.
    pub fn new(left_out: Arc<AtomicU64>) -> Self {
        Self {
            waiting: HashMap::new(),
            absent: HashMap::new(),
            paid_at: Instant::now(),
            left_out,
        }
    }

    /// Whether one more is taken in.
    pub fn have_room(&self) -> bool {
        self.waiting.len() < MOST
    }

    /// Looks for it from `now` on, unless that was in vain lately.
    pub fn add(&mut self, container_id: String, now: Instant) {
        if self.waiting.contains_key(&container_id) {
            return;
        }
        let absent = self.absent.get(&container_id);
        if absent.is_some_and(|absent| absent.until > now) {
            return;
        }
        if !self.have_room() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let waiting = Waiting {
            since: now,
            looks: 0,
        };
        self.waiting.insert(container_id, waiting);
    }

    /// When to look next.
    pub fn due(&self) -> Option<Instant> {
        let due = self.waiting.values().filter_map(Waiting::due).min()?;
        let free = self.paid_at.checked_sub(COST * FREE);
        Some(free.map_or(due, |free| due.max(free)))
    }

    /// Those to look for at `now`.
    pub fn due_by(&self, now: Instant) -> Vec<String> {
        self.waiting
            .iter()
            .filter(|(_, waiting)| waiting.due().is_some_and(|due| due <= now))
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Takes in what a look that began at `began` has found; gives up what was looked for often enough.
    pub fn looked(&mut self, began: Instant, found: &HashSet<&str>) {
        let mut in_vain = false;
        let mut given_up = Vec::new();
        let before = self.waiting.len();
        self.waiting.retain(|id, waiting| {
            if found.contains(id.as_str()) {
                return false;
            }
            let once = self.absent.contains_key(id);
            // A look after a pause stands for all that were due in it.
            while waiting.due().is_some_and(|due| due <= began) {
                waiting.looks += if once { 1 + AGAIN.len() } else { 1 };
                in_vain = true;
            }
            if waiting.due().is_none() {
                given_up.push(id.clone());
                return false;
            }
            true
        });
        if self.waiting.len() + given_up.len() < before {
            self.paid_at = began;
        } else if in_vain {
            self.paid_at = self.paid_at.max(began) + COST;
        }
        self.absent.retain(|id, _| !found.contains(id.as_str()));
        for id in given_up {
            self.give_up(id, began);
        }
    }

    fn give_up(&mut self, id: String, now: Instant) {
        if let Some(absent) = self.absent.get_mut(&id) {
            absent.pause = (absent.pause * 2).min(MOST_ABSENCE);
            absent.until = now + absent.pause;
            return;
        }
        if self.absent.len() >= MOST_ABSENT {
            let first = self.absent.iter().min_by_key(|(_, absent)| absent.until);
            if let Some(first) = first.map(|(id, _)| id.clone()) {
                self.absent.remove(&first);
            }
        }
        let pause = FIRST_ABSENCE;
        let until = now + pause;
        self.absent.insert(id, Absent { until, pause });
    }
}

#[cfg(test)]
#[path = "wants_tests.rs"]
mod tests;
