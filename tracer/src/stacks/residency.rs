//! Which pages of a process are resident, and how large their folios are: `/proc/PID/pagemap`.
//!
//! Folio sizes come from `/proc/kpageflags` (page frame numbers take `CAP_SYS_ADMIN`), or else
//! from the ioctl `PAGEMAP_SCAN` (6.7), which tells huge pages only. Sources:
//! Documentation/admin-guide/mm/pagemap.rst, include/uapi/linux/{fs.h,kernel-page-flags.h}.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
};

use super::pages::Residency;

const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const FILE_OR_SHARED: u64 = 1 << 61;
const FRAME_MASK: u64 = (1 << 55) - 1;

/// `KPF_COMPOUND_HEAD`, `KPF_THP`.
const COMPOUND_HEAD: u64 = 1 << 15;
const THP: u64 = 1 << 22;

/// `PAGE_IS_HUGE` of `PAGEMAP_SCAN`.
const PAGE_IS_HUGE: u64 = 1 << 6;
/// `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: libc::c_ulong = 0xc060_6610;

/// Pages whose entries are read at once if they lie this close: a read costs as much as this.
const NEAR_PAGES: u64 = 256;

/// A page to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    pub page: u64,
    /// It became resident with others: frame of the first page of its huge page, 0 where the kernel
    /// tells no frames.
    pub folio: Option<u64>,
}

/// How large folios are found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FolioSource {
    /// Of every size.
    PageFlags,
    /// Huge pages only.
    Scan,
    /// Every page counts as one: the kernel tells no more to this process.
    Unknown,
}

/// Reads the page tables of processes.
#[derive(Debug)]
pub struct PageTables {
    flags: Option<File>,
    page_bytes: u64,
    huge_pages: u64,
    source: FolioSource,
}

#[repr(C)]
#[derive(Default)]
struct ScanArgument {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

#[repr(C)]
#[derive(Default, Clone, Copy)]
struct ScanRegion {
    start: u64,
    end: u64,
    categories: u64,
}

impl PageTables {
    /// Finds out, with pages of this very process, what the kernel tells.
    pub fn new(page_bytes: u64, huge_bytes: u64) -> Self {
        let mut tables = Self {
            flags: File::open("/proc/kpageflags").ok(),
            page_bytes,
            huge_pages: (huge_bytes / page_bytes).max(1),
            source: FolioSource::Unknown,
        };
        let here = (&raw const tables) as u64;
        let Ok(own) = File::open("/proc/self/pagemap") else {
            return tables;
        };
        let page = here / page_bytes;
        let mut entry = [0];
        let frames = read_entries(&own, page, &mut entry).is_ok() && entry[0] & FRAME_MASK != 0;
        if frames && tables.flags.is_some() {
            tables.source = FolioSource::PageFlags;
        } else if tables.is_huge(&own, page).is_ok() {
            tables.source = FolioSource::Scan;
        }
        tables
    }

    /// Pages of a huge page.
    pub fn huge_pages(&self) -> u64 {
        self.huge_pages
    }

    /// Times that small pages were made into a huge one, by the machine since its start
    /// (`thp_collapse_alloc`).
    pub fn collapses(&self) -> Option<u64> {
        let text = fs::read_to_string("/proc/vmstat").ok()?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("thp_collapse_alloc "))?;
        line.trim().parse().ok()
    }

    pub fn source(&self) -> FolioSource {
        self.source
    }

    /// What became of each page, in the order asked, which is that of addresses. All are gone
    /// when the process is.
    ///
    /// # Errors
    /// The file cannot be read: nothing is known.
    pub fn look(&self, pagemap: &File, pages: &[Asked]) -> io::Result<Vec<Residency>> {
        let mut found = Vec::with_capacity(pages.len());
        let mut entries = Vec::new();
        let mut rest = pages;
        while let Some(first) = rest.first().map(|asked| asked.page) {
            let near = rest
                .iter()
                .take_while(|asked| asked.page - first < NEAR_PAGES)
                .count();
            let (batch, behind) = rest.split_at(near);
            let span = batch.last().map_or(1, |last| last.page - first + 1);
            entries.clear();
            entries.resize(span as usize, 0);
            read_entries(pagemap, first, &mut entries)?;
            for asked in batch {
                let entry = entries[(asked.page - first) as usize];
                found.push(self.residency(pagemap, *asked, entry)?);
            }
            rest = behind;
        }
        Ok(found)
    }

