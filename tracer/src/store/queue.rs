//! What waits for the disk: bounded in records and bytes; a full queue drops and counts.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::incident::Incident;

use super::StoreCounters;

const MOST_RECORDS: usize = 4096;
const MOST_BYTES: usize = 16 << 20;

/// Between the agent and the thread that writes.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    records: VecDeque<(Arc<Incident>, usize)>,
    bytes: usize,
    closing: bool,
    /// A record was taken out and is on its way.
    in_hand: bool,
    /// The thread has ended.
    finished: bool,
    counters: StoreCounters,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn counters(&self) -> StoreCounters {
        self.lock().counters
    }

    pub fn count(&self, change: impl FnOnce(&mut StoreCounters)) {
        change(&mut self.lock().counters);
    }

    /// Adds a record, or counts it as dropped.
    pub fn push(&self, incident: Arc<Incident>) {
        let weight = weight(&incident);
        let mut state = self.lock();
        // A record heavier than the whole queue has room in an empty one.
        let has_room = state.records.len() < MOST_RECORDS
            && (state.bytes.saturating_add(weight) <= MOST_BYTES || state.records.is_empty());
        if state.closing || !has_room {
            state.counters.dropped += 1;
            return;
        }
        state.bytes = state.bytes.saturating_add(weight);
        state.records.push_back((incident, weight));
        self.changed.notify_all();
    }

    /// The next record. Who asks for it is done with the one before.
    pub fn pop(&self) -> Option<Arc<Incident>> {
        let mut state = self.lock();
        let next = state.records.pop_front();
        state.in_hand = next.is_some();
        let (incident, weight) = next?;
        state.bytes = state.bytes.saturating_sub(weight);
        Some(incident)
    }

    /// Whether every record was written, or counted as lost.
    pub fn is_done(&self) -> bool {
        let state = self.lock();
        state.records.is_empty() && !state.in_hand
    }

    /// Waits for a record, at most `time`; `false` when none will come any more.
    pub fn wait(&self, time: Duration) -> bool {
        let state = self.lock();
        if !state.records.is_empty() {
            return true;
        }
        if state.closing {
            return false;
        }
        let waited = self.changed.wait_timeout(state, time);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        true
    }

    /// Lets the thread end after what waits.
    pub fn close(&self) {
        self.lock().closing = true;
        self.changed.notify_all();
    }

    pub fn finished(&self) {
        self.lock().finished = true;
        self.changed.notify_all();
    }

    /// Waits for the end of the thread; what still waits then is dropped.
    pub fn wait_finished(&self, deadline: Duration) -> StoreCounters {
        let end = Instant::now() + deadline;
        let mut state = self.lock();
        while !state.finished {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
        }
        state.counters.dropped += state.records.len() as u64;
        state.records.clear();
        state.bytes = 0;
        state.counters
    }
}

/// About what an incident holds in memory, bytes.
fn weight(incident: &Incident) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let victims: usize = incident
        .victims
        .iter()
        .map(|victim| {
            size_of_val(victim)
                + text(&victim.comm)
                + text(&victim.command_line)
                + text(&victim.executable)
                + text(&victim.cgroup)
                + text(&victim.leaf_cgroup)
        })
        .sum();
    let charged = incident.charged.as_ref();
    size_of_val(incident)
        + victims
        + charged.map_or(0, |charged| text(&charged.cgroup))
        + size_of_val(incident.evidence.usage.as_slice())
        + size_of_val(incident.evidence.growers.as_slice())
        + incident.meaning.summary.len()
        + incident.meaning.consequence.len()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::incident;
    use super::*;

    #[test]
    fn a_record_is_done_with_when_the_next_is_asked_for() {
        let queue = Queue::default();
        assert!(queue.is_done());
        queue.push(Arc::new(incident(1)));
        assert!(!queue.is_done());
        assert!(queue.pop().is_some());
        assert!(!queue.is_done(), "it is on its way");
        assert!(queue.pop().is_none());
        assert!(queue.is_done());
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let queue = Queue::default();
        let record = Arc::new(incident(1));
        for _ in 0..MOST_RECORDS + 3 {
            queue.push(Arc::clone(&record));
        }
        let held = queue.lock().records.len() as u64;
        assert_eq!(queue.counters().dropped + held, MOST_RECORDS as u64 + 3);
        assert!(queue.counters().dropped >= 3);
        assert!(queue.pop().is_some());
        let before = queue.counters().dropped;
        queue.push(record);
        assert_eq!(queue.counters().dropped, before, "room for one again");
    }

    #[test]
    fn bytes_are_bounded_too() {
        let queue = Queue::default();
        let mut heavy = incident(1);
        heavy.meaning.consequence = "x".repeat(MOST_BYTES / 4);
        let heavy = Arc::new(heavy);
        for _ in 0..10 {
            queue.push(Arc::clone(&heavy));
        }
        let state = queue.lock();
        assert!(state.bytes <= MOST_BYTES);
        assert!(state.counters.dropped >= 6);
    }

    #[test]
    fn closing_waits_only_so_long_and_counts_what_was_left() {
        let queue = Queue::default();
        queue.push(Arc::new(incident(1)));
        queue.close();
        let start = Instant::now();
        let counters = queue.wait_finished(Duration::from_millis(20));
        assert!(start.elapsed() < Duration::from_secs(5));
        assert_eq!(counters.dropped, 1);
        queue.push(Arc::new(incident(2)));
        assert_eq!(queue.counters().dropped, 2);
    }
}
