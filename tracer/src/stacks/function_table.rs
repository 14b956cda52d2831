//! What unwinds one function: its entry of `.eh_frame`, copied and looked through before it is run.
//!
//! Such an entry is a program of whoever wrote the file: of any length, with expressions that may jump in a
//! circle, and changed at any moment. Run is a copy, of bounded length, that cannot jump. Must not run it.

use std::{ops::Range, sync::Arc};

use gimli::{
    BaseAddresses, CallFrameInstruction, CieOrFde, EhFrame, EhFrameHdr, EhFrameOffset, Encoding,
    EndianSlice, LittleEndian, Operation, Pointer, UnwindContext, UnwindExpression,
    UnwindSection as _,
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

/// Where the entries of a table without `.eh_frame_hdr` lie: first address of the function, and offset.
pub type Index = Vec<(u64, u32)>;

/// What a table says of an address.
#[derive(Debug, Clone)]
pub enum Found {
    Entry(FunctionTable),
    /// No entry, or one that cannot be read.
    Nothing,
    /// An entry that is not run: it is too long, or may loop.
    Refused,
}

/// A table with the entry of one function, and no more.
#[derive(Debug, Clone)]
pub struct FunctionTable {
    /// As stated in the file, so that the entry lies where it does there.
    pub address: Range<u64>,
    pub bytes: Arc<[u8]>,
    /// Whether the way from the address that was asked for is the same each time.
    pub is_steady: bool,
}

impl FunctionTable {
    /// Of the function at an address as stated in the file.
    pub fn find(tables: &UnwindTables, address: u64) -> Found {
        let Some(section) = &tables.eh_frame else {
            return Found::Nothing;
        };
        let offset = match &tables.eh_frame_hdr {
            Some(header) => offset_by_header(tables, section, header, address),
            None => offset_by_index(&tables.index, address),
        };
        offset.map_or(Found::Nothing, |offset| {
            copy(tables, section, offset, address)
        })
    }
}

/// Of all entries of a table; empty if one cannot be read.
pub fn index(tables: &UnwindTables) -> Index {
    let Some(section) = &tables.eh_frame else {
        return Index::new();
    };
    let bases = bases(tables, section.address.start);
    let eh_frame = eh_frame(&section.bytes);
    let mut entries = eh_frame.entries(&bases);
    let mut index = Index::new();
    loop {
        let entry = match entries.next() {
            Ok(Some(CieOrFde::Fde(entry))) => entry,
            Ok(Some(CieOrFde::Cie(_))) => continue,
            Ok(None) => break,
            Err(_) => return Index::new(),
        };
        let parsed = entry.parse(|eh_frame, bases, at| {
            // Read again for each that refers to it.
            match entry_at(&section.bytes, at.0, MOST_COMMON_BYTES) {
                Ok(_) => eh_frame.cie_from_offset(bases, at),
                Err(_) => Err(gimli::Error::NoEntryAtGivenOffset(at.0 as u64)),
            }
        });
        let offset = parsed.as_ref().map(|entry| u32::try_from(entry.offset()));
        match (&parsed, offset) {
            (Ok(entry), Ok(Ok(offset))) => index.push((entry.initial_address(), offset)),
            _ => return Index::new(),
        }
    }
    index.sort_unstable();
    index
}

fn offset_by_index(index: &Index, address: u64) -> Option<usize> {
    let after = index.partition_point(|(first, _)| *first <= address);
    let (_, offset) = index.get(after.checked_sub(1)?)?;
    usize::try_from(*offset).ok()
}

fn offset_by_header(
    tables: &UnwindTables,
    section: &Section,
    header: &Section,
    address: u64,
) -> Option<usize> {
    let bases = bases(tables, section.address.start).set_eh_frame_hdr(header.address.start);
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
            Ok(Kind::Straight { is_steady }) => {
                table.is_steady = is_steady;
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
        is_steady: false,
    })
}

/// How a table may be used.
enum Kind {
    Straight {
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
    let mut context = UnwindContext::new();
    let row = entry.unwind_info_for_address(&eh_frame, &bases, &mut context, address);
    Ok(Kind::Straight {
        // Without a row there is none the next time either.
        is_steady: row.map_or(true, is_steady),
    })
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
