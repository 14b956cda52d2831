//! One address space that is sampled: its process, its code, its pages.

use std::{
    collections::HashMap,
    fs::File,
    io,
    time::{Duration, Instant},
};

use crate::{
    host::{HostError, ProcRoot, mappings::ListEnd, process::Program},
    probes::stack::{StackSample, Touched},
};

use super::{
    callpaths::{CallPath, CallPathId},
    code::{ModuleId, Root},
    mappings::Mapped,
    modules::Modules,
    pages::{Bases, Pages, PathPages, Residency, Touch},
    profile::Kind,
    residency::{Asked, PageTables},
    unwind::{CodeMap, Unwinding},
};

/// Mappings are read again when code appears that was not there: soon while a process starts, and
/// at most this often later.
const REREAD_AFTER: Duration = Duration::from_secs(1);
/// What a process maps says how long it takes to read it, which is to be no more than a hundredth of the time.
const REREAD_SHARE: u32 = 100;
/// Sampled mappings of one process.
const MOST_MAPPINGS: usize = 4096;

/// Why a sample cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// The process was gone, or had become another program, when it was looked at.
    Gone,
    /// It cannot be read.
    Unreadable,
}

/// An address space and all that is known of it.
pub struct Space {
    pub program: Program,
    pub comm: String,
    /// In which it was sampled last.
    pub cgroup_id: u64,
    pub sampled_at: Instant,
    /// Its process was found ended then; what it had is kept for a while as it was.
    pub ended: Option<Instant>,
    /// Of small pages into huge ones, when all pages were looked at last.
    collapses: Option<u64>,
    /// Of its page table: bound to this address space, also when the process executes another program. While it
    /// is open, no other gets its `mm` (`proc_mem_open` in fs/proc/base.c holds the struct).
    pagemap: File,
    code: CodeMap,
    code_read: Instant,
    code_took: Duration,
    opened: Instant,
    pub pages: Pages,
    pub mapped: Mapped,
}

impl Space {
    /// Looks at a process for the first time.
    ///
    /// # Errors
    /// It is not what the sample was taken of, or cannot be read.
    pub fn open(
        proc: &ProcRoot,
        sample: &StackSample<'_>,
        modules: &mut Modules,
        unwinding: &mut Unwinding,
        page_bytes: u64,
        tables: &PageTables,
        bases: Bases,
    ) -> Result<Self, Unusable> {
        let unusable = |error: &io::Error| match (error.kind(), error.raw_os_error()) {
            (io::ErrorKind::NotFound, _) | (_, Some(libc::ESRCH)) => Unusable::Gone,
            _ => Unusable::Unreadable,
        };
        let pid = sample.pid;
        let pagemap =
            File::open(proc.path(&format!("{pid}/pagemap"))).map_err(|error| unusable(&error))?;
        let began = Instant::now();
        let code = unwinding
            .read_code(pid, sample.cgroup_id, modules, None)
            .map_err(|error| match error {
                HostError::Gone { .. } => Unusable::Gone,
                _ => Unusable::Unreadable,
            })?;
        let code_took = began.elapsed();
        // Last: what was opened before belongs to the program that is there now.
        let (program, comm) = proc.program_of(pid).map_err(|_| Unusable::Gone)?;
        if sample.start_stack.is_some() && program.start_stack != sample.start_stack {
            return Err(Unusable::Gone);
        }
        let program = Program {
            start_stack: sample.start_stack,
            ..program
        };
        let now = Instant::now();
        Ok(Self {
            program,
            comm,
            cgroup_id: sample.cgroup_id,
            sampled_at: now,
            ended: None,
            collapses: None,
            pagemap,
            code,
            code_read: now,
            code_took,
            opened: now,
            pages: Pages::new(page_bytes, tables.huge_pages(), bases),
            mapped: Mapped::default(),
        })
    }

    /// Whether a sample with the same `mm` is of this program, and not of one that came later.
    pub fn is_of(&self, sample: &StackSample<'_>) -> bool {
        self.program.start_stack == sample.start_stack
    }

