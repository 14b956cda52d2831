//! The profiles signal of OTLP, in a backend that reads it by OTLP's own definitions.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memtrace_tests::agent::{Agent, of_type};
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::compiled::Compiled;
use memtrace_tests::machine::{MIB, poll};
use memtrace_tests::profiles_backend::{self, ProfilesBackend, TENANT};
use memtrace_tests::workload::{Workload, join_before_exec};
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;

const SOURCE: &str = include_str!("../programs/leak.c");
/// The function of it that leaks.
const LEAKS: &str = "open_session";
const BYTES_PER_SECOND: u64 = 4 * MIB;
/// The first profile may come too early to have any sample of it, and the next comes after a minute.
const WITHIN: Duration = Duration::from_secs(120);

#[test]
fn the_code_that_leaks_reaches_a_backend_over_grpc() -> Result<()> {
    reaches_a_backend("grpc")
}

#[test]
fn the_code_that_leaks_reaches_a_backend_over_http() -> Result<()> {
    reaches_a_backend("http/protobuf")
}

#[test]
fn no_profile_is_sent_unless_asked_for() -> Result<()> {
    let backend = ProfilesBackend::start()?;
    let url = backend.url();
    let agent = Agent::start(&["--otlp-endpoint", &url, "--otlp-protocol", "http/protobuf"])?;
    let line = agent.wait_for("a self line", Duration::from_secs(15), of_type("self"))?;
    ensure!(line["lost"]["otlp_profiles_failed"] == 0, "{line}");
    agent.stop()?;
    ensure!(backend.requests().is_empty(), "profiles came");
    Ok(())
}

fn reaches_a_backend(protocol: &str) -> Result<()> {
    let compiler = ["gcc", "-O2", "-fno-inline", "-o", "leak", "leak.c"];
    let Some(program) = Compiled::make(&compiler, &[("leak.c", SOURCE)])? else {
        return Ok(());
    };
    let backend = ProfilesBackend::start()?;
    let (url, headers) = (backend.url(), format!("{}={}", TENANT.0, TENANT.1));
    let agent = Agent::start_with(
        &[
            "--otlp-endpoint",
            &url,
            "--otlp-protocol",
            protocol,
            "--otlp-headers",
            &headers,
            "--otlp-profiles",
        ],
        &[
            ("OTEL_METRICS_EXPORTER", "none"),
            ("OTEL_LOGS_EXPORTER", "none"),
        ],
    )?;
    let cgroup = Cgroup::new("otlp-profiles")?;
    let mut command = program.command("leak");
    command.args(["0", &BYTES_PER_SECOND.to_string()]);
    join_before_exec(&mut command, &cgroup)?;
    let mut workload = Workload::spawn(command)?;
    ensure!(workload.line()?.trim() == "leaks", "it did not begin");

    let path = cgroup.path();
    let (request, bytes) = poll("the function in a profile", WITHIN, || {
        let requests = backend.requests().into_iter();
        let mut of_cgroup = requests.filter(|request| {
            let told = profiles_backend::resource_text(request, "memtrace.cgroup.path");
            told.as_deref() == Some(&path)
        });
        Ok(of_cgroup.find_map(|request| {
            let bytes = held_by(&request, LEAKS)?;
            Some((request, bytes))
        }))
    })?;
    ensure!(bytes > 0, "{bytes} bytes");
    let dictionary = request.dictionary.as_ref().context("no dictionary")?;
    let first = dictionary.string_table.first().map(String::as_str);
    ensure!(first == Some(""), "{first:?} stands for no string");
    for value in ["growth", "touched"] {
        let found = profiles_backend::profile(&request, value, "bytes");
        ensure!(found.is_some(), "no profile of {value}");
    }
    // The backend refuses one profile of each request.
    let rejected = |line: &serde_json::Value| {
        let rejected = line["lost"]["otlp_profiles_rejected"].as_u64();
        line["type"] == "self" && rejected.is_some_and(|rejected| rejected > 0)
    };
    agent.wait_for("the loss", Duration::from_secs(15), rejected)?;
    drop(workload);
    agent.stop().map(drop)
}

/// Resident bytes of the samples below a function; `None` if there are none.
fn held_by(request: &ExportProfilesServiceRequest, function: &str) -> Option<i64> {
    let dictionary = request.dictionary.as_ref()?;
    let resident = profiles_backend::profile(request, "resident", "bytes")?;
    let mut samples = resident.samples.iter().filter(|sample| {
        let functions = profiles_backend::functions(dictionary, sample);
        functions.contains(&function) && functions.contains(&"main")
    });
    let first = samples.next()?;
    let rest = samples.flat_map(|sample| &sample.values);
    Some(first.values.iter().chain(rest).sum())
}
