//! Address-space system calls, right and wrong uses, that keep account of what they asked for.
//!
//! Goes around libc, so that the account is what the kernel saw. Allocates nothing.

use std::ffi::c_void;
use std::ptr;

use serde_json::{Value, json};

use crate::machine::PAGE;

/// What memtrace's heap counters should say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    pub mmap_bytes: u64,
    pub munmap_bytes: u64,
    pub brk_grow_bytes: u64,
    pub brk_shrink_bytes: u64,
    pub madvise_free_bytes: u64,
}

impl Sums {
    pub const FIELDS: [&str; 5] = [
        "mmap_bytes",
        "munmap_bytes",
        "brk_grow_bytes",
        "brk_shrink_bytes",
        "madvise_free_bytes",
    ];

    /// From a line of memtrace or a report of the workload; `None` where a field is no number.
    pub fn of(line: &Value) -> Option<Self> {
        let field = |name: &str| line[name].as_u64();
        Some(Self {
            mmap_bytes: field("mmap_bytes")?,
            munmap_bytes: field("munmap_bytes")?,
            brk_grow_bytes: field("brk_grow_bytes")?,
            brk_shrink_bytes: field("brk_shrink_bytes")?,
            madvise_free_bytes: field("madvise_free_bytes")?,
        })
    }

    pub fn to_json(self) -> Value {
        json!({
            "mmap_bytes": self.mmap_bytes,
            "munmap_bytes": self.munmap_bytes,
            "brk_grow_bytes": self.brk_grow_bytes,
            "brk_shrink_bytes": self.brk_shrink_bytes,
            "madvise_free_bytes": self.madvise_free_bytes,
        })
    }

    /// What happened since `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            mmap_bytes: self.mmap_bytes.wrapping_sub(before.mmap_bytes),
            munmap_bytes: self.munmap_bytes.wrapping_sub(before.munmap_bytes),
            brk_grow_bytes: self.brk_grow_bytes.wrapping_sub(before.brk_grow_bytes),
            brk_shrink_bytes: self.brk_shrink_bytes.wrapping_sub(before.brk_shrink_bytes),
            madvise_free_bytes: self
                .madvise_free_bytes
                .wrapping_sub(before.madvise_free_bytes),
        }
    }
}

/// Up to whole pages, as the kernel takes lengths.
pub fn pages(length: u64) -> u64 {
    length.wrapping_add(PAGE - 1) & !(PAGE - 1)
}

/// Whether that advice gives memory back.
pub fn advice_frees(advice: i32) -> bool {
    [
        libc::MADV_DONTNEED,
        libc::MADV_FREE,
        libc::MADV_REMOVE,
        DONTNEED_LOCKED,
        GUARD_INSTALL,
    ]
    .contains(&advice)
}

const DONTNEED_LOCKED: i32 = 24;
const GUARD_INSTALL: i32 = 102;
const PRIVATE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
const SHARED: i32 = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Makes the calls and counts those that succeed.
#[derive(Debug, Default)]
pub struct Caller {
    pub sums: Sums,
    /// How many calls the kernel refused.
    pub refused: u64,
}

impl Caller {
    /// Every kind of use, right and wrong.
    pub fn everything(&mut self) {
        self.maps_and_unmaps();
        self.remaps();
        self.moves_the_break();
        self.gives_back();
    }

    fn maps_and_unmaps(&mut self) {
        // Lengths that are no whole pages, on purpose.
        let whole = self.map(16 * PAGE + 1, PRIVATE);
        self.unmap(whole + 16 * PAGE, 1);
        self.unmap(whole + 4 * PAGE, 2 * PAGE - 5);
        self.unmap(whole, 16 * PAGE);
        let under = self.map(8 * PAGE, SHARED);
        self.map_at(under + 2 * PAGE, 3 * PAGE, PRIVATE | libc::MAP_FIXED);
        self.unmap(under, 8 * PAGE);

        self.map(0, PRIVATE);
        self.map(PAGE, libc::MAP_ANONYMOUS);
        self.map(PAGE, libc::MAP_PRIVATE);
        self.map(1 << 62, PRIVATE);
        self.map_at(1, PAGE, PRIVATE | libc::MAP_FIXED);
        self.unmap(whole + 1, PAGE);
        self.unmap(whole, 0);
        self.unmap(u64::MAX - PAGE + 1, PAGE);
    }

