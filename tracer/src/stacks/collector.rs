//! Takes samples in, unwinds them, and keeps the pages of all address spaces verified.
//!
//! Owned by the thread of `service`; everything is bounded and every loss is counted.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use memtrace_ebpf::stack::{OFF, StackControl, lot};

use crate::{
    host::ProcRoot,
    loader::stacks::StackSamples,
    probes::stack::{self, StackSample},
};

use super::{
    callpaths::CallPaths,
    density::{Change, Densities},
    limits::CollectorLimits,
    losses::StackLosses,
    modules::Modules,
    pages::Bases,
    raw::{RawProfile, Selection, Spaces},
    residency::PageTables,
    space::{PageOfSample, Space, Unusable},
    unwind::Unwinding,
};

/// Extra density for the first page of a huge page, where there may be some.
const BOUNDARY_SHIFT: u32 = 6;
const HUGE_PAGES_ENABLED: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
/// Copied out of the ring at once, up to 16 KiB each.
const RECORDS_COPIED: usize = 32;
const LEAST_BETWEEN_ADJUSTMENTS: Duration = Duration::from_millis(100);
/// Call paths of which nothing is left, kept in one address space for what they touched.
const MOST_IDLE_PATHS: usize = 1024;

/// What a process had is kept this long after its end: an incident tells of it.
const KEEP_ENDED: Duration = Duration::from_secs(30);
/// A process without sampled pages is forgotten after this long.
const KEEP_IDLE: Duration = Duration::from_secs(600);

/// All that is sampled.
pub struct Collector {
    kernel: StackSamples,
    proc: ProcRoot,
    limits: CollectorLimits,
    modules: Modules,
    unwinding: Unwinding,
    paths: CallPaths,
    spaces: HashMap<u64, Space>,
    tables: PageTables,
    densities: Densities,
    samples: HashMap<u64, u64>,
    adjusted: Instant,
    since_adjusted: usize,
    bases: Bases,
    losses: StackLosses,
    page_bytes: u64,
    huge_pages: u64,
    boundary_shift: u32,
    buffer: Vec<u8>,
}

impl Collector {
    /// Begins to sample. `now_ns`: since boot; growth counts from here.
    pub fn start(kernel: StackSamples, limits: CollectorLimits, now_ns: u64) -> Self {
        let page_bytes = crate::loader::attach::page_size();
        let huge_bytes = crate::loader::stacks::huge_page_bytes();
        let proc = ProcRoot::default();
        let may_be_huge =
            std::fs::read_to_string(HUGE_PAGES_ENABLED).is_ok_and(|text| !text.contains("[never]"));
        let only = limits.only.as_ref();
        let chosen = only.map(|only| only.cgroups.clone()).unwrap_or_default();
        let mut collector = Self {
            modules: Modules::new(proc.clone(), limits.most_modules),
            unwinding: Unwinding::new(proc.clone(), page_bytes, limits.most_code),
            paths: CallPaths::new(limits.most_call_paths),
            spaces: HashMap::new(),
            tables: PageTables::new(page_bytes, huge_bytes),
            densities: Densities::new(limits.density, limits.most_cgroups),
            samples: HashMap::new(),
            adjusted: Instant::now(),
            since_adjusted: 0,
            bases: Bases {
                older_ns: now_ns,
                newer_ns: now_ns,
            },
            losses: StackLosses::default(),
            page_bytes,
            huge_pages: (huge_bytes / page_bytes).max(1),
            boundary_shift: if may_be_huge { BOUNDARY_SHIFT } else { 0 },
            buffer: Vec::new(),
            kernel,
            proc,
            limits,
        };
        for cgroup_id in chosen {
            collector.set_shift(cgroup_id, collector.limits.density.usual_shift);
        }
        collector.set_control();
        collector
    }

    fn set_shift(&mut self, cgroup_id: u64, shift: u32) {
        let set = self.kernel.set_shift(cgroup_id, shift);
        self.losses.densities_refused += u64::from(set.is_err());
    }

    fn set_control(&mut self) {
        let (floor, usual) = match &self.limits.only {
            Some(_) => (self.limits.density.usual_shift, OFF),
            None => (self.densities.floor(), self.limits.density.usual_shift),
        };
        let set = self.kernel.set_control(StackControl {
            floor_shift: floor,
            usual_shift: usual,
            boundary_shift: self.boundary_shift,
            least_age_ns: u64::try_from(self.limits.least_age.as_nanos()).unwrap_or(u64::MAX),
            only_tgid: self.only_process().unwrap_or(0),
        });
        self.losses.densities_refused += u64::from(set.is_err());
    }

    fn only_process(&self) -> Option<u32> {
        let pids = self.limits.only.as_ref()?.pids.as_ref()?;
        pids.iter().next().copied().filter(|_| pids.len() == 1)
    }

    /// One more cgroup is sampled, where only some are.
    pub fn include(&mut self, cgroup_id: u64) {
        let only = self.limits.only.as_mut();
        if only.is_some_and(|only| only.cgroups.insert(cgroup_id)) {
            self.set_shift(cgroup_id, self.limits.density.usual_shift);
        }
    }

