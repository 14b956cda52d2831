//! From registers and a piece of the stack to the places that called each other.
//!
//! Uses `.eh_frame`, and frame pointers where there is none. A caller that does not lie in
//! executable memory is never believed: the call path ends before it. Owns how much is done for one stack.

use std::{
    collections::{HashMap, hash_map::Entry},
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use framehop::{FrameAddress, UnwindRegsNative};
use nix::time::{ClockId, clock_gettime};

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
    cpu_share::{Allowance, CpuShares, READING, UNWINDING},
    functions::{Functions, Stop},
    modules::{Modules, UnwindTables},
    room::{CodeRoom, Share},
};

/// Frames of the deepest call path that is kept.
const MOST_FRAMES: usize = 256;
/// CPU time of reading what one process maps; what is left then is left out. Those with hundreds of files take less.
const MOST_READING: Duration = Duration::from_millis(100);
/// Of unwind tables, run for one stack: frames of known programs take 100 each, and 33 KiB at most.
const MOST_TABLE_BYTES: usize = 128 << 10;
/// The same of a usual stack.
const USUAL_TABLE_BYTES: usize = 16 << 10;

/// Executable memory of a process.
#[derive(Debug, Clone)]
struct Code {
    range: Range<u64>,
    /// Of its first byte, in the file.
    offset: u64,
    /// `None`: not a file.
    module: Option<ModuleId>,
    /// Place among the tables of the map, and what is added to the file's addresses.
    tables: Option<(usize, u64)>,
}

/// What a process has mapped, as far as unwinding needs it.
pub struct CodeMap {
    code: Vec<Code>,
    tables: Vec<Arc<UnwindTables>>,
    share: Share,
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

    /// Of the file that is mapped there, and what is added to its addresses.
    fn tables(&self, code: &Code) -> Option<(&UnwindTables, u64)> {
        let (number, bias) = code.tables?;
        Some((self.tables.get(number)?, bias))
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
    functions: Functions,
    /// Of unwinding, and of reading what is mapped.
    shares: CpuShares,
    reading_shares: CpuShares,
    buffer: Vec<u8>,
    room: CodeRoom,
    /// Executable mappings that were left out, again whenever their process is read.
    pub left_out: u64,
    /// Lists of mappings that were longer than what is read of them.
    pub lists_cut: u64,
    /// Call paths that end early, as to unwind them costs too much.
    pub paths_cut: u64,
}

impl Unwinding {
    /// `most_code`: executable mappings that are kept, of all processes together.
    pub fn new(proc: ProcRoot, page_bytes: u64, most_code: usize) -> Self {
        Self {
            proc,
            page_bytes,
            functions: Functions::new(),
            shares: CpuShares::new(&UNWINDING),
            reading_shares: CpuShares::new(&READING),
            buffer: Vec::new(),
            room: CodeRoom::new(most_code),
            left_out: 0,
            lists_cut: 0,
            paths_cut: 0,
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
        let began = cpu_time();
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
        let mut used: Vec<Arc<UnwindTables>> = Vec::new();
        let mut taken = 0;
        let most_time = match self.reading_shares.allowance(cgroup_id, Instant::now()) {
            Allowance::Full => MOST_READING,
            Allowance::Usual => READING.usual,
            Allowance::Nothing => Duration::ZERO,
        };
        let mut is_spent = most_time.is_zero();
        for mapping in &files {
            if taken >= room || is_spent {
                left_out += 1;
                continue;
            }
            taken += 1;
            // Opened once: it may be mapped thousands of times.
            let file = (mapping.device, mapping.inode, mapping.path.as_slice());
            let (id, tables, number) = match known.entry(file) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    let id = modules.of(pid, mapping);
                    is_spent = cpu_time().saturating_sub(began) > most_time;
                    entry.insert((id, modules.tables(id, cgroup_id), None))
                }
            };
            let bias = tables.bias(mapping, self.page_bytes);
            if bias.is_some() && number.is_none() && tables.eh_frame.is_some() {
                *number = Some(used.len());
                used.push(Arc::clone(tables));
            }
            code.push(Code {
                range: mapping.range.clone(),
                offset: mapping.offset,
                module: Some(*id),
                tables: number.zip(bias),
            });
        }
        left_out += others.len().saturating_sub(room - taken);
        others.truncate(room - taken);
        taken += others.len();
        code.extend(others.into_iter().map(|range| Code {
            range,
            offset: 0,
            module: None,
            tables: None,
        }));
        code.sort_unstable_by_key(|code| code.range.start);
        self.left_out += left_out as u64;
        let took = cpu_time().saturating_sub(began);
        self.reading_shares.take(cgroup_id, Instant::now(), took);
        Ok(CodeMap {
            code,
            tables: used,
            share: self.room.take(taken),
        })
    }

