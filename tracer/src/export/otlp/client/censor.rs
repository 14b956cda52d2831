//! A backend's words as they may be told: without the headers that it was sent, on one line, bounded.
//!
//! Owns both, so that nothing gets past the mask. Pure.

use std::ops::Range;

use http::HeaderMap;

use crate::host::escape;
use crate::redact::MASK;

const MAX_CHARS: usize = 200;
/// A shorter value is part of many a word, and no secret.
const MIN_VALUE_BYTES: usize = 4;
/// Of one word among others: names of schemes such as `Bearer` are shorter.
const MIN_WORD_BYTES: usize = 8;

/// What must not be told. Has no `Debug`, which would.
#[derive(Default)]
pub(super) struct Censor {
    secrets: Vec<String>,
}

impl Censor {
    pub(super) fn new(headers: &HeaderMap) -> Self {
        let mut secrets: Vec<String> = headers
            .values()
            .filter_map(|value| std::str::from_utf8(value.as_bytes()).ok())
            .flat_map(parts)
            .flat_map(|part| [part.to_owned(), percent_encoded(part)])
            .collect();
        secrets.sort_unstable();
        secrets.dedup();
        Censor { secrets }
    }

    /// One line without runs of blanks.
    pub(super) fn printable(&self, text: &str) -> String {
        let safe = self.mask(text).replace(char::is_control, " ");
        let words: Vec<&str> = safe.split_whitespace().collect();
        // A value that was broken over lines is whole only now.
        escape::again(&self.mask(&words.join(" ")), MAX_CHARS)
    }

    /// The same of text that was cut off, where the beginning of a secret may be left.
    pub(super) fn printable_start(&self, text: &str) -> String {
        let masked = self.mask(text);
        let longest = self.secrets.iter().map(String::len).max().unwrap_or(0);
        let mut end = masked.len().saturating_sub(longest);
        while !masked.is_char_boundary(end) {
            end -= 1;
        }
        self.printable(masked.get(..end).unwrap_or_default())
    }

    fn mask(&self, text: &str) -> String {
        let mut found: Vec<Range<usize>> = Vec::new();
        for secret in &self.secrets {
            let places = text.match_indices(secret.as_str());
            found.extend(places.map(|(at, cited)| at..at + cited.len()));
        }
        found.sort_unstable_by_key(|place| place.start);
        let mut masked = String::with_capacity(text.len());
        let mut done = 0;
        for place in found {
            // `None`: it overlaps the one before.
            if let Some(plain) = text.get(done..place.start) {
                masked.push_str(plain);
                masked.push_str(MASK);
            }
            done = done.max(place.end);
        }
        masked.push_str(text.get(done..).unwrap_or_default());
        masked
    }
}

/// The value, what follows its first word (a token, where that is the scheme), and its long words.
fn parts(value: &str) -> impl Iterator<Item = &str> {
    let value = value.trim();
    let behind = value
        .split_once(char::is_whitespace)
        .map(|(_, behind)| behind.trim_start());
    let words = value
        .split_whitespace()
        .filter(|word| word.len() >= MIN_WORD_BYTES);
    [Some(value), behind]
        .into_iter()
        .flatten()
        .filter(|part| part.len() >= MIN_VALUE_BYTES)
        .chain(words)
}

