//! One export: splits it into requests, sends each, retries what may be retried.
//!
//! Owns chunking and the retry loop; `grpc` and `http` own their transport, `retry` the policy.
//! Must not decide when to export, log, or keep a request after the call returns.

mod grpc;
mod http;
mod retry;

use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::metrics::v1::ResourceMetrics;
use prost::Message;
use tokio::time::Instant;

use super::config::{OtlpConfig, Protocol};
use super::metrics::point_count;
use retry::{Backoff, Verdict};

/// Encoded size a request stays under: gRPC servers refuse more than 4 MiB by default.
const MAX_REQUEST_BYTES: usize = 4_000_000;

/// The configuration cannot be made into a client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot make the gRPC channel: {0}")]
    Grpc(#[source] tonic::transport::Error),
    #[error("cannot make the HTTP client: {0}")]
    Http(#[source] reqwest::Error),
}

/// Why a request was given up. The text never holds a header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error("no answer within {}", seconds(.0))]
    TimedOut(Duration),
    /// The backend was not reached, or did not speak the protocol.
    #[error("cannot reach the backend: {0}")]
    Unreachable(String),
    #[error("the backend answered {status}: {message}")]
    Refused { status: String, message: String },
}

/// What became of one export.
#[derive(Debug, Default)]
pub struct Delivery {
    /// Data points the backend took.
    pub exported: u64,
    /// Data points the backend refused within a request it accepted (OTLP partial success).
    pub rejected: u64,
    /// Data points of requests that were given up.
    pub failed: u64,
    /// The backend's words on a partial success; it may warn without rejecting.
    pub warning: Option<String>,
    /// The last failure.
    pub error: Option<SendError>,
}

/// A failed attempt, judged.
struct Failure {
    error: SendError,
    verdict: Verdict,
}

/// Sends metrics to one endpoint. Needs a tokio runtime with I/O and time.
pub struct Client {
    transport: Transport,
    timeout: Duration,
}

enum Transport {
    Grpc(grpc::Grpc),
    Http(http::Http),
}

impl Client {
    /// Makes the client; it connects at the first export. Call within a tokio runtime.
    ///
    /// # Errors
    /// The transport refuses the configuration.
    pub fn new(config: &OtlpConfig) -> Result<Self, ClientError> {
        let transport = match config.protocol {
            Protocol::Grpc => Transport::Grpc(grpc::Grpc::new(config)?),
            Protocol::HttpProtobuf => Transport::Http(http::Http::new(config)?),
        };
        Ok(Client {
            transport,
            timeout: config.timeout,
        })
    }

    /// Sends all of `resources`. Each request has the configured timeout, retries included.
    pub async fn export(&self, resources: Vec<ResourceMetrics>) -> Delivery {
        let mut delivery = Delivery::default();
        let mut unavailable = false;
        for request in requests(resources, MAX_REQUEST_BYTES) {
            let points = point_count(&request.resource_metrics);
            if unavailable {
                delivery.failed += points;
                continue;
            }
            match self.send(request).await {
                Ok(response) => delivery.count(points, response),
                Err(failure) => {
                    delivery.failed += points;
                    // A backend that is down stays down for the rest; one that refuses this
                    // request may well take the next.
                    unavailable = failure.verdict != Verdict::GiveUp;
                    delivery.error = Some(failure.error);
                }
            }
        }
        delivery
    }

