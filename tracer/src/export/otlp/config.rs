//! What the operator asked of OTLP export: flags first, then `OTEL_*` variables.
//!
//! Owns names, precedence, defaults and the checks, of certificate files too. Must not read the
//! process environment (the caller passes a lookup), connect, or show a header's value or a key.
//! Source: OpenTelemetry specification, "OTLP Exporter Configuration" and
//! "Environment Variable Specification".

mod error;
#[cfg(test)]
mod tests;
mod tls;
#[cfg(test)]
mod tls_tests;
mod values;

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderMap;

pub use error::ConfigError;
pub use tls::{Identity, Tls};

/// Endpoint of a local collector for gRPC, as the specification names it.
pub const DEFAULT_GRPC_ENDPOINT: &str = "http://localhost:4317";
/// Endpoint of a local collector for HTTP, as the specification names it.
pub const DEFAULT_HTTP_ENDPOINT: &str = "http://localhost:4318";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);
const GRPC_PORT: u16 = 4317;

/// What is sent, and how its variables and its path are called.
struct Signal {
    variable: &'static str,
    /// `none` in it turns the signal off.
    switch: &'static str,
    path: &'static str,
}

const METRICS: Signal = Signal {
    variable: "METRICS",
    switch: "OTEL_METRICS_EXPORTER",
    path: "/v1/metrics",
};
const LOGS: Signal = Signal {
    variable: "LOGS",
    switch: "OTEL_LOGS_EXPORTER",
    path: "/v1/logs",
};

/// Alpha: sent only where it is asked for.
const PROFILES: Signal = Signal {
    variable: "PROFILES",
    switch: "OTEL_PROFILES_EXPORTER",
    path: "/v1development/profiles",
};

/// OTLP options of the command line; each one beats its variables.
#[derive(Clone, Default, clap::Args)]
pub struct OtlpFlags {
    /// Send metrics and OOM events to this OTLP endpoint, for example http://localhost:4317
    /// [env: OTEL_EXPORTER_OTLP_ENDPOINT, and OTEL_EXPORTER_OTLP_METRICS_ENDPOINT,
    /// OTEL_EXPORTER_OTLP_LOGS_ENDPOINT, OTEL_EXPORTER_OTLP_PROFILES_ENDPOINT for one of them]
    #[arg(long = "otlp-endpoint", value_name = "URL")]
    pub endpoint: Option<String>,
    /// `grpc` or `http/protobuf` [default: grpc on port 4317, else http/protobuf]
    /// [env: OTEL_EXPORTER_OTLP_PROTOCOL]
    #[arg(long = "otlp-protocol", value_name = "PROTOCOL", value_parser = ["grpc", "http/protobuf"], hide_possible_values = true)]
    pub protocol: Option<String>,
    /// Headers to send, `name=value,name=value`, values percent-encoded; prefer the variable,
    /// because a command line is visible to every user
    /// [env: OTEL_EXPORTER_OTLP_HEADERS]
    #[arg(long = "otlp-headers", value_name = "LIST")]
    pub headers: Option<String>,
    /// `none`, `gzip` or `zstd` [default: none]
    /// [env: OTEL_EXPORTER_OTLP_COMPRESSION]
    #[arg(long = "otlp-compression", value_name = "NAME", value_parser = ["none", "gzip", "zstd"], hide_possible_values = true)]
    pub compression: Option<String>,
    /// PEM file with the certificates that may have signed the server's, instead of the system's
    /// [env: OTEL_EXPORTER_OTLP_CERTIFICATE]
    #[arg(long = "otlp-certificate", value_name = "FILE")]
    pub certificate: Option<String>,
    /// PEM file with the certificate, and those between it and the authority, to show to the server
    /// [env: OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE]
    #[arg(long = "otlp-client-certificate", value_name = "FILE")]
    pub client_certificate: Option<String>,
    /// PEM file with its private key, not encrypted
    /// [env: OTEL_EXPORTER_OTLP_CLIENT_KEY]
    #[arg(long = "otlp-client-key", value_name = "FILE")]
    pub client_key: Option<String>,
    /// Longest time for one export with its retries, milliseconds [default: 10000]
    /// [env: OTEL_EXPORTER_OTLP_TIMEOUT]
    #[arg(long = "otlp-timeout-ms", value_name = "MS", value_parser = values::flag_of_milliseconds)]
    pub timeout_ms: Option<String>,
    /// Time between exports of metrics, milliseconds [default: 60000]
    /// [env: OTEL_METRIC_EXPORT_INTERVAL]
    #[arg(long = "otlp-interval-ms", value_name = "MS", value_parser = values::flag_of_milliseconds)]
    pub interval_ms: Option<String>,
    /// Plain text for a gRPC endpoint written without http:// or https://
    /// [env: OTEL_EXPORTER_OTLP_INSECURE]
    #[arg(long = "otlp-insecure")]
    pub insecure: bool,
    /// Send profiles too, once a minute: which code holds the memory of cgroups that grow. The signal is
    /// alpha: few backends take it, and it may change
    /// [env: OTEL_PROFILES_EXPORTER=otlp]
    #[arg(long = "otlp-profiles")]
    pub profiles: bool,
    /// `service.name` of all that is not of a pod's container [default: memtrace] [env: OTEL_SERVICE_NAME]
    #[arg(long = "otlp-service-name", value_name = "NAME")]
    pub service_name: Option<String>,
}

