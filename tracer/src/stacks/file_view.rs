//! Pieces of files as memory, of which only what is looked at is read.
//!
//! The files belong to others, who may cut them short at any time: the kernel then sends SIGBUS to who
//! reads them. A handler puts a page of zeros there and marks the view as damaged; a SIGBUS from
//! anywhere else ends the process as ever.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd as _,
    sync::{
        Mutex, Once, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

/// Views at the same time.
const MOST_VIEWS: usize = 2048;
/// A cgroup gets at most one part in so many of what the others leave: a few cannot take all.
const PARTS: usize = 4;

/// Where a view lies; a start of 0 is free.
struct Slot {
    start: AtomicUsize,
    end: AtomicUsize,
    taken: AtomicBool,
    /// For which cgroup.
    cgroup_id: AtomicU64,
    damaged: AtomicBool,
}

static SLOTS: [Slot; MOST_VIEWS] = [const {
    Slot {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        taken: AtomicBool::new(false),
        cgroup_id: AtomicU64::new(0),
        damaged: AtomicBool::new(false),
    }
}; MOST_VIEWS];

static PAGE_BYTES: AtomicUsize = AtomicUsize::new(4096);
static INSTALLED: Once = Once::new();

/// Some bytes of a file.
#[derive(Debug)]
pub struct FileView {
    slot: usize,
    /// From the start of the first page.
    skip: usize,
    bytes: usize,
}

impl FileView {
    /// `bytes` bytes of `file` from `offset` on, as one of the views of a cgroup.
    ///
    /// # Errors
    /// They cannot be mapped, or there are too many views.
    pub fn new(file: &File, offset: u64, bytes: usize, cgroup_id: u64) -> io::Result<Self> {
        let page = crate::loader::attach::page_size() as usize;
        INSTALLED.call_once(|| install(page));
        let skip = (offset % page as u64) as usize;
        let length = skip.checked_add(bytes).filter(|length| *length > 0);
        let length = length.ok_or(io::ErrorKind::InvalidInput)?;
        let slot = take_slot(cgroup_id).ok_or(io::ErrorKind::QuotaExceeded)?;
        // SAFETY: a new mapping of a descriptor that lives through the call.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ,
                libc::MAP_PRIVATE,
                file.as_raw_fd(),
                (offset - skip as u64) as libc::off_t,
            )
        };
        let entry = &SLOTS[slot];
        if start == libc::MAP_FAILED {
            entry.taken.store(false, Ordering::Release);
            return Err(io::Error::last_os_error());
        }
        entry.damaged.store(false, Ordering::Relaxed);
        let end = (start as usize + length).next_multiple_of(page);
        entry.end.store(end, Ordering::Release);
        entry.start.store(start as usize, Ordering::Release);
        Ok(Self { slot, skip, bytes })
    }

    /// Whether the file was cut short: some of the bytes may be zeros instead.
    pub fn is_damaged(&self) -> bool {
        SLOTS[self.slot].damaged.load(Ordering::Acquire)
    }
}

impl std::ops::Deref for FileView {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let start = SLOTS[self.slot].start.load(Ordering::Acquire) + self.skip;
        // SAFETY: mapped readable for as long as `self` lives; the handler fills in what the file no
        // longer has. Who writes to the file changes bytes that are parsed defensively.
        unsafe { std::slice::from_raw_parts(start as *const u8, self.bytes) }
    }
}

impl Drop for FileView {
    fn drop(&mut self) {
        let entry = &SLOTS[self.slot];
        let start = entry.start.swap(0, Ordering::AcqRel);
        let end = entry.end.load(Ordering::Acquire);
        // SAFETY: the mapping made in `new`, to which nothing refers any more.
        unsafe { libc::munmap(start as *mut libc::c_void, end - start) };
        entry.taken.store(false, Ordering::Release);
    }
}

/// `None`: the cgroup has its share.
fn take_slot(cgroup_id: u64) -> Option<usize> {
    static TAKING: Mutex<()> = Mutex::new(());
    let _taking = TAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut own, mut others, mut free) = (0, 0, None);
    for (number, slot) in SLOTS.iter().enumerate() {
        if !slot.taken.load(Ordering::Acquire) {
            free = free.or(Some(number));
        } else if slot.cgroup_id.load(Ordering::Relaxed) == cgroup_id {
            own += 1;
        } else {
            others += 1;
        }
    }
    let number = free.filter(|_| own < share(others))?;
    let slot = SLOTS.get(number)?;
    slot.cgroup_id.store(cgroup_id, Ordering::Relaxed);
    slot.taken.store(true, Ordering::Release);
    Some(number)
}

