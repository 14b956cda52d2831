//! What unwinds one function: its entry of `.eh_frame`, copied and looked through before it is run.
//!
//! Such an entry is a program of whoever wrote the file: of any length, with expressions that may jump in a
//! circle, and changed at any moment. Run is a copy, of bounded length, that cannot jump. Must not run it.

use std::{ops::Range, sync::Arc};

use gimli::{
    BaseAddresses, CallFrameInstruction, CieOrFde, CommonInformationEntry, EhFrame, EhFrameHdr,
    EhFrameOffset, Encoding, EndianSlice, FrameDescriptionEntry, LittleEndian, Operation, Pointer,
    UnwindContext, UnwindExpression, UnwindSection as _,
};

use super::{
    modules::{Section, UnwindTables},
    steady::is_steady,
};

/// Longer entries than those of known programs (rustc's longest has 33 KiB).
const MOST_ENTRY_BYTES: usize = 64 << 10;
/// Entries that all others refer to are short (40 bytes).
const MOST_COMMON_BYTES: usize = 4 << 10;
/// Of the length and of the reference that an entry begins with; the 64-bit form is not used in `.eh_frame`.
const FIELD: usize = 4;
const ADDRESS_BYTES: u8 = 8;

type Slice<'b> = EndianSlice<'b, LittleEndian>;

/// A byte that is only looked through costs as much as so much less that is run.
const LOOKED_THROUGH_PER_RUN: usize = 16;

/// What a table says of an address.
#[derive(Debug, Clone)]
pub enum Found {
    Entry(FunctionTable),
    /// No entry, or one that cannot be read.
    Nothing,
    /// An entry that is not run: it is too long, or may loop.
    Refused,
}

/// To look for it would cost more than is left.
#[derive(Debug)]
pub struct Spent;

/// A table with the entry of one function, and no more.
#[derive(Debug, Clone)]
pub struct FunctionTable {
    /// As stated in the file, so that the entry lies where it does there.
    pub address: Range<u64>,
    pub bytes: Arc<[u8]>,
    /// First address of the function, as stated in the file.
    pub function: u64,
    /// Whether the way from the address that was asked for is the same each time.
    pub is_steady: bool,
}

impl FunctionTable {
    /// Of the function at an address as stated in the file. `left`: bytes that may be run for this stack.
    ///
    /// # Errors
    /// Too few are left.
    pub fn find(tables: &UnwindTables, address: u64, left: &mut usize) -> Result<Found, Spent> {
        let Some(section) = &tables.eh_frame else {
            return Ok(Found::Nothing);
        };
        let offset = match &tables.eh_frame_hdr {
            Some(header) => offset_by_header(tables, section, header, address),
            None => offset_by_scan(tables, section, address, left)?,
        };
        let found = offset.map_or(Found::Nothing, |offset| {
            copy(tables, section, offset, address)
        });
        if let Found::Entry(table) = &found {
            spend(left, table.bytes.len())?;
        }
        Ok(found)
    }
}

/// Takes `bytes` of what is left for a stack.
///
/// # Errors
/// Too few are left.
pub fn spend(left: &mut usize, bytes: usize) -> Result<(), Spent> {
    *left = left.checked_sub(bytes).ok_or(Spent)?;
    Ok(())
}