/// As a URL or the list of headers has it.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            true => encoded.push(char::from(byte)),
            false => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::header::{AUTHORIZATION, CONTENT_TYPE};
    use http::{HeaderName, HeaderValue, StatusCode, Uri};
    use opentelemetry_proto::tonic::collector::logs::v1::{
        ExportLogsPartialSuccess, ExportLogsServiceResponse,
    };
    use prost::Message;
    use tonic::Status;

    use super::super::grpc::failure;
    use super::super::http::answered;
    use super::super::{Client, Delivery, Logs};
    use super::*;
    use crate::export::otlp::config::{Compression, Protocol, Target};

    fn of(values: &[&'static str]) -> Censor {
        let mut headers = HeaderMap::new();
        for &value in values {
            headers.append("x-key", HeaderValue::from_static(value));
        }
        Censor::new(&headers)
    }

    #[test]
    fn what_a_backend_says_cannot_turn_the_line_around() {
        assert_eq!(
            Censor::default().printable("a\u{202e}b\n\u{200b}c\x1b[2J"),
            r"a\xe2\x80\xaeb \xe2\x80\x8bc [2J"
        );
    }

    #[test]
    fn a_value_is_masked_as_a_whole_and_by_its_token() {
        let censor = of(&["Bearer S3CR3Ttoken", "key=ab/cd"]);
        for (said, told) in [
            ("no Bearer S3CR3Ttoken here", "no *** here"),
            ("token S3CR3Ttoken, S3CR3Ttoken", "token ***, ***"),
            ("Bearer\r\n\tS3CR3Ttoken", "Bearer ***"),
            ("(Bearer%20S3CR3Ttoken)", "(***)"),
            ("?k=key%3Dab%2Fcd&", "?k=***&"),
            ("key=ab/cd", "***"),
            ("a Bearer is needed", "a Bearer is needed"),
        ] {
            assert_eq!(censor.printable(said), told);
        }
    }

    #[test]
    fn a_short_token_is_masked_and_a_value_too_short_for_a_secret_is_not() {
        let censor = of(&["Basic abcd", "7", "abc"]);
        let told = censor.printable("7 abc abcd Basic\nabcd");
        assert_eq!(told, "7 abc *** Basic ***");
    }

    #[test]
    fn secrets_that_overlap_leave_nothing() {
        let censor = of(&["abcdefgh", "efghijkl", "abcdefgh-2"]);
        assert_eq!(censor.printable("<abcdefghijkl>"), "<***>");
        assert_eq!(censor.printable("<abcdefgh-2>"), "<***>");
    }

    #[test]
    fn a_cut_leaves_no_part_of_a_secret() {
        let censor = of(&["Bearer S3CR3Ttoken"]);
        let said = format!("{}S3CR3Ttoken", "x ".repeat(97));
        let told = censor.printable(&said);
        assert!(!told.contains("S3"), "{told}");
        let cut = format!("denied:{}Bearer S3CR3Ttok", " ".repeat(1000));
        assert_eq!(censor.printable_start(&cut), "denied:");
        assert_eq!(Censor::default().printable_start("denied"), "denied");
    }

    fn one_header(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn a_header_that_the_backend_cites_is_not_told() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let _entered = runtime.enter();
        let target = Target {
            endpoint: Uri::from_static("http://c:4318/v1/logs"),
            protocol: Protocol::HttpProtobuf,
            headers: one_header(AUTHORIZATION, "Bearer S3CR3Ttoken"),
            compression: Compression::None,
            timeout: Duration::from_secs(1),
            tls: None,
        };
        let censor = Client::<Logs>::new(&target).expect("a client").censor;
        let cited = "S3CR3Ttoken of Bearer S3CR3Ttoken is unknown";
        let refused = |content_type, body: &[u8]| {
            let headers = one_header(CONTENT_TYPE, content_type);
            let status = StatusCode::UNAUTHORIZED;
            answered::<ExportLogsServiceResponse>(status, &headers, body, &censor)
                .expect_err("refused")
                .error
                .to_string()
        };
        let stated = tonic_types::Status {
            code: 16,
            message: cited.to_owned(),
            details: Vec::new(),
        };
        let mut partial = Delivery::default();
        let response = ExportLogsServiceResponse {
            partial_success: Some(ExportLogsPartialSuccess {
                rejected_log_records: 1,
                error_message: cited.to_owned(),
            }),
        };
        partial.count::<Logs>(1, response, &censor);
        let by_grpc = failure(&Status::unauthenticated(cited), false, &censor);
        for told in [
            refused("text/plain", cited.as_bytes()),
            refused("application/x-protobuf", &stated.encode_to_vec()),
            by_grpc.error.to_string(),
            partial.warning.expect("a warning"),
        ] {
            assert!(told.ends_with("*** of *** is unknown"), "{told}");
        }
    }
}