impl OtlpFlags {
    /// Each flag and the variable that says the same of all signals.
    pub const VARIABLES: [(&str, &str); 12] = [
        ("otlp-endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ("otlp-protocol", "OTEL_EXPORTER_OTLP_PROTOCOL"),
        ("otlp-headers", "OTEL_EXPORTER_OTLP_HEADERS"),
        ("otlp-compression", "OTEL_EXPORTER_OTLP_COMPRESSION"),
        ("otlp-certificate", "OTEL_EXPORTER_OTLP_CERTIFICATE"),
        (
            "otlp-client-certificate",
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
        ),
        ("otlp-client-key", "OTEL_EXPORTER_OTLP_CLIENT_KEY"),
        ("otlp-timeout-ms", "OTEL_EXPORTER_OTLP_TIMEOUT"),
        ("otlp-interval-ms", "OTEL_METRIC_EXPORT_INTERVAL"),
        ("otlp-insecure", "OTEL_EXPORTER_OTLP_INSECURE"),
        ("otlp-profiles", PROFILES.switch),
        ("otlp-service-name", "OTEL_SERVICE_NAME"),
    ];
}

/// What stands for a variable that is not set: by its name, what the value is called and the value.
pub type Fallback<'a> = dyn Fn(&str) -> Option<(String, String)> + 'a;

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
    Zstd,
}

/// Checked configuration of the export. At least one signal has a target.
#[derive(Debug, Clone)]
pub struct OtlpConfig {
    pub metrics: Option<Target>,
    /// OOM events go as logs.
    pub logs: Option<Target>,
    /// Only where they are asked for.
    pub profiles: Option<Target>,
    /// Between two exports of metrics.
    pub interval: Duration,
    /// `service.name`, `memtrace` unless given.
    pub service_name: String,
    /// `OTEL_RESOURCE_ATTRIBUTES` without `service.name`, in the order given.
    pub resource_attributes: Vec<(String, String)>,
    /// Where events wait for a backend that is down; `None`: in memory.
    pub state_dir: Option<PathBuf>,
}

/// Where and how one signal is sent.
#[derive(Debug, Clone)]
pub struct Target {
    /// gRPC: scheme and authority. HTTP: the whole URL that receives the POST.
    pub endpoint: http::Uri,
    pub protocol: Protocol,
    /// Marked sensitive, so that `Debug` does not show the values.
    pub headers: HeaderMap,
    pub compression: Compression,
    /// Bounds one request including its retries.
    pub timeout: Duration,
    /// `None`: plain text.
    pub tls: Option<Tls>,
}

/// A value and the flag or variable that gave it.
struct Given {
    name: String,
    value: String,
}

