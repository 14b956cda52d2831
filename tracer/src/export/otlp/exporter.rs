//! Decides when to export, and counts what was lost.
//!
//! Owns a thread with its own runtime, so that neither encoding nor a slow backend delays
//! tracing. It holds one snapshot, the latest, the last numbers of a bounded number of removed
//! cgroups, the last profile of each watched cgroup, and a bounded queue of events, on disk if there is
//! a state directory; each signal has a task and a connection of its own.
//! Must not block `offer` or `event`, and must not queue without a bound.

#[cfg(test)]
mod event_tests;
mod events;
#[cfg(test)]
mod hostile_tests;
mod inbox;
mod metrics;
mod profiles;
mod report;
mod slot;
pub mod spool;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;

use super::client::{Client, ClientError};
use super::config::OtlpConfig;
use super::events::Event;
use super::resource::ResourceContext;
use crate::model::snapshot::{Loss, Snapshot};
use events::{EventCounters, Events};
use inbox::{Entry, Inbox};
use metrics::{Metrics, PointCounters};
pub use profiles::CgroupProfile;
use profiles::{ProfileCounters, ProfileSlot, Profiles};
use report::Report;
use slot::Slot;
use spool::Spool;

/// How long a flush at shutdown may take unless the caller knows better.
pub const SHUTDOWN_DEADLINE: Duration = Duration::from_millis(1500);

/// The exporter cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot start the OTLP export thread: {0}")]
    Thread(#[source] std::io::Error),
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// What became of the data so far. Cumulative.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExportCounters {
    /// Data points the backend took.
    pub exported_points: u64,
    /// Data points in requests given up, or not sent by the end of the shutdown.
    pub failed_points: u64,
    /// Data points refused within an accepted request (OTLP partial success).
    pub rejected_points: u64,
    /// Exports that were due while an earlier one was still under way.
    pub dropped_snapshots: u64,
    /// Removed cgroups whose last numbers were never sent.
    pub dropped_cgroups: u64,
    /// Events the backend took.
    pub exported_events: u64,
    /// Events that the backend refused to take at all, or neither sent nor on disk by the end of
    /// the shutdown.
    pub failed_events: u64,
    /// Events refused within an accepted request (OTLP partial success).
    pub rejected_events: u64,
    /// Events that had to go for newer ones while the backend was down.
    pub dropped_events: u64,
    /// Events kept on disk that could not be read back; at least.
    pub damaged_events: u64,
    /// Events that wait to be sent, now.
    pub waiting_events: u64,
    /// Profiles the backend took, one a value and cgroup.
    pub exported_profiles: u64,
    /// Profiles in requests given up.
    pub failed_profiles: u64,
    /// Profiles refused within an accepted request (OTLP partial success).
    pub rejected_profiles: u64,
    /// Cgroups whose profile had to go for those of others while the backend was slow.
    pub dropped_profiles: u64,
    /// Stacks, the smallest, for which a request had no room.
    pub left_out_stacks: u64,
}

impl ExportCounters {
    /// The losses among the counters, for `SelfReading::losses`.
    pub fn losses(&self) -> [Loss; 12] {
        [
            Loss {
                cause: "otlp_points_failed",
                count: self.failed_points,
            },
            Loss {
                cause: "otlp_points_rejected",
                count: self.rejected_points,
            },
            Loss {
                cause: "otlp_snapshots_dropped",
                count: self.dropped_snapshots,
            },
            Loss {
                cause: "otlp_removed_cgroups_dropped",
                count: self.dropped_cgroups,
            },
            Loss {
                cause: "otlp_events_failed",
                count: self.failed_events,
            },
            Loss {
                cause: "otlp_events_rejected",
                count: self.rejected_events,
            },
            Loss {
                cause: "otlp_events_dropped",
                count: self.dropped_events,
            },
            Loss {
                cause: "otlp_events_damaged",
                count: self.damaged_events,
            },
            Loss {
                cause: "otlp_profiles_failed",
                count: self.failed_profiles,
            },
            Loss {
                cause: "otlp_profiles_rejected",
                count: self.rejected_profiles,
            },
            Loss {
                cause: "otlp_profiles_dropped",
                count: self.dropped_profiles,
            },
            Loss {
                cause: "otlp_profile_stacks_left_out",
                count: self.left_out_stacks,
            },
        ]
    }
}

/// Handle to the export thread. Dropping it ends the thread without a flush.
pub struct Exporter {
    /// `None`: metrics are not sent.
    slot: Option<Arc<Slot>>,
    /// `None`: events are not sent.
    inbox: Option<Arc<Inbox>>,
    /// `None`: profiles are not sent.
    profile_slot: Option<Arc<ProfileSlot>>,
    points: Arc<PointCounters>,
    events: Arc<EventCounters>,
    profiles: Arc<ProfileCounters>,
    stop: watch::Sender<Option<Instant>>,
    ended: mpsc::Receiver<()>,
    runtime: tokio::runtime::Handle,
}

