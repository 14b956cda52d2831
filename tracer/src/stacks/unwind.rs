//! From registers and a piece of the stack to the places that called each other.
//!
//! Uses `.eh_frame`, and frame pointers where there is none. A caller that does not lie in
//! executable memory is never believed: the call path ends before it.

use std::{ops::Range, sync::Arc};

use framehop::{
    CacheNative, FrameAddress, MayAllocateDuringUnwind, ModuleSectionInfo, UnwindRegsNative,
    Unwinder as _, UnwinderNative,
};

use crate::{
    host::{HostError, ProcRoot, mappings::Mapping},
    probes::stack::StackSample,
};

use super::{
    callpaths::CallPath,
    code::{ModuleId, Place, Root},
    file_view::FileView,
    modules::{Modules, Section, UnwindTables},
};

/// Frames of the deepest call path that is kept.
const MOST_FRAMES: usize = 256;
/// The library numbers changes of modules with 16 bits, and its cache trusts them.
const CHANGES_PER_CACHE: u32 = 30_000;

/// Executable memory of a process.
#[derive(Debug, Clone)]
struct Code {
    mapping: Mapping,
    /// `None`: not a file.
    module: Option<ModuleId>,
}

/// What a process has mapped, as far as unwinding needs it.
pub struct CodeMap {
    code: Vec<Code>,
    tables: Vec<Arc<UnwindTables>>,
    unwinder: UnwinderNative<Bytes, MayAllocateDuringUnwind>,
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
            .partition_point(|code| code.mapping.range.start <= address);
        let code = self.code.get(after.checked_sub(1)?)?;
        code.mapping.range.contains(&address).then_some(code)
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
}

impl Unwinding {
    pub fn new(proc: ProcRoot, page_bytes: u64) -> Self {
        Self {
            proc,
            page_bytes,
            cache: CacheNative::new(),
            changes: 0,
            buffer: Vec::new(),
        }
    }

    /// Reads what a process has mapped; with it all of its mappings.
    ///
    /// # Errors
    /// It is gone, or cannot be read.
    pub fn read_code(
        &mut self,
        pid: u32,
        modules: &mut Modules,
    ) -> Result<(CodeMap, Vec<Mapping>), HostError> {
        let mappings = self.proc.mappings(pid, &mut self.buffer)?;
        let mut unwinder = UnwinderNative::new();
        let mut code = Vec::new();
        let mut all_tables = Vec::new();
        for mapping in mappings.iter().filter(|mapping| mapping.executable) {
            let module = is_file(mapping).then(|| modules.of(pid, mapping));
            if let Some(id) = module {
                let tables = modules.tables(id);
                if let Some(bias) = tables.bias(mapping, self.page_bytes) {
                    unwinder.add_module(framehop_module(mapping, bias, &tables));
                    self.changes += 1;
                    all_tables.push(tables);
                }
            }
            code.push(Code {
                mapping: mapping.clone(),
                module,
            });
        }
        if self.changes > CHANGES_PER_CACHE {
            self.changes = 0;
            self.cache = CacheNative::new();
        }
        let map = CodeMap {
            code,
            tables: all_tables,
            unwinder,
        };
        Ok((map, mappings))
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
            offset: address - code.mapping.range.start + code.mapping.offset,
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
