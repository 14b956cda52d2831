//! Whose memory is recorded: cgroups by path, or processes.

use std::{collections::HashSet, fs, os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use globset::GlobMatcher;

use crate::{
    agent::Pods,
    host::{
        CgroupHierarchy, ProcRoot, escape,
        pattern::{as_written, unmatched},
        walk,
    },
    identity::{options::NamingConfig, pod_name::NamespacedPod},
    stacks::raw::Selection,
};

use super::RecordError;

/// Cgroups that are looked at for a match.
const MOST_CGROUPS: usize = 100_000;
/// Longest path shown, characters.
const PATH_CHARS: usize = 200;

/// Time that sources have to name a pod, and between two looks for it.
const NAMED_WITHIN: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What was asked for, and the cgroups that this is now.
pub struct Targets {
    glob: Option<GlobMatcher>,
    pod: Option<(NamespacedPod, Pods)>,
    pids: Vec<u32>,
    cgroups: HashSet<u64>,
    proc: ProcRoot,
    first_path: Option<String>,
}

impl Targets {
    pub fn new(
        hierarchy: &CgroupHierarchy,
        glob: Option<GlobMatcher>,
        pids: Vec<u32>,
    ) -> Result<Self, RecordError> {
        let mut targets = Self {
            glob,
            pod: None,
            pids,
            cgroups: HashSet::new(),
            proc: ProcRoot::default(),
            first_path: None,
        };
        for pid in targets.pids.clone() {
            match targets.proc.is_kernel_thread(pid) {
                Ok(false) => {}
                Ok(true) => {
                    let name = targets.name(pid);
                    return Err(RecordError::KernelThread { name });
                }
                Err(error) if error.is_gone() => return Err(RecordError::NoProcess(pid)),
                Err(error) => return Err(error.into()),
            }
        }
        targets.refresh(hierarchy);
        if targets.cgroups.is_empty() {
            let unmatched = targets
                .glob
                .as_ref()
                .and_then(|glob| unmatched(hierarchy, glob));
            let told = unmatched.unwrap_or_else(|| "no memory cgroup of it is found".to_owned());
            return Err(RecordError::NoCgroup(told));
        }
        Ok(targets)
    }

    /// The cgroups of a pod; waits a while for its name to become known.
    pub async fn of_pod(
        hierarchy: &CgroupHierarchy,
        naming: NamingConfig,
        pod: NamespacedPod,
    ) -> Result<Self, RecordError> {
        let pods = Pods::start(hierarchy.clone(), naming)?;
        let mut targets = Self {
            glob: None,
            pod: Some((pod.clone(), pods)),
            pids: Vec::new(),
            cgroups: HashSet::new(),
            proc: ProcRoot::default(),
            first_path: None,
        };
        let named = async {
            while targets.refresh(hierarchy).is_empty() {
                let again = tokio::time::sleep(LOOK_AGAIN);
                tokio::select! {
                    () = targets.heard() => {}
                    () = again => {}
                }
            }
        };
        match tokio::time::timeout(NAMED_WITHIN, named).await {
            Ok(()) => Ok(targets),
            Err(_) => Err(RecordError::NoPod(pod)),
        }
    }

    /// Takes in what is heard of names; waits for ever where nobody is asked.
    pub async fn heard(&mut self) {
        match &mut self.pod {
            Some((_, pods)) => {
                let update = pods.heard().await;
                pods.take(update);
            }
            None => std::future::pending().await,
        }
    }

    pub fn cgroups(&self) -> &HashSet<u64> {
        &self.cgroups
    }

    /// Only these, where processes were asked for.
    pub fn pids(&self) -> Option<HashSet<u32>> {
        (!self.pids.is_empty()).then(|| self.pids.iter().copied().collect())
    }

    /// Cgroups that have to do with it since the last look.
    pub fn refresh(&mut self, hierarchy: &CgroupHierarchy) -> Vec<u64> {
        let found = match (&self.glob, &mut self.pod) {
            (Some(glob), _) => matching(hierarchy, glob),
            (None, Some((pod, pods))) => pods.find(&pod.namespace, &pod.name),
            (None, None) => self.of_processes(hierarchy),
        };
        let mut new = Vec::new();
        for (id, path) in found {
            if self.cgroups.insert(id) {
                new.push(id);
                self.first_path.get_or_insert(path);
            }
        }
        new
    }

    fn of_processes(&self, hierarchy: &CgroupHierarchy) -> Vec<(u64, String)> {
        let mut buffer = Vec::new();
        let of = |pid: &u32| {
            let path = self
                .proc
                .memory_cgroup(*pid, hierarchy.mode, &mut buffer)
                .ok()??;
            let below = path.strip_prefix("/").unwrap_or(&path);
            let id = fs::metadata(hierarchy.memory_root.join(below)).ok()?.ino();
            Some((id, shown(&path)))
        };
        self.pids.iter().filter_map(of).collect()
    }

    /// Whether all processes that were asked for are gone.
    pub fn have_ended(&self) -> bool {
        let gone = |pid: &u32| !self.proc.path(&format!("{pid}/stat")).exists();
        !self.pids.is_empty() && self.pids.iter().all(gone)
    }

    pub fn selection(&self) -> Selection {
        match self.pids.as_slice() {
            [] => Selection::Cgroups(self.cgroups.iter().copied().collect()),
            pids => Selection::Processes(pids.to_vec()),
        }
    }

    /// For titles.
    pub fn scope(&self) -> String {
        if let Some((pod, _)) = &self.pod {
            return pod.to_string();
        }
        match (self.pids.as_slice(), &self.glob) {
            ([], Some(glob)) => match (self.cgroups.len(), &self.first_path) {
                (1, Some(path)) => path.clone(),
                (count, _) => format!("{count} cgroups matching {}", as_written(glob)),
            },
            (pids, _) => {
                let names: Vec<String> = pids.iter().map(|pid| self.name(*pid)).collect();
                names.join(", ")
            }
        }
    }

    fn name(&self, pid: u32) -> String {
        match self.proc.program_of(pid) {
            Ok((_, comm)) => format!("{comm} ({pid})"),
            Err(_) => format!("process {pid}"),
        }
    }
}

fn matching(hierarchy: &CgroupHierarchy, glob: &GlobMatcher) -> Vec<(u64, String)> {
    let Ok(found) = walk(hierarchy, MOST_CGROUPS) else {
        return Vec::new();
    };
    found
        .cgroups
        .into_iter()
        .map(|cgroup| (cgroup.id, Path::new("/").join(cgroup.path)))
        .filter(|(_, path)| glob.is_match(path))
        .map(|(id, path)| (id, shown(&path)))
        .collect()
}

fn shown(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    escape::display(path.as_os_str().as_bytes(), PATH_CHARS)
}