/// Without a header, which old and small programs lack, all entries are looked through: that of the last function
/// that begins before the address.
fn offset_by_scan(
    tables: &UnwindTables,
    section: &Section,
    address: u64,
    left: &mut usize,
) -> Result<Option<usize>, Spent> {
    let bases = bases(tables, section.address.start);
    let eh_frame = eh_frame(&section.bytes);
    let mut entries = eh_frame.entries(&bases);
    spend(left, section.bytes.len() / LOOKED_THROUGH_PER_RUN)?;
    let mut common: Option<CommonInformationEntry<Slice<'_>>> = None;
    let mut nearest: Option<(u64, usize)> = None;
    let mut is_spent = false;
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(entry) = entry else {
            continue;
        };
        let parsed = entry.parse(|eh_frame, bases, at| {
            if let Some(known) = common.as_ref().filter(|known| known.offset() == at.0) {
                return Ok(known.clone());
            }
            let nothing = gimli::Error::NoEntryAtGivenOffset(at.0 as u64);
            let bytes = entry_at(&section.bytes, at.0, MOST_COMMON_BYTES).map_err(|_| nothing)?;
            // A file may have thousands of long ones, and refer to another one each time.
            is_spent |= spend(left, bytes.len() / LOOKED_THROUGH_PER_RUN).is_err();
            let read = eh_frame.cie_from_offset(bases, at)?;
            common = Some(read.clone());
            Ok(read)
        });
        if is_spent {
            return Err(Spent);
        }
        // What cannot be read is passed over.
        let Ok(entry) = parsed else { continue };
        let (first, offset) = (entry.initial_address(), entry.offset());
        if first <= address && nearest.is_none_or(|(nearest, _)| nearest < first) {
            nearest = Some((first, offset));
        }
    }
    Ok(nearest.map(|(_, offset)| offset))
}

fn offset_by_header(
    tables: &UnwindTables,
    section: &Section,
    header: &Section,
    address: u64,
) -> Option<usize> {
    let bases = bases(tables, section.address.start);
    let parsed = EhFrameHdr::new(&header.bytes, LittleEndian)
        .parse(&bases, ADDRESS_BYTES)
        .ok()?;
    let entry = parsed.table()?.lookup(address, &bases).ok()?;
    match (entry, parsed.eh_frame_ptr()) {
        (Pointer::Direct(entry), Pointer::Direct(start)) => {
            usize::try_from(entry.checked_sub(start)?).ok()
        }
        _ => None,
    }
}

/// Why an entry cannot be had.
enum No {
    Entry,
    Room,
}

impl From<No> for Found {
    fn from(no: No) -> Self {
        match no {
            No::Entry => Found::Nothing,
            No::Room => Found::Refused,
        }
    }
}

/// The entry at `offset`, with the field of its length.
fn entry_at(bytes: &[u8], offset: usize, most: usize) -> Result<&[u8], No> {
    let rest = bytes.get(offset..).ok_or(No::Entry)?;
    let length = word(rest, 0).ok_or(No::Entry)?;
    if length == 0 || length == u32::MAX {
        return Err(No::Entry);
    }
    let bytes = FIELD + length as usize;
    let entry = rest.get(..bytes).ok_or(No::Entry)?;
    (bytes <= most).then_some(entry).ok_or(No::Room)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..)?.first_chunk::<FIELD>()?;
    Some(u32::from_le_bytes(*word))
}

/// The entry at an offset behind the one that it refers to, for an address.
fn copy(tables: &UnwindTables, section: &Section, offset: usize, address: u64) -> Found {
    match copied(section, offset) {
        Ok(mut table) => match kind(tables, &table, address) {
            Ok(Kind::Jumps) => Found::Refused,
            Ok(Kind::Straight { function, .. }) if function > address => Found::Nothing,
            Ok(Kind::Straight {
                function,
                is_steady,
            }) => {
                (table.function, table.is_steady) = (function, is_steady);
                Found::Entry(table)
            }
            Err(_) => Found::Nothing,
        },
        Err(no) => no.into(),
    }
}

