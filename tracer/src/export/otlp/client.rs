//! One export: splits it into requests, sends each, retries what may be retried.
//!
//! Owns chunking and the retry loop; `grpc` and `http` own their transport, `retry` the policy, `censor` what may
//! be told of a backend's words.
//! Must not decide when to export, log, or keep a request after the call returns.

mod censor;
mod grpc;
mod http;
mod retry;
mod signal;
mod tls;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ::http::{HeaderMap, StatusCode};
use prost::Message;
use tokio::time::Instant;
use tonic::Status;

use super::config::{Protocol, Target};
use censor::Censor;
pub(super) use grpc::channel;
pub(super) use http::{client as http_client, read as read_answer};
pub(super) use retry::{Backoff, Verdict};
pub use signal::{Logs, Metrics, Profiles, Signal, Split};

/// Encoded size a request stays under. gRPC servers refuse more than 4 MiB by default; what a request is
/// made of takes several times its encoded size, and no less is held at once.
const MAX_REQUEST_BYTES: usize = 1_000_000;

/// The configuration cannot be made into a client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot make the gRPC channel: {0}")]
    Grpc(#[source] tonic::transport::Error),
    #[error("cannot make the HTTP client: {0}")]
    Http(#[source] reqwest::Error),
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    #[error(
        "this system has no certificates of authorities{0}; name a file of them with \
         --otlp-certificate, or install them (ca-certificates)"
    )]
    NoAuthorities(String),
}

/// Why a request was given up. The text never holds a header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error("no answer within {}", seconds(.0))]
    TimedOut(Duration),
    /// The backend was not reached, or did not speak the protocol.
    #[error("cannot reach the backend: {0}")]
    Unreachable(String),
    #[error("the backend answered {status}{}", reason(.message))]
    Refused { status: String, message: String },
    /// It has no such endpoint or service.
    #[error("the backend does not take them ({status}){}", reason(.message))]
    NotServed { status: String, message: String },
}

/// What became of one export.
#[derive(Debug, Default)]
pub struct Delivery {
    /// Items the backend took: data points, log records.
    pub exported: u64,
    /// Items the backend refused within a request it accepted (OTLP partial success).
    pub rejected: u64,
    /// Items of requests that were given up.
    pub failed: u64,
    /// The backend's words on a partial success; it may warn without rejecting.
    pub warning: Option<String>,
    /// The last failure.
    pub error: Option<SendError>,
    /// The backend asked for this pause.
    pub pause: Option<Duration>,
}

/// A failed attempt, judged.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: SendError,
    pub(super) verdict: Verdict,
}

/// Sends one signal to one endpoint. Needs a tokio runtime with I/O and time.
pub struct Client<S: Signal> {
    transport: Transport<S>,
    censor: Censor,
    timeout: Duration,
    /// Of the last attempt; `None`: it succeeded.
    failed: Mutex<Option<SendError>>,
}

enum Transport<S: Signal> {
    Grpc(grpc::Grpc<S>),
    Http(http::Http),
}

impl<S: Signal> Client<S> {
    /// Makes the client; it connects at the first export. Call within a tokio runtime.
    ///
    /// # Errors
    /// The transport refuses the configuration.
    pub fn new(target: &Target) -> Result<Self, ClientError> {
        let transport = match target.protocol {
            Protocol::Grpc => Transport::Grpc(grpc::Grpc::new(target)?),
            Protocol::HttpProtobuf => Transport::Http(http::Http::new(target)?),
        };
        Ok(Client {
            transport,
            censor: Censor::new(&target.headers),
            timeout: target.timeout,
            failed: Mutex::default(),
        })
    }

    /// Why the last attempt failed, of an export that was not waited for to its end.
    pub(super) fn last_failure(&self) -> Option<SendError> {
        self.failed().clone()
    }

    fn failed(&self) -> std::sync::MutexGuard<'_, Option<SendError>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends all of `resources`. Each request has the configured timeout, retries included.
    pub async fn export(&self, resources: impl Iterator<Item = S::Resource>) -> Delivery
    where
        S: Split,
    {
        self.export_requests(requests::<S>(resources, MAX_REQUEST_BYTES))
            .await
    }

    /// Sends all of `requests`, each as it is.
    pub async fn export_requests(&self, requests: impl Iterator<Item = S::Request>) -> Delivery {
        let mut delivery = Delivery::default();
        let mut unavailable = false;
        for request in requests {
            let items = S::items(&request);
            if unavailable {
                delivery.failed += items;
                continue;
            }
            match self.send(request).await {
                Ok(response) => delivery.count::<S>(items, response, &self.censor),
                Err(failure) => {
                    // A backend that is down stays down for the rest; one that refuses this
                    // request may well take the next.
                    unavailable = failure.verdict != Verdict::GiveUp;
                    delivery.fail(items, failure);
                }
            }
        }
        delivery
    }

    /// Sends one request within the configured timeout, retries included.
    pub(super) async fn deliver(&self, request: S::Request) -> Result<Delivery, Failure> {
        let items = S::items(&request);
        let response = self.send(request).await?;
        let mut delivery = Delivery::default();
        delivery.count::<S>(items, response, &self.censor);
        Ok(delivery)
    }