/// Views that a cgroup may have where all others have so many.
fn share(others: usize) -> usize {
    MOST_VIEWS.saturating_sub(others) / PARTS
}

fn install(page: usize) {
    PAGE_BYTES.store(page, Ordering::Relaxed);
    // SAFETY: a zeroed sigaction is valid, and the handler below is async-signal-safe.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_sigbus as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
        libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
    }
}

extern "C" fn on_sigbus(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo; mmap and sigaction are system calls without locks.
    unsafe {
        let errno = *libc::__errno_location();
        let address = (*info).si_addr() as usize;
        let page = PAGE_BYTES.load(Ordering::Relaxed);
        for slot in &SLOTS {
            let start = slot.start.load(Ordering::Acquire);
            if start == 0 || !(start..slot.end.load(Ordering::Acquire)).contains(&address) {
                continue;
            }
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
            let at = (address & !(page - 1)) as *mut libc::c_void;
            if libc::mmap(at, page, libc::PROT_READ, flags, -1, 0) != libc::MAP_FAILED {
                slot.damaged.store(true, Ordering::Release);
                *libc::__errno_location() = errno;
                return;
            }
        }
        // Not ours: when the instruction runs again, it ends the process.
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = libc::SIG_DFL;
        libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
        *libc::__errno_location() = errno;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const CGROUP: u64 = 77;

    fn file(bytes: usize) -> File {
        let mut file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..bytes).map(|number| (number / 7) as u8).collect();
        file.write_all(&content).unwrap();
        file
    }

    #[test]
    fn a_view_shows_the_bytes_from_any_offset() {
        let file = file(20_000);
        let view = FileView::new(&file, 5_001, 9_000, CGROUP).unwrap();
        let expected: Vec<u8> = (5_001..14_001).map(|number| (number / 7) as u8).collect();
        assert_eq!(&view[..], &expected[..]);
        assert!(!view.is_damaged());
    }

    #[test]
    fn a_file_that_is_cut_short_costs_its_view_only() {
        let cut = file(40_000);
        let whole = file(40_000);
        let view = FileView::new(&cut, 100, 39_000, CGROUP).unwrap();
        let other = FileView::new(&whole, 100, 39_000, CGROUP).unwrap();
        assert_eq!(view[0], 14);
        cut.set_len(4096).unwrap();
        assert_eq!(view[30_000], 0);
        assert!(view.is_damaged());
        assert_eq!(view[0], 14);
        assert!(!other.is_damaged() && other[30_000] == ((30_100 / 7) as u8));
    }

    #[test]
    fn views_come_and_go_without_end() {
        let file = file(5000);
        for _ in 0..3 * MOST_VIEWS {
            let view = FileView::new(&file, 4000, 1000, CGROUP).unwrap();
            assert_eq!(view.len(), 1000);
        }
        let views: Vec<_> = (0..3)
            .map(|_| FileView::new(&file, 0, 10, CGROUP))
            .collect();
        assert!(views.iter().all(Result::is_ok));
    }

    #[test]
    fn one_cgroup_leaves_most_views_to_the_others() {
        let file = file(10);
        let all = |cgroup_id| {
            let views = std::iter::from_fn(|| FileView::new(&file, 0, 10, cgroup_id).ok());
            views.take(MOST_VIEWS).collect::<Vec<_>>()
        };
        // Other tests have some meanwhile, too.
        let some = 200..=MOST_VIEWS / PARTS;
        let first = all(1001);
        assert!(some.contains(&first.len()), "{}", first.len());
        let second = all(1002);
        assert!(some.contains(&second.len()), "{}", second.len());
        assert!(FileView::new(&file, 0, 10, 1003).is_ok());
        drop(first);
        assert!(FileView::new(&file, 0, 10, 1001).is_ok());
    }

    #[test]
    fn many_together_do_not_take_all_either() {
        let all = (0..8).fold(0, |others, _| others + share(others));
        assert!(all < MOST_VIEWS && share(all) > 0);
    }

    #[test]
    fn nothing_of_a_file_is_no_view() {
        assert!(FileView::new(&file(10), 0, 0, CGROUP).is_err());
    }
}
