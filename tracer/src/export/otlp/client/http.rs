//! OTLP over HTTP with protobuf bodies. Owns encoding and the POST. Must not retry.

use std::error::Error;
use std::io::Write;

use bytes::Bytes;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use prost::Message;

use super::{ClientError, Failure, SendError, Verdict, printable, retry};
use crate::export::otlp::config::{Compression, OtlpConfig};

pub(super) const USER_AGENT: &str = concat!("memtrace/", env!("CARGO_PKG_VERSION"));

/// More of an answer is not read: a partial success is short, and an error page is of no use.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

pub(super) struct Http {
    client: reqwest::Client,
    url: String,
    headers: HeaderMap,
    gzip: bool,
}

impl Http {
    pub(super) fn new(config: &OtlpConfig) -> Result<Self, ClientError> {
        let client = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(ClientError::Http)?;
        let gzip = config.compression == Compression::Gzip;
        let mut headers = config.headers.clone();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-protobuf"),
        );
        if gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Ok(Http {
            client,
            url: config.endpoint.to_string(),
            headers,
            gzip,
        })
    }

    /// The body, compressed if so configured.
    pub(super) fn encode(&self, request: &ExportMetricsServiceRequest) -> Bytes {
        let plain = request.encode_to_vec();
        if !self.gzip {
            return Bytes::from(plain);
        }
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        // A Vec takes every write; the error type only belongs to the trait.
        let written = encoder.write_all(&plain).and_then(|()| encoder.finish());
        Bytes::from(written.unwrap_or_default())
    }

    pub(super) async fn send(&self, body: Bytes) -> Result<ExportMetricsServiceResponse, Failure> {
        let request = self
            .client
            .post(&self.url)
            .headers(self.headers.clone())
            .body(body);
        let mut response = request.send().await.map_err(|error| unreachable(&error))?;
        let status = response.status();
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok());
        let verdict = retry::http(status.as_u16(), retry_after);
        let answer = read(&mut response).await;
        if status.is_success() {
            // Some backends answer 2xx with an empty or foreign body: the data was taken.
            return Ok(answer
                .ok()
                .and_then(|answer| ExportMetricsServiceResponse::decode(answer.as_slice()).ok())
                .unwrap_or_default());
        }
        let message = printable(&String::from_utf8_lossy(&answer.unwrap_or_default()));
        Err(Failure {
            error: SendError::Refused {
                status: status.to_string(),
                message,
            },
            verdict,
        })
    }
}

async fn read(response: &mut reqwest::Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut answer = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = MAX_ANSWER_BYTES - answer.len();
        answer.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
        if answer.len() == MAX_ANSWER_BYTES {
            break;
        }
    }
    Ok(answer)
}

fn unreachable(error: &reqwest::Error) -> Failure {
    // The innermost cause is the one an operator can act on, "connection refused" for example.
    let mut cause: &dyn Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let verdict = if error.is_builder() {
        Verdict::GiveUp
    } else {
        Verdict::Retry
    };
    Failure {
        error: SendError::Unreachable(printable(&cause.to_string())),
        verdict,
    }
}
