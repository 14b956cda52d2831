//! From registers and a piece of the stack to the places that called each other.
//!
//! Uses `.eh_frame`, and frame pointers where there is none. A caller that does not lie in
//! executable memory is never believed: the call path ends before it.

use std::{
    collections::{HashMap, hash_map::Entry},
    ops::Range,
    sync::Arc,
};

use framehop::{
    CacheNative, FrameAddress, MayAllocateDuringUnwind, ModuleSectionInfo, UnwindRegsNative,
    Unwinder as _, UnwinderNative,
};

use crate::{
    host::{
        HostError, ProcRoot,
        mappings::{ListEnd, Mapping},
    },
    probes::stack::StackSample,
};

use super::{
    callpaths::CallPath,
    code::{ModuleId, Place, Root},
    file_view::FileView,
    modules::{Modules, Section, UnwindTables},
    room::{CodeRoom, Share},
};

/// Frames of the deepest call path that is kept.
const MOST_FRAMES: usize = 256;
/// The library numbers changes of modules with 16 bits, and its cache trusts them.
const CHANGES_PER_CACHE: u32 = 30_000;

/// Executable memory of a process.
#[derive(Debug, Clone)]
struct Code {
    range: Range<u64>,
    /// Of its first byte, in the file.
    offset: u64,
    /// `None`: not a file.
    module: Option<ModuleId>,
}

/// What a process has mapped, as far as unwinding needs it.
pub struct CodeMap {
    code: Vec<Code>,
    tables: Vec<Arc<UnwindTables>>,
    unwinder: UnwinderNative<Bytes, MayAllocateDuringUnwind>,
    share: Share,
}

/// Bytes of a section, shared by all processes.
#[derive(Clone)]
struct Bytes(Arc<FileView>);

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl CodeMap {
    /// Executable mapping of an address.
    fn code(&self, address: u64) -> Option<&Code> {
        let after = self
            .code
            .partition_point(|code| code.range.start <= address);
        let code = self.code.get(after.checked_sub(1)?)?;
        code.range.contains(&address).then_some(code)
    }

    /// The files that hold its code.
    pub fn modules(&self) -> impl Iterator<Item = ModuleId> {
        self.code.iter().filter_map(|code| code.module)
    }

    /// Whether a file was cut short whose tables are used here.
    pub fn is_damaged(&self) -> bool {
        self.tables.iter().any(|tables| tables.are_damaged())
    }
}

/// Unwinds for all processes.
pub struct Unwinding {
    proc: ProcRoot,
    page_bytes: u64,
    cache: CacheNative<MayAllocateDuringUnwind>,
    changes: u32,
    buffer: Vec<u8>,
    room: CodeRoom,
    /// Executable mappings that were left out, again whenever their process is read.
    pub left_out: u64,
    /// Lists of mappings that were longer than what is read of them.
    pub lists_cut: u64,
}

impl Unwinding {
    /// `most_code`: executable mappings that are kept, of all processes together.
    pub fn new(proc: ProcRoot, page_bytes: u64, most_code: usize) -> Self {
        Self {
            proc,
            page_bytes,
            cache: CacheNative::new(),
            changes: 0,
            buffer: Vec::new(),
            room: CodeRoom::new(most_code),
            left_out: 0,
            lists_cut: 0,
        }
    }

    /// Reads what a process has mapped. `cgroup_id`: where it was sampled. `before`: what was read of it
    /// before, and is to be replaced.
    ///
    /// # Errors
    /// It is gone, or cannot be read.
    pub fn read_code(
        &mut self,
        pid: u32,
        cgroup_id: u64,
        modules: &mut Modules,
        before: Option<&CodeMap>,
    ) -> Result<CodeMap, HostError> {
        let room = self.room.for_one(before.map(|map| &map.share));
        let Executable {
            files,
            mut others,
            mut left_out,
            is_cut,
        } = Executable::read(&self.proc, pid, room, &mut self.buffer)?;
        self.lists_cut += u64::from(is_cut);
        let mut code = Vec::with_capacity(files.len() + others.len());
        let mut known = HashMap::new();
        let mut unwinder = UnwinderNative::new();
        self.changes += 1;
        let mut taken = 0;
        for mapping in &files {
            if taken >= room {
                left_out += 1;
                continue;
            }
            taken += 1;
            // Opened once: it may be mapped thousands of times.
            let file = (mapping.device, mapping.inode, mapping.path.as_slice());
            let (id, tables, is_used) = match known.entry(file) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    let id = modules.of(pid, mapping);
                    entry.insert((id, modules.tables(id, cgroup_id), false))
                }
            };
            code.push(Code {
                range: mapping.range.clone(),
                offset: mapping.offset,
                module: Some(*id),
            });
            let Some(bias) = tables.bias(mapping, self.page_bytes) else {
                continue;
            };
            let index = tables.index_room();
            if taken + index > room {
                left_out += 1;
                continue;
            }
            taken += index;
            unwinder.add_module(framehop_module(mapping, bias, tables));
            self.changes += 1;
            *is_used = true;
        }
        left_out += others.len().saturating_sub(room - taken);
        others.truncate(room - taken);
        taken += others.len();
        code.extend(others.into_iter().map(|range| Code {
            range,
            offset: 0,
            module: None,
        }));
        code.sort_unstable_by_key(|code| code.range.start);
        self.left_out += left_out as u64;
        if self.changes > CHANGES_PER_CACHE {
            self.changes = 0;
            self.cache = CacheNative::new();
        }
        let used = known.into_values().filter(|(_, _, is_used)| *is_used);
        Ok(CodeMap {
            code,
            tables: used.map(|(_, tables, _)| tables).collect(),
            unwinder,
            share: self.room.take(taken),
        })
    }

    /// The call path of a sample.
    pub fn unwind(&mut self, map: &CodeMap, sample: &StackSample<'_>) -> CallPath {
        let mut read = |address: u64| {
            let at = usize::try_from(address.wrapping_sub(sample.sp)).map_err(|_| ())?;
            let bytes = sample.stack.get(at..).and_then(|rest| rest.get(..8));
            let bytes = bytes.ok_or(())?.try_into().map_err(|_| ())?;
            Ok(u64::from_ne_bytes(bytes))
        };
        let registers = registers(sample);
        let mut frames = map
            .unwinder
            .iter_frames(sample.ip, registers, &mut self.cache, &mut read);
        let mut places = Vec::with_capacity(32);
        let root = loop {
            if places.len() >= MOST_FRAMES {
                break Root::Cut;
            }
            match frames.next() {
                Ok(Some(frame)) => match place(map, frame, sample.pid) {
                    Some(place) => places.push(place),
                    None if places.is_empty() => {
                        places.push(Place::Anonymous {
                            pid: sample.pid,
                            address: frame.address_for_lookup(),
                        });
                        break Root::Lost;
                    }
                    None => break Root::Lost,
                },
                Ok(None) => break Root::Reached,
                Err(framehop::Error::CouldNotReadStack(address))
                    if address >= sample.sp.saturating_add(sample.stack.len() as u64) =>
                {
                    break Root::Cut;
                }
                Err(framehop::Error::ReturnAddressIsNull) => break Root::Reached,
                Err(_) => break Root::Lost,
            }
        };
        CallPath {
            places: places.into(),
            root,
        }
    }
}