    fn residency(&self, pagemap: &File, asked: Asked, entry: u64) -> io::Result<Residency> {
        let page = asked.page;
        if entry & PRESENT == 0 {
            if let Some(folio) = asked.folio {
                return self.rest_of_folio(pagemap, page, folio, entry & SWAPPED != 0);
            }
            let swapped = entry & SWAPPED != 0;
            return Ok(if swapped {
                Residency::Swapped
            } else {
                Residency::Gone
            });
        }
        if entry & FILE_OR_SHARED != 0 {
            return Ok(Residency::NotAnonymous);
        }
        let frame = entry & FRAME_MASK;
        let folio = frame.wrapping_sub(page & (self.huge_pages - 1));
        let pages = match self.source {
            FolioSource::PageFlags => self.folio_pages(pagemap, page, frame),
            FolioSource::Scan if self.is_huge(pagemap, page).unwrap_or(false) => {
                self.huge_pages as u32
            }
            // Split by now: what is left of it counts.
            FolioSource::Scan if asked.folio.is_some() => {
                return self.rest_of_folio(pagemap, page, 0, false);
            }
            _ => 1,
        };
        let folio = if frame == 0 { 0 } else { folio };
        Ok(Residency::Resident { pages, folio })
    }

    /// The page itself is gone: how many of those are left that came with it.
    fn rest_of_folio(
        &self,
        pagemap: &File,
        page: u64,
        folio: u64,
        swapped: bool,
    ) -> io::Result<Residency> {
        let mut entries = vec![0; self.huge_pages as usize];
        read_entries(pagemap, page & !(self.huge_pages - 1), &mut entries)?;
        let of_folio = |(index, entry): &(usize, &u64)| {
            let frame = **entry & FRAME_MASK;
            **entry & PRESENT != 0
                && **entry & FILE_OR_SHARED == 0
                && (folio == 0 || frame == folio.wrapping_add(*index as u64))
        };
        let pages = entries.iter().enumerate().filter(of_folio).count() as u32;
        Ok(match pages {
            0 if swapped => Residency::Swapped,
            0 => Residency::Gone,
            pages => Residency::Resident { pages, folio },
        })
    }

    /// How many pages of the folio around a page are mapped beside it.
    fn folio_pages(&self, pagemap: &File, page: u64, frame: u64) -> u32 {
        let Some(flags) = self.flags.as_ref() else {
            return 1;
        };
        let mut own = [0];
        if frame == 0 || read_entries(flags, frame, &mut own).is_err() || own[0] & THP == 0 {
            return 1;
        }
        let first_page = page & !(self.huge_pages - 1);
        let first_frame = frame & !(self.huge_pages - 1);
        let mut entries = vec![0; self.huge_pages as usize];
        let mut kinds = vec![0; self.huge_pages as usize];
        if read_entries(pagemap, first_page, &mut entries).is_err()
            || read_entries(flags, first_frame, &mut kinds).is_err()
        {
            return 1;
        }
        let at = (frame - first_frame) as usize;
        let Some(head) = (0..=at).rev().find(|&i| kinds[i] & COMPOUND_HEAD != 0) else {
            return 1;
        };
        let end = (at + 1..kinds.len())
            .find(|&i| kinds[i] & COMPOUND_HEAD != 0 || kinds[i] & THP == 0)
            .unwrap_or(kinds.len());
        let folio = first_frame + head as u64..first_frame + end as u64;
        let mapped = entries
            .iter()
            .filter(|entry| **entry & PRESENT != 0 && folio.contains(&(**entry & FRAME_MASK)))
            .count();
        (mapped as u32).max(1)
    }

    fn is_huge(&self, pagemap: &File, page: u64) -> io::Result<bool> {
        let start = page * self.page_bytes;
        let mut region = ScanRegion::default();
        let mut argument = ScanArgument {
            size: size_of::<ScanArgument>() as u64,
            start,
            end: start + self.page_bytes,
            vec: (&raw mut region) as u64,
            vec_len: 1,
            category_anyof_mask: PAGE_IS_HUGE,
            return_mask: PAGE_IS_HUGE,
            ..ScanArgument::default()
        };
        // SAFETY: the argument and the one region it points to live through the call.
        let regions = unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, &raw mut argument) };
        match regions {
            -1 => Err(io::Error::last_os_error()),
            regions => Ok(regions > 0 && region.categories & PAGE_IS_HUGE != 0),
        }
    }
}

