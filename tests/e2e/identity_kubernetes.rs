//! Names of containers by the Kubernetes API.

use std::fs;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use jiff::Timestamp;
use memtrace_tests::agent::{Agent, about, of_type};
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::incident::{of_victim, victim};
use memtrace_tests::kube_api::{Fault, KubeApi, Verb};
use memtrace_tests::machine::{MIB, poll};
use memtrace_tests::workload::Workload;
use serde_json::{Value, json};
use tempfile::TempDir;

pub const NODE: &str = "node-of-tests";
const TOKEN: &str = "a-token-that-is-never-told";
const LIMIT: u64 = 32 * MIB;
const TOO_MUCH: &str = "134217728";
pub const SOON: Duration = Duration::from_secs(20);

/// A pod of a Deployment with one container, which the kubelet has started.
pub struct Pod {
    uid: String,
    id: String,
    /// Of the container; those above are kept as long.
    pub cgroup: Cgroup,
    _above: [Cgroup; 2],
}

impl Pod {
    /// `digit` tells the tests' pods apart.
    pub fn new(purpose: &str, digit: char) -> Result<Self> {
        let hex = |count: usize| digit.to_string().repeat(count);
        let uid = format!("{}-{}-{}-{}-{}", hex(8), hex(4), hex(4), hex(4), hex(12));
        let id = hex(64);
        let parent = Cgroup::new(purpose)?;
        let pod = parent.child(&format!("pod{uid}"))?;
        let cgroup = pod.child(&id)?;
        cgroup.limit(LIMIT)?;
        Ok(Self {
            uid,
            id,
            cgroup,
            _above: [pod, parent],
        })
    }

    /// As the kubelet tells it.
    pub fn object(&self) -> Value {
        let id = format!("containerd://{}", self.id);
        json!({
            "kind": "Pod", "apiVersion": "v1",
            "metadata": {
                "namespace": "shop", "name": "cart-6d5f8b9c7-x2lqm", "uid": self.uid,
                "creationTimestamp": "2026-03-02T09:14:55Z",
                "labels": {"app": "cart", "pod-template-hash": "6d5f8b9c7"},
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart-6d5f8b9c7",
                    "uid": "c1a7f0b2-6f0b-4b53-9d6b-92f3d3c1e2aa", "controller": true,
                }],
            },
            "spec": {
                "nodeName": NODE,
                "containers": [{
                    "name": "app", "image": "registry.example.com/cart:2",
                    "resources": {"limits": {"memory": "32Mi"}},
                }],
            },
            "status": {"phase": "Running", "containerStatuses": [{
                "name": "app", "containerID": id, "image": "registry.example.com/cart:2",
                "imageID": "", "restartCount": 0, "lastState": {},
                "state": {"running": {"startedAt": "2026-03-02T09:14:57Z"}},
            }]},
        })
    }

    /// As the kubelet tells it after an OOM kill and a restart.
    fn killed(&self) -> Result<Value> {
        let mut object = self.object();
        let status = &mut object["status"]["containerStatuses"][0];
        let finished = Timestamp::try_from(SystemTime::now())?;
        status["lastState"] = json!({"terminated": {
            "reason": "OOMKilled", "exitCode": 137, "containerID": status["containerID"],
            "startedAt": "2026-03-02T09:14:57Z", "finishedAt": finished.to_string(),
        }});
        status["containerID"] = json!(format!("containerd://{}", "f".repeat(64)));
        status["restartCount"] = json!(1);
        Ok(object)
    }
}

/// An agent that watches the pods of the tests' node; the directory has its kubeconfig.
fn watching(api: &KubeApi) -> Result<(Agent, TempDir)> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("kubeconfig");
    fs::write(&path, api.kubeconfig(TOKEN))?;
    let arguments = ["--identity", "kubernetes", "--node-name", NODE];
    let path = path.to_str().context("no UTF-8")?;
    let agent = Agent::start_with(&arguments, &[("KUBECONFIG", path)])?;
    Ok((agent, directory))
}

