//! Which cgroup a container's id belongs to: anybody who may make cgroups may name one after another's
//! container, and ids are no secret.
//!
//! Owns the order of claims. The first cgroup that was seen has the id, also after it is gone and for as long
//! as somebody may speak of it; only one that stands where nobody but the system's runtimes makes cgroups
//! takes it. What was refused once stays refused.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    time::Duration,
};

use super::standing::Standing;
use crate::{
    identity::path::{self, PathIdentity},
    model::cgroups::Cgroups,
};

/// A cgroup that is gone keeps its id for this long, and longer while a source knows the container.
const KEPT: Duration = Duration::from_secs(600);
/// Cgroups that are gone and keep their ids.
const MOST_GONE: usize = 8192;

/// The cgroup of each container.
#[derive(Debug, Default)]
pub struct Claims {
    holders: HashMap<String, Holder>,
    /// Cgroups that are named after the container of another.
    refused: HashSet<u64>,
    /// Cgroups whose container was once believed to run in them.
    vouched: HashSet<u64>,
    generation: u64,
}

#[derive(Debug)]
struct Holder {
    base: PathBuf,
    standing: Standing,
    /// Since the start; `None`: it is there.
    gone_at: Option<Duration>,
}

/// What a cgroup says that it is.
struct Claim<'a> {
    container_id: &'a str,
    /// The container's own cgroup: this one, or one above it.
    base: &'a Path,
    standing: Standing,
}

impl<'a> Claim<'a> {
    fn of(path: &'a Path, identity: &'a PathIdentity) -> Option<Self> {
        let base = base(path, identity)?;
        Some(Self {
            container_id: identity.container_id.as_deref()?,
            base,
            standing: standing(base, identity),
        })
    }
}

impl Claims {
    /// Changes whenever a cgroup lost its container to another.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What the path of a new cgroup says; without container and pod if another has that container.
    pub fn take(&mut self, id: u64, path: &Path, cgroups: &Cgroups) -> PathIdentity {
        let identity = path::parse(path);
        let Some(claim) = Claim::of(path, &identity) else {
            return identity;
        };
        if self.is_refused(id, claim.base, cgroups) || !self.has_way(&claim, cgroups) {
            self.refused.insert(id);
            return disowned(identity);
        }
        let holder = Holder {
            base: claim.base.to_owned(),
            standing: claim.standing,
            gone_at: None,
        };
        let former = self.holders.insert(claim.container_id.to_owned(), holder);
        if let Some(former) = former.filter(|former| former.base != claim.base) {
            self.refused.extend(cgroups.id_of(&former.base));
            self.generation += 1;
        }
        identity
    }

    /// Whether the claim counts: it is the holder's, or there is none that counts more.
    fn has_way(&self, claim: &Claim<'_>, cgroups: &Cgroups) -> bool {
        let Some(holder) = self.holders.get(claim.container_id) else {
            return true;
        };
        let moved = claim.standing == Standing::Runtime && cgroups.id_of(&holder.base).is_none();
        holder.base == claim.base || claim.standing > holder.standing || moved
    }

    fn is_refused(&self, id: u64, base: &Path, cgroups: &Cgroups) -> bool {
        let above = cgroups.id_of(base);
        self.refused.contains(&id) || above.is_some_and(|above| self.refused.contains(&above))
    }

    /// What the path of a cgroup says, as it was decided.
    pub fn look(&self, id: u64, path: &Path, cgroups: &Cgroups) -> PathIdentity {
        let identity = path::parse(path);
        let Some(claim) = Claim::of(path, &identity) else {
            return identity;
        };
        let holder = self.holders.get(claim.container_id);
        let of_other = holder.is_some_and(|holder| holder.base != claim.base);
        if of_other || self.is_refused(id, claim.base, cgroups) {
            return disowned(identity);
        }
        identity
    }

    /// Remembers that the container was believed to run in the cgroup.
    pub fn vouch(&mut self, id: u64) {
        self.vouched.insert(id);
    }

    pub fn is_vouched(&self, id: u64) -> bool {
        self.vouched.contains(&id)
    }

    /// Whether a cgroup that is there has the container.
    pub fn has(&self, container_id: &str) -> bool {
        let holder = self.holders.get(container_id);
        holder.is_some_and(|holder| holder.gone_at.is_none())
    }

    /// Forgets cgroups that are gone for long and of whose containers nobody may speak any more.
    pub fn forget(&mut self, now: Duration, cgroups: &Cgroups, knows: impl Fn(&str) -> bool) {
        self.refused.retain(|id| cgroups.get(*id).is_some());
        self.vouched.retain(|id| cgroups.get(*id).is_some());
        self.holders.retain(|container_id, holder| {
            if cgroups.id_of(&holder.base).is_some() {
                holder.gone_at = None;
                return true;
            }
            let gone_at = *holder.gone_at.get_or_insert(now);
            now.saturating_sub(gone_at) <= KEPT || knows(container_id)
        });
        self.bound();
    }

    /// Of those that are gone, what anybody can make goes first, so that nobody crowds out another's.
    fn bound(&mut self) {
        let gone = self.holders.iter();
        let mut gone: Vec<_> = gone
            .filter_map(|(id, holder)| Some((holder.standing, holder.gone_at?, id.clone())))
            .collect();
        let surplus = gone.len().saturating_sub(MOST_GONE);
        if surplus > 0 {
            // Of the same standing the newest: what was there before they came stays.
            gone.sort_unstable_by_key(|(standing, at, _)| (*standing, Reverse(*at)));
            for (_, _, id) in gone.drain(..surplus) {
                self.holders.remove(&id);
            }
        }
    }
}

/// The path of the container's own cgroup.
pub fn base<'a>(path: &'a Path, identity: &PathIdentity) -> Option<&'a Path> {
    let below = identity.below_container.as_deref().unwrap_or_default();
    let levels = below.split('/').filter(|level| !level.is_empty()).count();
    path.ancestors().nth(levels)
}

/// Of a container by its own cgroup: no higher than the pods that it is in.
pub fn standing(base: &Path, identity: &PathIdentity) -> Standing {
    Standing::of(base, identity).min(pod_standing(base, identity))
}

/// Of the pods that a path goes through: the lowest, as who can make one can make all below it.
pub fn pod_standing(path: &Path, identity: &PathIdentity) -> Standing {
    path::pod_levels(path)
        .map(|level| Standing::of(level, identity))
        .min()
        .unwrap_or(Standing::Runtime)
}

/// Of one that states a pod which may be another's.
pub fn podless(identity: PathIdentity) -> PathIdentity {
    PathIdentity {
        pod_uid: None,
        qos: None,
        ..identity
    }
}

/// Of one whose container is another's.
pub fn disowned(identity: PathIdentity) -> PathIdentity {
    PathIdentity {
        unit: identity.unit,
        ..PathIdentity::default()
    }
}

#[cfg(test)]
#[path = "claims_tests.rs"]
mod tests;