    /// The call path of a sample.
    pub fn unwind(
        &mut self,
        sample: &StackSample<'_>,
        modules: &mut Modules,
        unwinding: &mut Unwinding,
    ) -> CallPath {
        let path = unwinding.unwind(&self.code, sample);
        let damaged = self.code.is_damaged();
        if !damaged && path.root != Root::Lost {
            return path;
        }
        let wait = reread_after(self.opened.elapsed(), self.code_took, damaged);
        if self.code_read.elapsed() >= wait {
            // A library may have been loaded since.
            let began = Instant::now();
            let (pid, cgroup_id) = (self.program.pid, sample.cgroup_id);
            let read = unwinding.read_code(pid, cgroup_id, modules, Some(&self.code));
            self.code_read = Instant::now();
            self.code_took = self.code_read - began;
            if let Ok(code) = read {
                self.code = code;
                return unwinding.unwind(&self.code, sample);
            }
        }
        if !damaged {
            return path;
        }
        // Zeros stood in for tables: who called is not known.
        CallPath {
            places: path.places.into_iter().take(1).collect(),
            root: Root::Lost,
        }
    }

    /// Remembers a sample. `true`: this address space refers to the call path for the first time.
    pub fn remember(
        &mut self,
        sample: &StackSample<'_>,
        path: CallPathId,
        page: PageOfSample,
        tables: &PageTables,
    ) -> bool {
        self.cgroup_id = sample.cgroup_id;
        self.sampled_at = Instant::now();
        match sample.touched {
            Touched::Page { protected } => {
                let is_new = self.pages.touch(&Touch {
                    page: page.number,
                    path,
                    at_ns: sample.boot_ns,
                    lot: page.lot,
                    shift: sample.shift,
                    boost: page.boost,
                    protected,
                });
                if self.pages.is_unseen(page.number) {
                    self.look_at(page.number, tables);
                }
                is_new
            }
            Touched::Mmap { bytes } | Touched::Brk { bytes } => {
                if self.mapped.len() >= MOST_MAPPINGS {
                    self.mapped.forget_half();
                }
                self.mapped.map(
                    sample.address,
                    bytes,
                    page.bytes,
                    sample.shift,
                    path,
                    sample.boot_ns,
                )
            }
        }
    }

    /// Looks at pages: those that are new, or `all`. `false`: the page table is not readable.
    /// `collapses`: of small pages into huge ones, by the machine since its start.
    pub fn verify_pages(
        &mut self,
        proc: &ProcRoot,
        tables: &PageTables,
        all: bool,
        collapses: Option<u64>,
    ) -> bool {
        let pages = self.pages.to_verify(all);
        if pages.is_empty() || self.ended.is_some() {
            return true;
        }
        let Ok(found) = tables.look(&self.pagemap, &pages) else {
            return false;
        };
        let is_gone = |found: &Residency| *found == Residency::Gone;
        if found.iter().any(is_gone)
            && !self.still_has(tables, &pages, &found)
            && self.has_ended(proc)
        {
            self.ended = Some(Instant::now());
            return true;
        }
        let collapsed = collapses.is_none() || collapses != self.collapses;
        for (asked, residency) in pages.iter().zip(found) {
            self.pages.verified(asked.page, residency, collapsed);
        }
        if all {
            self.collapses = collapses;
        }
        true
    }

    /// Whether a page that was just found resident is still there: else the address space may have ended while it
    /// was looked at.
    fn still_has(&self, tables: &PageTables, pages: &[Asked], found: &[Residency]) -> bool {
        let mut resident = pages.iter().zip(found).filter_map(|(asked, found)| {
            matches!(found, Residency::Resident { .. }).then_some(*asked)
        });
        let again = resident
            .next()
            .map(|asked| tables.look(&self.pagemap, &[asked]));
        matches!(again, Some(Ok(found)) if found.first() != Some(&Residency::Gone))
    }

