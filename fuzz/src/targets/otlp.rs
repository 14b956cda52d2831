//! Answers of a telemetry backend, over HTTP and gRPC.
//!
//! Two bytes of HTTP status, a byte for the signal and the transport, lines of headers up to an empty
//! one, and the body.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use memtrace::{
    export::otlp::client::{Answer, Delivery, Logs, Metrics, Profiles},
    grpc_answer,
};
use tonic::Status;

use crate::promise;

const ITEMS: u64 = 1000;
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// With the sign that it was cut.
const MOST_WARNING_CHARS: usize = 201;
const MOST_ERROR_CHARS: usize = 400;

pub fn run(data: &[u8]) {
    let [high, low, how, rest @ ..] = data else {
        return;
    };
    let (mut headers, body) = headers(rest);
    grpc_answer::repair(&mut headers);
    let status = StatusCode::from_u16(u16::from_be_bytes([*high, *low]));
    let of_grpc = Status::from_header_map(&headers);
    let answer = match (how & 4 == 0, status, &of_grpc) {
        (true, Ok(status), _) => Answer::Http {
            status,
            headers: &headers,
            body,
        },
        (false, _, Some(status)) => Answer::Grpc(status),
        _ => return,
    };
    let delivery = match how % 4 {
        0 => Delivery::of_answer::<Metrics>(ITEMS, &answer),
        1 => Delivery::of_answer::<Logs>(ITEMS, &answer),
        _ => Delivery::of_answer::<Profiles>(ITEMS, &answer),
    };
    let counted = delivery.exported + delivery.rejected + delivery.failed;
    assert_eq!(counted, ITEMS, "every item is counted once");
    assert!(delivery.pause.unwrap_or_default() <= LONGEST_PAUSE);
    if let Some(warning) = &delivery.warning {
        promise::line(warning, MOST_WARNING_CHARS);
    }
    if let Some(error) = &delivery.error {
        promise::line(&error.to_string(), MOST_ERROR_CHARS);
    }
}

/// Headers and what is behind them.
fn headers(mut rest: &[u8]) -> (HeaderMap, &[u8]) {
    let mut headers = HeaderMap::new();
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, behind) = (&rest[..end], &rest[end + 1..]);
        rest = behind;
        if line.is_empty() {
            break;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.insert(name, value);
        }
    }
    (headers, rest)
}
