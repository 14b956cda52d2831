//! Precedence, defaults and refusals of the OTLP configuration, without a process environment.

use std::time::Duration;

use super::{Compression, ConfigError, OtlpConfig, OtlpFlags, Protocol};

fn resolve(flags: &OtlpFlags, vars: &[(&str, &str)]) -> Result<Option<OtlpConfig>, ConfigError> {
    OtlpConfig::resolve(flags, &|name| {
        vars.iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| (*value).to_owned())
    })
}

fn enabled(flags: &OtlpFlags, vars: &[(&str, &str)]) -> OtlpConfig {
    resolve(flags, vars).expect("valid").expect("enabled")
}

fn refused(vars: &[(&str, &str)]) -> String {
    let mut all = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")];
    all.splice(0..0, vars.iter().copied());
    resolve(&OtlpFlags::default(), &all)
        .expect_err("refused")
        .to_string()
}

fn endpoint_flag(endpoint: &str) -> OtlpFlags {
    OtlpFlags {
        endpoint: Some(endpoint.to_owned()),
        ..OtlpFlags::default()
    }
}

#[test]
fn nothing_is_sent_unless_an_endpoint_is_given() {
    assert!(
        resolve(&OtlpFlags::default(), &[])
            .expect("valid")
            .is_none()
    );
    let empty = [("OTEL_EXPORTER_OTLP_ENDPOINT", " ")];
    assert!(
        resolve(&OtlpFlags::default(), &empty)
            .expect("valid")
            .is_none()
    );
    let disabled = [("OTEL_SDK_DISABLED", "True")];
    assert!(
        resolve(&endpoint_flag("http://c:4318"), &disabled)
            .expect("valid")
            .is_none()
    );
}

#[test]
fn defaults_are_those_of_the_specification() {
    let config = enabled(&endpoint_flag("http://c:4318"), &[]);
    assert_eq!(config.protocol, Protocol::HttpProtobuf);
    assert_eq!(config.endpoint, "http://c:4318/v1/metrics");
    assert_eq!(config.timeout, Duration::from_secs(10));
    assert_eq!(config.interval, Duration::from_secs(60));
    assert_eq!(config.compression, Compression::None);
    assert_eq!(config.service_name, "memtrace");
    assert!(config.headers.is_empty());
}

#[test]
fn the_grpc_port_selects_grpc_unless_a_protocol_is_given() {
    let config = enabled(&endpoint_flag("http://c:4317"), &[]);
    assert_eq!(
        (config.protocol, config.endpoint.to_string().as_str()),
        (Protocol::Grpc, "http://c:4317/")
    );
    let config = enabled(
        &endpoint_flag("http://c:4317"),
        &[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")],
    );
    assert_eq!(config.protocol, Protocol::HttpProtobuf);
}

#[test]
fn generic_http_endpoints_get_the_path_and_specific_ones_are_verbatim() {
    let generic = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://p:9090/api/v1/otlp/")];
    assert_eq!(
        enabled(&OtlpFlags::default(), &generic).endpoint,
        "http://p:9090/api/v1/otlp/v1/metrics"
    );
    let specific = [
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://p:9090/push"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://other:4318"),
    ];
    assert_eq!(
        enabled(&OtlpFlags::default(), &specific).endpoint,
        "http://p:9090/push"
    );
    let full = endpoint_flag("http://p:9090/api/v1/otlp/v1/metrics");
    assert_eq!(
        enabled(&full, &[]).endpoint,
        "http://p:9090/api/v1/otlp/v1/metrics"
    );
}

#[test]
fn flags_beat_metrics_variables_which_beat_generic_ones() {
    let vars = [
        (
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
            "http://specific:4318/x",
        ),
        ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "2000"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "3000"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "5000"),
        ("OTEL_SERVICE_NAME", "from-env"),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "service.name=from-attributes,deployment.environment.name=a%20b",
        ),
    ];
    let config = enabled(&OtlpFlags::default(), &vars);
    assert_eq!(config.timeout, Duration::from_secs(2));
    assert_eq!(config.interval, Duration::from_secs(5));
    assert_eq!(config.compression, Compression::Gzip);
    assert_eq!(config.service_name, "from-env");
    assert_eq!(
        config.resource_attributes,
        [("deployment.environment.name".to_owned(), "a b".to_owned())]
    );
    let flags = OtlpFlags {
        timeout_ms: Some("1000".to_owned()),
        compression: Some("none".to_owned()),
        ..endpoint_flag("http://flag:4318")
    };
    let config = enabled(&flags, &vars);
    assert_eq!(config.endpoint, "http://flag:4318/v1/metrics");
    assert_eq!(config.timeout, Duration::from_secs(1));
    assert_eq!(config.compression, Compression::None);
}

#[test]
fn headers_are_decoded_and_never_shown() {
    let vars = [(
        "OTEL_EXPORTER_OTLP_HEADERS",
        "authorization=Bearer%20s3cret, x-scope-orgid = 7 ,",
    )];
    let config = enabled(&endpoint_flag("http://c:4318"), &vars);
    assert_eq!(config.headers["authorization"], "Bearer s3cret");
    assert_eq!(config.headers["x-scope-orgid"], "7");
    assert!(!format!("{config:?}").contains("s3cret"));
    let error = refused(&[("OTEL_EXPORTER_OTLP_HEADERS", "a=1,s3cret")]);
    assert!(
        error.starts_with("OTEL_EXPORTER_OTLP_HEADERS: entry 2 has no '='"),
        "{error}"
    );
    assert!(!error.contains("s3cret"));
    assert!(!refused(&[("OTEL_EXPORTER_OTLP_HEADERS", "a=s3cret%zz")]).contains("s3cret"));
    assert!(!refused(&[("OTEL_EXPORTER_OTLP_HEADERS", "a=s3cret%0a")]).contains("s3cret"));
}

#[test]
fn scheme_less_grpc_endpoints_need_insecure() {
    let flags = OtlpFlags {
        protocol: Some("grpc".to_owned()),
        ..endpoint_flag("collector:4317")
    };
    let error = resolve(&flags, &[]).expect_err("no TLS").to_string();
    assert!(
        error.starts_with("--otlp-endpoint: https is not supported"),
        "{error}"
    );
    let config = enabled(&flags, &[("OTEL_EXPORTER_OTLP_INSECURE", "true")]);
    assert_eq!(config.endpoint, "http://collector:4317/");
    assert_eq!(
        enabled(&endpoint_flag("http://[::1]:4317"), &[]).protocol,
        Protocol::Grpc
    );
}

#[test]
fn refusals_name_the_source_and_the_remedy() {
    let error = refused(&[("OTEL_EXPORTER_OTLP_TIMEOUT", "10s")]);
    assert!(
        error.starts_with("OTEL_EXPORTER_OTLP_TIMEOUT: \"10s\"") && error.ends_with("10000"),
        "{error}"
    );
    assert!(refused(&[("OTEL_METRIC_EXPORT_INTERVAL", "0")]).contains("60000"));
    let error = refused(&[("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/json")]);
    assert!(error.contains("use grpc or http/protobuf"), "{error}");
    assert!(refused(&[("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd")]).contains("none or gzip"));
    for endpoint in ["collector:4318", "http://", "ftp://c", "http://u:p@c:4318"] {
        let error = resolve(&endpoint_flag(endpoint), &[])
            .expect_err(endpoint)
            .to_string();
        assert!(
            error.starts_with("--otlp-endpoint: ") && error.contains("http://localhost:4318"),
            "{error}"
        );
    }
}