    /// Looks at a page that was just touched: what it came with shows best now. One that is not there
    /// may still come.
    fn look_at(&mut self, page: u64, tables: &PageTables) {
        let asked = Asked { page, folio: None };
        if let Ok(found) = tables.look(&self.pagemap, &[asked])
            && let Some(residency @ Residency::Resident { .. }) = found.first().copied()
        {
            self.pages.verified(page, residency, true);
        }
    }

    /// The files that hold its code.
    pub fn modules(&self) -> impl Iterator<Item = ModuleId> {
        self.code.modules()
    }

    /// Whether the process is gone, or has become another program.
    pub fn has_ended(&self, proc: &ProcRoot) -> bool {
        let was = self.program.start_stack;
        match proc.program_of(self.program.pid) {
            Ok((now, _)) => was.is_some() && now.start_stack != was,
            Err(HostError::Gone { .. }) => true,
            Err(_) => false,
        }
    }

    /// Whether the process lives on as another program.
    pub fn is_replaced(&self, proc: &ProcRoot) -> bool {
        let was = self.program.start_stack;
        let now = proc.program_of(self.program.pid);
        let now = now.ok().and_then(|(now, _)| now.start_stack);
        now.is_some() && was.is_some() && now != was
    }

    /// Looks at what is still mapped. `true`: nothing is known of what lies behind the part of the list that
    /// was read, and counts as unmapped.
    pub fn verify_mappings(&mut self, proc: &ProcRoot, buffer: &mut Vec<u8>) -> bool {
        if self.mapped.is_empty() || self.ended.is_some() {
            return false;
        }
        let mut ranges = Vec::new();
        let read = proc.each_mapping(self.program.pid, buffer, |mapping| {
            if mapping.private && mapping.writable && mapping.inode == 0 {
                ranges.push(mapping.range);
            }
        });
        match read {
            Ok(_) => self.mapped.verified(&ranges),
            Err(HostError::Gone { .. }) => self.mapped.verified(&[]),
            Err(_) => {}
        }
        matches!(read, Ok(ListEnd::Cut))
    }

    /// Call paths that this address space refers to, once for pages and once for mappings.
    pub fn paths(&self) -> impl Iterator<Item = CallPathId> + '_ {
        self.pages.paths().chain(self.mapped.paths())
    }

    /// How many pages and mappings went with the call path.
    pub fn forget(&mut self, path: CallPathId) -> usize {
        self.pages.forget(path) + self.mapped.forget(path)
    }

    /// Everything by kind and call path.
    pub fn by_path(&self) -> impl Iterator<Item = (Kind, CallPathId, PathPages)> + use<> {
        let tell = |kind, paths: HashMap<CallPathId, PathPages>| {
            paths
                .into_iter()
                .map(move |(path, pages)| (kind, path, pages))
        };
        tell(Kind::Resident, self.pages.by_path()).chain(tell(
            Kind::Mapped,
            self.mapped.by_path(self.pages.base_ns()),
        ))
    }
}

/// How long after its mappings were read they may be read again.
fn reread_after(age: Duration, took: Duration, damaged: bool) -> Duration {
    let soonest = if damaged {
        Duration::ZERO
    } else {
        REREAD_AFTER.min(age / 2)
    };
    soonest.max(took * REREAD_SHARE)
}

/// What a sampled address is in pages.
#[derive(Debug, Clone, Copy)]
pub struct PageOfSample {
    pub number: u64,
    pub bytes: u64,
    pub lot: u64,
    pub boost: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_to_read_is_read_seldom() {
        let after = |age, took, damaged| {
            let of = Duration::from_millis;
            reread_after(of(age), of(took), damaged).as_millis()
        };
        assert_eq!(after(600, 1, false), 300);
        assert_eq!(after(60_000, 1, false), 1000);
        assert_eq!(after(60_000, 50, false), 5000);
        assert_eq!(after(2, 50, false), 5000);
        assert_eq!(after(60_000, 1, true), 100);
    }
}
