use std::time::SystemTime;

use super::*;

const UID: &str = "3f0d9e9c-9c6e-4b2a-8a3e-0c6a9f1b2c3d";
const GRACE: Duration = Duration::from_secs(60);

/// Claims, and the cgroups that make them.
struct Tree {
    cgroups: Cgroups,
    claims: Claims,
    last_id: u64,
}

impl Tree {
    fn new() -> Self {
        Self {
            cgroups: Cgroups::new(100_000, GRACE),
            claims: Claims::default(),
            last_id: 0,
        }
    }

    fn made(&mut self, path: &str) -> (u64, Option<String>) {
        self.last_id += 1;
        let (id, path) = (self.last_id, Path::new(path));
        self.cgroups.made(id, path, SystemTime::now());
        let told = self.claims.take(id, path, &self.cgroups);
        (id, told.container_id)
    }

    fn told(&self, id: u64) -> PathIdentity {
        let cgroup = self.cgroups.get(id).unwrap();
        self.claims.look(id, &cgroup.path, &self.cgroups)
    }

    fn has_container(&self, id: u64) -> bool {
        self.told(id).container_id.is_some()
    }

    fn removed(&mut self, id: u64, secs: u64) {
        let now = Duration::from_secs(secs);
        self.cgroups.removed(id, now);
        self.cgroups.evict(now);
    }

    fn forget(&mut self, secs: u64, knows: bool) {
        let now = Duration::from_secs(secs);
        self.cgroups.evict(now);
        self.claims.forget(now, &self.cgroups, |_| knows);
    }
}

fn id() -> String {
    "b".repeat(64)
}

fn real() -> String {
    format!("/machine.slice/libpod-{}.scope", id())
}

fn decoy() -> String {
    format!("/srv/evil/{}", id())
}

#[test]
fn a_cgroup_named_after_the_container_of_another_does_not_get_its_id() {
    let own = format!("/kubepods/burstable/pod{UID}/{}", id());
    let nested = "a".repeat(64);
    let mut tree = Tree::new();
    let (real, told) = tree.made(&own);
    assert_eq!(told, Some(id()));
    for other in [
        format!("/user.slice/user@1000.service/app/{}", id()),
        format!("/kubepods/poda/{nested}/pod{UID}/{}", id()),
        format!("/kubepods/burstable/other/{}", id()),
    ] {
        let (other, told) = tree.made(&other);
        assert_eq!(told, None);
        let told = tree.told(other);
        assert_eq!((told.container_id, told.pod_uid), (None, None));
    }
    let (below, told) = tree.made(&format!("{own}/init.scope"));
    assert_eq!(told, Some(id()));
    assert!(tree.has_container(real) && tree.has_container(below));
}

#[test]
fn a_cgroup_refused_once_stays_so_after_the_container_is_gone() {
    let mut tree = Tree::new();
    let (first, _) = tree.made(&real());
    let (refused, told) = tree.made(&decoy());
    assert_eq!(told, None);
    tree.removed(first, 10);
    for secs in [40, 700, 5000] {
        tree.forget(secs, false);
        assert!(!tree.has_container(refused), "{secs}");
    }
    assert!(tree.claims.holders.is_empty());
    // Nor has what is made in it later.
    let (below, told) = tree.made(&format!("{}/deep", decoy()));
    assert_eq!((told, tree.has_container(below)), (None, false));
    tree.removed(below, 5000);
    tree.removed(refused, 5000);
    tree.forget(5100, false);
    assert!(tree.claims.refused.is_empty(), "it is gone, and forgotten");
}

#[test]
fn the_id_of_a_container_that_is_gone_is_kept_while_a_source_knows_it() {
    let mut tree = Tree::new();
    let (first, _) = tree.made(&real());
    tree.removed(first, 10);
    tree.forget(40, true);
    assert!(!tree.claims.has(&id()), "nothing of it runs");
    assert_eq!(tree.made(&decoy()).1, None);
    tree.forget(5000, true);
    assert_eq!(tree.made(&format!("/srv/{}", id())).1, None);
    tree.forget(5001, false);
    assert_eq!(tree.made(&format!("/srv/later/{}", id())).1, Some(id()));
}

#[test]
fn a_container_that_stops_and_starts_again_has_its_id_again() {
    for path in [real(), format!("/actions_job/{}", id())] {
        let mut tree = Tree::new();
        let (first, _) = tree.made(&path);
        tree.removed(first, 10);
        tree.forget(40, true);
        assert_eq!(tree.made(&decoy()).1, None);
        let (second, told) = tree.made(&path);
        assert_eq!(told, Some(id()));
        assert!(tree.has_container(second));
        tree.forget(100, true);
        assert!(tree.claims.has(&id()));
    }
}

#[test]
fn a_runtime_that_moves_a_container_takes_the_id_along() {
    let mut tree = Tree::new();
    let (first, _) = tree.made(&format!("/docker/{}", id()));
    let moved = format!("/system.slice/docker-{}.scope", id());
    assert_eq!(tree.made(&moved).1, None, "the first is still there");
    tree.removed(2, 9);
    tree.removed(first, 10);
    assert_eq!(tree.made(&moved).1, Some(id()));
}

#[test]
fn a_pod_within_a_container_does_not_take_the_id_of_one_that_is_gone() {
    let outer = "a".repeat(64);
    let mut tree = Tree::new();
    let (first, _) = tree.made(&real());
    tree.removed(first, 10);
    for pods in [format!("pod{UID}"), format!("pod{UID}/pod{UID}")] {
        let (_, told) = tree.made(&format!("/docker/{outer}/{pods}/{}", id()));
        assert_eq!(told, None, "{pods}");
    }
    assert_eq!(tree.made(&real()).1, Some(id()));
}

#[test]
fn who_waits_for_a_stopped_container_loses_the_id_when_it_starts() {
    let mut tree = Tree::new();
    let before = tree.claims.generation();
    let (waiting, told) = tree.made(&decoy());
    assert_eq!(told, Some(id()), "nobody else is there");
    let (below, _) = tree.made(&format!("{}/deep", decoy()));
    let (first, told) = tree.made(&real());
    assert_eq!(told, Some(id()));
    assert_ne!(tree.claims.generation(), before);
    assert!(tree.has_container(first));
    assert!(!tree.has_container(waiting) && !tree.has_container(below));
    tree.removed(first, 10);
    tree.forget(5000, false);
    assert!(!tree.has_container(waiting));
}

#[test]
fn nobody_crowds_out_the_ids_of_runtimes() {
    let mut tree = Tree::new();
    let (first, _) = tree.made(&real());
    tree.removed(first, 1);
    tree.forget(1, true);
    for number in 0..MOST_GONE + 10 {
        let (other, _) = tree.made(&format!("/srv/{number:064x}"));
        tree.removed(other, 2);
    }
    tree.forget(2, true);
    assert_eq!(tree.claims.holders.len(), MOST_GONE);
    assert_eq!(tree.made(&decoy()).1, None);
}
