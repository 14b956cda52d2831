//! Steps from functions to their callers, and remembers how for those that came last.

use std::{ops::Range, sync::Arc};

use framehop::{
    CacheNative, FrameAddress, MayAllocateDuringUnwind, ModuleSectionInfo, UnwindRegsNative,
    Unwinder as _, UnwinderNative,
};

use super::{
    function_table::{Found, FunctionTable},
    modules::UnwindTables,
};

/// Places that are remembered.
const PLACES: usize = 2048;
/// Copied from files, of all places that are remembered.
const MOST_BYTES: usize = 4 << 20;
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

/// Where an address lies.
pub struct Place<'t> {
    /// Of the address space, as it was read: no two have the same.
    pub map: u64,
    /// Of the mapping.
    pub range: &'t Range<u64>,
    /// Of the mapped file, and what is added to its addresses; `None` without any.
    pub tables: Option<(&'t UnwindTables, u64)>,
}

struct Known {
    map: u64,
    address: u64,
    /// `None`: refused.
    unwinder: Option<Native>,
    /// That may be run.
    bytes: usize,
    /// Whether that is so the next time too.
    is_steady: bool,
}

/// How functions are unwound.
pub struct Functions {
    known: Box<[Option<Known>]>,
    cache: CacheNative<MayAllocateDuringUnwind>,
    bytes: usize,
    changes: u32,
}

impl Functions {
    pub fn new() -> Self {
        Self {
            known: (0..PLACES).map(|_| None).collect(),
            cache: CacheNative::new(),
            bytes: 0,
            changes: 0,
        }
    }

    /// The address that a function returns to; `None` from the first one of a thread. `left`: bytes that may
    /// be run for this stack.
    ///
    /// # Errors
    /// There is no way to its caller.
    pub fn step(
        &mut self,
        place: &Place<'_>,
        address: FrameAddress,
        registers: &mut UnwindRegsNative,
        left: &mut usize,
        read: &mut impl FnMut(u64) -> Result<u64, ()>,
    ) -> Result<Option<u64>, Stop> {
        let at = address.address_for_lookup();
        // `PLACES` is not 0.
        let slot = (at % PLACES as u64) as usize;
        let is_known =
            |known: &Known| known.is_steady && known.map == place.map && known.address == at;
        let has = self.known.get(slot).and_then(Option::as_ref);
        if !has.is_some_and(is_known) {
            self.learn(slot, place, at);
        }
        let known = self.known.get(slot).and_then(Option::as_ref);
        let known = known.ok_or(Stop::Refused)?;
        let unwinder = known.unwinder.as_ref().ok_or(Stop::Refused)?;
        *left = left.checked_sub(known.bytes).ok_or(Stop::Refused)?;
        unwinder
            .unwind_frame(address, registers, &mut self.cache, read)
            .map_err(Stop::Failed)
    }

    fn learn(&mut self, slot: usize, place: &Place<'_>, address: u64) {
        let found = place.tables.map_or(Found::Nothing, |(tables, bias)| {
            FunctionTable::find(tables, address.wrapping_sub(bias))
        });
        let (mut bytes, mut is_steady) = (0, true);
        let unwinder = match (found, place.tables) {
            (Found::Refused, _) => None,
            (Found::Entry(table), Some((tables, bias))) => {
                (bytes, is_steady) = (table.bytes.len(), table.is_steady);
                let sections = Sections { tables, table };
                let range = place.range.clone();
                let module = framehop::Module::new(String::new(), range, bias, sections);
                let mut unwinder = Native::new();
                unwinder.add_module(module);
                Some(unwinder)
            }
            _ => Some(Native::new()),
        };
        self.changes += CHANGES_EACH;
        self.bytes += bytes;
        if self.changes > CHANGES_PER_CACHE || self.bytes > MOST_BYTES {
            // All at once: what was made earlier would have the numbers of what is made later.
            *self = Self::new();
            (self.changes, self.bytes) = (CHANGES_EACH, bytes);
        }
        if let Some(entry) = self.known.get_mut(slot) {
            let before = entry.replace(Known {
                map: place.map,
                address,
                unwinder,
                bytes,
                is_steady,
            });
            self.bytes -= before.map_or(0, |known| known.bytes);
        }
    }
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
    fn base_svma(&self) -> u64 {
        0
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
