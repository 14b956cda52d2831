//! Secrets that memtrace is given, or that those have whom it watches, and everything that it tells: none of
//! them may be in it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memtrace_tests::agent::{Agent, about, command, run, text};
use memtrace_tests::backend::{free_port, request};
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::incident::of_victim;
use memtrace_tests::kube_api::{Fault, KubeApi, Verb};
use memtrace_tests::machine::{self, poll};
use memtrace_tests::recording::Recorder;
use memtrace_tests::tls::Authority;
use memtrace_tests::workload::{Workload, join_before_exec};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::api::ask;
use crate::identity_kubernetes::{NODE, Pod, SOON};
use crate::security::files_below;

/// Given to memtrace: in a header or a URL, in a URL behind the host, for the Kubernetes API, in its environment.
const HEADER: &str = "header-f3b1c0de";
const QUERY: &str = "query-f3b1c0de";
const TOKEN: &str = "token-f3b1c0de";
const OF_MEMTRACE: &str = "of-memtrace-f3b1c0de";
/// In the environment of processes that it watches, and of pods as the API tells them.
const OF_PROCESSES: &str = "of-processes-f3b1c0de";
const OF_PODS: &str = "of-pods-f3b1c0de";
/// On the command line of a process that is killed, where it is a number with zeros before it.
const ARGUMENT: &str = "000000000000000700";
const VARIABLE: &str = "MT_SECRET";

/// What memtrace is given that is secret, in files of its own directory.
struct Given {
    directory: TempDir,
    api: KubeApi,
}

impl Given {
    fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let client = Authority::new(directory.path())?.sign("client")?;
        let api = KubeApi::start()?;
        api.require_token(TOKEN);
        let token = directory.path().join("token");
        fs::write(&token, TOKEN)?;
        let mut config: Value = serde_json::from_str(&api.kubeconfig(""))?;
        config["users"][0]["user"] = json!({
            "tokenFile": token,
            "client-certificate": client.certificate,
            "client-key": client.key,
        });
        fs::write(directory.path().join("kubeconfig"), config.to_string())?;
        Ok(Self { directory, api })
    }

    fn file(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn secrets(&self) -> Result<Vec<String>> {
        let pem = fs::read_to_string(self.file("client.key"))?;
        // The line before it begins alike in every key.
        let key = pem.lines().nth(2).context("a short key")?;
        let given = [HEADER, QUERY, TOKEN, OF_MEMTRACE, key];
        let all = [&given[..], &[OF_PROCESSES, OF_PODS]].concat();
        Ok(all.into_iter().map(str::to_owned).collect())
    }

    /// The variables by which it is given them.
    fn environment(&self, endpoint: &str) -> Vec<(&'static str, String)> {
        let headers = format!("authorization=Bearer%20{HEADER}");
        vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.to_owned()),
            ("OTEL_EXPORTER_OTLP_HEADERS", headers),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", self.file("authority.pem")),
            (
                "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
                self.file("client.crt"),
            ),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", self.file("client.key")),
            ("KUBECONFIG", self.file("kubeconfig")),
            (VARIABLE, OF_MEMTRACE.to_owned()),
        ]
    }

    /// The API refuses and then answers, so that memtrace has both to tell of.
    fn refuse_then_answer(&self, agent: &Agent) -> Result<()> {
        poll("the refusal", SOON, || {
            let told = agent.stderr().contains("may not list pods");
            Ok(told.then_some(()))
        })?;
        self.api.mend();
        poll("the watch", SOON, || {
            Ok((self.api.open_watches() > 0).then_some(()))
        })
    }
}

/// A pod whose container has a secret in its environment, which `kubectl apply` notes once more.
fn pod_with_a_secret(api: &KubeApi) -> Result<Pod> {
    let pod = Pod::new("secret", '5')?;
    let mut object = pod.object();
    object["spec"]["containers"][0]["env"] = json!([{"name": VARIABLE, "value": OF_PODS}]);
    let applied = json!({"kubectl.kubernetes.io/last-applied-configuration": object.to_string()});
    object["metadata"]["annotations"] = applied;
    api.put(object)?;
    Ok(pod)
}

/// A workload that has a secret in its environment.
fn with_a_secret(cgroup: &Cgroup, arguments: &[&str]) -> Result<Workload> {
    let mut command = Command::new(machine::workload()?);
    join_before_exec(&mut command, cgroup)?;
    command.args(arguments).env(VARIABLE, OF_PROCESSES);
    let workload = Workload::spawn(command)?;
    let environment = format!("/proc/{}/environ", workload.pid());
    poll("its environment", Duration::from_secs(5), || {
        let bytes = fs::read(&environment)?;
        let has_it = String::from_utf8_lossy(&bytes).contains(OF_PROCESSES);
        Ok(has_it.then_some(()))
    })?;
    Ok(workload)
}

/// Everything that memtrace tells in any way about one kill in a pod.
struct Told {
    texts: Vec<(String, String)>,
    given: Given,
}