    fn remaps(&mut self) {
        const MAY_MOVE: i32 = libc::MREMAP_MAYMOVE;
        let room = self.map(64 * PAGE, PRIVATE);
        self.unmap(room + 8 * PAGE, 56 * PAGE);
        let grown = self.remap(room, 8 * PAGE, 20 * PAGE - 1, 0, 0);
        let shrunk = self.remap(grown, 20 * PAGE, 5 * PAGE + 1, 0, 0);
        self.map_at(shrunk + 6 * PAGE, PAGE, PRIVATE | libc::MAP_FIXED_NOREPLACE);
        // Now only moving helps.
        self.remap(shrunk, 6 * PAGE, 12 * PAGE, 0, 0);
        let moved = self.remap(shrunk, 6 * PAGE, 12 * PAGE, MAY_MOVE, 0);
        let target = self.map(12 * PAGE, PRIVATE);
        let fixed = self.remap(
            moved,
            12 * PAGE,
            12 * PAGE,
            MAY_MOVE | libc::MREMAP_FIXED,
            target,
        );
        let twin = self.remap(
            fixed,
            12 * PAGE,
            12 * PAGE,
            MAY_MOVE | libc::MREMAP_DONTUNMAP,
            0,
        );
        self.unmap(fixed, 12 * PAGE);
        self.unmap(twin, 12 * PAGE);
        // An old length of 0 maps shared pages a second time.
        let shared = self.map(4 * PAGE, SHARED);
        let second = self.remap(shared, 0, 4 * PAGE, MAY_MOVE, 0);
        self.unmap(shared, 4 * PAGE);
        self.unmap(second, 4 * PAGE);

        self.remap(second, 4 * PAGE, 8 * PAGE, MAY_MOVE, 0);
        self.remap(room + 1, PAGE, 2 * PAGE, MAY_MOVE, 0);
        self.remap(room + 6 * PAGE, PAGE, 0, MAY_MOVE, 0);
        self.remap(room + 6 * PAGE, PAGE, PAGE, libc::MREMAP_FIXED, room);
        self.remap(room + 6 * PAGE, PAGE, PAGE, 1 << 20, 0);
        self.unmap(room + 6 * PAGE, PAGE);
    }

    /// Leaves the break where it was, so that libc's heap does not notice.
    fn moves_the_break(&mut self) {
        let start = self.brk(0, 0);
        let high = self.brk(start, start + 10 * PAGE + 123);
        let low = self.brk(high, start + 3 * PAGE);
        let low = self.brk(low, low);
        let low = self.brk(low, low + 1);
        let low = self.brk(low, u64::MAX >> 1);
        let low = self.brk(low, PAGE);
        self.brk(low, start);
    }

    fn gives_back(&mut self) {
        let private = self.map(8 * PAGE, PRIVATE);
        let shared = self.map(8 * PAGE, SHARED);
        self.advise(private, 4 * PAGE - 1, libc::MADV_DONTNEED);
        self.advise(private, 3 * PAGE, libc::MADV_FREE);
        self.advise(shared, 2 * PAGE, libc::MADV_REMOVE);
        // Newer kernels only; the others refuse.
        self.advise(private, 2 * PAGE, DONTNEED_LOCKED);
        self.advise(private, PAGE, GUARD_INSTALL);
        // These succeed and give nothing back.
        self.advise(private, 8 * PAGE, libc::MADV_WILLNEED);
        self.advise(private, 8 * PAGE, libc::MADV_NOHUGEPAGE);
        self.advise(private, 0, libc::MADV_DONTNEED);

        self.advise(private, PAGE, 9999);
        self.advise(private + 1, PAGE, libc::MADV_DONTNEED);
        self.advise(private, PAGE, libc::MADV_REMOVE);
        self.advise(shared, PAGE, libc::MADV_FREE);
        self.advise(private, u64::MAX, libc::MADV_DONTNEED);
        self.unmap(private + 2 * PAGE, PAGE);
        // Over the hole: works on what is mapped, and fails.
        self.advise(private, 8 * PAGE, libc::MADV_DONTNEED);
        self.unmap(private, 8 * PAGE);
        self.unmap(shared, 8 * PAGE);
    }

