//! The sampled pages of one address space: who touched each first, and which are still resident.
//!
//! Pure: addresses, times and what was read of them come in; must not read or symbolize.

use std::collections::{BTreeMap, HashMap, HashSet};

use memtrace_ebpf::stack::threshold;

use super::{callpaths::CallPathId, estimate::Sum, residency::Asked};

/// What became of a sampled page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residency {
    /// Given back.
    Gone,
    /// Written out to swap: not resident, and not given back.
    Swapped,
    /// Resident, alone or as one of so many pages of its folio that are mapped here.
    Resident {
        pages: u32,
        /// Frame of the first page of the huge page around it; 0 where the kernel tells no frames.
        folio: u64,
    },
    /// Page cache or shared memory.
    NotAnonymous,
}

/// Times, since boot, from which growth is counted: the older one, and the one that follows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bases {
    pub older_ns: u64,
    pub newer_ns: u64,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    path: CallPathId,
    /// When it was touched first, or again after it had been given back.
    born_ns: u64,
    lot: u64,
    shift: u8,
    /// How many times denser the first page of a huge page is sampled, as a shift.
    boost: u8,
    /// Pages that became resident with it; 0: not looked at yet.
    pages: u32,
    folio: u64,
    swapped: bool,
}

impl Record {
    fn asked(&self, page: u64) -> Asked {
        Asked {
            page,
            folio: (self.pages > 1).then_some(self.folio),
        }
    }
}

/// All of one call path in one address space.
#[derive(Debug, Clone, Copy, Default)]
pub struct PathTotals {
    /// Bytes that samples ever stood for.
    pub touched: Sum,
    /// Of what was there at either base: what was given back since.
    gone: [Sum; 2],
}

/// What a call path has at one moment.
#[derive(Debug, Clone, Default)]
pub struct PathPages {
    pub touched: Sum,
    pub resident: Sum,
    /// Resident, and touched since the older base.
    pub new: Sum,
    /// There at the older base, and given back since.
    pub gone: Sum,
    pub oldest_ns: Option<u64>,
    /// Born and bytes of each sample.
    pub births: Vec<(u64, f64)>,
}

/// A sampled page that was touched.
#[derive(Debug, Clone, Copy)]
pub struct Touch {
    pub page: u64,
    pub path: CallPathId,
    pub at_ns: u64,
    pub lot: u64,
    pub shift: u32,
    pub boost: u32,
    /// It was there, and only not writable.
    pub protected: bool,
}

/// The sampled pages of one address space.
#[derive(Debug)]
pub struct Pages {
    page_bytes: u64,
    huge_pages: u64,
    records: BTreeMap<u64, Record>,
    totals: HashMap<CallPathId, PathTotals>,
    bases: Bases,
}