impl Exporter {
    /// Starts the thread. The first snapshot is sent at once, then the latest per interval;
    /// events as they come.
    ///
    /// # Errors
    /// No thread, no runtime, or a configuration the transport refuses.
    pub fn start(config: &OtlpConfig, context: ResourceContext) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StartError::Thread)?;
        let handle = runtime.handle().clone();
        let entered = handle.enter();
        let points = Arc::new(PointCounters::default());
        let metrics = match &config.metrics {
            Some(target) => Some(Metrics {
                client: Client::new(target)?,
                context: context.clone(),
                interval: config.interval,
                slot: Arc::new(Slot::default()),
                counters: Arc::clone(&points),
                report: Report::new(&target.endpoint, "data points"),
            }),
            None => None,
        };
        let event_counters = Arc::new(EventCounters::default());
        let events = match &config.logs {
            Some(target) => Some(Events {
                client: Client::new(target)?,
                context: context.clone(),
                inbox: Arc::new(Inbox::default()),
                spool: Spool::new(
                    config.state_dir.clone(),
                    spool::LIMITS,
                    Arc::clone(&event_counters),
                ),
                counters: Arc::clone(&event_counters),
                report: Report::new(&target.endpoint, "events"),
            }),
            None => None,
        };
        let profile_counters = Arc::new(ProfileCounters::default());
        let profiles = match &config.profiles {
            Some(target) => Some(Profiles {
                client: Client::new(target)?,
                context,
                slot: Arc::new(ProfileSlot::default()),
                counters: Arc::clone(&profile_counters),
                report: Report::new(&target.endpoint, "profiles"),
            }),
            None => None,
        };
        drop(entered);
        let slot = metrics.as_ref().map(|metrics| Arc::clone(&metrics.slot));
        let inbox = events.as_ref().map(|events| Arc::clone(&events.inbox));
        let profile_slot = profiles.as_ref().map(|profiles| Arc::clone(&profiles.slot));
        let (stop, stopped) = watch::channel(None);
        let (end, ended) = mpsc::channel();
        std::thread::Builder::new()
            .name("otlp-export".to_owned())
            .spawn(move || {
                runtime.block_on(run(metrics, events, profiles, stopped));
                // Without a receiver nobody waits for the end.
                let _ = end.send(());
            })
            .map_err(StartError::Thread)?;
        Ok(Exporter {
            slot,
            inbox,
            profile_slot,
            points,
            events: event_counters,
            profiles: profile_counters,
            stop,
            ended,
            runtime: handle,
        })
    }

    /// Hands over the latest snapshot; it replaces one that was not sent yet. Never waits.
    pub fn offer(&self, snapshot: Arc<Snapshot>) {
        if let Some(slot) = &self.slot {
            slot.put(snapshot);
        }
    }

    /// Hands over an event, to be sent at once. Never waits.
    pub fn event(&self, event: Event) {
        if let Some(inbox) = &self.inbox {
            inbox.push(Entry::new(event, SystemTime::now()));
        }
    }

    /// Hands over the latest profiles of cgroups, to be sent at once. Never waits.
    pub fn profiles(&self, profiles: Vec<CgroupProfile>) {
        if let Some(slot) = &self.profile_slot {
            slot.put(profiles);
        }
    }

    /// The counters now.
    pub fn counters(&self) -> ExportCounters {
        let (points, events, profiles) = (&self.points, &self.events, &self.profiles);
        ExportCounters {
            exported_points: points.exported.load(Ordering::Relaxed),
            failed_points: points.failed.load(Ordering::Relaxed),
            rejected_points: points.rejected.load(Ordering::Relaxed),
            dropped_snapshots: points.dropped_snapshots.load(Ordering::Relaxed),
            dropped_cgroups: self.slot.as_ref().map_or(0, |slot| slot.dropped()),
            exported_events: events.exported.load(Ordering::Relaxed),
            failed_events: events.failed.load(Ordering::Relaxed),
            rejected_events: events.rejected.load(Ordering::Relaxed),
            dropped_events: events.dropped.load(Ordering::Relaxed)
                + self.inbox.as_ref().map_or(0, |inbox| inbox.dropped()),
            damaged_events: events.damaged.load(Ordering::Relaxed),
            waiting_events: events.waiting.load(Ordering::Relaxed),
            exported_profiles: profiles.exported.load(Ordering::Relaxed),
            failed_profiles: profiles.failed.load(Ordering::Relaxed),
            rejected_profiles: profiles.rejected.load(Ordering::Relaxed),
            dropped_profiles: self.profile_slot.as_ref().map_or(0, |slot| slot.dropped()),
            left_out_stacks: profiles.stacks_left_out.load(Ordering::Relaxed),
        }
    }

    /// The export thread's runtime, on which `OwnTelemetry` runs its gRPC channel.
    pub fn runtime(&self) -> &tokio::runtime::Handle {
        &self.runtime
    }

    /// Sends what is held, then ends the thread. Blocks the caller for at most `deadline`.
    /// `false` when data was lost; the counters say how much.
    pub fn shutdown(&self, deadline: Duration) -> bool {
        let failed = |counters: ExportCounters| (counters.failed_points, counters.failed_events);
        let before = failed(self.counters());
        self.stop.send_replace(Some(Instant::now() + deadline));
        let grace = Duration::from_millis(100);
        let ended = self.ended.recv_timeout(deadline + grace).is_ok();
        ended && failed(self.counters()) == before
    }
}

async fn run(
    metrics: Option<Metrics>,
    events: Option<Events>,
    profiles: Option<Profiles>,
    stopped: watch::Receiver<Option<Instant>>,
) {
    let for_events = stopped.clone();
    let for_profiles = stopped.clone();
    let metrics_task = async {
        if let Some(metrics) = metrics {
            metrics.run(stopped).await;
        }
    };
    let events_task = async {
        if let Some(events) = events {
            events.run(for_events).await;
        }
    };
    let profiles_task = async {
        if let Some(profiles) = profiles {
            profiles.run(for_profiles).await;
        }
    };
    tokio::join!(events_task, metrics_task, profiles_task);
}

/// Completes when the time of the shutdown is over; never unless one is asked for.
async fn deadline(stopped: &mut watch::Receiver<Option<Instant>>) {
    let asked = stopped.wait_for(Option::is_some).await.map(|at| *at);
    if let Ok(Some(deadline)) = asked {
        tokio::time::sleep_until(deadline).await;
    }
}
