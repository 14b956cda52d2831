//! A pod with a container, and a plain service, and what the processes in them do with memory.
//! Must not judge what was stored of it.

use std::env;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memtrace_tests::backend::Server;
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::machine::{self, MIB, poll};
use memtrace_tests::prometheus::stored;
use memtrace_tests::swap::Swap;
use memtrace_tests::workload::Workload;
use serde_json::{Value, json};

use super::lacking;
use super::scene::{CONTAINER, DEPLOYMENT, Level, NAMESPACE, NODE, POD, Place, SOON, VERSION};

/// Of what leaks; its pod may have twice as much.
pub const LIMIT: u64 = 128 * MIB;
pub const REQUEST: u64 = 64 * MIB;
pub const RESTARTS: u64 = 2;
/// What leaks in a second.
const LEAK: u64 = 2 * MIB;
const CALM_MS: u64 = 8_000;

/// The children come before what they are in, as they are removed in this order.
pub struct Cgroups {
    pub container: Cgroup,
    pod: Cgroup,
    service: Cgroup,
    pub parent: Cgroup,
    uid: String,
    pub container_id: String,
}

impl Cgroups {
    pub fn new() -> Result<Self> {
        let uid = "4d0c7a52-90f1-4b7e-8a35-6c1e2f7d9b04".to_owned();
        let container_id = "4d0c7a5290f14b7e".repeat(4);
        let parent = Cgroup::new("documented")?;
        let service = parent.child("batch")?;
        let pod = parent.child(&format!("pod{uid}"))?;
        let container = pod.child(&container_id)?;
        pod.limit(2 * LIMIT)?;
        let has_swap = machine::memory_info("SwapTotal")? > 0;
        for cgroup in [&service, &container] {
            cgroup.limit(LIMIT)?;
            if has_swap {
                // Else they would go on in there.
                cgroup.limit_swap(LIMIT, 0)?;
            }
        }
        Ok(Self {
            container,
            pod,
            service,
            parent,
            uid,
            container_id,
        })
    }

