//! One ELF file in memory: its code segments, what it says of itself, its DWARF.
//!
//! Runs in the worker only. Nothing is given back before the worker ends: mappings and what is
//! decompressed of them are leaked, which lets all that is parsed from them live as long.

use std::{borrow::Cow, fs::File, io};

use addr2line::{
    Context,
    gimli::{self, EndianSlice, RunTimeEndian},
};
use memmap2::Mmap;
use object::{Object as _, ObjectSection as _, ObjectSegment as _};

pub type Reader = EndianSlice<'static, RunTimeEndian>;

/// Most bytes of a decompressed `.gnu_debugdata`; that of a large binary is some MiB.
const MOST_MINI_DEBUG_INFO: usize = 32 << 20;

/// An ELF file.
#[derive(Debug)]
pub struct Image {
    pub data: &'static [u8],
    pub file: object::File<'static>,
}

impl Image {
    /// # Errors
    /// It cannot be mapped, or is no ELF file.
    pub fn open(file: &File) -> io::Result<Image> {
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("no regular file"));
        }
        // SAFETY: it is only read. Who truncates the file meanwhile ends this process with a bus
        // error, which the agent expects of its worker; who changes it, changes names.
        let map = unsafe { Mmap::map(file) }?;
        let map: &'static Mmap = Box::leak(Box::new(map));
        Image::parse(map)
    }

    fn parse(data: &'static [u8]) -> io::Result<Image> {
        let file = object::File::parse(data).map_err(io::Error::other)?;
        if file.format() != object::BinaryFormat::Elf {
            return Err(io::Error::other("no ELF file"));
        }
        Ok(Image { data, file })
    }

    /// `NT_GNU_BUILD_ID`.
    pub fn build_id(&self) -> Option<&'static [u8]> {
        self.file.build_id().ok().flatten()
    }

    /// The address that the byte at `offset` is linked at, if it is code.
    pub fn address(&self, offset: u64) -> Option<u64> {
        self.file.segments().find_map(|segment| {
            if !segment.permissions().executable() {
                return None;
            }
            let (start, length) = segment.file_range();
            let within = offset.checked_sub(start)?;
            (within < length).then(|| segment.address().checked_add(within))?
        })
    }

    /// Whether it has a `.debug_info` with content: what `strip` leaves has none.
    pub fn has_dwarf(&self) -> bool {
        let section = self.file.section_by_name(".debug_info");
        section.is_some_and(|section| section.file_range().is_some_and(|(_, size)| size > 0))
    }

    pub fn has_symbol_table(&self) -> bool {
        self.file.symbol_table().is_some()
    }

    /// Its DWARF, which may refer to that of `supplement`, as `dwz` writes it.
    pub fn dwarf(&self, supplement: Option<&Image>) -> Option<Context<Reader>> {
        let mut dwarf = gimli::Dwarf::load(|id| self.section(id)).ok()?;
        if let Some(supplement) = supplement {
            dwarf.load_sup(|id| supplement.section(id)).ok()?;
        }
        Context::from_dwarf(dwarf).ok()
    }

    fn section(&self, id: gimli::SectionId) -> Result<Reader, gimli::Error> {
        let section = self.file.section_by_name(id.name());
        let data = section.and_then(|section| section.uncompressed_data().ok());
        let data: &'static [u8] = match data {
            Some(Cow::Borrowed(data)) => data,
            Some(Cow::Owned(data)) => Vec::leak(data),
            None => &[],
        };
        let endian = if self.file.is_little_endian() {
            RunTimeEndian::Little
        } else {
            RunTimeEndian::Big
        };
        Ok(EndianSlice::new(data, endian))
    }

    /// The function symbols that distributions leave in stripped files, compressed
    /// (`.gnu_debugdata`, "MiniDebugInfo").
    pub fn mini_debug_info(&self) -> Option<Image> {
        let section = self.file.section_by_name(".gnu_debugdata")?;
        let mut compressed = section.data().ok()?;
        let mut plain = Bounded(Vec::new());
        lzma_rs::xz_decompress(&mut compressed, &mut plain).ok()?;
        Image::parse(Vec::leak(plain.0)).ok()
    }
}

struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MOST_MINI_DEBUG_INFO {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
