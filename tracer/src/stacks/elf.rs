//! What unwinding needs of an ELF file that anybody may have written.
//!
//! Owns how much of a file is read: sizes in it are as large as its author likes.

use std::{cell::Cell, fs::File, ops::Range, sync::Arc};

use object::{
    Endianness,
    elf::{ELF_NOTE_GNU, FileHeader32, FileHeader64, NT_GNU_BUILD_ID, PT_LOAD},
    read::{
        ReadCache, ReadRef,
        elf::{FileHeader, NoteIterator, ProgramHeader as _, SectionHeader as _},
    },
};

use super::{
    file_view::FileView,
    modules::{Section, Segment, UnwindTables},
};

/// Larger unwind tables than known programs have (rustc's take 27 MiB).
const MOST_SECTION_BYTES: u64 = 256 << 20;
/// Without `.eh_frame_hdr` a table is looked through for each function: programs that are linked so are old, or
/// static, and small.
const MOST_UNINDEXED_BYTES: u64 = 512 << 10;
const MOST_BUILD_ID: usize = 64;
/// Programs have less than ten.
const MOST_SEGMENTS: usize = 256;
/// Read of headers, names and notes.
const MOST_READ: u64 = 4 << 20;
/// Longer names are no section's that is looked for.
const MOST_NAME: u64 = 256;

/// A file of which no more than [`MOST_READ`] can be read.
#[derive(Clone, Copy)]
struct Bounded<'f> {
    cache: &'f ReadCache<&'f File>,
    left: &'f Cell<u64>,
}

impl Bounded<'_> {
    fn spend(self, bytes: u64) -> Result<(), ()> {
        let left = self.left.get().checked_sub(bytes);
        self.left.set(left.unwrap_or(0));
        left.map(drop).ok_or(())
    }
}

impl<'f> ReadRef<'f> for Bounded<'f> {
    fn len(self) -> Result<u64, ()> {
        self.cache.len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'f [u8], ()> {
        self.spend(size)?;
        self.cache.read_bytes_at(offset, size)
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'f [u8], ()> {
        self.spend(MOST_NAME)?;
        let end = range.end.min(range.start.saturating_add(MOST_NAME));
        self.cache.read_bytes_at_until(range.start..end, delimiter)
    }
}

/// `NT_GNU_BUILD_ID`.
pub fn build_id(file: &File) -> Option<Vec<u8>> {
    let cache = &ReadCache::new(file);
    let left = &Cell::new(MOST_READ);
    let data = Bounded { cache, left };
    let id = build_id_of::<FileHeader64<Endianness>>(data)
        .or_else(|| build_id_of::<FileHeader32<Endianness>>(data))?;
    (!id.is_empty() && id.len() <= MOST_BUILD_ID).then(|| id.to_vec())
}

fn build_id_of<'f, Elf: FileHeader<Endian = Endianness>>(data: Bounded<'f>) -> Option<&'f [u8]> {
    let header = Elf::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, data).ok()?;
    if sections.is_empty() {
        let segments = header.program_headers(endian, data).ok()?;
        let notes = |segment: &Elf::ProgramHeader| segment.notes(endian, data).ok()?;
        return segments
            .iter()
            .filter_map(notes)
            .find_map(|notes| id_in::<Elf>(endian, notes));
    }
    let notes = |section: &Elf::SectionHeader| section.notes(endian, data).ok()?;
    sections
        .iter()
        .filter_map(notes)
        .find_map(|notes| id_in::<Elf>(endian, notes))
}

fn id_in<'f, Elf: FileHeader>(
    endian: Elf::Endian,
    mut notes: NoteIterator<'f, Elf>,
) -> Option<&'f [u8]> {
    while let Ok(Some(note)) = notes.next() {
        if note.name() == ELF_NOTE_GNU && note.n_type(endian) == NT_GNU_BUILD_ID {
            return Some(note.desc());
        }
    }
    None
}

/// Empty where there is no ELF file. `cgroup_id`: whose share of the room it takes.
pub fn read_tables(file: &File, cgroup_id: u64) -> UnwindTables {
    let cache = &ReadCache::new(file);
    let left = &Cell::new(MOST_READ);
    let data = Bounded { cache, left };
    let tables = tables_of::<FileHeader64<Endianness>>(file, cgroup_id, data)
        .or_else(|| tables_of::<FileHeader32<Endianness>>(file, cgroup_id, data));
    let mut tables = tables.unwrap_or_default();
    tables.refused |= left.get() == 0;
    tables
}

fn tables_of<Elf: FileHeader<Endian = Endianness>>(
    file: &File,
    cgroup_id: u64,
    data: Bounded<'_>,
) -> Option<UnwindTables> {
    let header = Elf::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, data).ok()?;
    let length = file.metadata().ok()?.len();
    let (mut refused, mut lacks_room) = (false, false);
    let mut section = |name: &[u8], most: u64| {
        let (_, section) = sections.section_by_name(endian, name)?;
        let (offset, bytes) = section.file_range(endian)?;
        // What lies behind the end could not be read.
        let end = offset.checked_add(bytes)?;
        if bytes == 0 || end > length {
            return None;
        }
        let start: u64 = section.sh_addr(endian).into();
        let address = start..start.checked_add(bytes)?;
        let bytes = usize::try_from(bytes).ok().filter(|_| bytes <= most);
        let view = bytes.map(|bytes| FileView::new(file, offset, bytes, cgroup_id));
        lacks_room |= matches!(&view, Some(Err(_)));
        let view = view.and_then(Result::ok);
        refused |= view.is_none();
        let bytes = Arc::new(view?);
        Some(Section { address, bytes })
    };
    let eh_frame_hdr = section(b".eh_frame_hdr", MOST_SECTION_BYTES);
    let most = if eh_frame_hdr.is_some() {
        MOST_SECTION_BYTES
    } else {
        MOST_UNINDEXED_BYTES
    };
    let eh_frame = section(b".eh_frame", most);
    let range = |name: &[u8]| {
        let (_, section) = sections.section_by_name(endian, name)?;
        let start: u64 = section.sh_addr(endian).into();
        Some(start..start.checked_add(section.sh_size(endian).into())?)
    };
    let segments = header
        .program_headers(endian, data)
        .ok()?
        .iter()
        .filter(|segment| segment.p_type(endian) == PT_LOAD)
        .map(|segment| {
            let (offset, bytes) = segment.file_range(endian);
            Segment {
                offset,
                bytes,
                address: segment.p_vaddr(endian).into(),
            }
        })
        .filter(|segment| segment.bytes > 0)
        .take(MOST_SEGMENTS)
        .collect();
    Some(UnwindTables {
        number: 0,
        text: range(b".text"),
        got: range(b".got"),
        eh_frame,
        eh_frame_hdr,
        segments,
        refused,
        lacks_room,
    })
}

#[cfg(test)]
#[path = "elf_tests.rs"]
mod tests;
