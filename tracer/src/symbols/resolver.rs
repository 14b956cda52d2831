//! Places to frames: from the cache, else from the worker, with less detail for what kills it.

mod files;
mod generated;

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    time::Duration,
};

use self::{
    files::{FileIdentity, ModuleState},
    generated::ProcessState,
};
use super::{
    cache::{Cache, CachedFrame, Named},
    losses::Losses,
    wire::{Region, WorkerLimits},
    worker_process::{Program, Workers},
};
use crate::{
    host::escape,
    stacks::{
        code::{Module, ModuleId, Place},
        profile::Frame,
    },
};

/// Most characters of a name or a path.
const MOST_CHARS: usize = 512;
/// Files and processes whose state is kept; with more, all is forgotten and asked again.
const MOST_SUBJECTS: usize = 8192;

/// What symbolization may use.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Frames that are kept.
    pub cache_frames: usize,
    /// Their bytes.
    pub cache_bytes: usize,
    /// What the worker may allocate, bytes.
    pub worker_heap_bytes: u64,
    /// What the worker may map, bytes: the largest file, and what it allocates.
    pub worker_mapped_bytes: u64,
    /// CPU time of the worker for one file, seconds.
    pub worker_cpu_seconds: u64,
    /// Time for one file; longer than the CPU time, for the worker yields to all others.
    pub worker_timeout: Duration,
    pub program: Program,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            cache_frames: 200_000,
            cache_bytes: 32 << 20,
            worker_heap_bytes: 64 << 20,
            worker_mapped_bytes: 4 << 30,
            worker_cpu_seconds: 10,
            worker_timeout: Duration::from_secs(60),
            program: Program::default(),
        }
    }
}

/// Names places. Calls block for as long as the worker needs, so it wants a thread of its own,
/// which must live on: the worker ends with the thread that made the first call after a rest.
#[derive(Debug)]
pub struct Symbols {
    cache: Cache,
    workers: Workers,
    losses: Losses,
    modules: HashMap<FileIdentity, ModuleState>,
    processes: HashMap<u32, ProcessState>,
    /// For [`Key`]s.
    last_number: u64,
}

impl Symbols {
    pub fn new(limits: Limits) -> Self {
        let worker = WorkerLimits {
            heap_bytes: limits.worker_heap_bytes,
            mapped_bytes: limits.worker_mapped_bytes,
            request_cpu_seconds: limits.worker_cpu_seconds,
        };
        Symbols {
            cache: Cache::new(limits.cache_frames, limits.cache_bytes),
            workers: Workers::new(limits.program, worker, limits.worker_timeout),
            losses: Losses::default(),
            modules: HashMap::new(),
            processes: HashMap::new(),
            last_number: 0,
        }
    }

    /// Frames of each place, in the order asked, at least one each, innermost first. What cannot be
    /// named has no function.
    pub fn resolve(
        &mut self,
        places: &[Place],
        modules: &dyn Fn(ModuleId) -> Option<Module>,
    ) -> Vec<Vec<Frame>> {
        let mut files: BTreeMap<ModuleId, Vec<u64>> = BTreeMap::new();
        let mut processes: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for place in places {
            match *place {
                Place::File { module, offset } => files.entry(module).or_default().push(offset),
                Place::Anonymous { pid, address } => {
                    processes.entry(pid).or_default().push(address);
                }
            }
        }
        let mut named: HashMap<Place, Named> = HashMap::new();
        let mut names: HashMap<ModuleId, String> = HashMap::new();
        for (id, mut offsets) in files {
            offsets.sort_unstable();
            offsets.dedup();
            let Some(module) = modules(id) else { continue };
            names.insert(id, file_name(&module.path));
            let found = self.name_file(&module, &offsets);
            let place = |offset| Place::File { module: id, offset };
            named.extend(found.map(|(offset, found)| (place(offset), found)));
        }
        for (pid, mut addresses) in processes {
            addresses.sort_unstable();
            addresses.dedup();
            let found = self.name_generated(pid, &addresses);
            let place = |address| Place::Anonymous { pid, address };
            named.extend(found.map(|(address, found)| (place(address), found)));
        }
        self.losses.cache_evictions = self.cache.evictions();
        places
            .iter()
            .map(|place| frames(place, named.get(place), &names))
            .collect()
    }

    /// Ends the worker: its memory is given back. The next call starts another one.
    pub fn rest(&mut self) {
        self.workers.end();
    }

    /// What could not be done so far.
    pub fn losses(&self) -> Losses {
        self.losses
    }

    /// The process id of the worker that runs, if one does.
    pub fn worker_pid(&self) -> Option<u32> {
        self.workers.pid()
    }
}

fn shown(text: &str) -> Box<str> {
    escape::display(text.as_bytes(), MOST_CHARS).into()
}

fn frames(place: &Place, named: Option<&Named>, names: &HashMap<ModuleId, String>) -> Vec<Frame> {
    const UNKNOWN: &str = "[unknown]";
    let (module, offset) = match *place {
        Place::File { module, offset } => {
            (names.get(&module).map_or(UNKNOWN, String::as_str), offset)
        }
        Place::Anonymous { address, .. } => {
            let named_code = named
                .is_some_and(|named| named.frames.iter().any(|frame| frame.function.is_some()));
            let module = match named.and_then(|named| named.region) {
                Some(Region::Vdso) => "[vdso]",
                Some(Region::Generated) => "[jit]",
                _ if named_code => "[jit]",
                _ => UNKNOWN,
            };
            (module, address)
        }
    };
    let frame = |function, source, inlined| Frame {
        function,
        module: module.to_owned(),
        offset,
        source,
        inlined,
    };
    let known = named.map(|named| &*named.frames).unwrap_or_default();
    let Some(outermost) = known.len().checked_sub(1) else {
        return vec![frame(None, None, false)];
    };
    let convert = |(index, known): (usize, &CachedFrame)| {
        let source = known.source.as_ref();
        frame(
            known.function.as_deref().map(str::to_owned),
            source.map(|(file, line)| (file.to_string(), *line)),
            index < outermost,
        )
    };
    known.iter().enumerate().map(convert).collect()
}

/// The last part of a path.
fn file_name(path: &str) -> String {
    let path = without_deleted(path);
    let name = Path::new(path).file_name();
    let name = name.map_or(path.as_bytes(), |name| name.as_encoded_bytes());
    escape::display(name, MOST_CHARS)
}

/// A path of `/proc/PID/maps` without the mark of a file that has no name any more.
fn without_deleted(path: &str) -> &str {
    path.strip_suffix(" (deleted)").unwrap_or(path)
}
