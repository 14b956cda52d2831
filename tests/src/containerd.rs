//! A private containerd with pods that are made as a kubelet makes them; gone with all that it ran
//! when dropped.
//!
//! Nothing of it is shared with a containerd of the host: root, state and sockets are in a temporary
//! directory, the image is made here, pods have the host's network. Needs root.

pub mod cri;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tempfile::TempDir;

use crate::cgroup;
use crate::machine::{self, poll};
use cri::{Client, Id, Nothing};

/// What all containers run: the workload program with its libraries.
const IMAGE: &str = "memtrace.test/workload:1";
pub const WORKLOAD: &str = "/memtrace-workload";
/// Where kubelets put pods of this class (cgroupfs driver).
const CLASS: &str = "/kubepods/burstable";

static NEXT: AtomicU32 = AtomicU32::new(1);

/// A running containerd.
#[derive(Debug)]
pub struct Containerd {
    // Before the directory, which it needs to end.
    server: Child,
    client: Option<Client>,
    directory: TempDir,
}

impl Containerd {
    /// Starts one with the image; `None` and a message where it is not installed.
    pub fn start() -> Result<Option<Self>> {
        for program in ["containerd", "containerd-shim-runc-v2", "ctr", "runc"] {
            if machine::in_path(program).is_none() {
                machine::skip(&format!("no {program} in PATH"));
                return Ok(None);
            }
        }
        // A short path: sockets of shims have a hash of it, but ours must fit into 107 bytes.
        let directory = tempfile::Builder::new().prefix("mt-cri-").tempdir()?;
        let config = directory.path().join("config.toml");
        fs::write(&config, configuration(directory.path()))?;
        let log = File::create(directory.path().join("log"))?;
        let server = Command::new("containerd")
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start containerd")?;
        let mut containerd = Self {
            server,
            client: None,
            directory,
        };
        let client = containerd.connect();
        containerd.client = Some(client.with_context(|| containerd.log())?);
        let imported = containerd.import();
        imported.with_context(|| containerd.log())?;
        Ok(Some(containerd))
    }

    fn connect(&self) -> Result<Client> {
        let socket = self.socket();
        poll(
            "containerd to serve CRI",
            Duration::from_secs(30),
            move || {
                let Ok(client) = Client::connect(&socket) else {
                    return Ok(None);
                };
                let served = client.call::<_, Nothing>("Version", Nothing {}).is_ok();
                Ok(served.then_some(client))
            },
        )
    }

