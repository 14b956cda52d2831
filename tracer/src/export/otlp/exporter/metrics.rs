//! Sends the latest snapshot once an interval.
//!
//! A snapshot that fails is not sent again: the next one has newer numbers of the same counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::deadline;
use super::report::Report;
use super::slot::{Round, Slot};
use crate::export::otlp::client::{self, Client, Delivery};
use crate::export::otlp::metrics::{cgroup_metrics, point_count, resource_metrics};
use crate::export::otlp::resource::ResourceContext;

/// Data points and snapshots, cumulative.
#[derive(Default)]
pub(super) struct PointCounters {
    pub(super) exported: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) rejected: AtomicU64,
    pub(super) dropped_snapshots: AtomicU64,
}

pub(super) struct Metrics {
    pub(super) client: Client<client::Metrics>,
    pub(super) context: ResourceContext,
    pub(super) interval: Duration,
    pub(super) slot: Arc<Slot>,
    pub(super) counters: Arc<PointCounters>,
    pub(super) report: Report,
}

impl Metrics {
    pub(super) async fn run(mut self, mut stopped: watch::Receiver<Option<Instant>>) {
        let mut due = Instant::now();
        loop {
            let round = tokio::select! {
                biased;
                _ = stopped.wait_for(Option::is_some) => break,
                round = self.next_round(due) => round,
            };
            let begun = Instant::now();
            let asked = self.export(round, &mut stopped).await;
            let late = begun.elapsed().as_nanos() / self.interval.as_nanos().max(1);
            let missed = u32::try_from(late).unwrap_or(u32::MAX);
            self.counters
                .dropped_snapshots
                .fetch_add(u64::from(missed), Ordering::Relaxed);
            due = begun + self.interval.saturating_mul(missed.saturating_add(1));
            // Meanwhile the latest numbers wait in the slot.
            due = due.max(Instant::now() + asked.unwrap_or_default());
        }
        // A dropped handle sets no deadline: nobody waits for a flush.
        let asked = stopped.borrow().is_some();
        if let Some(round) = self.slot.take().filter(|_| asked) {
            self.export(round, &mut stopped).await;
        }
        self.report.ends();
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

    /// Sends one round; once a stop is asked for, only until its deadline. Gives the pause that
    /// the backend asked for.
    async fn export(
        &mut self,
        round: Round,
        stopped: &mut watch::Receiver<Option<Instant>>,
    ) -> Option<Duration> {
        let resources = || {
            let removed = round.removed.iter().filter_map(|(time, cgroup)| {
                cgroup_metrics(cgroup, *time, round.snapshot.started, &self.context)
            });
            resource_metrics(&round.snapshot, &self.context).chain(removed)
        };
        let delivery = tokio::select! {
            biased;
            delivery = self.client.export(resources()) => Some(delivery),
            () = deadline(stopped) => None,
        };
        let unsent = match &delivery {
            Some(_) => 0,
            None => resources().map(|one| point_count(&[one])).sum(),
        };
        match delivery {
            Some(delivery) => {
                self.account(&delivery);
                delivery.pause
            }
            None => {
                self.counters.failed.fetch_add(unsent, Ordering::Relaxed);
                self.report.out_of_time(unsent, self.client.last_failure());
                None
            }
        }
    }

    fn account(&mut self, delivery: &Delivery) {
        let counters = &self.counters;
        counters
            .exported
            .fetch_add(delivery.exported, Ordering::Relaxed);
        counters
            .failed
            .fetch_add(delivery.failed, Ordering::Relaxed);
        counters
            .rejected
            .fetch_add(delivery.rejected, Ordering::Relaxed);
        self.report.works(delivery);
        if let Some(error) = &delivery.error {
            self.report.fails(error, "lost data points are counted");
        }
    }
}
