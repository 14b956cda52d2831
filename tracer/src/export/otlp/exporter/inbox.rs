//! Events between the agent and the export thread.
//!
//! Owns the bound on what the thread has not taken yet, in number and in bytes; the oldest goes
//! first. Must not wait for the exporter.

use std::collections::VecDeque;
use std::mem::size_of;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::analysis::Considered;
use crate::export::otlp::events::Event;
use crate::growth::{GrowthChange, GrowthShare};
use crate::identity::names::Names;
use crate::incident::record::{Grower, Incident, UsageSample, Victim};
use crate::stacks::told::StackRecord;

/// Events that may wait for the export thread.
pub(super) const MAX_EVENTS: usize = 1024;
/// The memory they may hold.
pub(super) const MAX_BYTES: usize = 16 << 20;

/// An event and when the exporter got it.
pub(super) struct Entry {
    pub(super) event: Event,
    pub(super) observed: SystemTime,
    bytes: usize,
}

impl Entry {
    pub(super) fn new(event: Event, observed: SystemTime) -> Self {
        let bytes = match &event {
            Event::Incident(incident) | Event::Report(incident) => held_bytes(incident),
            Event::Growth(change) => bytes_of_change(change),
            Event::Limit(change) => change.cgroup.len() + size_of_val(&**change),
        };
        Entry {
            event,
            observed,
            bytes,
        }
    }
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Entry>,
    bytes: usize,
}

#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    notify: Notify,
    /// Records of events that had to go for newer ones.
    dropped: AtomicU64,
}

impl Inbox {
    pub(super) fn push(&self, entry: Entry) {
        {
            let mut state = self.lock();
            state.bytes += entry.bytes;
            state.waiting.push_back(entry);
            while state.waiting.len() > MAX_EVENTS || state.bytes > MAX_BYTES {
                let Some(oldest) = state.waiting.pop_front() else {
                    break;
                };
                state.bytes -= oldest.bytes;
                let records = oldest.event.record_count() as u64;
                self.dropped.fetch_add(records, Ordering::Relaxed);
            }
        }
        self.notify.notify_one();
    }

    /// The oldest event.
    pub(super) fn take(&self) -> Option<Entry> {
        let mut state = self.lock();
        let entry = state.waiting.pop_front()?;
        state.bytes -= entry.bytes;
        Some(entry)
    }

    /// Completes at a `push`, also at one between this call and the wait.
    pub(super) fn pushed(&self) -> Notified<'_> {
        self.notify.notified()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Count and list change together, with nothing between that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// About the memory that a change holds.
fn bytes_of_change(change: &GrowthChange) -> usize {
    size_of::<GrowthChange>()
        + change.cgroup.len()
        + change.limit_cgroup.as_ref().map_or(0, String::len)
        + change.considered.len() * size_of::<Considered>()
        + change.processes.len() * (size_of::<GrowthShare>() + 16)
        + bytes_of_stacks(&change.stacks)
}

fn bytes_of_stacks(stacks: &[StackRecord]) -> usize {
    stacks.iter().map(StackRecord::held_bytes).sum()
}

/// About the memory that an incident holds.
fn held_bytes(incident: &Incident) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let named = |names: &Option<Box<Names>>| names.as_ref().map_or(0, |names| names.held_bytes());
    let victims: usize = incident
        .victims
        .iter()
        .map(|victim| {
            size_of::<Victim>()
                + text(&victim.comm)
                + text(&victim.command_line)
                + text(&victim.executable)
                + text(&victim.cgroup)
                + text(&victim.leaf_cgroup)
                + named(&victim.names)
        })
        .sum();
    let evidence = incident.evidence.usage.len() * size_of::<UsageSample>()
        + incident.evidence.growers.len() * (size_of::<Grower>() + 16)
        + bytes_of_stacks(&incident.evidence.stacks);
    let words = incident.meaning.summary.len() + incident.meaning.consequence.len();
    // Short names and the paths of charged cgroup, trigger and killer.
    let names = incident
        .charged
        .as_ref()
        .map_or(0, |charged| text(&charged.cgroup) + named(&charged.names))
        + incident.trigger.as_ref().map_or(0, |trigger| {
            text(&trigger.cgroup) + trigger.comm.len() + named(&trigger.names)
        })
        + incident
            .killer
            .as_ref()
            .map_or(0, |killer| text(&killer.cgroup) + killer.comm.len())
        + text(&incident.request.gfp_flags);
    size_of::<Incident>() + victims + evidence + words + names
}
