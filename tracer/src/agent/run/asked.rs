//! Answers to what is asked over HTTP and the API's socket, between two events of the loop.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use crate::{
    agent::{config::ApiAt, otlp},
    api::{
        server::{ApiError, ApiServer, Ask as ApiAsk},
        socket::close_directory,
    },
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

/// Starts to answer other programs of this host. Where nobody asked for it, tracing goes on without.
pub fn api(at: &ApiAt, state_dir: Option<PathBuf>) -> Result<Option<ApiServer>, ApiError> {
    match at {
        ApiAt::Nowhere => Ok(None),
        ApiAt::Only(path) => ApiServer::start(path, state_dir).map(Some),
        ApiAt::Usual(path) => {
            // It is memtrace's own by its name.
            close_directory(path);
            Ok(ApiServer::start(path, state_dir)
                .inspect_err(|error| {
                    log::warn!("no answers to other programs of this host: {error}");
                })
                .ok())
        }
    }
}

/// The next question of the API; never, without one.
pub async fn next_of_api(api: &mut Option<ApiServer>) -> ApiAsk {
    match api {
        Some(api) => api.asked().await,
        None => std::future::pending().await,
    }
}

impl Agent {
    /// Who asked may have gone away, and needs no answer.
    pub(super) fn answer_api(&mut self, ask: ApiAsk) {
        match ask {
            ApiAsk::Agent(sender) => drop(sender.send(Box::new(self.agent_record()))),
            ApiAsk::Cgroups { histories, answer } => drop(answer.send(self.rows(histories))),
            ApiAsk::Cgroup(id, sender) => drop(sender.send(self.details(id).map(Box::new))),
            ApiAsk::Profile(id, sender) => drop(sender.send(self.profile(id))),
            ApiAsk::Leaks(query, sender) => drop(sender.send(self.leaks(&query))),
            ApiAsk::Timelines(query, sender) => drop(sender.send(self.timelines(&query))),
        }
    }

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
