//! What the operator asked of OTLP export: flags first, then `OTEL_*` variables.
//!
//! Owns names, precedence, defaults and the checks. Must not read the process
//! environment (the caller passes a lookup), connect, or show a header's value.
//! Source: OpenTelemetry specification, "OTLP Exporter Configuration" and
//! "Environment Variable Specification".

#[cfg(test)]
mod tests;
mod values;

use std::time::Duration;

use http::HeaderMap;

/// Endpoint of a local collector for gRPC, as the specification names it.
pub const DEFAULT_GRPC_ENDPOINT: &str = "http://localhost:4317";
/// Endpoint of a local collector for HTTP, as the specification names it.
pub const DEFAULT_HTTP_ENDPOINT: &str = "http://localhost:4318";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);
const GRPC_PORT: u16 = 4317;
const METRICS_PATH: &str = "/v1/metrics";

/// OTLP options of the command line; each one beats its variables.
#[derive(Clone, Default, clap::Args)]
pub struct OtlpFlags {
    /// Send metrics to this OTLP endpoint, for example http://localhost:4317
    /// [env: OTEL_EXPORTER_OTLP_METRICS_ENDPOINT, OTEL_EXPORTER_OTLP_ENDPOINT]
    #[arg(long = "otlp-endpoint", value_name = "URL")]
    pub endpoint: Option<String>,
    /// `grpc` or `http/protobuf`; by default gRPC on port 4317 and HTTP elsewhere
    /// [env: OTEL_EXPORTER_OTLP_PROTOCOL]
    #[arg(long = "otlp-protocol", value_name = "PROTOCOL")]
    pub protocol: Option<String>,
    /// Headers to send, `name=value,name=value`, values percent-encoded; prefer the variable,
    /// because a command line is visible to every user
    /// [env: OTEL_EXPORTER_OTLP_HEADERS]
    #[arg(long = "otlp-headers", value_name = "LIST")]
    pub headers: Option<String>,
    /// `none` or `gzip`
    /// [env: OTEL_EXPORTER_OTLP_COMPRESSION]
    #[arg(long = "otlp-compression", value_name = "NAME")]
    pub compression: Option<String>,
    /// Longest time for one export with its retries, milliseconds [default: 10000]
    /// [env: OTEL_EXPORTER_OTLP_TIMEOUT]
    #[arg(long = "otlp-timeout-ms", value_name = "MS")]
    pub timeout_ms: Option<String>,
    /// Time between exports, milliseconds [default: 60000]
    /// [env: OTEL_METRIC_EXPORT_INTERVAL]
    #[arg(long = "otlp-interval-ms", value_name = "MS")]
    pub interval_ms: Option<String>,
    /// Plain text for a gRPC endpoint written without http:// or https://
    /// [env: OTEL_EXPORTER_OTLP_INSECURE]
    #[arg(long = "otlp-insecure")]
    pub insecure: bool,
    /// `service.name` of everything exported [default: memtrace] [env: OTEL_SERVICE_NAME]
    #[arg(long = "otlp-service-name", value_name = "NAME")]
    pub service_name: Option<String>,
}

/// OTLP transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Grpc,
    HttpProtobuf,
}

/// Compression of request bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
}

/// Checked configuration of metric export.
#[derive(Debug, Clone)]
pub struct OtlpConfig {
    /// gRPC: scheme and authority. HTTP: the whole URL that receives the POST.
    pub endpoint: http::Uri,
    pub protocol: Protocol,
    /// Marked sensitive, so that `Debug` does not show the values.
    pub headers: HeaderMap,
    pub compression: Compression,
    /// Bounds one request including its retries.
    pub timeout: Duration,
    /// Between two exports.
    pub interval: Duration,
    /// `service.name`, `memtrace` unless given.
    pub service_name: String,
    /// `OTEL_RESOURCE_ATTRIBUTES` without `service.name`, in the order given.
    pub resource_attributes: Vec<(String, String)>,
}

/// A value that cannot be used. `name` is the flag or variable it came from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{name}: {reason}; use a URL such as {example}")]
    Endpoint {
        name: String,
        reason: String,
        example: &'static str,
    },
    #[error(
        "{name}: https is not supported by this build; send to a local collector over http:// \
         (for a gRPC endpoint without a scheme, set OTEL_EXPORTER_OTLP_INSECURE=true)"
    )]
    TlsUnsupported { name: String },
    #[error("{name}: {value:?} is not known; use {known}")]
    Choice {
        name: String,
        value: String,
        known: &'static str,
    },
    #[error(
        "{name}: {value:?} is not a whole number of milliseconds above 0; use for example {example}"
    )]
    Milliseconds {
        name: String,
        value: String,
        example: u64,
    },
    /// Never carries a header's value, which may be a secret.
    #[error(
        "{name}: entry {position} {reason}; use key=value pairs separated by commas, values percent-encoded"
    )]
    Pairs {
        name: String,
        /// Counted from 1.
        position: usize,
        reason: &'static str,
    },
}

/// A value and the flag or variable that gave it.
struct Given {
    name: String,
    value: String,
}

struct Source<'a> {
    env: &'a dyn Fn(&str) -> Option<String>,
}