/// What a process may execute; at most so many of either kind, in the order of addresses.
#[derive(Default)]
struct Executable {
    files: Vec<Mapping>,
    /// Not of files; what lies side by side is one.
    others: Vec<Range<u64>>,
    left_out: usize,
    /// There are more that were not read.
    is_cut: bool,
}

impl Executable {
    fn read(
        proc: &ProcRoot,
        pid: u32,
        most: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<Self, HostError> {
        let mut found = Self::default();
        let end = proc.each_mapping(pid, buffer, |mapping| {
            if mapping.executable {
                found.add(mapping, most);
            }
        })?;
        found.is_cut = end == ListEnd::Cut;
        Ok(found)
    }

    fn add(&mut self, mapping: Mapping, most: usize) {
        if is_file(&mapping) {
            if self.files.len() < most {
                return self.files.push(mapping);
            }
        } else {
            let last = self.others.last_mut();
            if let Some(last) = last.filter(|last| last.end == mapping.range.start) {
                last.end = mapping.range.end;
                return;
            }
            if self.others.len() < most {
                return self.others.push(mapping.range);
            }
        }
        self.left_out += 1;
    }
}

#[cfg(target_arch = "x86_64")]
fn registers(sample: &StackSample<'_>) -> UnwindRegsNative {
    UnwindRegsNative::new(sample.ip, sample.sp, sample.bp)
}

#[cfg(target_arch = "aarch64")]
fn registers(sample: &StackSample<'_>) -> UnwindRegsNative {
    use framehop::aarch64::PtrAuthMask;
    // Above the 48 bits of an address a return address may be signed.
    let mask = PtrAuthMask::from_max_known_address((1 << 48) - 1);
    UnwindRegsNative::new_with_ptr_auth_mask(mask, sample.lr, sample.sp, sample.bp)
}

/// Whether it is code from a file. What a program wrote to a memory file is as good as anonymous: .NET
/// maps what it compiles from one.
fn is_file(mapping: &Mapping) -> bool {
    mapping.inode != 0 && !mapping.path.starts_with(b"/memfd:")
}

fn place(map: &CodeMap, frame: FrameAddress, pid: u32) -> Option<Place> {
    let address = frame.address_for_lookup();
    let code = map.code(address)?;
    Some(match code.module {
        Some(module) => Place::File {
            module,
            offset: (address - code.range.start).saturating_add(code.offset),
        },
        None => Place::Anonymous { pid, address },
    })
}

fn framehop_module(mapping: &Mapping, bias: u64, tables: &UnwindTables) -> framehop::Module<Bytes> {
    framehop::Module::new(String::new(), mapping.range.clone(), bias, Sections(tables))
}

/// Tables as the library asks for them.
struct Sections<'t>(&'t UnwindTables);

impl Sections<'_> {
    fn section(&self, name: &[u8]) -> Option<&Section> {
        match name {
            b".eh_frame" => self.0.eh_frame.as_ref(),
            b".eh_frame_hdr" => self.0.eh_frame_hdr.as_ref(),
            _ => None,
        }
    }
}

impl ModuleSectionInfo<Bytes> for Sections<'_> {
    fn base_svma(&self) -> u64 {
        0
    }

    fn section_svma_range(&mut self, name: &[u8]) -> Option<Range<u64>> {
        match name {
            b".text" => self.0.text.clone(),
            b".got" => self.0.got.clone(),
            name => Some(self.section(name)?.address.clone()),
        }
    }

    fn section_data(&mut self, name: &[u8]) -> Option<Bytes> {
        Some(Bytes(Arc::clone(&self.section(name)?.bytes)))
    }
}

#[cfg(test)]
#[path = "unwind_tests.rs"]
mod tests;