    /// Where it serves CRI.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("containerd.sock")
    }

    /// Starts the sandbox of a pod with these labels.
    pub fn pod(&self, namespace: &str, name: &str, labels: &[(&str, &str)]) -> Result<Pod<'_>> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let uid = format!("{:08x}-0000-4000-8000-{number:012x}", process::id());
        let parent = format!("{CLASS}/pod{uid}");
        let mut labels: BTreeMap<String, String> = labels.iter().map(owned).collect();
        labels.extend(kubelet_labels(namespace, name, &uid));
        let namespaces = cri::NamespaceOption {
            network: cri::NODE,
            pid: cri::CONTAINER,
        };
        let mut pod = Pod {
            containerd: self,
            sandbox_id: String::new(),
            config: cri::PodSandboxConfig {
                metadata: Some(cri::PodSandboxMetadata {
                    name: name.into(),
                    uid: uid.clone(),
                    namespace: namespace.into(),
                }),
                labels,
                annotations: BTreeMap::new(),
                linux: Some(cri::LinuxPodSandboxConfig {
                    cgroup_parent: parent.clone(),
                    security_context: Some(cri::LinuxSandboxSecurityContext {
                        namespace_options: Some(namespaces),
                    }),
                }),
            },
            uid,
            parent,
        };
        let request = cri::RunPodSandboxRequest {
            config: Some(pod.config.clone()),
        };
        let answer: Id = self.call("RunPodSandbox", request)?;
        pod.sandbox_id = answer.id;
        Ok(pod)
    }

    fn call<Q, A>(&self, method: &str, request: Q) -> Result<A>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let client = self.client.as_ref().context("not connected")?;
        let answer = client.call(method, request);
        answer.with_context(|| self.log())
    }

    /// Makes an archive of an image from the workload and its libraries, and imports it.
    fn import(&self) -> Result<()> {
        let directory = self.directory.path().join("image");
        let root = directory.join("root");
        fill_root(&root)?;
        let output = |command: &mut Command| -> Result<String> {
            let output = command.stdin(Stdio::null()).output()?;
            let error = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{command:?}: {error}");
            Ok(String::from_utf8(output.stdout)?)
        };
        let tar = |archive: &str, of: &Path, what: &[&str]| {
            let archive = directory.join(archive);
            let mut command = Command::new("tar");
            command.arg("-C").arg(of).arg("-cf").arg(archive).args(what);
            output(&mut command)
        };
        tar("layer.tar", &root, &["."])?;
        let sum = output(Command::new("sha256sum").arg(directory.join("layer.tar")))?;
        let digest = sum.split(' ').next().context("no digest")?;
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        // Sandboxes run this.
        let sleep = ["sleep"];
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": {"Entrypoint": [WORKLOAD], "Cmd": sleep},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
        });
        let manifest = json!([{
            "Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"],
        }]);
        fs::write(directory.join("config.json"), config.to_string())?;
        fs::write(directory.join("manifest.json"), manifest.to_string())?;
        let members = ["manifest.json", "config.json", "layer.tar"];
        tar("image.tar", &directory, &members)?;
        let mut import = Command::new("ctr");
        import.arg("--address").arg(self.socket());
        import.args(["--namespace", "k8s.io", "images", "import"]);
        output(import.arg(directory.join("image.tar"))).map(drop)
    }

    /// The end of its log, for errors.
    fn log(&self) -> String {
        let log = fs::read(self.directory.path().join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let mut last: Vec<&str> = log.lines().rev().take(8).collect();
        last.reverse();
        format!("containerd says: {}", last.join("\n"))
    }

    /// Programs that were started for this containerd: itself and its shims.
    fn processes(&self) -> Vec<i32> {
        let own = self.directory.path().as_os_str().as_bytes();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries
            .filter_map(|entry| {
                let pid = entry.file_name().to_str()?.parse().ok()?;
                let line = fs::read(entry.path().join("cmdline")).ok()?;
                let program = line.split(|byte| *byte == 0).next()?;
                let ours = program
                    .windows(10)
                    .any(|part| part == b"containerd".as_slice())
                    && line.windows(own.len()).any(|part| part == own);
                ours.then_some(pid)
            })
            .collect()
    }
}

/// Makes a root file system of the workload program and its libraries.
pub fn fill_root(root: &Path) -> Result<()> {
    let workload = machine::workload()?;
    copy(&workload, &root.join(&WORKLOAD[1..]))?;
    for library in libraries(&workload)? {
        copy(&library, &root.join(library.strip_prefix("/")?))?;
    }
    Ok(())
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.server.id() as i32), Signal::SIGTERM);
        let ended = poll("containerd to end", Duration::from_secs(10), || {
            Ok(self.server.try_wait()?)
        });
        if ended.is_err() {
            let _ = self.server.kill();
            let _ = self.server.wait();
        }
        for pid in self.processes() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        for mount in mounts_below(self.directory.path()).iter().rev() {
            let _ = umount2(mount, MntFlags::MNT_DETACH);
        }
    }
}

/// A pod with its sandbox.
#[derive(Debug)]
pub struct Pod<'a> {
    containerd: &'a Containerd,
    pub uid: String,
    pub sandbox_id: String,
    /// Path of its cgroup.
    pub parent: String,
    config: cri::PodSandboxConfig,
}