impl Source<'_> {
    /// An empty variable counts as unset, as the specification demands.
    fn var(&self, name: &str) -> Option<Given> {
        (self.env)(name)
            .map(|value| value.trim().to_owned())
            .filter(|value| !value.is_empty())
            .map(|value| Given {
                name: name.to_owned(),
                value,
            })
    }

    fn flag(&self, name: &str, value: Option<&String>) -> Option<Given> {
        value.map(|value| Given {
            name: name.to_owned(),
            value: value.trim().to_owned(),
        })
    }

    fn signal(&self, suffix: &str) -> Option<Given> {
        self.var(&format!("OTEL_EXPORTER_OTLP_METRICS_{suffix}"))
    }

    fn generic(&self, suffix: &str) -> Option<Given> {
        self.var(&format!("OTEL_EXPORTER_OTLP_{suffix}"))
    }

    fn resolve(&self, flag: &str, value: Option<&String>, suffix: &str) -> Option<Given> {
        self.flag(flag, value)
            .or_else(|| self.signal(suffix))
            .or_else(|| self.generic(suffix))
    }
}

impl OtlpConfig {
    /// Resolves flags over variables; the `METRICS_` variables beat the generic ones.
    ///
    /// `Ok(None)` when no endpoint is given or `OTEL_SDK_DISABLED=true`: export is opt-in, so
    /// that memtrace never sends to a default address nobody asked for.
    ///
    /// # Errors
    /// Names the flag or variable with an unusable value, and what to write instead.
    pub fn resolve(
        flags: &OtlpFlags,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, ConfigError> {
        let source = Source { env };
        if source
            .var("OTEL_SDK_DISABLED")
            .is_some_and(|given| given.value.eq_ignore_ascii_case("true"))
        {
            return Ok(None);
        }
        // The flag stands for every signal, so a path is appended to it as to the generic variable.
        let (given, append_path) = match source.signal("ENDPOINT") {
            Some(given) if flags.endpoint.is_none() => (given, false),
            _ => match source
                .flag("--otlp-endpoint", flags.endpoint.as_ref())
                .or_else(|| source.generic("ENDPOINT"))
            {
                Some(given) => (given, true),
                None => return Ok(None),
            },
        };
        let insecure = flags.insecure
            || source
                .resolve("", None, "INSECURE")
                .is_some_and(|given| given.value.eq_ignore_ascii_case("true"));
        let protocol = match source.resolve("--otlp-protocol", flags.protocol.as_ref(), "PROTOCOL")
        {
            Some(given) => protocol(given)?,
            // The specification's default is HTTP, which is sure to fail on gRPC's own port.
            None if values::port(&given.value) == Some(GRPC_PORT) => Protocol::Grpc,
            None => Protocol::HttpProtobuf,
        };
        let endpoint = match protocol {
            Protocol::Grpc => values::grpc_endpoint(given, insecure)?,
            Protocol::HttpProtobuf => values::http_endpoint(given, append_path)?,
        };
        let headers = match source.resolve("--otlp-headers", flags.headers.as_ref(), "HEADERS") {
            Some(given) => values::headers(given)?,
            None => HeaderMap::new(),
        };
        let compression = match source.resolve(
            "--otlp-compression",
            flags.compression.as_ref(),
            "COMPRESSION",
        ) {
            Some(given) => compression(given)?,
            None => Compression::None,
        };
        let timeout = source.resolve("--otlp-timeout-ms", flags.timeout_ms.as_ref(), "TIMEOUT");
        let interval = source
            .flag("--otlp-interval-ms", flags.interval_ms.as_ref())
            .or_else(|| source.var("OTEL_METRIC_EXPORT_INTERVAL"));
        let mut resource_attributes = match source.var("OTEL_RESOURCE_ATTRIBUTES") {
            Some(given) => values::pairs(&given)?,
            None => Vec::new(),
        };
        let named = source
            .flag("--otlp-service-name", flags.service_name.as_ref())
            .or_else(|| source.var("OTEL_SERVICE_NAME"))
            .map(|given| given.value);
        let from_attributes = resource_attributes
            .iter()
            .rfind(|(key, _)| key == "service.name")
            .map(|(_, value)| value.clone());
        resource_attributes.retain(|(key, _)| key != "service.name");
        Ok(Some(OtlpConfig {
            endpoint,
            protocol,
            headers,
            compression,
            timeout: values::milliseconds(timeout, DEFAULT_TIMEOUT)?,
            interval: values::milliseconds(interval, DEFAULT_INTERVAL)?,
            service_name: named
                .or(from_attributes)
                .unwrap_or_else(|| "memtrace".to_owned()),
            resource_attributes,
        }))
    }
}

fn protocol(given: Given) -> Result<Protocol, ConfigError> {
    match given.value.as_str() {
        "grpc" => Ok(Protocol::Grpc),
        "http/protobuf" => Ok(Protocol::HttpProtobuf),
        _ => Err(choice(given, "grpc or http/protobuf")),
    }
}

fn compression(given: Given) -> Result<Compression, ConfigError> {
    match given.value.as_str() {
        "none" => Ok(Compression::None),
        "gzip" => Ok(Compression::Gzip),
        _ => Err(choice(given, "none or gzip")),
    }
}

fn choice(given: Given, known: &'static str) -> ConfigError {
    ConfigError::Choice {
        name: given.name,
        value: given.value,
        known,
    }
}
