//! The files whose code processes run: opened once, with what unwinding needs of them.
//!
//! Must not symbolize.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io,
    ops::Range,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::sys::stat::{major, minor};

use crate::host::{
    ProcRoot,
    mappings::Mapping,
    open_in_root::{Root, open_at_once},
};

use super::{
    code::{Module, ModuleId},
    elf::{build_id, read_tables},
    file_view::FileView,
};

/// Where a cgroup had no room for a table, it is looked again no sooner than this.
const ROOM_AFTER: Duration = Duration::from_secs(10);
/// A file is closed when nothing needed it for so long: open, it keeps the file system of a container busy
/// that may be gone.
const KEEP_UNUSED: Duration = Duration::from_secs(60);

/// What unwinding needs of a module; addresses are those stated in the file.
#[derive(Debug, Clone, Default)]
pub struct UnwindTables {
    /// No two have the same.
    pub number: u64,
    pub text: Option<Range<u64>>,
    pub eh_frame: Option<Section>,
    pub eh_frame_hdr: Option<Section>,
    pub got: Option<Range<u64>>,
    /// Offset in the file, address and length of each loaded segment.
    pub segments: Vec<Segment>,
    /// A table was left out: it is too large, or there is no room.
    pub refused: bool,
    /// There was no room for a table: later there may be.
    pub lacks_room: bool,
}

/// A section's bytes and where they are loaded.
#[derive(Debug, Clone)]
pub struct Section {
    pub address: Range<u64>,
    pub bytes: Arc<FileView>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub offset: u64,
    pub bytes: u64,
    pub address: u64,
}

impl UnwindTables {
    /// What is added to the file's addresses where `mapping` lies; `None`: no segment is there.
    pub fn bias(&self, mapping: &Mapping, page_bytes: u64) -> Option<u64> {
        let mask = !(page_bytes - 1);
        let segments = self.segments.iter().filter(|segment| {
            let start = segment.offset & mask;
            let end = segment.offset.saturating_add(segment.bytes);
            (start..end).contains(&mapping.offset)
        });
        // Where linkers (lld) let segments share a page, it is mapped for each: the mapping that begins
        // with it is the later one's.
        let segment = segments.max_by_key(|segment| segment.offset)?;
        // A file may state any address.
        let within = mapping.offset - (segment.offset & mask);
        let address = (segment.address & mask).wrapping_add(within);
        Some(mapping.range.start.wrapping_sub(address))
    }

    /// Whether a file was cut short under a table.
    pub fn are_damaged(&self) -> bool {
        let sections = [&self.eh_frame, &self.eh_frame_hdr];
        let mut sections = sections.into_iter().flatten();
        sections.any(|section| section.bytes.is_damaged())
    }
}

/// A file as it was at some time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Identity {
    device: (u32, u32),
    inode: u64,
    /// Length and time of the last change; `None` where it could not be opened.
    content: Option<(u64, i64, i64)>,
}

struct Entry {
    module: Module,
    tables: Option<Arc<UnwindTables>>,
    /// And for which cgroup.
    tables_read: (Instant, u64),
    used: u64,
    unused_since: Option<Instant>,
}

/// All modules that are known.
pub struct Modules {
    proc: ProcRoot,
    entries: HashMap<ModuleId, Entry>,
    ids: HashMap<Identity, ModuleId>,
    next: u32,
    /// Numbers given to tables.
    numbers: u64,
    clock: u64,
    most: usize,
    /// Modules that were forgotten because there were too many.
    pub evicted: u64,
    /// Files whose unwind tables were left out; for lack of room once for each time it was looked for.
    pub tables_refused: u64,
}

impl Modules {
    pub fn new(proc: ProcRoot, most: usize) -> Self {
        Self {
            proc,
            entries: HashMap::new(),
            ids: HashMap::new(),
            next: 0,
            numbers: 0,
            clock: 0,
            most: most.max(1),
            evicted: 0,
            tables_refused: 0,
        }
    }

    pub fn get(&self, id: ModuleId) -> Option<&Module> {
        self.entries.get(&id).map(|entry| &entry.module)
    }

    /// How often a module was looked for.
    #[cfg(test)]
    pub fn looks(&self) -> u64 {
        self.clock
    }

