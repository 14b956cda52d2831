//! The one place between the main loop and the export thread.
//!
//! Owns "latest wins": a new snapshot replaces an unsent one, but the last numbers of cgroups
//! removed meanwhile are kept, since no later snapshot has them. Must not wait for the exporter.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::model::snapshot::{CgroupSnapshot, Snapshot};

/// Removed cgroups kept between two exports.
pub(super) const MAX_REMOVED: usize = 1024;

/// What one export sends.
pub(super) struct Round {
    pub(super) snapshot: Arc<Snapshot>,
    /// Last numbers of cgroups that `snapshot` no longer has, and when they were read.
    pub(super) removed: Vec<(SystemTime, CgroupSnapshot)>,
}

#[derive(Default)]
pub(super) struct Slot {
    held: Mutex<Option<Round>>,
    notify: Notify,
    dropped: AtomicU64,
}

impl Slot {
    pub(super) fn put(&self, snapshot: Arc<Snapshot>) {
        {
            let mut held = self.lock();
            let mut removed = Vec::new();
            if let Some(old) = held.take() {
                removed = old.removed;
                let gone = old.snapshot.cgroups.iter().filter(|cgroup| cgroup.removed);
                for cgroup in gone {
                    if removed.len() < MAX_REMOVED {
                        removed.push((old.snapshot.time, cgroup.clone()));
                    } else {
                        self.dropped.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            *held = Some(Round { snapshot, removed });
        }
        self.notify.notify_one();
    }

    pub(super) fn take(&self) -> Option<Round> {
        self.lock().take()
    }

    /// Completes at a `put`, also at one between this call and the wait.
    pub(super) fn offered(&self) -> Notified<'_> {
        self.notify.notified()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Round>> {
        // Every write leaves a whole value, so a poisoned lock still holds a good one.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
