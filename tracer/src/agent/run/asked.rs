//! Answers to what is asked over HTTP, between two events of the loop.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use crate::{
    agent::otlp,
    export::{
        otlp::ResourceContext,
        prometheus::{Ask, Endpoint, Health, ListenError},
    },
    identity::facts::KnownPlace,
};

use super::Agent;

/// Starts to listen.
pub fn endpoint(
    address: SocketAddr,
    interval: Duration,
    node: Option<&str>,
    place: &KnownPlace,
) -> Result<Endpoint, ListenError> {
    let context = ResourceContext {
        host: otlp::host(node),
        node: node.map(str::to_owned),
        place: Arc::clone(place),
        ..ResourceContext::default()
    };
    Endpoint::start(address, context, Health::new(interval))
}

/// The next question; never, without an endpoint.
pub async fn next(endpoint: &mut Option<Endpoint>) -> Ask {
    match endpoint {
        Some(endpoint) => endpoint.asked().await,
        None => std::future::pending().await,
    }
}

impl Agent {
    pub(super) fn answer(&mut self, ask: Ask) {
        // A scraper that went away needs no answer.
        match ask {
            Ask::Metrics(sender) => {
                self.name_cgroups();
                let own = self.own();
                // With what is gone since the last scrape, or the one before: its kills above all.
                let since = Duration::ZERO;
                let snapshot = self.full_snapshot(self.host, own, since);
                let _ = sender.send(Arc::new(snapshot));
            }
            Ask::Status(sender) => {
                let status = self.status();
                let _ = sender.send(status);
            }
        }
    }

    fn status(&mut self) -> serde_json::Value {
        let own = self.own();
        let probes: Vec<_> = self
            .loader
            .verdicts
            .iter()
            .map(|verdict| {
                serde_json::json!({
                    "probe": verdict.probe,
                    "essential": verdict.essential,
                    "hook": verdict.attached.as_ref().map(|(_, hook)| hook),
                    "rejected": verdict.rejected.iter()
                        .map(|(hook, reason)| serde_json::json!({"hook": hook, "reason": reason}))
                        .collect::<Vec<_>>(),
                })
            })
            .collect();
        let losses: serde_json::Map<_, _> = own
            .losses
            .iter()
            .map(|loss| (loss.cause.to_owned(), loss.count.into()))
            .collect();
        serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "kernel": self.loader.support.release,
            "cgroup_mode": self.readings.mode().name(),
            "started": jiff::Timestamp::try_from(self.started).ok(),
            "interval_seconds": self.config.interval.as_secs_f64(),
            "cgroups": own.cgroups_tracked,
            "rss_bytes": own.rss_bytes,
            "cpu_ns": own.cpu_ns,
            "probes": probes,
            "losses": losses,
            "identity": self.naming.status(),
            "otlp": self.otlp.as_ref().map(|otlp| otlp.status()),
            "stacks": self.stacks.as_ref().map(|stacks| stacks.status()),
            "leaks": self.judging.as_ref().map(|judging| judging.status()),
            "timelines": self.chronicle.status(),
        })
    }
}
