//! Sends events as soon as they come, and keeps them while the backend is down.
//!
//! An event is not repeated by a later one, so what may be sent again waits in the spool. A
//! request that got no answer may have arrived: an event can come twice, told by
//! `memtrace.incident.id` and the victim. Must not hold up the export of metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::ResourceLogs;
use prost::Message;
use tokio::sync::watch;
use tokio::time::Instant;

use super::deadline;
use super::inbox::{Entry, Inbox};
use super::report::Report;
use super::spool::{self, Spool};
use crate::export::otlp::client::{Backoff, Client, Delivery, Failure, Logs, Split, Verdict};
use crate::export::otlp::events;
use crate::export::otlp::resource::ResourceContext;

/// Encoded size of what is kept and sent as a whole, unless one log record alone is larger.
const CHUNK_BYTES: usize = 1_000_000;

/// Log records, cumulative but for those that wait.
#[derive(Default)]
pub struct EventCounters {
    pub(super) exported: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) rejected: AtomicU64,
    /// Had to go for newer ones.
    pub(super) dropped: AtomicU64,
    /// Kept on disk and not readable any more.
    pub(super) damaged: AtomicU64,
    /// Now.
    pub(super) waiting: AtomicU64,
}

pub(super) struct Events {
    pub(super) client: Client<Logs>,
    pub(super) context: ResourceContext,
    pub(super) inbox: Arc<Inbox>,
    pub(super) spool: Spool,
    pub(super) counters: Arc<EventCounters>,
    pub(super) report: Report,
}

/// What one attempt says about the next.
enum Next {
    AtOnce,
    After(Verdict),
    /// The flush at the end has no time left.
    Never,
}

impl Events {
    pub(super) async fn run(mut self, mut stopped: watch::Receiver<Option<Instant>>) {
        self.spool.open();
        let mut backoff = Backoff::persistent();
        // Nothing is sent before.
        let mut resume = None;
        loop {
            keep(&self.inbox, &mut self.spool, &self.context);
            let batch = match resume {
                None => self.spool.take(),
                Some(_) => None,
            };
            let Some(batch) = batch else {
                tokio::select! {
                    biased;
                    _ = stopped.wait_for(Option::is_some) => break,
                    () = self.inbox.pushed() => {}
                    () = sleep_until(resume) => resume = None,
                }
                continue;
            };
            match self.send(batch, &mut stopped).await {
                Next::AtOnce => backoff = Backoff::persistent(),
                Next::After(verdict) => {
                    let pause = backoff.next(verdict).unwrap_or(Duration::ZERO);
                    resume = Some(Instant::now() + pause);
                }
                Next::Never => break,
            }
            if stopped.borrow().is_some() {
                break;
            }
        }
        // A dropped handle sets no deadline: nobody waits for a flush.
        let asked = *stopped.borrow();
        let Some(end) = asked else { return };
        keep(&self.inbox, &mut self.spool, &self.context);
        while Instant::now() < end {
            let Some(batch) = self.spool.take() else {
                break;
            };
            if !matches!(self.send(batch, &mut stopped).await, Next::AtOnce) {
                break;
            }
        }
        self.leave();
    }

    /// Sends a batch. Once a stop is asked for, only until its deadline. What comes meanwhile is
    /// kept already.
    async fn send(
        &mut self,
        batch: spool::Batch,
        stopped: &mut watch::Receiver<Option<Instant>>,
    ) -> Next {
        let Ok(request) = ExportLogsServiceRequest::decode(batch.body.as_slice()) else {
            // Its checksum is right, so it is what an agent wrote, but not this one.
            self.counters
                .damaged
                .fetch_add(batch.records, Ordering::Relaxed);
            self.spool.settle();
            return Next::AtOnce;
        };
        drop(batch.body);
        let request = Logs::request(merged(request.resource_logs));
        let (inbox, spool, context) = (&self.inbox, &mut self.spool, &self.context);
        let outcome = {
            let attempt = self.client.deliver(request);
            tokio::pin!(attempt);
            loop {
                tokio::select! {
                    biased;
                    outcome = &mut attempt => break Some(outcome),
                    () = deadline(stopped) => break None,
                    () = inbox.pushed() => keep(inbox, spool, context),
                }
            }
        };
        match outcome {
            Some(outcome) => self.judge(outcome, batch.records),
            None => {
                self.spool.release();
                Next::Never
            }
        }
    }

    fn judge(&mut self, outcome: Result<Delivery, Failure>, records: u64) -> Next {
        let failure = match outcome {
            Ok(delivery) => {
                // First: whatever happens now, it is not sent again.
                self.spool.settle();
                let counters = &self.counters;
                counters
                    .exported
                    .fetch_add(delivery.exported, Ordering::Relaxed);
                counters
                    .rejected
                    .fetch_add(delivery.rejected, Ordering::Relaxed);
                self.report.works(&delivery);
                return Next::AtOnce;
            }
            Err(failure) => failure,
        };
        if failure.verdict == Verdict::GiveUp {
            self.spool.settle();
            self.counters.failed.fetch_add(records, Ordering::Relaxed);
            let meanwhile = "lost events are counted; OTEL_LOGS_EXPORTER=none turns events off";
            self.report.fails(&failure.error, meanwhile);
            return Next::AtOnce;
        }
        self.spool.release();
        self.spool.sync();
        let meanwhile = "events are kept as far as there is room";
        self.report.fails(&failure.error, meanwhile);
        Next::After(failure.verdict)
    }

    /// What is on disk is for the next agent, the rest is lost.
    fn leave(&mut self) {
        let (in_memory, on_disk) = self.spool.waiting();
        if on_disk > 0 {
            self.spool.sync();
            log::info!("{on_disk} OTLP events are kept on disk for the next start");
        }
        if in_memory > 0 {
            self.counters.failed.fetch_add(in_memory, Ordering::Relaxed);
            self.report
                .out_of_time(in_memory, self.client.last_failure());
        }
        self.report.ends();
    }
}

/// Encodes what came and puts it where it waits.
fn keep(inbox: &Inbox, spool: &mut Spool, context: &ResourceContext) {
    while let Some(Entry {
        event, observed, ..
    }) = inbox.take()
    {
        let mut from = 0;
        while from < event.record_count() {
            let mut chunk = events::Batch::new(context, CHUNK_BYTES);
            let added = chunk.add(&event, from, observed);
            let Some(records) = u32::try_from(added).ok().filter(|records| *records > 0) else {
                // A batch takes at least one.
                break;
            };
            from += added;
            spool.add(Logs::request(chunk.finish()).encode_to_vec(), records);
        }
    }
}

/// One resource for neighbours of the same, as in a storm of kills in one cgroup.
fn merged(resources: Vec<ResourceLogs>) -> Vec<ResourceLogs> {
    let mut merged: Vec<ResourceLogs> = Vec::with_capacity(resources.len());
    for mut next in resources {
        if let Some(last) = merged.last_mut()
            && last.resource == next.resource
            && last.schema_url == next.schema_url
            && let ([into], [from]) = (
                last.scope_logs.as_mut_slice(),
                next.scope_logs.as_mut_slice(),
            )
            && into.scope == from.scope
            && into.schema_url == from.schema_url
        {
            into.log_records.append(&mut from.log_records);
        } else {
            merged.push(next);
        }
    }
    merged
}

/// Never completes without a time.
async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
