//! When the OTLP exporter gets a snapshot or an event, and how it ends.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    export::otlp::{
        CgroupProfile, Event, Exporter, HostInfo, OtlpConfig, OwnReading, OwnTelemetry,
        ResourceContext,
    },
    identity::facts::KnownPlace,
    model::snapshot::Snapshot,
};

use super::clock;

/// Time that the last export has when memtrace ends: half for each signal.
const FLUSH: Duration = Duration::from_millis(500);

/// Profiles are sent at most so often: a request each, and they change slowly.
const PROFILES_AFTER: Duration = Duration::from_secs(60);

/// A running export of cgroup metrics, OOM events, profiles and memtrace's own telemetry.
pub struct OtlpExport {
    exporter: Exporter,
    /// `None`: metrics are not sent.
    own: Option<OwnTelemetry>,
    reading: OwnReading,
    interval: Duration,
    last: Option<Instant>,
    /// Time since start of the last snapshot handed over.
    offered: Duration,
    /// Whether they are sent.
    profiles: bool,
    /// When they were handed over last.
    profiles_offered: Option<Instant>,
}

impl OtlpExport {
    pub fn start(
        config: &OtlpConfig,
        node: Option<&str>,
        place: &KnownPlace,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let mut context = ResourceContext::new(config, host(node));
        context.node = node.map(str::to_owned);
        context.place = Arc::clone(place);
        let exporter = Exporter::start(config, context.clone())?;
        let reading = OwnReading::default();
        let own = match &config.metrics {
            Some(target) => Some(OwnTelemetry::start(
                target,
                config.interval,
                &context,
                reading.clone(),
                exporter.runtime(),
            )?),
            None => None,
        };
        Ok(Self {
            exporter,
            own,
            reading,
            interval: config.interval,
            last: None,
            offered: Duration::ZERO,
            profiles: config.profiles.is_some(),
            profiles_offered: None,
        })
    }

    /// Whether the backend is due for numbers. A little early beats an interval late.
    pub fn due(&self) -> bool {
        self.own.is_some()
            && self
                .last
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

    pub fn sends_profiles(&self) -> bool {
        self.profiles
    }

    /// Whether the backend is due for profiles.
    pub fn is_due_for_profiles(&self) -> bool {
        let after = self.interval.max(PROFILES_AFTER).mul_f64(0.95);
        let last = self.profiles_offered;
        self.profiles && last.is_none_or(|last| last.elapsed() >= after)
    }

    pub fn profiles_offered(&self) -> Option<Instant> {
        self.profiles_offered
    }

    /// Hands profiles over. Never waits.
    pub fn offer_profiles(&mut self, profiles: Vec<CgroupProfile>) {
        self.profiles_offered = Some(Instant::now());
        self.exporter.profiles(profiles);
    }

    /// Hands an event over, to be sent at once. Never waits.
    pub fn event(&self, event: Event) {
        self.exporter.event(event);
    }

    /// For `/status`: what was sent so far.
    pub fn status(&self) -> serde_json::Value {
        let counters = self.exporter.counters();
        serde_json::json!({
            "exported_points": counters.exported_points,
            "exported_events": counters.exported_events,
            "waiting_events": counters.waiting_events,
            "exported_profiles": counters.exported_profiles,
        })
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
        if let Some(own) = &self.own
            && let Err(error) = own.shutdown(FLUSH)
        {
            log::debug!("own telemetry was not flushed: {error}");
        }
        // The exporter itself says what it could not send.
        self.exporter.shutdown(FLUSH);
    }
}

/// What PID 1 has for a root: the host's, where a container shares its PIDs.
const FIRST_ROOT: &str = "/proc/1/root";

/// Who this host is; `node`: its name in Kubernetes, which is the host's where a pod has its own.
pub fn host(node: Option<&str>) -> HostInfo {
    let text = |path: &str| {
        fs::read_to_string(path)
            .ok()
            .map(|text| text.trim().to_owned())
            .filter(|text| !text.is_empty())
    };
    let (boot, wall) = clock::both();
    HostInfo {
        // Of PID 1 first: a container has no such file, or its own.
        id: text(&format!("{FIRST_ROOT}/etc/machine-id"))
            .or_else(|| text("/etc/machine-id"))
            .or_else(|| text("/var/lib/dbus/machine-id")),
        name: node
            .map(str::to_owned)
            .or_else(|| text("/proc/sys/kernel/hostname")),
        booted: wall.checked_sub(boot),
    }
}