    /// Waits for samples, and takes in what there is, at most `most`.
    pub fn take_in(&mut self, wait: Duration, most: usize) {
        if !self.kernel.wait(wait).unwrap_or(false) {
            return;
        }
        let mut records = Vec::with_capacity(RECORDS_COPIED);
        for _ in 0..most.div_ceil(RECORDS_COPIED) {
            let taken = self
                .kernel
                .drain(RECORDS_COPIED, |record| records.push(record.to_vec()));
            self.since_adjusted += taken;
            for record in records.drain(..) {
                match stack::decode(&record) {
                    Some(sample) => self.sample(&sample),
                    None => self.losses.undecoded += 1,
                }
            }
            if taken < RECORDS_COPIED {
                break;
            }
        }
        // More in a moment than is to come in a second: it cannot wait.
        if self.since_adjusted as f64 > self.limits.density.samples_per_second
            && self.adjusted.elapsed() >= LEAST_BETWEEN_ADJUSTMENTS
        {
            self.adjust();
        }
    }

    fn sample(&mut self, sample: &StackSample<'_>) {
        *self.samples.entry(sample.cgroup_id).or_default() += 1;
        let pids = self
            .limits
            .only
            .as_ref()
            .and_then(|only| only.pids.as_ref());
        if pids.is_some_and(|pids| !pids.contains(&sample.pid)) {
            return;
        }
        let known = self.spaces.get(&sample.mm);
        if known.is_some_and(|space| !space.is_of(sample)) {
            self.forget_space(sample.mm);
        }
        if !self.spaces.contains_key(&sample.mm) && !self.open_space(sample) {
            return;
        }
        let Some(space) = self.spaces.get_mut(&sample.mm) else {
            return;
        };
        let path = space.unwind(sample, &mut self.modules, &mut self.unwinding);
        let (id, evicted) = self.paths.take(path);
        if let Some(evicted) = evicted {
            self.losses.call_paths_evicted += 1;
            let forgotten = self.spaces.values_mut().map(|space| space.forget(evicted));
            self.losses.pages_evicted += forgotten.sum::<usize>() as u64;
        }
        let page = self.page(sample);
        let Some(space) = self.spaces.get_mut(&sample.mm) else {
            return;
        };
        if !space.remember(sample, id, page, &self.tables) {
            self.paths.release(id);
        }
        if self
            .spaces
            .values()
            .map(|space| space.pages.len())
            .sum::<usize>()
            > self.limits.most_pages
        {
            self.thin_largest();
        }
    }

    fn page(&self, sample: &StackSample<'_>) -> PageOfSample {
        let number = sample.address / self.page_bytes;
        let on_boundary = number & (self.huge_pages - 1) == 0;
        PageOfSample {
            number,
            bytes: self.page_bytes,
            lot: lot(self.kernel.seed(), u64::from(sample.pid), number),
            boost: if on_boundary { self.boundary_shift } else { 0 },
        }
    }

    fn open_space(&mut self, sample: &StackSample<'_>) -> bool {
        if self.spaces.len() >= self.limits.most_spaces {
            self.evict_space();
        }
        let opened = Space::open(
            &self.proc,
            sample,
            &mut self.modules,
            &mut self.unwinding,
            self.page_bytes,
            &self.tables,
            self.bases,
        );
        match opened {
            Ok(space) => {
                self.spaces.insert(sample.mm, space);
                true
            }
            Err(Unusable::Gone) => {
                self.losses.process_gone += 1;
                false
            }
            Err(Unusable::Unreadable) => {
                self.losses.process_unreadable += 1;
                false
            }
        }
    }

    /// The one with the fewest pages of those that were not sampled for longest.
    fn evict_space(&mut self) {
        let oldest = self
            .spaces
            .iter()
            .min_by_key(|(_, space)| (!space.pages.is_empty(), space.sampled_at))
            .map(|(mm, _)| *mm);
        if let Some(mm) = oldest {
            let space = self.spaces.get(&mm);
            let pages = space.map_or(0, |space| space.pages.len() + space.mapped.len());
            self.forget_space(mm);
            self.losses.spaces_evicted += 1;
            self.losses.pages_evicted += pages as u64;
        }
    }

    fn forget_space(&mut self, mm: u64) {
        if let Some(space) = self.spaces.remove(&mm) {
            for path in space.paths() {
                self.paths.release(path);
            }
        }
    }

    /// The address space with most pages keeps every other one.
    fn thin_largest(&mut self) {
        let largest = self
            .spaces
            .values_mut()
            .max_by_key(|space| space.pages.len());
        if let Some(space) = largest {
            let shift = space.pages.sparsest_shift();
            space.pages.thin(shift + 1);
        }
    }

