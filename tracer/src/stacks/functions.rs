//! Steps from functions to their callers, and remembers how for those that came last, of all processes.

use std::{ops::Range, sync::Arc};

use framehop::{
    CacheNative, FrameAddress, MayAllocateDuringUnwind, ModuleSectionInfo, UnwindRegsNative,
    Unwinder as _, UnwinderNative,
};

use super::{
    function_table::{Found, FunctionTable, Spent, spend},
    modules::UnwindTables,
};

/// Places that are remembered; a power of two.
const PLACES: usize = 2048;
/// Longer entries are not remembered (nearly all take less): 4 MiB of all together.
const MOST_REMEMBERED_BYTES: usize = 2 << 10;
/// What a step that is remembered costs, as if so many bytes were run.
const REMEMBERED_COSTS: usize = 64;
/// The library numbers changes of modules with 16 bits, and its cache trusts them.
const CHANGES_PER_CACHE: u32 = 30_000;
/// To make the unwinder of a function.
const CHANGES_EACH: u32 = 2;

type Native = UnwinderNative<Bytes, MayAllocateDuringUnwind>;

/// Why there is no step to the caller.
#[derive(Debug)]
pub enum Stop {
    /// What would be run is too long, or may loop.
    Refused,
    Failed(framehop::Error),
}

impl From<Spent> for Stop {
    fn from(Spent: Spent) -> Self {
        Stop::Refused
    }
}

struct Known {
    /// Of its tables.
    number: u64,
    /// As stated in the file.
    address: u64,
    /// `None`: refused.
    unwinder: Option<Native>,
    /// Whether that is so the next time too.
    is_steady: bool,
}

/// How functions are unwound.
pub struct Functions {
    known: Box<[Option<Known>]>,
    /// For what has no tables.
    bare: Native,
    cache: CacheNative<MayAllocateDuringUnwind>,
    changes: u32,
}

impl Functions {
    pub fn new() -> Self {
        Self {
            known: (0..PLACES).map(|_| None).collect(),
            bare: Native::new(),
            cache: CacheNative::new(),
            changes: 0,
        }
    }

    /// The address that a function returns to; `None` from the first one of a thread. `tables`: of the mapped
    /// file, and what is added to its addresses. `left`: bytes that may be run for this stack.
    ///
    /// # Errors
    /// There is no way to its caller.
    pub fn step(
        &mut self,
        tables: Option<(&UnwindTables, u64)>,
        address: FrameAddress,
        registers: &mut UnwindRegsNative,
        left: &mut usize,
        read: &mut impl FnMut(u64) -> Result<u64, ()>,
    ) -> Result<Option<u64>, Stop> {
        let stated = tables.and_then(|(tables, bias)| Some((tables, stated(address, bias)?)));
        let (unwinder, address) = match stated {
            Some((tables, address)) => {
                let slot = self.remembered(tables, address.address_for_lookup(), left)?;
                let known = self.known.get(slot).and_then(Option::as_ref);
                let unwinder = known.and_then(|known| known.unwinder.as_ref());
                (unwinder.ok_or(Stop::Refused)?, address)
            }
            None => (&self.bare, address),
        };
        unwinder
            .unwind_frame(address, registers, &mut self.cache, read)
            .map_err(Stop::Failed)
    }

    /// Where it is remembered how the function at an address of the file is unwound.
    fn remembered(
        &mut self,
        tables: &UnwindTables,
        address: u64,
        left: &mut usize,
    ) -> Result<usize, Spent> {
        let slot = slot(tables.number, address);
        let known = self.known.get(slot).and_then(Option::as_ref);
        let is_known = known.is_some_and(|known| {
            known.is_steady && (known.number, known.address) == (tables.number, address)
        });
        if is_known {
            spend(left, REMEMBERED_COSTS)?;
        } else {
            self.learn(slot, tables, address, left)?;
        }
        Ok(slot)
    }

    fn learn(
        &mut self,
        slot: usize,
        tables: &UnwindTables,
        address: u64,
        left: &mut usize,
    ) -> Result<(), Spent> {
        let found = FunctionTable::find(tables, address, left)?;
        self.changes += CHANGES_EACH;
        if self.changes > CHANGES_PER_CACHE {
            // All at once: what was made earlier would have the numbers of what is made later.
            *self = Self::new();
            self.changes = CHANGES_EACH;
        }
        let is_steady = match &found {
            Found::Entry(table) => table.is_steady && table.bytes.len() <= MOST_REMEMBERED_BYTES,
            Found::Nothing | Found::Refused => true,
        };
        let unwinder = match found {
            Found::Refused => None,
            Found::Nothing => Some(Native::new()),
            Found::Entry(table) => {
                let mut unwinder = Native::new();
                let range = address..address.saturating_add(1);
                let (first, sections) = (table.function, Sections { tables, table });
                unwinder.add_module(framehop::Module::new(String::new(), range, first, sections));
                Some(unwinder)
            }
        };
        if let Some(entry) = self.known.get_mut(slot) {
            *entry = Some(Known {
                number: tables.number,
                address,
                unwinder,
                is_steady,
            });
        }
        Ok(())
    }
}

/// `None`: no function of the file.
fn stated(address: FrameAddress, bias: u64) -> Option<FrameAddress> {
    match address {
        FrameAddress::InstructionPointer(at) => Some(FrameAddress::from_instruction_pointer(
            at.wrapping_sub(bias),
        )),
        FrameAddress::ReturnAddress(at) => {
            FrameAddress::from_return_address(at.get().wrapping_sub(bias))
        }
    }
}

/// Scattered: places of different files have the same low bits.
fn slot(number: u64, address: u64) -> usize {
    const SCATTER: u64 = 0x9e37_79b9_7f4a_7c15;
    let mixed = (address ^ number.wrapping_mul(SCATTER)).wrapping_mul(SCATTER);
    (mixed >> (u64::BITS - PLACES.ilog2())) as usize
}

/// A copy of a part of a section.
#[derive(Clone)]
struct Bytes(Arc<[u8]>);

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// The table of one function as the library asks for it.
struct Sections<'t> {
    tables: &'t UnwindTables,
    table: FunctionTable,
}

impl ModuleSectionInfo<Bytes> for Sections<'_> {
    /// The library counts addresses from here, with 32 bits.
    fn base_svma(&self) -> u64 {
        self.table.function
    }

    fn section_svma_range(&mut self, name: &[u8]) -> Option<Range<u64>> {
        match name {
            b".text" => self.tables.text.clone(),
            b".got" => self.tables.got.clone(),
            b".eh_frame" => Some(self.table.address.clone()),
            b".eh_frame_hdr" => Some(self.tables.eh_frame_hdr.as_ref()?.address.clone()),
            _ => None,
        }
    }

    /// Without `.eh_frame_hdr`, which finds functions: there is only one.
    fn section_data(&mut self, name: &[u8]) -> Option<Bytes> {
        (name == b".eh_frame").then(|| Bytes(Arc::clone(&self.table.bytes)))
    }
}