struct Source<'a> {
    env: &'a dyn Fn(&str) -> Option<String>,
    fallback: &'a Fallback<'a>,
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
            .or_else(|| {
                let (name, value) = (self.fallback)(name)?;
                Some(Given { name, value })
            })
    }

    fn flag(&self, name: &str, value: Option<&String>) -> Option<Given> {
        value.map(|value| Given {
            name: name.to_owned(),
            value: value.trim().to_owned(),
        })
    }

    fn signal(&self, signal: &Signal, suffix: &str) -> Option<Given> {
        self.var(&format!("OTEL_EXPORTER_OTLP_{}_{suffix}", signal.variable))
    }

    fn generic(&self, suffix: &str) -> Option<Given> {
        self.var(&format!("OTEL_EXPORTER_OTLP_{suffix}"))
    }

    fn resolve(
        &self,
        flag: &str,
        value: Option<&String>,
        signal: &Signal,
        suffix: &str,
    ) -> Option<Given> {
        self.flag(flag, value)
            .or_else(|| self.signal(signal, suffix))
            .or_else(|| self.generic(suffix))
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.var(name)
            .is_some_and(|given| given.value.eq_ignore_ascii_case(value))
    }

    /// `None`: nobody said where to.
    fn target(&self, flags: &OtlpFlags, signal: &Signal) -> Result<Option<Target>, ConfigError> {
        // The flag stands for every signal, so a path is appended to it as to the generic variable.
        let (given, path) = match self.signal(signal, "ENDPOINT") {
            Some(given) if flags.endpoint.is_none() => (given, None),
            _ => match self
                .flag("--otlp-endpoint", flags.endpoint.as_ref())
                .or_else(|| self.generic("ENDPOINT"))
            {
                Some(given) => (given, Some(signal.path)),
                None => return Ok(None),
            },
        };
        let insecure = flags.insecure
            || self
                .resolve("", None, signal, "INSECURE")
                .is_some_and(|given| given.value.eq_ignore_ascii_case("true"));
        let protocol = match self.resolve(
            "--otlp-protocol",
            flags.protocol.as_ref(),
            signal,
            "PROTOCOL",
        ) {
            Some(given) => protocol(given)?,
            // The specification's default is HTTP, which is sure to fail on gRPC's own port.
            None if values::port(&given.value) == Some(GRPC_PORT) => Protocol::Grpc,
            None => Protocol::HttpProtobuf,
        };
        let endpoint = match protocol {
            Protocol::Grpc => values::grpc_endpoint(given, insecure)?,
            Protocol::HttpProtobuf => values::http_endpoint(given, path)?,
        };
        let headers =
            match self.resolve("--otlp-headers", flags.headers.as_ref(), signal, "HEADERS") {
                Some(given) => values::headers(given)?,
                None => HeaderMap::new(),
            };
        let compression = match self.resolve(
            "--otlp-compression",
            flags.compression.as_ref(),
            signal,
            "COMPRESSION",
        ) {
            Some(given) => compression(given)?,
            None => Compression::None,
        };
        let tls = tls::resolve(self, flags, signal, &endpoint)?;
        let timeout = self.resolve(
            "--otlp-timeout-ms",
            flags.timeout_ms.as_ref(),
            signal,
            "TIMEOUT",
        );
        Ok(Some(Target {
            endpoint,
            protocol,
            headers,
            compression,
            timeout: values::milliseconds(timeout, DEFAULT_TIMEOUT)?,
            tls,
        }))
    }
}

impl OtlpConfig {
    /// Resolves flags over variables; the variables of one signal beat the generic ones.
    ///
    /// `Ok(None)` when no endpoint is given or `OTEL_SDK_DISABLED=true`: export is opt-in, so
    /// that memtrace never sends to a default address nobody asked for.
    ///
    /// # Errors
    /// Names the flag or variable with an unusable value, and what to write instead; of a
    /// certificate or key also the file.
    pub fn resolve(
        flags: &OtlpFlags,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, ConfigError> {
        Self::resolve_over(flags, env, &|_| None)
    }

    /// The same with what stands for variables that are not set.
    ///
    /// # Errors
    /// As [`OtlpConfig::resolve`].
    pub fn resolve_over(
        flags: &OtlpFlags,
        env: &dyn Fn(&str) -> Option<String>,
        fallback: &Fallback<'_>,
    ) -> Result<Option<Self>, ConfigError> {
        let source = Source { env, fallback };
        if source.is("OTEL_SDK_DISABLED", "true") {
            return Ok(None);
        }
        let target = |signal: &Signal, wanted: bool| match wanted {
            true => source.target(flags, signal),
            false => Ok(None),
        };
        let metrics = target(&METRICS, !source.is(METRICS.switch, "none"))?;
        let logs = target(&LOGS, !source.is(LOGS.switch, "none"))?;
        let by_variable = source.is(PROFILES.switch, "otlp");
        let profiles = target(&PROFILES, flags.profiles || by_variable)?;
        // A variable may be meant for other programs too.
        let by_flag = flags.profiles.then(|| "--otlp-profiles".to_owned());
        let asked = by_flag.or_else(|| fallback(PROFILES.switch).map(|(name, _)| name));
        if let (Some(name), None) = (asked, &profiles) {
            return Err(ConfigError::Half {
                name,
                missing: "--otlp-endpoint".to_owned(),
            });
        }
        if metrics.is_none() && logs.is_none() && profiles.is_none() {
            return Ok(None);
        }
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
            metrics,
            logs,
            profiles,
            interval: values::milliseconds(interval, DEFAULT_INTERVAL)?,
            service_name: named
                .or(from_attributes)
                .unwrap_or_else(|| "memtrace".to_owned()),
            resource_attributes,
            state_dir: None,
        }))
    }

    /// The same with events on disk below `state_dir` while they wait for the backend.
    pub fn keeping_events_in(self, state_dir: &Path) -> Self {
        OtlpConfig {
            state_dir: Some(state_dir.to_owned()),
            ..self
        }
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
        "zstd" => Ok(Compression::Zstd),
        _ => Err(choice(given, "none, gzip or zstd")),
    }
}

fn choice(given: Given, known: &'static str) -> ConfigError {
    ConfigError::Choice {
        name: given.name,
        value: given.value,
        known,
    }
}