    async fn send(&self, request: S::Request) -> Result<S::Response, Failure> {
        let deadline = Instant::now() + self.timeout;
        let mut backoff = Backoff::new();
        let mut before = None;
        let request = match &self.transport {
            Transport::Grpc(_) => Encoded::Grpc(request),
            Transport::Http(http) => {
                Encoded::Http(http.encode(&request).map_err(|error| Failure {
                    error: SendError::Unreachable(format!("cannot compress: {error}")),
                    verdict: Verdict::Retry,
                })?)
            }
        };
        loop {
            let attempt = tokio::time::timeout_at(deadline, self.attempt(&request)).await;
            let failure = match attempt {
                Ok(Ok(response)) => {
                    *self.failed() = None;
                    return Ok(response);
                }
                Ok(Err(failure)) => failure,
                // An attempt that failed says more than the one that the end of the time cuts off.
                Err(_) => {
                    return Err(before.unwrap_or(Failure {
                        error: SendError::TimedOut(self.timeout),
                        verdict: Verdict::Retry,
                    }));
                }
            };
            *self.failed() = Some(failure.error.clone());
            let Some(delay) = backoff.next(failure.verdict) else {
                return Err(failure);
            };
            let next = Instant::now() + delay;
            if next >= deadline {
                return Err(failure);
            }
            before = Some(failure);
            tokio::time::sleep_until(next).await;
        }
    }

    async fn attempt(&self, request: &Encoded<S>) -> Result<S::Response, Failure> {
        match (&self.transport, request) {
            (Transport::Grpc(grpc), Encoded::Grpc(request)) => {
                grpc.send(request.clone(), &self.censor).await
            }
            (Transport::Http(http), Encoded::Http(body)) => {
                http.send(body.clone(), &self.censor).await
            }
            // `send` encodes for its own transport.
            _ => Err(Failure {
                error: SendError::Unreachable("request encoded for another transport".to_owned()),
                verdict: Verdict::GiveUp,
            }),
        }
    }
}

/// A request in the form its transport repeats cheaply.
enum Encoded<S: Signal> {
    Grpc(S::Request),
    Http(bytes::Bytes),
}

/// How the backend answered a request.
#[derive(Debug)]
pub enum Answer<'a> {
    Http {
        status: StatusCode,
        headers: &'a HeaderMap,
        body: &'a [u8],
    },
    /// No message: gRPC has taken the response apart, or there is none.
    Grpc(&'a Status),
}

impl Delivery {
    /// What becomes of a request of `items` that is answered so and not sent again. It had no header.
    pub fn of_answer<S: Signal>(items: u64, answer: &Answer<'_>) -> Self {
        let censor = Censor::default();
        let response = match answer {
            Answer::Http {
                status,
                headers,
                body,
            } => http::answered(*status, headers, body, &censor),
            Answer::Grpc(status) => Err(grpc::failure(status, false, &censor)),
        };
        let mut delivery = Delivery::default();
        match response {
            Ok(response) => delivery.count::<S>(items, response, &censor),
            Err(failure) => delivery.fail(items, failure),
        }
        delivery
    }

    fn fail(&mut self, items: u64, failure: Failure) {
        self.failed += items;
        self.pause = failure.verdict.asked();
        self.error = Some(failure.error);
    }

    fn count<S: Signal>(&mut self, items: u64, response: S::Response, censor: &Censor) {
        let (rejected, message) = S::refused(response);
        let rejected = u64::try_from(rejected).unwrap_or(0).min(items);
        self.rejected += rejected;
        self.exported += items - rejected;
        if !message.is_empty() {
            self.warning = Some(censor.printable(&message));
        } else if rejected > 0 {
            self.warning = Some("no reason given".to_owned());
        }
    }
}

/// Splits between resources; a resource alone above the limit is sent as it is. Holds one request at a time.
fn requests<S: Split>(
    resources: impl Iterator<Item = S::Resource>,
    max_bytes: usize,
) -> impl Iterator<Item = S::Request> {
    let size = |resource: &S::Resource| {
        let length = resource.encoded_len();
        length + 1 + prost::length_delimiter_len(length)
    };
    let mut resources = resources
        .map(move |resource| (size(&resource), resource))
        .peekable();
    std::iter::from_fn(move || {
        let (mut bytes, first) = resources.next()?;
        let mut current = vec![first];
        while let Some((size, next)) = resources.next_if(|(size, _)| bytes + size <= max_bytes) {
            bytes += size;
            current.push(next);
        }
        Some(S::request(current))
    })
}

fn reason(message: &str) -> String {
    match message {
        "" => String::new(),
        message => format!(": {message}"),
    }
}

fn seconds(duration: &Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::logs::v1::{
        ExportLogsPartialSuccess, ExportLogsServiceResponse,
    };
    use opentelemetry_proto::tonic::metrics::v1::ResourceMetrics;

    #[test]
    fn requests_stay_under_the_limit_and_lose_nothing() {
        let resource = ResourceMetrics {
            schema_url: "x".repeat(100),
            ..Default::default()
        };
        let split = |resources: Vec<_>| -> Vec<_> {
            requests::<Metrics>(resources.into_iter(), 350).collect()
        };
        let ten = split(vec![resource; 10]);
        assert_eq!(ten.len(), 4);
        assert!(ten.iter().all(|request| request.encoded_len() <= 350));
        assert_eq!(
            ten.iter()
                .map(|request| request.resource_metrics.len())
                .sum::<usize>(),
            10
        );
        let large = ResourceMetrics {
            schema_url: "x".repeat(500),
            ..Default::default()
        };
        assert_eq!(split(vec![large.clone(), large]).len(), 2);
        assert!(split(Vec::new()).is_empty());
    }

    #[test]
    fn a_partial_success_is_counted_not_failed() {
        let mut delivery = Delivery::default();
        let partial = ExportLogsPartialSuccess {
            rejected_log_records: 3,
            error_message: "too\nold".to_owned(),
        };
        delivery.count::<Logs>(
            10,
            ExportLogsServiceResponse {
                partial_success: Some(partial),
            },
            &Censor::default(),
        );
        assert_eq!(
            (delivery.exported, delivery.rejected, delivery.failed),
            (7, 3, 0)
        );
        assert_eq!(delivery.warning.as_deref(), Some("too old"));
    }
}