fn wait_for_name(agent: &Agent, cgroup: &Cgroup) -> Result<Value> {
    let about = about("cgroup", cgroup.id()?);
    agent.wait_for("the container's name", SOON, |line| {
        about(line) && line["container"] == "app"
    })
}

pub fn kill_in(agent: &Agent, cgroup: &Cgroup) -> Result<(u32, Value)> {
    let workload = Workload::start(cgroup, &["oom", "--bytes", TOO_MUCH])?;
    let pid = workload.pid();
    let end = workload.end()?;
    anyhow::ensure!(end.killed(), "not killed: {end:?}");
    Ok((pid, of_victim(agent, pid)?))
}

#[test]
fn a_kill_has_the_names_of_the_api_and_then_what_kubernetes_says_of_it() -> Result<()> {
    let api = KubeApi::start()?;
    api.require_token(TOKEN);
    let pod = Pod::new("kube-known", '1')?;
    api.put(pod.object())?;
    let (agent, _directory) = watching(&api)?;
    let line = wait_for_name(&agent, &pod.cgroup)?;
    assert_eq!(line["namespace"], "shop", "{line}");
    assert_eq!(line["pod"], "cart-6d5f8b9c7-x2lqm", "{line}");
    assert_eq!(line["workload_kind"], "Deployment", "{line}");
    assert_eq!(line["workload"], "cart", "{line}");
    assert_eq!(line["node"], NODE, "{line}");

    let (pid, incident) = kill_in(&agent, &pod.cgroup)?;
    let names = &victim(&incident, pid)?["names"];
    assert_eq!(names["namespace"], "shop", "{incident}");
    assert_eq!(names["container"], "app", "{incident}");

    api.put(pod.killed()?)?;
    let report = agent.wait_for("the report", SOON, of_type("oom_report"))?;
    assert_eq!(report["kubernetes"]["reported"], true, "{report}");
    assert_eq!(report["kubernetes"]["reason"], "OOMKilled", "{report}");
    assert_eq!(report["kubernetes"]["exit_code"], 137, "{report}");
    assert_eq!(report["kubernetes"]["restart_count"], 1, "{report}");
    assert!(!agent.stderr().contains(TOKEN));
    Ok(())
}

#[test]
fn a_refusal_names_the_verb_and_tracing_goes_on_until_names_come() -> Result<()> {
    let api = KubeApi::start()?;
    api.fail(
        Verb::List,
        Fault::Status(403, "pods is forbidden"),
        u32::MAX,
    );
    let pod = Pod::new("kube-refused", '2')?;
    api.put(pod.object())?;
    let (agent, _directory) = watching(&api)?;
    let told = "may not list pods: add verb `list` on `pods` to its ClusterRole";
    poll("the refusal", SOON, || {
        Ok(agent.stderr().contains(told).then_some(()))
    })?;
    let (pid, incident) = kill_in(&agent, &pod.cgroup)?;
    let names = &victim(&incident, pid)?["names"];
    assert_eq!(names["container_id"], pod.id, "{incident}");
    assert_eq!(names["pod_uid"], pod.uid, "{incident}");
    assert!(names["pod"].is_null(), "{incident}");

    api.mend();
    wait_for_name(&agent, &pod.cgroup)?;
    assert_eq!(agent.stderr().matches(told).count(), 1, "told once");
    Ok(())
}

#[test]
fn an_api_that_goes_leaves_what_was_known() -> Result<()> {
    let api = KubeApi::start()?;
    let pod = Pod::new("kube-down", '3')?;
    api.put(pod.object())?;
    let (agent, _directory) = watching(&api)?;
    wait_for_name(&agent, &pod.cgroup)?;
    drop(api);
    poll("the failure", SOON, || {
        Ok(agent.stderr().contains("connection refused").then_some(()))
    })?;
    let (pid, incident) = kill_in(&agent, &pod.cgroup)?;
    let names = &victim(&incident, pid)?["names"];
    assert_eq!(names["pod"], "cart-6d5f8b9c7-x2lqm", "{incident}");
    Ok(())
}