impl Pages {
    /// `huge_pages`: pages of a huge page.
    pub fn new(page_bytes: u64, huge_pages: u64, bases: Bases) -> Self {
        Self {
            page_bytes,
            huge_pages: huge_pages.max(1),
            records: BTreeMap::new(),
            totals: HashMap::new(),
            bases,
        }
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Remembers a touched page. `true`: these pages refer to the call path for the first time.
    pub fn touch(&mut self, touch: &Touch) -> bool {
        if let Some(known) = self.records.get_mut(&touch.page) {
            // Written to after a fork, or read back from swap: as old as it was.
            if touch.protected || known.swapped {
                known.swapped = false;
                return false;
            }
        }
        let record = Record {
            path: touch.path,
            born_ns: touch.at_ns,
            lot: touch.lot,
            shift: touch.shift.min(63) as u8,
            boost: touch.boost.min(63) as u8,
            pages: 0,
            folio: 0,
            swapped: false,
        };
        if let Some(former) = self.records.insert(touch.page, record) {
            if former.pages == 0 {
                self.count_touched(&former);
            }
            self.count_gone(&former);
        }
        let known = self.totals.contains_key(&touch.path);
        self.totals.entry(touch.path).or_default();
        !known
    }

    /// Pages to look at, in the order of addresses; `all`: also those that were looked at before.
    pub fn to_verify(&self, all: bool) -> Vec<Asked> {
        self.records
            .iter()
            .filter(|(_, record)| all || record.pages == 0)
            .map(|(page, record)| record.asked(*page))
            .collect()
    }

    /// Whether a page was sampled and not looked at yet.
    pub fn is_unseen(&self, page: u64) -> bool {
        self.records
            .get(&page)
            .is_some_and(|record| record.pages == 0)
    }

    /// What became of a page. `collapsed`: small pages may have been made into a huge one since it was
    /// looked at last.
    pub fn verified(&mut self, page: u64, residency: Residency, collapsed: bool) {
        let Some(record) = self.records.get_mut(&page) else {
            return;
        };
        let first = record.pages == 0;
        let residency = match residency {
            // A huge page is faulted in only where nothing was: this one had been given back.
            Residency::Resident { pages, .. } if pages > 1 && record.pages == 1 && !collapsed => {
                Residency::Gone
            }
            other => other,
        };
        match residency {
            Residency::Resident { pages, folio } => {
                record.swapped = false;
                record.folio = folio;
                if first {
                    record.pages = pages.max(1);
                    let record = *record;
                    self.count_touched(&record);
                    if pages > 1 {
                        self.forget_before(page, &record);
                    }
                } else {
                    // Pages that came to the folio later were touched, and sampled, by themselves.
                    record.pages = record.pages.min(pages.max(1));
                }
            }
            Residency::Swapped => {
                record.swapped = true;
                if first {
                    record.pages = 1;
                    let record = *record;
                    self.count_touched(&record);
                }
            }
            Residency::Gone | Residency::NotAnonymous => {
                let record = *record;
                self.records.remove(&page);
                if first && residency == Residency::Gone {
                    self.count_touched(&record);
                }
                self.count_gone(&record);
            }
        }
    }

    /// Where a huge page was faulted in nothing was: what was sampled there before had been given back.
    fn forget_before(&mut self, page: u64, huge: &Record) {
        let first = page & !(self.huge_pages - 1);
        let others: Vec<u64> = self
            .records
            .range(first..first + self.huge_pages)
            .filter(|(other, record)| **other != page && record.born_ns < huge.born_ns)
            .map(|(other, _)| *other)
            .collect();
        for other in others {
            if let Some(record) = self.records.remove(&other) {
                if record.pages == 0 {
                    self.count_touched(&record);
                }
                self.count_gone(&record);
            }
        }
    }

    /// From now on only one page in `2^shift` is sampled: what this would have left out goes, and
    /// the rest stands for more.
    pub fn thin(&mut self, shift: u32) {
        self.records.retain(|_, record| {
            let shift = shift.saturating_sub(u32::from(record.boost)).min(63);
            if u32::from(record.shift) < shift {
                if record.lot > threshold(shift) {
                    return false;
                }
                record.shift = shift as u8;
            }
            true
        });
    }

    /// The sparsest sampling of a page here.
    pub fn sparsest_shift(&self) -> u32 {
        // Boosted ones say little: a density may be as high as it gets.
        let plain = self.records.values().filter(|record| record.boost == 0);
        plain
            .map(|record| u32::from(record.shift))
            .max()
            .unwrap_or(0)
    }

    /// A call path is forgotten, with its pages; how many those were.
    pub fn forget(&mut self, path: CallPathId) -> usize {
        let before = self.records.len();
        self.records.retain(|_, record| record.path != path);
        self.totals.remove(&path);
        before - self.records.len()
    }

    /// The newer base becomes the older, and now the newer.
    pub fn rebase(&mut self, bases: Bases) {
        self.bases = bases;
        for totals in self.totals.values_mut() {
            totals.gone = [totals.gone[1], Sum::default()];
        }
    }

    /// Call paths that these pages refer to.
    pub fn paths(&self) -> impl Iterator<Item = CallPathId> + '_ {
        self.totals.keys().copied()
    }

    /// Growth counts from now on.
    pub fn restart(&mut self, now_ns: u64) {
        self.bases = Bases {
            older_ns: now_ns,
            newer_ns: now_ns,
        };
        for totals in self.totals.values_mut() {
            totals.gone = Default::default();
        }
    }

    /// From when on growth counts.
    pub fn base_ns(&self) -> u64 {
        self.bases.older_ns
    }

    /// Forgets what was touched by call paths of which nothing is left; those paths.
    pub fn forget_empty(&mut self) -> Vec<CallPathId> {
        let used: HashSet<CallPathId> = self.records.values().map(|record| record.path).collect();
        let mut released = Vec::new();
        self.totals.retain(|path, _| {
            let keep = used.contains(path);
            if !keep {
                released.push(*path);
            }
            keep
        });
        released
    }

    /// Everything by call path.
    pub fn by_path(&self) -> HashMap<CallPathId, PathPages> {
        let mut paths: HashMap<CallPathId, PathPages> = self
            .totals
            .iter()
            .map(|(path, totals)| {
                let pages = PathPages {
                    touched: totals.touched,
                    gone: totals.gone[0],
                    ..PathPages::default()
                };
                (*path, pages)
            })
            .collect();
        for record in self.records.values().filter(|record| !record.swapped) {
            let path = paths.entry(record.path).or_default();
            let bytes = self.bytes(record);
            path.resident.add(bytes, u32::from(record.shift));
            if record.born_ns > self.bases.older_ns {
                path.new.add(bytes, u32::from(record.shift));
            }
            let oldest = path.oldest_ns.get_or_insert(record.born_ns);
            *oldest = record.born_ns.min(*oldest);
            let weight = (1u64 << record.shift) as f64 * bytes as f64;
            path.births.push((record.born_ns, weight));
        }
        paths
    }

    fn bytes(&self, record: &Record) -> u64 {
        u64::from(record.pages.max(1)) * self.page_bytes
    }

    fn count_touched(&mut self, record: &Record) {
        let bytes = self.bytes(record);
        let totals = self.totals.entry(record.path).or_default();
        totals.touched.add(bytes, u32::from(record.shift));
    }

    fn count_gone(&mut self, record: &Record) {
        let bytes = self.bytes(record);
        let totals = self.totals.entry(record.path).or_default();
        let bases = [self.bases.older_ns, self.bases.newer_ns];
        for (gone, base) in totals.gone.iter_mut().zip(bases) {
            if record.born_ns <= base {
                gone.add(bytes, u32::from(record.shift));
            }
        }
    }
}

#[cfg(test)]
#[path = "pages_tests.rs"]
mod tests;
