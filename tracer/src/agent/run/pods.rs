//! The cgroups of one pod, for who asks by name and runs no agent.

use std::time::{Duration, Instant, SystemTime};

use crate::{
    host::{CgroupHierarchy, walk},
    identity::{
        facts::{KnownPlace, Update},
        options::NamingConfig,
        sources::SourcesError,
    },
    model::cgroups::Cgroups,
};

use super::naming::Naming;

/// Cgroups of this host that are looked at.
const MOST_CGROUPS: usize = 65_536;

/// Names of this host's cgroups, as they become known.
pub struct Pods {
    hierarchy: CgroupHierarchy,
    cgroups: Cgroups,
    naming: Naming,
    clock: Instant,
}

impl Pods {
    /// Begins to ask for names. Needs a tokio runtime.
    ///
    /// # Errors
    /// A source of names cannot be started.
    pub fn start(hierarchy: CgroupHierarchy, naming: NamingConfig) -> Result<Self, SourcesError> {
        Ok(Self {
            hierarchy,
            cgroups: Cgroups::new(MOST_CGROUPS, Duration::ZERO),
            naming: Naming::start(naming, KnownPlace::default())?,
            clock: Instant::now(),
        })
    }

    /// The next thing that is heard of names; waits for ever without sources.
    pub async fn heard(&mut self) -> Update {
        Naming::heard(&mut self.naming).await
    }

    pub fn take(&mut self, update: Update) {
        self.naming.take(update, self.clock.elapsed());
    }

    /// Memory cgroups of a pod, with their paths, as far as names are known now.
    pub fn find(&mut self, namespace: &str, pod: &str) -> Vec<(u64, String)> {
        if let Ok(found) = walk(&self.hierarchy, MOST_CGROUPS) {
            for cgroup in found.cgroups {
                self.cgroups
                    .made(cgroup.id, &cgroup.path, SystemTime::now());
            }
        }
        self.naming.refresh(&mut self.cgroups, self.clock.elapsed());
        self.naming.ask_again(&self.cgroups);
        self.cgroups
            .live()
            .filter(|cgroup| {
                let names = &cgroup.names;
                names.namespace.as_deref() == Some(namespace) && names.pod.as_deref() == Some(pod)
            })
            .map(|cgroup| (cgroup.id, cgroup.display.to_string()))
            .collect()
    }
}
