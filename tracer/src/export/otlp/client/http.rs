//! OTLP over HTTP with protobuf bodies. Owns encoding and the POST. Must not retry.

use std::error::Error;
use std::io::Write;

use bytes::Bytes;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use prost::Message;

use super::{Censor, ClientError, Failure, SendError, Verdict, retry, tls};
use crate::export::otlp::config::{Compression, Target};

pub(super) const USER_AGENT: &str = concat!("memtrace/", env!("CARGO_PKG_VERSION"));

/// More of an answer is not read: a partial success is short, and an error page is of no use.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

pub(super) struct Http {
    client: reqwest::Client,
    url: String,
    headers: HeaderMap,
    compression: Compression,
}

impl Http {
    pub(super) fn new(target: &Target) -> Result<Self, ClientError> {
        let encoding = match target.compression {
            Compression::None => None,
            Compression::Gzip => Some("gzip"),
            Compression::Zstd => Some("zstd"),
        };
        let mut headers = target.headers.clone();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-protobuf"),
        );
        if let Some(encoding) = encoding {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        Ok(Http {
            client: client(target)?,
            url: target.endpoint.to_string(),
            headers,
            compression: target.compression,
        })
    }

    /// The body, compressed if so configured.
    ///
    /// # Errors
    /// There is no memory to compress in.
    pub(super) fn encode(&self, request: &impl Message) -> std::io::Result<Bytes> {
        let plain = request.encode_to_vec();
        let body = match self.compression {
            Compression::None => plain,
            Compression::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&plain)?;
                encoder.finish()?
            }
            Compression::Zstd => zstd::bulk::compress(&plain, zstd::DEFAULT_COMPRESSION_LEVEL)?,
        };
        Ok(Bytes::from(body))
    }

    pub(super) async fn send<Response>(
        &self,
        body: Bytes,
        censor: &Censor,
    ) -> Result<Response, Failure>
    where
        Response: Message + Default,
    {
        let request = self
            .client
            .post(&self.url)
            .headers(self.headers.clone())
            .body(body);
        let mut response = request
            .send()
            .await
            .map_err(|error| unreachable(&error, censor))?;
        let body = read(&mut response).await.unwrap_or_default();
        answered(response.status(), response.headers(), &body, censor)
    }
}

/// What an answer says.
pub(super) fn answered<Response>(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    censor: &Censor,
) -> Result<Response, Failure>
where
    Response: Message + Default,
{
    if status.is_success() {
        // Some backends answer 2xx with an empty or foreign body: the data was taken.
        return Ok(Response::decode(body).unwrap_or_default());
    }
    let retry_after = headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok());
    let verdict = retry::http(status.as_u16(), retry_after);
    let message = message(headers, body, censor);
    let status_text = status.to_string();
    let error = match status.as_u16() {
        404 => SendError::NotServed {
            status: status_text,
            message,
        },
        _ => SendError::Refused {
            status: status_text,
            message,
        },
    };
    Err(Failure { error, verdict })
}

/// Why the backend refuses, by its answer; of what is no text only how much it is.
fn message(headers: &HeaderMap, body: &[u8], censor: &Censor) -> String {
    let header = |name| {
        let value = headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok());
        value.unwrap_or_default().trim().to_ascii_lowercase()
    };
    let is_plain = matches!(&*header(CONTENT_ENCODING), "" | "identity");
    let content_type = header(CONTENT_TYPE);
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    let is_protobuf = matches!(kind, "application/x-protobuf" | "application/protobuf");
    // As OTLP has it: a `Status`.
    let stated = (is_plain && is_protobuf)
        .then(|| tonic_types::Status::decode(body).ok())
        .flatten();
    if let Some(status) = stated {
        return censor.printable(&status.message);
    }
    let may_be_text = kind.is_empty()
        || kind.starts_with("text/")
        || ["json", "xml"].iter().any(|end| kind.ends_with(end));
    match text(body).filter(|_| is_plain && may_be_text) {
        Some(text) if body.len() >= MAX_ANSWER_BYTES => censor.printable_start(text),
        Some(text) => censor.printable(text),
        None => format!("({} bytes that are no text)", body.len()),
    }
}

