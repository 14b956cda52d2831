//! Reads one configured value: URL, header list, key list, milliseconds.
//!
//! Owns the syntax. Must not know precedence. Errors name the source, never a secret.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use super::{ConfigError, DEFAULT_GRPC_ENDPOINT, DEFAULT_HTTP_ENDPOINT, Given, LOGS, METRICS};

/// The port written in an endpoint with or without a scheme.
pub(super) fn port(endpoint: &str) -> Option<u16> {
    let parsed: Uri = endpoint.parse().ok()?;
    parsed.port_u16()
}

/// Scheme and authority for a gRPC channel. A missing scheme means TLS unless `insecure`.
pub(super) fn grpc_endpoint(given: Given, insecure: bool) -> Result<Uri, ConfigError> {
    let url = if given.value.contains("://") {
        given.value.clone()
    } else {
        let scheme = if insecure { "http" } else { "https" };
        format!("{scheme}://{}", given.value)
    };
    parse(&given.name, &url, DEFAULT_GRPC_ENDPOINT)
}

/// The URL to POST to; `path` is that of the signal for endpoints that serve every signal.
pub(super) fn http_endpoint(given: Given, path: Option<&str>) -> Result<Uri, ConfigError> {
    if !given.value.contains("://") {
        return Err(ConfigError::Endpoint {
            name: given.name,
            reason: "it needs a scheme for http/protobuf".to_owned(),
            example: DEFAULT_HTTP_ENDPOINT,
        });
    }
    let url = match path {
        Some(path) => {
            let base = given.value.trim_end_matches('/');
            // Who gives the URL of one signal means the backend of all.
            let base = [METRICS.path, LOGS.path]
                .into_iter()
                .find_map(|path| base.strip_suffix(path))
                .unwrap_or(base);
            format!("{base}{path}")
        }
        None => given.value.clone(),
    };
    parse(&given.name, &url, DEFAULT_HTTP_ENDPOINT)
}

fn parse(name: &str, url: &str, example: &'static str) -> Result<Uri, ConfigError> {
    let invalid = |reason: String| ConfigError::Endpoint {
        name: name.to_owned(),
        reason,
        example,
    };
    if may_hold_credentials(url) {
        return Err(invalid(
            "credentials belong in the headers, not in the URL; elsewhere an '@' is written %40"
                .to_owned(),
        ));
    }
    let uri: Uri = url
        .parse()
        .map_err(|error: http::uri::InvalidUri| invalid(error.to_string()))?;
    if uri.host().is_none_or(str::is_empty) {
        return Err(invalid("it has no host".to_owned()));
    }
    if !has_usable_port(&uri) {
        return Err(invalid(
            "what follows the ':' behind its host is no port, a number up to 65535".to_owned(),
        ));
    }
    match uri.scheme_str() {
        Some("http" | "https") => Ok(uri),
        _ => Err(invalid("the scheme is neither http nor https".to_owned())),
    }
}

/// Whether what is before an `@` may be a password. One with a `/`, `?` or `#` ends the authority for a parser, and
/// would be told as the path.
fn may_hold_credentials(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.contains('@')
        || rest
            .rsplit_once('@')
            .is_some_and(|(before, _)| before.contains(':'))
}

/// `Uri` takes any text for a port, and then has none.
fn has_usable_port(uri: &Uri) -> bool {
    let Some(authority) = uri.authority() else {
        return true;
    };
    authority.as_str() == authority.host() || authority.port_u16().is_some()
}

/// A header list; every value is marked sensitive.
pub(super) fn headers(given: Given) -> Result<HeaderMap, ConfigError> {
    let mut headers = HeaderMap::new();
    for (index, (key, value)) in pairs(&given)?.into_iter().enumerate() {
        let refuse = |reason| ConfigError::Pairs {
            name: given.name.clone(),
            position: index + 1,
            reason,
        };
        let key =
            HeaderName::try_from(key).map_err(|_| refuse("has a key that is not a header name"))?;
        let mut value = HeaderValue::try_from(value)
            .map_err(|_| refuse("has a value that no header can carry"))?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    Ok(headers)
}

/// `key=value,key=value`, keys and values percent-decoded; empty entries are skipped.
pub(super) fn pairs(given: &Given) -> Result<Vec<(String, String)>, ConfigError> {
    let entries = given
        .value
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty());
    let mut pairs = Vec::new();
    for (index, entry) in entries.enumerate() {
        let refuse = |reason| ConfigError::Pairs {
            name: given.name.clone(),
            position: index + 1,
            reason,
        };
        let (key, value) = entry.split_once('=').ok_or_else(|| refuse("has no '='"))?;
        let bad_encoding = || refuse("is not valid percent-encoded UTF-8");
        let key = percent_decode(key.trim()).ok_or_else(bad_encoding)?;
        let value = percent_decode(value.trim()).ok_or_else(bad_encoding)?;
        if key.is_empty() {
            return Err(refuse("has an empty key"));
        }
        pairs.push((key, value));
    }
    Ok(pairs)
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' {
            let high = hex_digit(bytes.next()?)?;
            let low = hex_digit(bytes.next()?)?;
            high << 4 | low
        } else {
            byte
        });
    }
    String::from_utf8(decoded).ok()
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

/// Whole milliseconds above 0: an export without a limit could hold memory for ever.
pub(super) fn milliseconds(
    given: Option<Given>,
    default: Duration,
) -> Result<Duration, ConfigError> {
    let Some(given) = given else {
        return Ok(default);
    };
    match above_zero(&given.value) {
        Some(number) => Ok(Duration::from_millis(number)),
        None => Err(ConfigError::Milliseconds {
            name: given.name,
            value: given.value,
            example: u64::try_from(default.as_millis()).unwrap_or(u64::MAX),
        }),
    }
}

fn above_zero(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number| *number > 0)
}

/// Checks a flag by itself, also where nothing is sent.
pub(super) fn flag_of_milliseconds(text: &str) -> Result<String, String> {
    match above_zero(text.trim()) {
        Some(_) => Ok(text.to_owned()),
        None => Err("write a whole number of milliseconds above 0".to_owned()),
    }
}