    pub fn object(&self) -> Value {
        let image = format!("registry.example.com/cart:{VERSION}");
        let resources = json!({
            "limits": {"memory": LIMIT.to_string()}, "requests": {"memory": REQUEST.to_string()},
        });
        json!({
            "kind": "Pod", "apiVersion": "v1",
            "metadata": {
                "namespace": NAMESPACE, "name": POD, "uid": self.uid,
                "creationTimestamp": "2026-03-02T09:14:55Z",
                "labels": {"app": "cart", "pod-template-hash": "7c9d8b5f4"},
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "ReplicaSet",
                    "name": format!("{DEPLOYMENT}-7c9d8b5f4"),
                    "uid": "c1a7f0b2-6f0b-4b53-9d6b-92f3d3c1e2aa", "controller": true,
                }],
            },
            "spec": {
                "nodeName": NODE,
                "containers": [{"name": CONTAINER, "image": image, "resources": resources}],
            },
            "status": {"phase": "Running", "containerStatuses": [{
                "name": CONTAINER, "containerID": format!("containerd://{}", self.container_id),
                "image": image, "imageID": "", "restartCount": RESTARTS, "lastState": {},
                "resources": resources,
                "state": {"running": {"startedAt": "2026-03-02T09:14:57Z"}},
            }]},
        })
    }

    fn leaking(&self) -> [&Cgroup; 2] {
        [&self.service, &self.container]
    }

    /// The same in the service and in the container.
    pub fn start_each(&self, arguments: &[&str]) -> Result<Vec<Workload>> {
        let cgroups = self.leaking().into_iter();
        cgroups
            .map(|cgroup| Workload::start(cgroup, arguments))
            .collect()
    }

    /// Until the backends know both.
    pub fn wait_until_stored(&self, backends: &[&Server], series: &str) -> Result<()> {
        for cgroup in self.leaking() {
            let path = cgroup.path();
            let selector = format!("{series}{{memtrace_cgroup_path=\"{path}\"}}");
            poll(&selector, SOON, || {
                all(
                    backends,
                    |server| Ok(!stored(server, &selector)?.is_empty()),
                )
            })?;
        }
        Ok(())
    }

    /// A file in memory and one on disk in each, whose pages are charged until the workload ends.
    pub fn keep_files(&self) -> Result<Vec<Workload>> {
        let memory = Path::new("/dev/shm");
        ensure!(machine::is_memory_only(memory)?, "no tmpfs at /dev/shm");
        let mut kept = Vec::new();
        for directory in [memory, &env::temp_dir()] {
            for cgroup in self.leaking() {
                let directory = tempfile::tempdir_in(directory)?;
                let path = directory.path().join("file");
                let path = path.to_str().context("no UTF-8")?;
                let arguments = ["file-io", "--path", path, "--bytes", "4194304"];
                let mut workload = Workload::start(cgroup, &arguments)?;
                workload.report()?;
                kept.push(workload);
            }
        }
        Ok(kept)
    }

    /// Has a part of a cgroup swapped out until the backends know; `None` where that cannot be.
    pub fn swap_out(&self, backends: &[&Server]) -> Result<Option<String>> {
        let cgroup = self.parent.child("swaps")?;
        cgroup.limit(16 * MIB)?;
        // A kernel may count no swap, or there is no space for it.
        if let Err(error) = cgroup.limit_swap(16 * MIB, 32 * MIB) {
            machine::skip(&format!("no swap of a cgroup: {error:#}"));
            return Ok(None);
        }
        let Some(_swap) = Swap::on()? else {
            return Ok(None);
        };
        let arguments = ["touch", "--bytes", "25165824"];
        let mut workload = Workload::start(&cgroup, &arguments)?;
        workload.report()?;
        let path = cgroup.path();
        let selector = format!("memtrace_swap_usage_bytes{{memtrace_cgroup_path=\"{path}\"}}");
        poll("what was swapped out", SOON, || {
            all(backends, |server| {
                let series = stored(server, &selector)?;
                Ok(series
                    .iter()
                    .any(|one| one.samples.iter().any(|it| *it > 0.0)))
            })
        })?;
        workload.success()?;
        Ok(Some(path))
    }

    /// Until the kernel has killed both and the backends know.
    pub fn leak_to_death(&self, backends: &[&Server]) -> Result<()> {
        let (calm, rate) = (CALM_MS.to_string(), LEAK.to_string());
        let arguments = ["leak", "--calm-ms", &calm, "--bytes-per-second", &rate];
        let mut leaks = self.start_each(&arguments)?;
        for leak in &mut leaks {
            leak.report()?;
        }
        let time = Duration::from_secs(2 * LIMIT / LEAK);
        let cgroups = self.leaking();
        poll("the ends of the leaks", time, || {
            let mut all = true;
            for cgroup in cgroups {
                all &= cgroup.oom_kills()? > 0;
            }
            Ok(all.then_some(()))
        })?;
        for leak in leaks {
            ensure!(leak.end()?.killed(), "not killed");
        }
        self.wait_until_stored(backends, "memtrace_oom_kills_total")
    }

    pub fn places(&self) -> Result<Vec<Place>> {
        let places = [
            (Level::Service, &self.service),
            (Level::Pod, &self.pod),
            (Level::Container, &self.container),
        ];
        let places = places.into_iter().map(|(level, cgroup)| {
            Ok(Place {
                level,
                path: cgroup.path(),
                id: cgroup.id()?,
                lacks: lacking::in_cgroup(cgroup)?,
            })
        });
        places.collect()
    }
}

fn all(backends: &[&Server], holds: impl Fn(&Server) -> Result<bool>) -> Result<Option<()>> {
    for server in backends {
        if !holds(server)? {
            return Ok(None);
        }
    }
    Ok(Some(()))
}