/// `None`: it has what no text has.
fn text(body: &[u8]) -> Option<&str> {
    // The end may be cut off.
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(body.get(..error.valid_up_to())?).ok()?
        }
        Err(_) => return None,
    };
    let is_foreign = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r');
    (!text.contains(is_foreign)).then_some(text)
}

/// Connects as needed, over TLS where the target says so.
///
/// # Errors
/// Unusable certificates, or none of an authority.
pub(in crate::export::otlp) fn client(target: &Target) -> Result<reqwest::Client, ClientError> {
    let builder = reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(target.timeout);
    // Without TLS too: reqwest would look for a provider of its own.
    let settings = match &target.tls {
        Some(settings) => tls::rustls(settings)?,
        None => tls::nobody()?,
    };
    builder
        .tls_backend_preconfigured(settings)
        .build()
        .map_err(ClientError::Http)
}

/// The body, up to a bound.
pub(in crate::export::otlp) async fn read(
    response: &mut reqwest::Response,
) -> Result<Vec<u8>, reqwest::Error> {
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

fn unreachable(error: &reqwest::Error, censor: &Censor) -> Failure {
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
    let mut text = censor.printable(&cause.to_string());
    // What hyper says of an answer in HTTP/2.
    if text.contains("invalid HTTP") {
        text.push_str(" (does it speak gRPC? then --otlp-protocol grpc)");
    }
    Failure {
        error: SendError::Unreachable(text),
        verdict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(content_type: &'static str, encoding: &'static str, body: &[u8]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in [(CONTENT_TYPE, content_type), (CONTENT_ENCODING, encoding)] {
            if !value.is_empty() {
                headers.insert(name, HeaderValue::from_static(value));
            }
        }
        message(&headers, body, &Censor::default())
    }

    #[test]
    fn the_reason_of_a_refusal_is_one_line_of_text() {
        let page = b"<html>\r\n\t<b>no    such\n\n\nroute</b>";
        let line = "<html> <b>no such route</b>";
        assert_eq!(told("text/html; charset=utf-8", "", page), line);
        assert_eq!(told("", "identity", page), line);
        assert_eq!(
            told("application/json", "", b"{\"code\": 3}"),
            "{\"code\": 3}"
        );
        assert_eq!(told("text/plain", "", b""), "");
        let cut = &"quota of \u{e9}".as_bytes()[..10];
        assert_eq!(told("text/plain", "", cut), "quota of");
        let long = "long ".repeat(1000);
        let told = told("text/plain", "", long.as_bytes());
        assert_eq!(told.chars().count(), 200);
    }

    #[test]
    fn a_header_cut_off_at_the_end_of_what_is_read_is_not_told() {
        let sent = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("S3CR3Ttoken"))]);
        let mut body = b"denied".to_vec();
        body.resize(MAX_ANSWER_BYTES - 6, b' ');
        body.extend_from_slice(b"S3CR3T");
        let told = message(&HeaderMap::new(), &body, &Censor::new(&sent));
        assert_eq!(told, "denied");
    }

    #[test]
    fn the_status_of_otlp_is_read() {
        let status = tonic_types::Status {
            code: 3,
            message: "too\nold".to_owned(),
            details: Vec::new(),
        };
        let body = status.encode_to_vec();
        assert_eq!(told("application/x-protobuf", "", &body), "too old");
    }

    #[test]
    fn what_is_no_text_is_left_out() {
        let gzip = b"\x1f\x8b\x08\x00\x00\x00\x00\x00";
        assert_eq!(told("", "", gzip), "(8 bytes that are no text)");
        assert_eq!(
            told("text/plain", "gzip", b"text"),
            "(4 bytes that are no text)"
        );
        assert_eq!(told("image/png", "", b"text"), "(4 bytes that are no text)");
        assert_eq!(
            told("text/plain", "", b"a\x1b[2Jb"),
            "(6 bytes that are no text)"
        );
        let rubbish = told("application/x-protobuf", "", b"\xff\xff");
        assert_eq!(rubbish, "(2 bytes that are no text)");
    }
}