/// Reads the 8-byte entries from number `first` on; what is behind the end of the file is 0.
fn read_entries(file: &File, first: u64, entries: &mut [u64]) -> io::Result<()> {
    let mut bytes = vec![0u8; entries.len() * 8];
    let mut length = 0;
    while length < bytes.len() {
        match file.read_at(&mut bytes[length..], first * 8 + length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    for (entry, bytes) in entries.iter_mut().zip(bytes.chunks_exact(8)) {
        *entry = bytes.try_into().map_or(0, u64::from_ne_bytes);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;
    const HUGE: u64 = 2 << 20;

    struct Area(*mut u8, usize);

    impl Area {
        fn new(bytes: usize) -> Self {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            // SAFETY: a new mapping; checked below.
            let start =
                unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
            assert_ne!(start, libc::MAP_FAILED);
            Self(start.cast(), bytes)
        }

        fn advise(&self, start: usize, bytes: usize, advice: i32) {
            // SAFETY: inside the mapping.
            let done = unsafe { libc::madvise(self.0.add(start).cast(), bytes, advice) };
            assert_eq!(done, 0);
        }

        fn write(&self, at: usize) {
            // SAFETY: inside the mapping.
            unsafe { self.0.add(at).write_volatile(1) };
        }

        fn page(&self, at: usize) -> u64 {
            (self.0 as u64 + at as u64) / PAGE
        }
    }

    impl Drop for Area {
        fn drop(&mut self) {
            // SAFETY: the mapping made above.
            unsafe { libc::munmap(self.0.cast(), self.1) };
        }
    }

    /// What became of pages, and of how many pages a folio.
    fn look(pages: &[u64]) -> Vec<Residency> {
        let tables = PageTables::new(PAGE, HUGE);
        let own = File::open("/proc/self/pagemap").unwrap();
        let asked: Vec<Asked> = pages
            .iter()
            .map(|page| Asked {
                page: *page,
                folio: None,
            })
            .collect();
        let found = tables.look(&own, &asked).unwrap();
        let without_frames = |residency| match residency {
            Residency::Resident { pages, .. } => Residency::Resident { pages, folio: 0 },
            other => other,
        };
        found.into_iter().map(without_frames).collect()
    }

    #[test]
    fn pages_are_resident_from_the_first_write_until_they_are_given_back() {
        let area = Area::new(64 * PAGE as usize);
        area.advise(0, area.1, libc::MADV_NOHUGEPAGE);
        area.write(0);
        area.write(5 * PAGE as usize);
        let pages = [
            area.page(0),
            area.page(PAGE as usize),
            area.page(5 * PAGE as usize),
        ];
        let alone = Residency::Resident { pages: 1, folio: 0 };
        assert_eq!(look(&pages), [alone, Residency::Gone, alone]);
        area.advise(0, PAGE as usize, libc::MADV_DONTNEED);
        assert_eq!(look(&pages), [Residency::Gone, Residency::Gone, alone]);
    }

    #[test]
    fn code_is_not_anonymous_and_nothing_is_mapped_at_zero() {
        let code = code_is_not_anonymous_and_nothing_is_mapped_at_zero as fn() as usize as u64;
        assert_eq!(
            look(&[0, code / PAGE]),
            [Residency::Gone, Residency::NotAnonymous]
        );
    }

    #[test]
    fn a_huge_page_is_as_large_as_what_is_left_of_it() {
        let enabled = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
        let tables = PageTables::new(PAGE, HUGE);
        if enabled.is_ok_and(|text| text.contains("[never]"))
            || tables.source() == FolioSource::Unknown
        {
            eprintln!("skipped: no huge pages, or no right to see them");
            return;
        }
        let area = Area::new(2 * HUGE as usize);
        let start = area.0 as usize;
        let first = start.next_multiple_of(HUGE as usize) - start;
        area.advise(first, HUGE as usize, libc::MADV_HUGEPAGE);
        area.write(first);
        let found = look(&[area.page(first)]);
        if found
            != [Residency::Resident {
                pages: 512,
                folio: 0,
            }]
        {
            eprintln!("skipped: no huge page to be had ({found:?})");
            return;
        }
        let own = File::open("/proc/self/pagemap").unwrap();
        let here = area.page(first);
        let asked = |folio| Asked { page: here, folio };
        let Residency::Resident { folio, .. } = tables.look(&own, &[asked(None)]).unwrap()[0]
        else {
            panic!("a huge page that is not resident");
        };
        if tables.source() == FolioSource::PageFlags {
            area.advise(
                first + 100 * PAGE as usize,
                12 * PAGE as usize,
                libc::MADV_DONTNEED,
            );
            assert_eq!(
                look(&[area.page(first)]),
                [Residency::Resident {
                    pages: 500,
                    folio: 0
                }]
            );
        }
        // Its first page goes; the others stay.
        area.advise(first, PAGE as usize, libc::MADV_DONTNEED);
        let Residency::Resident { pages, .. } =
            tables.look(&own, &[asked(Some(folio))]).unwrap()[0]
        else {
            panic!("most of it is still there");
        };
        assert!((499..=511).contains(&pages), "{pages}");
        assert_eq!(
            tables.look(&own, &[asked(None)]).unwrap(),
            [Residency::Gone]
        );
    }
}
