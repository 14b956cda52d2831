//! Certificates and keys: what is refused, by whose name, and what is taken.

use std::fs;
use std::path::Path;

use rcgen::{CertificateParams, KeyPair};

use super::{ConfigError, OtlpConfig, OtlpFlags, Tls};

const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4317");

fn resolve(flags: &OtlpFlags, vars: &[(&str, &str)]) -> Result<OtlpConfig, ConfigError> {
    let env = |name: &str| {
        let found = vars.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    OtlpConfig::resolve(flags, &env).map(|config| config.expect("enabled"))
}

fn tls(vars: &[(&str, &str)]) -> Tls {
    let config = resolve(&OtlpFlags::default(), &[&[ENDPOINT], vars].concat()).expect("valid");
    config.logs.expect("a target").tls.expect("TLS")
}

fn refused(vars: &[(&str, &str)]) -> String {
    let refused = resolve(&OtlpFlags::default(), &[&[ENDPOINT], vars].concat());
    refused.expect_err("refused").to_string()
}

/// Writes a certificate and its key; gives their paths.
fn pair(directory: &Path, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([name.to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let path = |kind: &str| {
        directory
            .join(format!("{name}.{kind}"))
            .display()
            .to_string()
    };
    fs::write(path("crt"), certificate.pem()).unwrap();
    fs::write(path("key"), key.serialize_pem()).unwrap();
    (path("crt"), path("key"))
}

#[test]
fn the_variables_of_a_signal_beat_the_generic_ones_and_flags_beat_all() {
    let dir = tempfile::tempdir().unwrap();
    let (one, _) = pair(dir.path(), "one");
    let (two, _) = pair(dir.path(), "two");
    let vars = [
        ENDPOINT,
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", one.as_str()),
        ("OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE", two.as_str()),
    ];
    let authorities = |config: OtlpConfig| {
        [config.metrics, config.logs].map(|target| target.unwrap().tls.unwrap().authorities)
    };
    let file = |path: &str| Some(fs::read(path).unwrap());
    let found = authorities(resolve(&OtlpFlags::default(), &vars).unwrap());
    assert_eq!(found, [file(&one), file(&two)]);
    let flags = OtlpFlags {
        certificate: Some(one.clone()),
        ..OtlpFlags::default()
    };
    assert_eq!(
        authorities(resolve(&flags, &vars).unwrap()),
        [file(&one), file(&one)]
    );
    assert!(tls(&[]).authorities.is_none());
}

#[test]
fn a_certificate_and_its_key_belong_together() {
    const CERTIFICATE: &str = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE";
    const KEY: &str = "OTEL_EXPORTER_OTLP_CLIENT_KEY";
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = pair(dir.path(), "one");
    let (_, other_key) = pair(dir.path(), "two");
    let identity = tls(&[(CERTIFICATE, &certificate), (KEY, &key)]).identity;
    let shown = format!("{identity:?}");
    assert!(
        identity.is_some() && !shown.contains("PRIVATE") && shown.len() < 40,
        "{shown}"
    );
    for (vars, error) in [
        (
            vec![(CERTIFICATE, certificate.as_str())],
            format!("{CERTIFICATE}: it needs --otlp-client-key or {KEY} too"),
        ),
        (
            vec![(KEY, key.as_str())],
            format!("{KEY}: it needs --otlp-client-certificate or {CERTIFICATE} too"),
        ),
        (
            vec![
                (CERTIFICATE, certificate.as_str()),
                (KEY, other_key.as_str()),
            ],
            format!("{KEY}: {other_key} is not the key of the certificate in {certificate}"),
        ),
        (
            vec![
                (CERTIFICATE, certificate.as_str()),
                (KEY, certificate.as_str()),
            ],
            format!("{KEY}: {certificate} holds no private key in PEM that is not encrypted"),
        ),
        (
            vec![(CERTIFICATE, key.as_str()), (KEY, key.as_str())],
            format!("{CERTIFICATE}: {key} holds no certificate in PEM"),
        ),
    ] {
        assert_eq!(refused(&vars), error);
    }
}

#[test]
fn errors_name_the_variable_the_file_and_the_cause() {
    const NAME: &str = "OTEL_EXPORTER_OTLP_CERTIFICATE";
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let begin = "-----BEGIN CERTIFICATE-----";
    for (path, cause) in [
        (
            "/nowhere/ca.pem".to_owned(),
            "cannot be opened: No such file",
        ),
        (dir.path().display().to_string(), "is not a regular file"),
        (fifo.display().to_string(), "is not a regular file"),
        (file("der", "\u{1}binary"), "holds no certificate in PEM"),
        (file("empty", ""), "holds no certificate in PEM"),
        (file("cut", &format!("{begin}\nMIIB")), "is not PEM"),
        (
            file(
                "wrong",
                &format!("{begin}\nAAAA\n-----END CERTIFICATE-----\n"),
            ),
            "holds a certificate that cannot be used",
        ),
    ] {
        let error = refused(&[(NAME, &path)]);
        let expected = format!("{NAME}: {path} {cause}");
        assert!(error.starts_with(&expected), "{error} is not {expected}");
    }
}

#[test]
fn plain_text_ignores_variables_and_refuses_flags() {
    let plain = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere"),
    ];
    let config = resolve(&OtlpFlags::default(), &plain).expect("ignored");
    assert!(config.logs.expect("a target").tls.is_none());
    let flags = OtlpFlags {
        client_key: Some("/nowhere".to_owned()),
        ..OtlpFlags::default()
    };
    let error = resolve(&flags, &plain).expect_err("refused").to_string();
    assert_eq!(
        error,
        "--otlp-client-key: the endpoint http://collector:4317/ is not https"
    );
}
