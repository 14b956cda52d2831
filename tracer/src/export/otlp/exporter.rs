//! Decides when to export, and counts what was lost.
//!
//! Owns a thread with its own runtime, so that neither encoding nor a slow backend delays
//! tracing. It holds one snapshot, the latest, and the last numbers of a bounded number of
//! removed cgroups. Must not block `offer`, and must not queue without a bound.

mod slot;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::client::{Client, ClientError, Delivery};
use super::config::OtlpConfig;
use super::metrics::{ResourceContext, cgroup_metrics, resource_metrics};
use crate::model::snapshot::{Loss, Snapshot};
use slot::{Round, Slot};

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
}

impl ExportCounters {
    /// The losses among the counters, for `SelfReading::losses`.
    pub fn losses(&self) -> [Loss; 4] {
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
        ]
    }
}

#[derive(Default)]
struct Counters {
    exported_points: AtomicU64,
    failed_points: AtomicU64,
    rejected_points: AtomicU64,
    dropped_snapshots: AtomicU64,
}

/// Handle to the export thread. Dropping it ends the thread without a flush.
pub struct Exporter {
    slot: Arc<Slot>,
    counters: Arc<Counters>,
    stop: watch::Sender<Option<Instant>>,
    ended: mpsc::Receiver<()>,
    runtime: tokio::runtime::Handle,
}

impl Exporter {
    /// Starts the thread. The first snapshot is sent at once, then the latest per interval.
    ///
    /// # Errors
    /// No thread, no runtime, or a configuration the transport refuses.
    pub fn start(config: &OtlpConfig, context: ResourceContext) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StartError::Thread)?;
        let handle = runtime.handle().clone();
        let client = {
            let _entered = handle.enter();
            Client::new(config)?
        };
        let slot = Arc::new(Slot::default());
        let counters = Arc::new(Counters::default());
        let (stop, stopped) = watch::channel(None);
        let (end, ended) = mpsc::channel();
        let worker = Worker {
            client,
            context,
            interval: config.interval,
            endpoint: config.endpoint.to_string(),
            slot: Arc::clone(&slot),
            counters: Arc::clone(&counters),
            failing: false,
            warned_partial: false,
        };
        std::thread::Builder::new()
            .name("otlp-export".to_owned())
            .spawn(move || {
                runtime.block_on(worker.run(stopped));
                // Without a receiver nobody waits for the end.
                let _ = end.send(());
            })
            .map_err(StartError::Thread)?;
        Ok(Exporter {
            slot,
            counters,
            stop,
            ended,
            runtime: handle,
        })
    }

    /// Hands over the latest snapshot; it replaces one that was not sent yet. Never waits.
    pub fn offer(&self, snapshot: Arc<Snapshot>) {
        self.slot.put(snapshot);
    }

    /// The counters now.
    pub fn counters(&self) -> ExportCounters {
        ExportCounters {
            exported_points: self.counters.exported_points.load(Ordering::Relaxed),
            failed_points: self.counters.failed_points.load(Ordering::Relaxed),
            rejected_points: self.counters.rejected_points.load(Ordering::Relaxed),
            dropped_snapshots: self.counters.dropped_snapshots.load(Ordering::Relaxed),
            dropped_cgroups: self.slot.dropped(),
        }
    }

    /// The export thread's runtime, on which `OwnTelemetry` runs its gRPC channel.
    pub fn runtime(&self) -> &tokio::runtime::Handle {
        &self.runtime
    }

    /// Sends what is held, then ends the thread. Blocks the caller for at most `deadline`.
    /// `false` when data was left behind; the counters say how much.
    pub fn shutdown(&self, deadline: Duration) -> bool {
        let failed = self.counters().failed_points;
        self.stop.send_replace(Some(Instant::now() + deadline));
        let grace = Duration::from_millis(100);
        let ended = self.ended.recv_timeout(deadline + grace).is_ok();
        ended && self.counters().failed_points == failed
    }
}

struct Worker {
    client: Client,
    context: ResourceContext,
    interval: Duration,
    endpoint: String,
    slot: Arc<Slot>,
    counters: Arc<Counters>,
    failing: bool,
    warned_partial: bool,
}

impl Worker {
    async fn run(mut self, mut stopped: watch::Receiver<Option<Instant>>) {
        let mut due = Instant::now();
        loop {
            let round = tokio::select! {
                biased;
                _ = stopped.wait_for(Option::is_some) => break,
                round = self.next_round(due) => round,
            };
            let begun = Instant::now();
            self.export(round, &mut stopped).await;
            let late = begun.elapsed().as_nanos() / self.interval.as_nanos().max(1);
            let missed = u32::try_from(late).unwrap_or(u32::MAX);
            self.counters
                .dropped_snapshots
                .fetch_add(u64::from(missed), Ordering::Relaxed);
            due = begun + self.interval.saturating_mul(missed.saturating_add(1));
        }
        // A dropped handle sets no deadline: nobody waits for a flush.
        let asked = stopped.borrow().is_some();
        if let Some(round) = self.slot.take().filter(|_| asked) {
            self.export(round, &mut stopped).await;
        }
    }

    async fn next_round(&self, due: Instant) -> Round {
        tokio::time::sleep_until(due).await;
        loop {
            let offered = self.slot.offered();
            if let Some(round) = self.slot.take() {
                return round;
            }
            offered.await;
        }
    }

    /// Sends one round; once a stop is asked for, only until its deadline.
    async fn export(&mut self, round: Round, stopped: &mut watch::Receiver<Option<Instant>>) {
        let mut resources = resource_metrics(&round.snapshot, &self.context);
        resources.extend(round.removed.iter().filter_map(|(time, cgroup)| {
            cgroup_metrics(cgroup, *time, round.snapshot.started, &self.context)
        }));
        let points = super::metrics::point_count(&resources);
        let deadline = async {
            let asked = stopped.wait_for(Option::is_some).await.map(|at| *at);
            if let Ok(Some(deadline)) = asked {
                tokio::time::sleep_until(deadline).await;
            }
        };
        let delivery = tokio::select! {
            biased;
            delivery = self.client.export(resources) => Some(delivery),
            () = deadline => None,
        };
        match delivery {
            Some(delivery) => self.account(delivery),
            None => {
                self.counters
                    .failed_points
                    .fetch_add(points, Ordering::Relaxed);
                if !std::mem::replace(&mut self.failing, true) {
                    log::warn!(
                        "OTLP export to {} did not end in time: {points} data points unsent",
                        self.endpoint
                    );
                }
            }
        }
    }

    fn account(&mut self, delivery: Delivery) {
        let counters = &self.counters;
        counters
            .exported_points
            .fetch_add(delivery.exported, Ordering::Relaxed);
        counters
            .failed_points
            .fetch_add(delivery.failed, Ordering::Relaxed);
        counters
            .rejected_points
            .fetch_add(delivery.rejected, Ordering::Relaxed);
        if let Some(warning) = delivery.warning
            && !self.warned_partial
        {
            self.warned_partial = true;
            log::warn!(
                "OTLP backend {} refused {} data points of an export: {warning}; \
                 further ones are only counted",
                self.endpoint,
                delivery.rejected
            );
        }
        match delivery.error {
            Some(error) if !self.failing => {
                self.failing = true;
                log::warn!(
                    "OTLP export to {} fails: {error}; tracing goes on, lost data points are counted",
                    self.endpoint
                );
            }
            None if self.failing => {
                self.failing = false;
                log::info!("OTLP export to {} works again", self.endpoint);
            }
            _ => {}
        }
    }
}
