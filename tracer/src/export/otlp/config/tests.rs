//! Precedence, defaults and refusals of the OTLP configuration, without a process environment.

use std::time::Duration;

use super::{Compression, ConfigError, OtlpConfig, OtlpFlags, Protocol, Target};

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

fn metrics(flags: &OtlpFlags, vars: &[(&str, &str)]) -> Target {
    enabled(flags, vars).metrics.expect("metrics")
}

fn logs(flags: &OtlpFlags, vars: &[(&str, &str)]) -> Target {
    enabled(flags, vars).logs.expect("logs")
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
    assert_eq!(config.interval, Duration::from_secs(60));
    assert_eq!(config.service_name, "memtrace");
    for (target, endpoint) in [
        (config.metrics, "http://c:4318/v1/metrics"),
        (config.logs, "http://c:4318/v1/logs"),
    ] {
        let target = target.expect("both signals");
        assert_eq!(target.protocol, Protocol::HttpProtobuf);
        assert_eq!(target.endpoint, endpoint);
        assert_eq!(target.timeout, Duration::from_secs(10));
        assert_eq!(target.compression, Compression::None);
        assert!(target.headers.is_empty());
    }
}

#[test]
fn the_grpc_port_selects_grpc_unless_a_protocol_is_given() {
    let config = metrics(&endpoint_flag("http://c:4317"), &[]);
    assert_eq!(
        (config.protocol, config.endpoint.to_string().as_str()),
        (Protocol::Grpc, "http://c:4317/")
    );
    let config = metrics(
        &endpoint_flag("http://c:4317"),
        &[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")],
    );
    assert_eq!(config.protocol, Protocol::HttpProtobuf);
}

#[test]
fn generic_http_endpoints_get_the_path_and_specific_ones_are_verbatim() {
    let generic = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://p:9090/api/v1/otlp/")];
    assert_eq!(
        metrics(&OtlpFlags::default(), &generic).endpoint,
        "http://p:9090/api/v1/otlp/v1/metrics"
    );
    let specific = [
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://p:9090/push"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://other:4318"),
    ];
    assert_eq!(
        metrics(&OtlpFlags::default(), &specific).endpoint,
        "http://p:9090/push"
    );
    let full = endpoint_flag("http://p:9090/api/v1/otlp/v1/metrics");
    assert_eq!(
        metrics(&full, &[]).endpoint,
        "http://p:9090/api/v1/otlp/v1/metrics"
    );
    assert_eq!(
        logs(&full, &[]).endpoint,
        "http://p:9090/api/v1/otlp/v1/logs"
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
    assert_eq!(config.interval, Duration::from_secs(5));
    assert_eq!(config.service_name, "from-env");
    assert_eq!(
        config.resource_attributes,
        [("deployment.environment.name".to_owned(), "a b".to_owned())]
    );
    let target = config.metrics.expect("metrics");
    assert_eq!(target.timeout, Duration::from_secs(2));
    assert_eq!(target.compression, Compression::Gzip);
    assert!(config.logs.is_none(), "nobody asked for them");
    let flags = OtlpFlags {
        timeout_ms: Some("1000".to_owned()),
        compression: Some("none".to_owned()),
        ..endpoint_flag("http://flag:4318")
    };
    let target = metrics(&flags, &vars);
    assert_eq!(target.endpoint, "http://flag:4318/v1/metrics");
    assert_eq!(target.timeout, Duration::from_secs(1));
    assert_eq!(target.compression, Compression::None);
}

#[test]
fn each_signal_has_variables_of_its_own() {
    let vars = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://logs:4317"),
        ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "2000"),
        ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "gzip"),
    ];
    let config = enabled(&OtlpFlags::default(), &vars);
    let (metrics, logs) = (config.metrics.expect("metrics"), config.logs.expect("logs"));
    assert_eq!(metrics.endpoint, "http://all:4318/v1/metrics");
    assert_eq!(metrics.compression, Compression::Gzip);
    assert_eq!(metrics.timeout, Duration::from_secs(10));
    assert_eq!(logs.protocol, Protocol::Grpc);
    assert_eq!(logs.endpoint, "http://logs:4317/");
    assert_eq!(logs.compression, Compression::None);
    assert_eq!(logs.timeout, Duration::from_secs(2));
    let only = [("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://logs:4318/x")];
    let config = enabled(&OtlpFlags::default(), &only);
    assert!(config.metrics.is_none());
    assert_eq!(config.logs.expect("logs").endpoint, "http://logs:4318/x");
}