impl Pod<'_> {
    /// Makes and starts a container that runs the workload with these arguments.
    pub fn run(&self, name: &str, arguments: &[&str], limit: u64) -> Result<Container<'_>> {
        let metadata = self.config.metadata.clone().context("no metadata")?;
        let mut labels = kubelet_labels(&metadata.namespace, &metadata.name, &self.uid);
        labels.insert("io.kubernetes.container.name".into(), name.into());
        let command = [&[WORKLOAD], arguments].concat();
        let config = cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: name.into() }),
            image: Some(cri::ImageSpec {
                image: IMAGE.into(),
            }),
            command: command.into_iter().map(str::to_owned).collect(),
            labels,
            linux: Some(cri::LinuxContainerConfig {
                resources: Some(cri::LinuxContainerResources {
                    memory_limit_in_bytes: i64::try_from(limit)?,
                }),
                security_context: Some(cri::LinuxContainerSecurityContext {
                    namespace_options: Some(cri::NamespaceOption {
                        network: cri::NODE,
                        pid: cri::CONTAINER,
                    }),
                }),
            }),
        };
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: self.sandbox_id.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        let made: Id = self.containerd.call("CreateContainer", request)?;
        let _: Nothing = self.containerd.call("StartContainer", made.clone())?;
        Ok(Container {
            containerd: self.containerd,
            path: format!("{}/{}", self.parent, made.id),
            id: made.id,
        })
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        let id = Id {
            id: self.sandbox_id.clone(),
        };
        if !id.id.is_empty() {
            for method in ["StopPodSandbox", "RemovePodSandbox"] {
                if let Err(error) = self.containerd.call::<_, Nothing>(method, id.clone()) {
                    eprintln!("{error:#}");
                }
            }
        }
        remove_cgroups(&self.parent);
    }
}

/// A container of a pod.
#[derive(Debug)]
pub struct Container<'a> {
    containerd: &'a Containerd,
    pub id: String,
    /// Path of its cgroup.
    pub path: String,
}

impl Container<'_> {
    /// Waits until it has ended.
    pub fn end(&self) -> Result<cri::ContainerStatus> {
        let id = Id {
            id: self.id.clone(),
        };
        poll("the container to end", Duration::from_secs(30), || {
            let answer: cri::ContainerStatusResponse =
                self.containerd.call("ContainerStatus", id.clone())?;
            Ok(answer.status.filter(|status| status.state == cri::EXITED))
        })
    }
}

fn owned((key, value): &(&str, &str)) -> (String, String) {
    ((*key).into(), (*value).into())
}

/// Source: kubelet, `pkg/kubelet/kuberuntime/labels.go`.
fn kubelet_labels(namespace: &str, name: &str, uid: &str) -> BTreeMap<String, String> {
    let labels = [
        ("io.kubernetes.pod.namespace", namespace),
        ("io.kubernetes.pod.name", name),
        ("io.kubernetes.pod.uid", uid),
    ];
    labels.iter().map(owned).collect()
}

fn configuration(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        r#"version = 2
root = "{directory}/root"
state = "{directory}/state"
[grpc]
  address = "{directory}/containerd.sock"
[ttrpc]
  address = "{directory}/containerd.sock.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "{directory}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{IMAGE}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = "{directory}/cni"
    bin_dir = "{directory}/cni"
"#
    )
}

/// The shared libraries of a program, the loader among them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    // The loader itself, as `ldd` asks it: a shell script that is not everywhere.
    let mut loader = Command::new(program);
    let output = loader.env("LD_TRACE_LOADED_OBJECTS", "1").output()?;
    let listing = String::from_utf8(output.stdout)?;
    let paths = listing.lines().filter_map(|line| {
        let word = |word: &&str| word.starts_with('/');
        line.split_whitespace().find(word).map(PathBuf::from)
    });
    Ok(paths.collect())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().context("no parent")?)?;
    let copied = fs::copy(from, to);
    copied.with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

fn mounts_below(directory: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let targets = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    targets
        .map(PathBuf::from)
        .filter(|target| target.starts_with(directory))
        .collect()
}

/// Removes a pod's cgroup in every hierarchy, and those above that hold nothing else.
pub fn remove_cgroups(parent: &str) {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let fields = mounts.lines().map(|line| line.split(' ').skip(1));
    let roots = fields.filter_map(|mut fields| {
        let (root, kind) = (fields.next()?, fields.next()?);
        matches!(kind, "cgroup" | "cgroup2").then_some(Path::new(root))
    });
    for root in roots {
        let pod = root.join(&parent[1..]);
        if let Err(error) = cgroup::remove(&pod) {
            eprintln!("{error:#}");
        }
        for above in pod.ancestors().skip(1).take(2) {
            let _ = fs::remove_dir(above);
        }
    }
}