fn copied(section: &Section, offset: usize) -> Result<FunctionTable, No> {
    let own = entry_at(&section.bytes, offset, MOST_ENTRY_BYTES)?;
    let back = word(own, FIELD).ok_or(No::Entry)?;
    let common = (offset + FIELD)
        .checked_sub(back as usize)
        .ok_or(No::Entry)?;
    let common = entry_at(&section.bytes, common, MOST_COMMON_BYTES)?;
    let mut bytes = [common, own].concat();
    // The file may have changed meanwhile: the copy is as long as it was taken for, and refers to itself.
    let at = common.len();
    let mut set = |at: usize, value: usize| {
        let value = u32::try_from(value).map_err(|_| No::Room)?;
        let field = bytes.get_mut(at..at + FIELD).ok_or(No::Entry)?;
        field.copy_from_slice(&value.to_le_bytes());
        Ok(())
    };
    set(0, common.len() - FIELD)?;
    set(at, own.len() - FIELD)?;
    set(at + FIELD, at + FIELD)?;
    let start = section.address.start.wrapping_add(offset as u64);
    let start = start.wrapping_sub(at as u64);
    Ok(FunctionTable {
        address: start..start.wrapping_add(bytes.len() as u64),
        bytes: bytes.into(),
        function: 0,
        is_steady: false,
    })
}

/// How a table may be used.
enum Kind {
    Straight {
        /// Its first address.
        function: u64,
        is_steady: bool,
    },
    /// Something in it does, so that it might never end.
    Jumps,
}

fn kind(tables: &UnwindTables, table: &FunctionTable, address: u64) -> gimli::Result<Kind> {
    let bases = bases(tables, table.address.start);
    let eh_frame = eh_frame(&table.bytes);
    let common = word(&table.bytes, 0).map_or(0, |length| FIELD + length as usize);
    let entry =
        eh_frame.fde_from_offset(&bases, EhFrameOffset(common), EhFrame::cie_from_offset)?;
    let encoding = entry.cie().encoding();
    for mut instructions in [
        entry.cie().instructions(&eh_frame, &bases),
        entry.instructions(&eh_frame, &bases),
    ] {
        // What cannot be read ends the program.
        while let Ok(Some(instruction)) = instructions.next() {
            let expression = match instruction {
                CallFrameInstruction::DefCfaExpression { expression }
                | CallFrameInstruction::Expression { expression, .. }
                | CallFrameInstruction::ValExpression { expression, .. } => expression,
                _ => continue,
            };
            if jumps(&eh_frame, encoding, &expression) {
                return Ok(Kind::Jumps);
            }
        }
    }
    Ok(Kind::Straight {
        function: entry.initial_address(),
        is_steady: is_steady_at(&eh_frame, &bases, &entry, address),
    })
}

fn is_steady_at(
    eh_frame: &EhFrame<Slice<'_>>,
    bases: &BaseAddresses,
    entry: &FrameDescriptionEntry<Slice<'_>>,
    address: u64,
) -> bool {
    let mut context = UnwindContext::new();
    let row = entry.unwind_info_for_address(eh_frame, bases, &mut context, address);
    // Without a row there is none the next time either.
    row.map_or(true, is_steady)
}

fn jumps(
    eh_frame: &EhFrame<Slice<'_>>,
    encoding: Encoding,
    expression: &UnwindExpression<usize>,
) -> bool {
    let Ok(expression) = expression.get(eh_frame) else {
        return false;
    };
    let mut operations = expression.operations(encoding);
    while let Ok(Some(operation)) = operations.next() {
        if matches!(operation, Operation::Skip { .. } | Operation::Bra { .. }) {
            return true;
        }
    }
    false
}

fn eh_frame(bytes: &[u8]) -> EhFrame<Slice<'_>> {
    let mut eh_frame = EhFrame::new(bytes, LittleEndian);
    eh_frame.set_address_size(ADDRESS_BYTES);
    eh_frame
}

/// From which addresses in a table that lies at `start` count.
fn bases(tables: &UnwindTables, start: u64) -> BaseAddresses {
    let of = |range: &Option<Range<u64>>| range.as_ref().map_or(0, |range| range.start);
    let header = tables.eh_frame_hdr.as_ref();
    BaseAddresses::default()
        .set_eh_frame(start)
        .set_eh_frame_hdr(header.map_or(0, |header| header.address.start))
        .set_text(of(&tables.text))
        .set_got(of(&tables.got))
}

#[cfg(test)]
#[path = "function_table_tests.rs"]
mod tests;
