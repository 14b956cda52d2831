//! When the OTLP exporter gets a snapshot, and how it ends.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use crate::{
    export::otlp::{Exporter, HostInfo, OtlpConfig, OwnReading, OwnTelemetry, ResourceContext},
    model::snapshot::Snapshot,
};

use super::clock;

/// Time that the last export has when memtrace ends: half for each signal.
const FLUSH: Duration = Duration::from_millis(500);

/// A running export of cgroup metrics and of memtrace's own telemetry.
pub struct OtlpExport {
    exporter: Exporter,
    own: OwnTelemetry,
    reading: OwnReading,
    interval: Duration,
    last: Option<Instant>,
    /// Time since start of the last snapshot handed over.
    offered: Duration,
}

impl OtlpExport {
    pub fn start(config: &OtlpConfig) -> Result<Self, Box<dyn std::error::Error>> {
        let context = ResourceContext::new(config, host());
        let exporter = Exporter::start(config, context.clone())?;
        let reading = OwnReading::default();
        let own = OwnTelemetry::start(config, &context, reading.clone(), exporter.runtime())?;
        Ok(Self {
            exporter,
            own,
            reading,
            interval: config.interval,
            last: None,
            offered: Duration::ZERO,
        })
    }

    /// Whether the backend is due for numbers. A little early beats an interval late.
    pub fn due(&self) -> bool {
        self.last
            .is_none_or(|last| last.elapsed() >= self.interval.mul_f64(0.95))
    }

    pub fn offered(&self) -> Duration {
        self.offered
    }

    /// Hands a snapshot over. Never waits.
    pub fn offer(&mut self, snapshot: Snapshot, now: Duration) {
        self.last = Some(Instant::now());
        self.offered = now;
        self.reading.set(snapshot.own.clone());
        self.exporter.offer(Arc::new(snapshot));
    }

    /// What did not arrive, by cause.
    pub fn losses(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.exporter
            .counters()
            .losses()
            .into_iter()
            .map(|loss| (loss.cause, loss.count))
    }

    /// Sends the last numbers, for a bounded time.
    pub fn stop(self, snapshot: Snapshot) {
        self.reading.set(snapshot.own.clone());
        self.exporter.offer(Arc::new(snapshot));
        if let Err(error) = self.own.shutdown(FLUSH) {
            log::debug!("own telemetry was not flushed: {error}");
        }
        // The exporter itself says what it could not send.
        self.exporter.shutdown(FLUSH);
    }
}

fn host() -> HostInfo {
    let text = |path: &str| {
        fs::read_to_string(path)
            .ok()
            .map(|text| text.trim().to_owned())
            .filter(|text| !text.is_empty())
    };
    HostInfo {
        id: text("/etc/machine-id").or_else(|| text("/var/lib/dbus/machine-id")),
        name: text("/proc/sys/kernel/hostname"),
        booted: SystemTime::now().checked_sub(clock::boot_time()),
    }
}