    fn map(&mut self, length: u64, flags: i32) -> u64 {
        self.map_at(0, length, flags)
    }

    fn map_at(&mut self, address: u64, length: u64, flags: i32) -> u64 {
        // SAFETY: only addresses of this module's own mappings are replaced.
        let result = unsafe {
            libc::syscall(
                libc::SYS_mmap,
                address,
                length,
                READ_WRITE,
                flags,
                -1,
                0 as libc::off_t,
            )
        };
        if self.accepted(result) {
            self.sums.mmap_bytes += pages(length);
        }
        result as u64
    }

    fn unmap(&mut self, address: u64, length: u64) {
        // SAFETY: only this module's own mappings, to which nothing refers.
        let result = unsafe { libc::syscall(libc::SYS_munmap, address, length) };
        if self.accepted(result) {
            self.sums.munmap_bytes += pages(length);
        }
    }

    fn remap(&mut self, address: u64, old: u64, new: u64, flags: i32, target: u64) -> u64 {
        // SAFETY: only this module's own mappings, to which nothing refers.
        let result = unsafe { libc::syscall(libc::SYS_mremap, address, old, new, flags, target) };
        if self.accepted(result) {
            let (old, new) = (pages(old), pages(new));
            if flags & libc::MREMAP_DONTUNMAP != 0 {
                self.sums.mmap_bytes += new;
            } else {
                self.sums.mmap_bytes += new.saturating_sub(old);
                self.sums.munmap_bytes += old.saturating_sub(new);
            }
        }
        result as u64
    }

    /// Gives the break that holds afterwards.
    fn brk(&mut self, now: u64, wanted: u64) -> u64 {
        // SAFETY: the break ends where it began, and no memory above it is used.
        let holds = unsafe { libc::syscall(libc::SYS_brk, wanted) } as u64;
        if holds == wanted {
            self.sums.brk_grow_bytes += holds.saturating_sub(now);
            self.sums.brk_shrink_bytes += now.saturating_sub(holds);
        } else {
            self.refused += 1;
        }
        holds
    }

    fn advise(&mut self, address: u64, length: u64, advice: i32) {
        // SAFETY: only this module's own mappings, whose contents nobody reads.
        let result = unsafe { libc::syscall(libc::SYS_madvise, address, length, advice) };
        if self.accepted(result) && advice_frees(advice) {
            self.sums.madvise_free_bytes += pages(length);
        }
    }

    fn accepted(&mut self, result: libc::c_long) -> bool {
        if result == -1 {
            self.refused += 1;
        }
        result != -1
    }
}

/// Memory of one's own, in small pages, each written once.
pub fn touch(bytes: u64) -> std::io::Result<u64> {
    touch_new(bytes, PRIVATE)
}

/// The same in memory that children would share.
pub fn touch_shared(bytes: u64) -> std::io::Result<u64> {
    touch_new(bytes, SHARED)
}

fn touch_new(bytes: u64, flags: libc::c_int) -> std::io::Result<u64> {
    let length = bytes as usize;
    // SAFETY: a new anonymous mapping.
    let start = unsafe { libc::mmap(ptr::null_mut(), length, READ_WRITE, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the mapping just made.
    unsafe { libc::madvise(start, length, libc::MADV_NOHUGEPAGE) };
    write_each_page(start, bytes);
    Ok(bytes.div_ceil(PAGE))
}

fn write_each_page(start: *mut c_void, bytes: u64) {
    for offset in (0..bytes).step_by(PAGE as usize) {
        // SAFETY: inside the mapping; volatile, so that it is not optimized away.
        unsafe { ptr::write_volatile(start.cast::<u8>().add(offset as usize), 1) };
    }
}
