//! OTLP over TLS: a collector behind an endpoint that wants a client's certificate, and refusals.

use std::fs;
use std::net::TcpListener;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memtrace_tests::agent::{Agent, command};
use memtrace_tests::backend::{self, free_port};
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::machine::poll;
use memtrace_tests::tls::{Authority, Terminator};

use crate::oom::run_into_limit;
use crate::otlp::{EVERY_SECOND, logged_event, logged_number, rotel, sending};

/// What memtrace says to a server that ends a connection without a certificate of ours.
const WANTED: &str = "does it want a client certificate?";

#[test]
fn a_collector_that_wants_a_certificate_gets_metrics_events_and_own_telemetry() -> Result<()> {
    let Some(program) = backend::program("MEMTRACE_ROTEL", "rotel-agent")? else {
        return Ok(());
    };
    for (protocol, compression) in [("grpc", "gzip"), ("http/protobuf", "gzip")] {
        let directory = tempfile::tempdir()?;
        let authority = Authority::new(directory.path())?;
        let client = authority.sign("client")?;
        let (grpc, http) = (free_port()?, free_port()?);
        let _server = rotel(&program, directory.path(), grpc, http)?;
        let front = Terminator::start(&authority, if protocol == "grpc" { grpc } else { http })?;
        let endpoint = format!("https://localhost:{}", front.port());
        let files = [authority.file(), client.certificate, client.key];
        let [ca, certificate, key] = files.map(|file| file.display().to_string());
        let mut arguments = sending(protocol, &endpoint).to_vec();
        arguments.extend(["--otlp-compression", compression]);
        let mut environment = EVERY_SECOND.to_vec();
        // Once by flags, once by variables.
        if protocol == "grpc" {
            arguments.extend(["--otlp-certificate", &ca]);
            arguments.extend(["--otlp-client-certificate", &certificate]);
            arguments.extend(["--otlp-client-key", &key]);
        } else {
            environment.extend([
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", ca.as_str()),
                ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", &certificate),
                ("OTEL_EXPORTER_OTLP_CLIENT_KEY", &key),
            ]);
        }
        let agent = Agent::start_with(&arguments, &environment)?;
        let cgroup = Cgroup::new("otlp-tls")?;
        let pid = run_into_limit(&cgroup, b"mt-tls")?;
        let path = cgroup.path();
        let mut seen = (false, false, false);
        let arrived = poll("event and metrics", Duration::from_secs(20), || {
            let log = fs::read(directory.path().join("log"))?;
            let log = String::from_utf8_lossy(&log);
            let kills = logged_number(&log, &path, "memtrace.oom.kills") == Some(1);
            let own = log.contains("Name: memtrace.agent.cgroups");
            seen = (logged_event(&log, &path, pid).is_some(), kills, own);
            Ok((seen == (true, true, true)).then_some(()))
        });
        arrived.with_context(|| format!("{protocol} {seen:?}: {}", agent.stderr()))?;
        ensure!(!agent.stderr().contains("OTLP"), "{}", agent.stderr());
        agent.stop()?;
    }
    Ok(())
}

#[test]
fn a_server_of_an_unknown_authority_and_a_missing_certificate_are_named() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let authority = Authority::new(directory.path())?;
    let elsewhere = tempfile::tempdir()?;
    let other = Authority::new(elsewhere.path())?;
    let nobody = TcpListener::bind("127.0.0.1:0")?;
    let front = Terminator::start(&authority, nobody.local_addr()?.port())?;
    let endpoint = format!("https://localhost:{}", front.port());
    for protocol in ["grpc", "http/protobuf"] {
        for (trusted, cause) in [
            (&other, "invalid peer certificate: UnknownIssuer"),
            (&authority, WANTED),
        ] {
            let file = trusted.file().display().to_string();
            let mut arguments = sending(protocol, &endpoint).to_vec();
            arguments.extend(["--otlp-certificate", &file]);
            let mut environment = EVERY_SECOND.to_vec();
            environment.push(("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"));
            let agent = Agent::start_with(&arguments, &environment)?;
            let told = poll(cause, Duration::from_secs(15), || {
                let stderr = agent.stderr();
                // The word of TLS, where the library does not keep it to itself.
                let told = cause == WANTED && stderr.contains("CertificateRequired");
                Ok((told || stderr.contains(cause)).then_some(()))
            });
            told.with_context(|| format!("{protocol}: {}", agent.stderr()))?;
            agent.wait_intervals(1)?;
            agent.stop()?;
        }
    }
    Ok(())
}

#[test]
fn unusable_files_end_the_start_with_name_and_cause() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let authority = Authority::new(directory.path())?;
    let (one, two) = (authority.sign("one")?, authority.sign("two")?);
    let run = |arguments: &[&str]| -> Result<Output> {
        let endpoint = ["run", "--otlp-endpoint", "https://localhost:4317"];
        let mut command = command(&[&endpoint, arguments].concat())?;
        command
            .arg("--state-dir")
            .arg(directory.path().join("state"));
        Ok(command.args(["--duration", "1s"]).output()?)
    };
    let certificate = one.certificate.display().to_string();
    let (key, other_key) = (one.key.display().to_string(), two.key.display().to_string());
    for (arguments, error) in [
        (
            vec!["--otlp-certificate", "/nowhere/ca.pem"],
            "--otlp-certificate: /nowhere/ca.pem cannot be opened: No such file".to_owned(),
        ),
        (
            vec!["--otlp-certificate", &key],
            format!("--otlp-certificate: {key} holds no certificate in PEM"),
        ),
        (
            vec!["--otlp-client-key", &key],
            "--otlp-client-key: it needs --otlp-client-certificate".to_owned(),
        ),
        (
            vec![
                "--otlp-client-certificate",
                &certificate,
                "--otlp-client-key",
                &other_key,
            ],
            format!("--otlp-client-key: {other_key} is not the key of the certificate"),
        ),
    ] {
        let output = run(&arguments)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        ensure!(stderr.contains(&error), "no {error} in {stderr}");
    }
    Ok(())
}