impl Told {
    fn collect(arguments: &[&str]) -> Result<Self> {
        let given = Given::new()?;
        let forbidden = Fault::Status(403, "pods is forbidden");
        given.api.fail(Verb::List, forbidden, u32::MAX);
        let pod = pod_with_a_secret(&given.api)?;
        let directory = tempfile::tempdir()?;
        let path = |name: &str| directory.path().join(name).display().to_string();
        let (state, socket) = (path("state"), path("run/agent.sock"));
        let port = free_port()?;
        let listen = format!("127.0.0.1:{port}");
        let endpoint = format!("https://127.0.0.1:1/?token={QUERY}");
        let environment = given.environment(&endpoint);
        let own = [
            "--state-dir",
            &state,
            "--api-socket",
            &socket,
            "--listen",
            &listen,
        ];
        let names = ["--identity", "kubernetes", "--node-name", NODE];
        let variables: Vec<(&str, &str)> = environment
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let export = ["--otlp-endpoint", &endpoint];
        let arguments = [&own, &names[..], &export, arguments].concat();
        let agent = Agent::start_with(&arguments, &variables)?;
        given.refuse_then_answer(&agent)?;
        let about_it = about("cgroup", pod.cgroup.id()?);
        agent.wait_for("the container's name", SOON, |line| {
            about_it(line) && line["container"].is_string()
        })?;
        let life = ["oom", "--bytes", "134217728", "--calm-ms", ARGUMENT];
        let workload = with_a_secret(&pod.cgroup, &life)?;
        let pid = workload.pid();
        ensure!(workload.end()?.killed(), "it lives on");
        let id = of_victim(&agent, pid)?["id"]
            .as_str()
            .context("no id")?
            .to_owned();
        agent.wait_intervals(2)?;

        let mut texts = Vec::new();
        for target in [
            "/v1/agent".to_owned(),
            "/v1/cgroups".to_owned(),
            format!("/v1/cgroups/{}", pod.cgroup.id()?),
            "/v1/leaks".to_owned(),
            "/v1/incidents".to_owned(),
            format!("/v1/incidents/{id}"),
        ] {
            let (status, body) = ask(Path::new(&socket), "GET", &target)?;
            ensure!(status == 200, "{target}: {status}: {body}");
            texts.push((target, body));
        }
        for target in ["/status", "/metrics", "/healthz", "/readyz"] {
            texts.push((target.to_owned(), request(port, "GET", target, "")?.1));
        }
        let mut show = command(&["config", "show"])?;
        show.envs(variables.iter().copied());
        texts.push(("config show".to_owned(), text(&show.output()?)?));
        let mut doctor = command(&[&["doctor"], &names[..]].concat())?;
        // It fails where this host lacks something.
        let output = doctor.envs(variables.iter().copied()).output()?;
        let found = [output.stdout, output.stderr].concat();
        let found = String::from_utf8_lossy(&found).into_owned();
        ensure!(found.contains("by kubernetes"), "{found}");
        texts.push(("doctor".to_owned(), found));
        for arguments in [
            &["incidents", "--json"][..],
            &["incidents", "show", &id],
            &["incidents", "show", &id, "--json"],
            &["report", &id, "-o", &path("x.html"), "--socket", &socket],
            &["report", &id, "-o", &path("x.md"), "--socket", &socket],
            &["report", &id, "-o", &path("x.json"), "--socket", &socket],
        ] {
            let output = text(&run(&[arguments, &["--state-dir", &state]].concat())?)?;
            texts.push((arguments.join(" "), output));
        }
        let lines: Vec<String> = agent
            .all(|_| true)
            .iter()
            .map(ToString::to_string)
            .collect();
        texts.push(("stdout".to_owned(), lines.join("\n")));
        texts.push(("stderr".to_owned(), agent.stderr()));
        agent.stop()?;
        for file in files_below(directory.path())? {
            let bytes = fs::read(&file)?;
            texts.push((
                file.display().to_string(),
                String::from_utf8_lossy(&bytes).into_owned(),
            ));
        }
        Ok(Self { texts, given })
    }

    /// Who tells this.
    fn places_of(&self, secret: &str) -> Vec<&str> {
        self.texts
            .iter()
            .filter(|(_, text)| text.contains(secret))
            .map(|(place, _)| place.as_str())
            .collect()
    }

    fn assert_none_of(&self, secrets: &[String]) -> Result<()> {
        for secret in secrets {
            let places = self.places_of(secret);
            ensure!(places.is_empty(), "{secret} is told by {places:?}");
        }
        Ok(())
    }
}

#[test]
fn no_secret_is_told_by_any_command_answer_log_or_file() -> Result<()> {
    let told = Told::collect(&["--no-command-lines"])?;
    told.assert_none_of(&told.given.secrets()?)?;
    told.assert_none_of(&[ARGUMENT.to_owned()])?;
    // What is asked for is told, so the search finds what there is.
    let told = Told::collect(&[])?;
    let places = told.places_of(ARGUMENT);
    for place in ["stdout", "incidents --json"] {
        ensure!(
            places.contains(&place),
            "{place} does not tell it: {places:?}"
        );
    }
    told.assert_none_of(&told.given.secrets()?)
}

#[test]
fn credentials_in_a_url_are_refused_and_not_repeated() -> Result<()> {
    let state = tempfile::tempdir()?;
    let endpoint = format!("https://user:{HEADER}@127.0.0.1:1");
    let mut run = command(&["run", "--duration", "1s", "--otlp-endpoint", &endpoint])?;
    let output = run.arg("--state-dir").arg(state.path()).output()?;
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8_lossy(&told);
    assert_eq!(output.status.code(), Some(2), "{told}");
    ensure!(told.contains("--otlp-endpoint"), "{told}");
    ensure!(!told.contains(HEADER), "{told}");
    Ok(())
}

#[test]
fn a_recording_has_nothing_of_the_environment() -> Result<()> {
    let cgroup = Cgroup::new("secret-record")?;
    let leak = ["leak-on", "--bytes-per-second", "8388608"];
    let workload = with_a_secret(&cgroup, &leak)?;
    let pid = workload.pid().to_string();
    let recorder = Recorder::start(&["--pid", &pid], Duration::from_secs(5))?;
    let written = recorder.finish_text()?;
    ensure!(written.output.contains("leak_part"), "{}", written.tree);
    for text in [&written.output, &written.tree] {
        ensure!(!text.contains(OF_PROCESSES), "{text}");
    }
    Ok(())
}