    async fn send(
        &self,
        request: ExportMetricsServiceRequest,
    ) -> Result<ExportMetricsServiceResponse, Failure> {
        let deadline = Instant::now() + self.timeout;
        let mut backoff = Backoff::new();
        let request = match &self.transport {
            Transport::Grpc(_) => Encoded::Grpc(request),
            Transport::Http(http) => Encoded::Http(http.encode(&request)),
        };
        loop {
            let attempt = tokio::time::timeout_at(deadline, self.attempt(&request)).await;
            let failure = match attempt {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(failure)) => failure,
                Err(_) => {
                    return Err(Failure {
                        error: SendError::TimedOut(self.timeout),
                        verdict: Verdict::Retry,
                    });
                }
            };
            let Some(delay) = backoff.next(failure.verdict) else {
                return Err(failure);
            };
            let next = Instant::now() + delay;
            if next >= deadline {
                return Err(failure);
            }
            tokio::time::sleep_until(next).await;
        }
    }

    async fn attempt(&self, request: &Encoded) -> Result<ExportMetricsServiceResponse, Failure> {
        match (&self.transport, request) {
            (Transport::Grpc(grpc), Encoded::Grpc(request)) => grpc.send(request.clone()).await,
            (Transport::Http(http), Encoded::Http(body)) => http.send(body.clone()).await,
            // `send` encodes for its own transport.
            _ => Err(Failure {
                error: SendError::Unreachable("request encoded for another transport".to_owned()),
                verdict: Verdict::GiveUp,
            }),
        }
    }
}

/// A request in the form its transport repeats cheaply.
enum Encoded {
    Grpc(ExportMetricsServiceRequest),
    Http(bytes::Bytes),
}

impl Delivery {
    fn count(&mut self, points: u64, response: ExportMetricsServiceResponse) {
        let partial = response.partial_success.unwrap_or_default();
        let rejected = u64::try_from(partial.rejected_data_points)
            .unwrap_or(0)
            .min(points);
        self.rejected += rejected;
        self.exported += points - rejected;
        if !partial.error_message.is_empty() {
            self.warning = Some(printable(&partial.error_message));
        } else if rejected > 0 {
            self.warning = Some("no reason given".to_owned());
        }
    }
}

/// Splits between resources; a resource alone above the limit is sent as it is.
fn requests(resources: Vec<ResourceMetrics>, max_bytes: usize) -> Vec<ExportMetricsServiceRequest> {
    let mut requests = Vec::new();
    let mut current = ExportMetricsServiceRequest::default();
    let mut bytes = 0;
    for resource in resources {
        let length = resource.encoded_len();
        let size = length + 1 + prost::length_delimiter_len(length);
        if bytes + size > max_bytes && !current.resource_metrics.is_empty() {
            requests.push(std::mem::take(&mut current));
            bytes = 0;
        }
        bytes += size;
        current.resource_metrics.push(resource);
    }
    if !current.resource_metrics.is_empty() {
        requests.push(current);
    }
    requests
}

/// A backend's text made safe for a log: one line, bounded.
fn printable(text: &str) -> String {
    const MAX_CHARS: usize = 200;
    let safe = |c: char| if c.is_control() { ' ' } else { c };
    text.trim().chars().take(MAX_CHARS).map(safe).collect()
}

fn seconds(duration: &Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsPartialSuccess;

    #[test]
    fn requests_stay_under_the_limit_and_lose_nothing() {
        let resource = ResourceMetrics {
            schema_url: "x".repeat(100),
            ..Default::default()
        };
        let split = requests(vec![resource; 10], 350);
        assert_eq!(split.len(), 4);
        assert!(split.iter().all(|request| request.encoded_len() <= 350));
        assert_eq!(
            split
                .iter()
                .map(|request| request.resource_metrics.len())
                .sum::<usize>(),
            10
        );
        let large = ResourceMetrics {
            schema_url: "x".repeat(500),
            ..Default::default()
        };
        assert_eq!(requests(vec![large.clone(), large], 350).len(), 2);
        assert!(requests(Vec::new(), 350).is_empty());
    }

    #[test]
    fn a_partial_success_is_counted_not_failed() {
        let mut delivery = Delivery::default();
        let partial = ExportMetricsPartialSuccess {
            rejected_data_points: 3,
            error_message: "too\nold".to_owned(),
        };
        delivery.count(
            10,
            ExportMetricsServiceResponse {
                partial_success: Some(partial),
            },
        );
        assert_eq!(
            (delivery.exported, delivery.rejected, delivery.failed),
            (7, 3, 0)
        );
        assert_eq!(delivery.warning.as_deref(), Some("too old"));
    }
}