    /// The call path of a sample: of one place where its cgroup took more CPU time than it may.
    pub fn unwind(&mut self, map: &CodeMap, sample: &StackSample<'_>) -> CallPath {
        let began = cpu_time();
        let (most_frames, table_bytes) =
            match self.shares.allowance(sample.cgroup_id, Instant::now()) {
                Allowance::Full => (MOST_FRAMES, MOST_TABLE_BYTES),
                Allowance::Usual => (MOST_FRAMES, USUAL_TABLE_BYTES),
                Allowance::Nothing => (1, 0),
            };
        self.paths_cut += u64::from(most_frames == 1);
        let path = self.path(map, sample, most_frames, table_bytes);
        let took = cpu_time().saturating_sub(began);
        self.shares.take(sample.cgroup_id, Instant::now(), took);
        path
    }

    fn path(
        &mut self,
        map: &CodeMap,
        sample: &StackSample<'_>,
        most_frames: usize,
        mut left: usize,
    ) -> CallPath {
        let mut read = |address: u64| {
            let at = usize::try_from(address.wrapping_sub(sample.sp)).map_err(|_| ())?;
            let bytes = sample.stack.get(at..).and_then(|rest| rest.get(..8));
            let bytes = bytes.ok_or(())?.try_into().map_err(|_| ())?;
            Ok(u64::from_ne_bytes(bytes))
        };
        let mut registers = registers(sample);
        let mut address = FrameAddress::from_instruction_pointer(sample.ip);
        let mut places = Vec::with_capacity(32);
        let root = loop {
            let at = address.address_for_lookup();
            let Some(code) = map.code(at) else {
                if places.is_empty() {
                    places.push(Place::Anonymous {
                        pid: sample.pid,
                        address: at,
                    });
                }
                break Root::Lost;
            };
            places.push(place(code, at, sample.pid));
            if places.len() >= most_frames {
                break Root::Cut;
            }
            let caller = self.functions.step(
                map.tables(code),
                address,
                &mut registers,
                &mut left,
                &mut read,
            );
            match caller {
                Ok(Some(caller)) => match FrameAddress::from_return_address(caller) {
                    Some(caller) => address = caller,
                    None => break Root::Reached,
                },
                Ok(None) => break Root::Reached,
                Err(Stop::Refused) => {
                    self.paths_cut += 1;
                    break Root::Cut;
                }
                Err(Stop::Failed(framehop::Error::CouldNotReadStack(address)))
                    if address >= sample.sp.saturating_add(sample.stack.len() as u64) =>
                {
                    break Root::Cut;
                }
                Err(Stop::Failed(framehop::Error::ReturnAddressIsNull)) => break Root::Reached,
                Err(Stop::Failed(_)) => break Root::Lost,
            }
        };
        CallPath {
            places: places.into(),
            root,
        }
    }
}

/// Of this thread; nothing where the kernel does not tell.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
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

fn place(code: &Code, address: u64, pid: u32) -> Place {
    match code.module {
        Some(module) => Place::File {
            module,
            offset: (address - code.range.start).saturating_add(code.offset),
        },
        None => Place::Anonymous { pid, address },
    }
}

#[cfg(test)]
#[path = "unwind_tests.rs"]
mod tests;
