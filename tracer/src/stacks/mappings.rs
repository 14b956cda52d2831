//! Address space that was given to one process, sampled by size: who expands the heap.
//!
//! Pure; what is still mapped comes in.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Range,
};

use super::{callpaths::CallPathId, estimate::Sum, pages::PathPages};

#[derive(Debug, Clone, Copy)]
struct Record {
    path: CallPathId,
    bytes: u64,
    /// Bytes that are still mapped.
    mapped: u64,
    born_ns: u64,
    /// Mappings like this one for which it stands.
    weight: f64,
}

/// The sampled mappings of one address space.
#[derive(Debug, Default)]
pub struct Mapped {
    records: BTreeMap<u64, Record>,
    touched: HashMap<CallPathId, Sum>,
}

impl Mapped {
    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// A mapping of `bytes` was drawn as likely as one of its pages at 1 in `2^page_shift`, and
    /// for certain from as many pages on.
    /// `true`: these mappings refer to the call path for the first time.
    pub fn map(
        &mut self,
        start: u64,
        bytes: u64,
        page_bytes: u64,
        page_shift: u32,
        path: CallPathId,
        at_ns: u64,
    ) -> bool {
        let pages = (bytes / page_bytes).max(1) as f64;
        let weight = ((1u64 << page_shift.min(63)) as f64 / pages).max(1.0);
        let record = Record {
            path,
            bytes,
            mapped: bytes,
            born_ns: at_ns,
            weight,
        };
        self.records.insert(start, record);
        let known = self.touched.contains_key(&path);
        self.touched
            .entry(path)
            .or_default()
            .add_weighted(bytes, weight);
        !known
    }

    /// What is mapped now, in the order of addresses.
    pub fn verified(&mut self, mapped: &[Range<u64>]) {
        self.records.retain(|start, record| {
            let end = start.saturating_add(record.bytes);
            let first = mapped.partition_point(|range| range.end <= *start);
            record.mapped = mapped[first..]
                .iter()
                .take_while(|range| range.start < end)
                .map(|range| range.end.min(end) - range.start.max(*start))
                .sum();
            record.mapped > 0
        });
    }

    /// The oldest half goes, for room.
    pub fn forget_half(&mut self) {
        let mut births: Vec<u64> = self.records.values().map(|record| record.born_ns).collect();
        let middle = births.len() / 2;
        if middle == 0 {
            return;
        }
        let (_, &mut median, _) = births.select_nth_unstable(middle);
        self.records.retain(|_, record| record.born_ns >= median);
    }

    /// A call path is forgotten, with its mappings; how many those were.
    pub fn forget(&mut self, path: CallPathId) -> usize {
        let before = self.records.len();
        self.records.retain(|_, record| record.path != path);
        self.touched.remove(&path);
        before - self.records.len()
    }

    pub fn paths(&self) -> impl Iterator<Item = CallPathId> + '_ {
        self.touched.keys().copied()
    }

    /// Forgets call paths of which nothing is left; those paths.
    pub fn forget_empty(&mut self) -> Vec<CallPathId> {
        let used: HashSet<CallPathId> = self.records.values().map(|record| record.path).collect();
        let mut released = Vec::new();
        self.touched.retain(|path, _| {
            let keep = used.contains(path);
            if !keep {
                released.push(*path);
            }
            keep
        });
        released
    }

    /// Everything by call path; growth counts from `base_ns`.
    pub fn by_path(&self, base_ns: u64) -> HashMap<CallPathId, PathPages> {
        let mut paths: HashMap<CallPathId, PathPages> = self
            .touched
            .iter()
            .map(|(path, touched)| {
                let pages = PathPages {
                    touched: *touched,
                    ..PathPages::default()
                };
                (*path, pages)
            })
            .collect();
        for record in self.records.values() {
            let path = paths.entry(record.path).or_default();
            path.resident.add_weighted(record.mapped, record.weight);
            if record.born_ns > base_ns {
                path.new.add_weighted(record.mapped, record.weight);
            }
            let oldest = path.oldest_ns.get_or_insert(record.born_ns);
            *oldest = record.born_ns.min(*oldest);
            let bytes = record.weight * record.mapped as f64;
            path.births.push((record.born_ns, bytes));
        }
        paths
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stacks::{
        callpaths::{CallPath, CallPaths},
        code::{Place, Root},
    };

    fn path() -> CallPathId {
        let places = Box::new([Place::Anonymous { pid: 1, address: 1 }]);
        let root = Root::Reached;
        CallPaths::new(1).take(CallPath { places, root }).0
    }

    #[test]
    fn what_is_unmapped_in_part_counts_in_part() {
        let path = path();
        let mut mapped = Mapped::default();
        mapped.map(0x10_0000, 0x4_0000, 4096, 6, path, 1);
        mapped.verified(&[0..0x10_1000, 0x13_f000..0x20_0000]);
        let bytes = mapped.by_path(0)[&path].resident.bytes();
        assert_eq!(bytes, f64::from(0x1000 + 0x1000));
        let elsewhere = 0..0x10_0000;
        mapped.verified(std::slice::from_ref(&elsewhere));
        assert!(mapped.is_empty());
        assert_eq!(mapped.forget_empty(), [path]);
    }

    #[test]
    fn a_small_mapping_stands_for_others_and_a_large_one_for_itself() {
        let path = path();
        let mut mapped = Mapped::default();
        mapped.map(0x10_0000, 16 * 4096, 4096, 6, path, 1);
        assert_eq!(mapped.by_path(0)[&path].touched.bytes(), 64.0 * 4096.0);
        mapped.map(0x90_0000, 100 * 4096, 4096, 6, path, 1);
        assert_eq!(mapped.by_path(0)[&path].touched.bytes(), 164.0 * 4096.0);
    }
}