    /// The module behind a mapping of a process, opened if it is new.
    pub fn of(&mut self, pid: u32, mapping: &Mapping) -> ModuleId {
        let file = open(&self.proc, pid, mapping);
        let content = file
            .as_ref()
            .and_then(|file| file.metadata().ok())
            .map(|metadata| (metadata.len(), metadata.mtime(), metadata.mtime_nsec()));
        let identity = Identity {
            device: mapping.device,
            inode: mapping.inode,
            content,
        };
        self.clock += 1;
        if let Some(id) = self.ids.get(&identity)
            && let Some(entry) = self.entries.get_mut(id)
        {
            entry.used = self.clock;
            entry.module.pid = pid;
            return *id;
        }
        if self.entries.len() >= self.most {
            self.evict();
        }
        let id = ModuleId(self.next);
        self.next = self.next.wrapping_add(1);
        let module = Module {
            id,
            path: String::from_utf8_lossy(&mapping.path).into_owned(),
            build_id: file.as_ref().and_then(build_id),
            file: file.map(Arc::new),
            pid,
        };
        let entry = Entry {
            module,
            tables: None,
            tables_read: (Instant::now(), 0),
            used: self.clock,
            unused_since: None,
        };
        self.entries.insert(id, entry);
        self.ids.insert(identity, id);
        id
    }

    /// What unwinding needs of a module; empty where there is none. `cgroup_id`: of who needs it, whose share
    /// of the room it takes if it was not read before.
    pub fn tables(&mut self, id: ModuleId, cgroup_id: u64) -> Arc<UnwindTables> {
        let Some(entry) = self.entries.get(&id) else {
            return Arc::default();
        };
        let is_good = |tables: &&Arc<UnwindTables>| {
            let (read, asked) = entry.tables_read;
            let may_have_room =
                tables.lacks_room && (asked != cgroup_id || read.elapsed() >= ROOM_AFTER);
            !tables.are_damaged() && !may_have_room
        };
        if let Some(tables) = entry.tables.as_ref().filter(is_good) {
            return tables.clone();
        }
        let tables = match &entry.module.file {
            Some(file) => {
                self.numbers += 1;
                Arc::new(UnwindTables {
                    number: self.numbers,
                    ..read_tables(file, cgroup_id)
                })
            }
            None => Arc::default(),
        };
        self.tables_refused += u64::from(tables.refused);
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.tables = Some(tables.clone());
            entry.tables_read = (Instant::now(), cgroup_id);
        }
        tables
    }

    /// Closes what has not been in use for a while.
    pub fn close_unused(&mut self, in_use: &HashSet<ModuleId>, now: Instant) {
        self.entries.retain(|id, entry| {
            if in_use.contains(id) {
                entry.unused_since = None;
                return true;
            }
            let since = *entry.unused_since.get_or_insert(now);
            now.duration_since(since) < KEEP_UNUSED
        });
        self.ids.retain(|_, id| self.entries.contains_key(id));
    }

    fn evict(&mut self) {
        let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used);
        let Some((&id, _)) = oldest else { return };
        self.entries.remove(&id);
        self.ids.retain(|_, known| *known != id);
        self.evicted += 1;
    }
}

/// The very file that is mapped; `None` if it cannot be had, or the path leads to another one.
fn open(proc: &ProcRoot, pid: u32, mapping: &Mapping) -> Option<File> {
    let Range { start, end } = mapping.range;
    // Needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN, and finds deleted files too.
    let link = proc.path(&format!("{pid}/map_files/{start:x}-{end:x}"));
    match open_at_once(&link) {
        Ok(file) => return is_regular(&file).then_some(file),
        // A lease: it is tried again when the process is read again.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
        Err(_) => {}
    }
    let root = Root::at(&proc.path(&format!("{pid}/root"))).ok()?;
    let path = Path::new(std::str::from_utf8(&mapping.path).ok()?);
    let (file, stat) = root.open(path, true).ok()?;
    // Some file systems have another device number in maps than in stat.
    let same_device = (major(stat.st_dev), minor(stat.st_dev))
        == (u64::from(mapping.device.0), u64::from(mapping.device.1));
    let same = stat.st_ino == mapping.inode && (same_device || mapping.device.0 == 0);
    same.then_some(file)
}

fn is_regular(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.is_file())
}

#[cfg(test)]
#[path = "modules_tests.rs"]
mod tests;