    /// Sets densities by what the last moments gave.
    pub fn adjust(&mut self) {
        let seconds = self.adjusted.elapsed().as_secs_f64();
        self.since_adjusted = 0;
        self.adjusted = Instant::now();
        let samples = std::mem::take(&mut self.samples);
        if self.limits.only.is_some() {
            return;
        }
        let changes = self.densities.adjust(&samples, seconds);
        if changes.is_empty() {
            return;
        }
        for change in changes {
            match change {
                Change::Set { cgroup_id, shift } => {
                    self.set_shift(cgroup_id, shift);
                    // What a sparser sampling leaves out would not be seen when it is given back
                    // and touched again.
                    for space in self.spaces.values_mut() {
                        if space.cgroup_id == cgroup_id {
                            space.pages.thin(shift);
                        }
                    }
                }
                Change::Forget { cgroup_id } => self.kernel.forget_shift(cgroup_id),
            }
        }
        self.set_control();
    }

    /// Looks at the pages of all address spaces: those that are new, or `all`.
    pub fn verify(&mut self, all: bool) {
        let collapses = all.then(|| self.tables.collapses()).flatten();
        for space in self.spaces.values_mut() {
            let read = space.verify_pages(&self.proc, &self.tables, all, collapses);
            self.losses.page_tables_unreadable += u64::from(!read);
            if all {
                let cut = space.verify_mappings(&self.proc, &mut self.buffer);
                self.losses.lists_cut += u64::from(cut);
            }
        }
        if all {
            self.tidy();
        }
    }

    /// What has ended goes, and what only took room.
    fn tidy(&mut self) {
        let ended: Vec<u64> = self
            .spaces
            .iter()
            .filter(|(_, space)| match space.ended {
                Some(ended) => ended.elapsed() > KEEP_ENDED,
                None => {
                    space.pages.is_empty()
                        && space.mapped.is_empty()
                        && (space.sampled_at.elapsed() > KEEP_IDLE || space.has_ended(&self.proc))
                }
            })
            .map(|(mm, _)| *mm)
            .collect();
        for mm in ended {
            self.forget_space(mm);
        }
        for space in self.spaces.values_mut() {
            let mut idle = Vec::new();
            if space.pages.paths().count() > space.pages.len() + MOST_IDLE_PATHS {
                idle.extend(space.pages.forget_empty());
            }
            if space.mapped.paths().count() > space.mapped.len() + MOST_IDLE_PATHS {
                idle.extend(space.mapped.forget_empty());
            }
            for path in idle {
                self.paths.release(path);
            }
        }
        self.paths.sweep();
        let code = self.spaces.values().flat_map(Space::modules);
        let in_use = code.chain(self.paths.modules()).collect();
        self.modules.close_unused(&in_use, Instant::now());
    }

    /// The newer base of growth becomes the older one.
    pub fn rebase(&mut self, now_ns: u64) {
        self.bases = Bases {
            older_ns: self.bases.newer_ns,
            newer_ns: now_ns,
        };
        for space in self.spaces.values_mut() {
            space.pages.rebase(self.bases);
        }
    }

    /// Growth counts from now on.
    pub fn restart(&mut self, now_ns: u64) {
        self.verify(true);
        self.bases = Bases {
            older_ns: now_ns,
            newer_ns: now_ns,
        };
        for space in self.spaces.values_mut() {
            space.pages.restart(now_ns);
        }
    }

    /// What is resident now, of the spaces selected.
    pub fn profile(&mut self, selection: &Selection, now_ns: u64) -> RawProfile {
        let collapses = self.tables.collapses();
        for space in self.spaces.values_mut() {
            if selection.has(space) && space.ended.is_none() {
                let read = space.verify_pages(&self.proc, &self.tables, true, collapses);
                self.losses.page_tables_unreadable += u64::from(!read);
                let cut = space.verify_mappings(&self.proc, &mut self.buffer);
                self.losses.lists_cut += u64::from(cut);
            }
        }
        let mut newest: HashMap<u32, Instant> = HashMap::new();
        for space in self.spaces.values() {
            let sampled_at = newest.entry(space.program.pid).or_insert(space.sampled_at);
            *sampled_at = space.sampled_at.max(*sampled_at);
        }
        // A process that ended had what its last program had; all before gave theirs back at exec.
        let is_past = |space: &Space| {
            let followed = newest.get(&space.program.pid) > Some(&space.sampled_at);
            space.ended.is_some() && (followed || space.is_replaced(&self.proc))
        };
        let spaces = self.spaces.values();
        Spaces {
            spaces: spaces.filter(|space| selection.has(space) && !is_past(space)),
            paths: &self.paths,
            modules: &self.modules,
            proc: &self.proc,
        }
        .profile(self.bases.older_ns, now_ns)
    }

    /// Address spaces, sampled pages and call paths that are known.
    pub fn sizes(&self) -> (usize, usize, usize) {
        let pages = self.spaces.values().map(|space| space.pages.len()).sum();
        (self.spaces.len(), pages, self.paths.len())
    }

    pub fn losses(&self) -> StackLosses {
        StackLosses {
            modules_evicted: self.modules.evicted,
            tables_refused: self.modules.tables_refused,
            code_left_out: self.unwinding.left_out,
            paths_cut: self.unwinding.paths_cut,
            lists_cut: self.unwinding.lists_cut + self.losses.lists_cut,
            ..self.losses
        }
    }
}