#[test]
fn a_signal_can_be_turned_off() {
    let flags = endpoint_flag("http://c:4318");
    let config = enabled(&flags, &[("OTEL_LOGS_EXPORTER", "none")]);
    assert!(config.logs.is_none() && config.metrics.is_some());
    let none = [
        ("OTEL_LOGS_EXPORTER", "none"),
        ("OTEL_METRICS_EXPORTER", "none"),
    ];
    assert!(resolve(&flags, &none).expect("valid").is_none());
}

#[test]
fn headers_are_decoded_and_never_shown() {
    let vars = [(
        "OTEL_EXPORTER_OTLP_HEADERS",
        "authorization=Bearer%20s3cret, x-scope-orgid = 7 ,",
    )];
    let config = metrics(&endpoint_flag("http://c:4318"), &vars);
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
fn scheme_less_grpc_endpoints_use_tls_unless_insecure() {
    let flags = OtlpFlags {
        protocol: Some("grpc".to_owned()),
        ..endpoint_flag("collector:4317")
    };
    let config = metrics(&flags, &[]);
    assert_eq!(config.endpoint, "https://collector:4317/");
    assert!(config.tls.is_some());
    let config = metrics(&flags, &[("OTEL_EXPORTER_OTLP_INSECURE", "true")]);
    assert_eq!(config.endpoint, "http://collector:4317/");
    assert!(config.tls.is_none());
    assert_eq!(
        metrics(&endpoint_flag("http://[::1]:4317"), &[]).protocol,
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
    assert!(refused(&[("OTEL_EXPORTER_OTLP_COMPRESSION", "br")]).contains("none, gzip or zstd"));
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

#[test]
fn a_url_that_may_hold_credentials_is_refused_and_not_repeated() {
    for endpoint in [
        "http://S3CR3T@h:1",
        "http://u:S3CR3T@h:1",
        "http://u:a/S3CR3T@h:1",
        "http://u:S3CR3T?x@localhost:1",
        "http://u:S3CR3T#x@localhost:1",
        "http://u:1/S3CR3T@h@i:1",
        "http://h:4318/?S3CR3T=a@b",
        "http://u:S3CR3T",
        "http://localhost:S3CR3T",
    ] {
        for protocol in ["grpc", "http/protobuf"] {
            let flags = OtlpFlags {
                protocol: Some(protocol.to_owned()),
                ..endpoint_flag(endpoint)
            };
            let error = resolve(&flags, &[]).expect_err(endpoint).to_string();
            assert!(error.starts_with("--otlp-endpoint: "), "{error}");
            assert!(!error.contains("S3CR3T"), "{error}");
            let has_user = endpoint.contains('@');
            assert_eq!(error.contains("credentials"), has_user, "{error}");
        }
    }
    let accepted = metrics(&endpoint_flag("http://h/a%40b/@c"), &[]);
    assert_eq!(accepted.endpoint, "http://h/a%40b/@c/v1/metrics");
}

#[test]
fn a_port_that_is_none_is_refused() {
    for endpoint in ["http://h:PORT", "http://h:99999", "http://[::1]:x"] {
        let error = resolve(&endpoint_flag(endpoint), &[])
            .expect_err(endpoint)
            .to_string();
        assert!(error.contains("a number up to 65535"), "{error}");
    }
    for endpoint in ["http://[::1]", "http://[::1]:65535", "http://h"] {
        let target = metrics(&endpoint_flag(endpoint), &[]);
        let url = format!("{endpoint}/v1/metrics");
        assert_eq!(target.endpoint.to_string(), url);
    }
}

#[test]
fn profiles_are_sent_only_where_they_are_asked_for() {
    let everything = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")];
    let flags = OtlpFlags::default();
    assert!(enabled(&flags, &everything).profiles.is_none());
    let by_variable = [everything[0], ("OTEL_PROFILES_EXPORTER", "otlp")];
    let target = enabled(&flags, &by_variable).profiles.expect("profiles");
    let url = "http://c:4318/v1development/profiles";
    assert_eq!(target.endpoint.to_string(), url);
    let flags = OtlpFlags {
        profiles: true,
        ..endpoint_flag("http://c:4317")
    };
    let off = [
        ("OTEL_PROFILES_EXPORTER", "none"),
        ("OTEL_METRICS_EXPORTER", "none"),
        ("OTEL_LOGS_EXPORTER", "none"),
    ];
    let config = enabled(&flags, &off);
    assert_eq!(config.profiles.expect("profiles").protocol, Protocol::Grpc);
    assert!(config.metrics.is_none() && config.logs.is_none());
    let nowhere = OtlpFlags {
        profiles: true,
        ..OtlpFlags::default()
    };
    let error = resolve(&nowhere, &[]).expect_err("refused").to_string();
    assert_eq!(error, "--otlp-profiles: it needs --otlp-endpoint too");
}
