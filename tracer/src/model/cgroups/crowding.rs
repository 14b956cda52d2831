//! More cgroups than places: who gets one, and at whose cost.

use std::path::Path;

use super::{Cgroups, shares::Shares};

impl Cgroups {
    pub(super) fn is_full(&self) -> bool {
        self.by_id.len() - self.removed.len() >= self.most
    }

    /// Takes a place from whoever has to give way to a cgroup at `path`. `false`: nobody has to.
    pub(super) fn make_room(&mut self, path: &Path) -> bool {
        let shares = self.shares.take().unwrap_or_else(|| {
            let live = self.live();
            Shares::of(live.map(|cgroup| (cgroup.path.as_path(), cgroup.id)))
        });
        let shares = self.shares.insert(shares);
        let Some(id) = shares.who_gives_way(path, self.most) else {
            return false;
        };
        let Some(cgroup) = self.by_id.remove(&id) else {
            return false;
        };
        shares.take(&cgroup.path, id);
        if self.by_path.get(&cgroup.path) == Some(&id) {
            self.by_path.remove(&cgroup.path);
        }
        self.displaced.push(id);
        self.crowded_out.push(id);
        self.overflow += 1;
        true
    }

    pub(super) fn takes_place(&mut self, path: &Path, id: u64) {
        if let Some(shares) = &mut self.shares {
            shares.give(path, id);
        }
        // It may have given way a moment ago.
        if !self.crowded_out.is_empty() {
            self.crowded_out.retain(|gone| *gone != id);
        }
    }

    /// Live cgroups that gave way to others since the last call.
    pub fn take_displaced(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.displaced)
    }
}
