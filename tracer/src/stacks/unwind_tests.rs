use std::{fs::File, os::fd::AsRawFd as _};

use super::*;

const PAGE: usize = 4096;

/// The first page of the running program, mapped many times as code.
struct ManyTimes(Vec<*mut libc::c_void>);

impl ManyTimes {
    fn new(times: usize) -> Self {
        let file = File::open("/proc/self/exe").unwrap();
        let map = |_| {
            let protection = libc::PROT_READ | libc::PROT_EXEC;
            let (fd, private) = (file.as_raw_fd(), libc::MAP_PRIVATE);
            // SAFETY: new mappings of an open file, where the kernel has room for them.
            let page =
                unsafe { libc::mmap(std::ptr::null_mut(), PAGE, protection, private, fd, 0) };
            assert_ne!(page, libc::MAP_FAILED);
            page
        };
        Self((0..times).map(map).collect())
    }
}

impl Drop for ManyTimes {
    fn drop(&mut self) {
        for page in &self.0 {
            // SAFETY: made above; nothing refers to it.
            unsafe { libc::munmap(*page, PAGE) };
        }
    }
}

fn read(most_code: usize) -> (CodeMap, u64, u64) {
    let proc = ProcRoot::default();
    let mut modules = Modules::new(proc.clone(), 16);
    let mut unwinding = Unwinding::new(proc, PAGE as u64, most_code);
    let pid = std::process::id();
    let map = unwinding.read_code(pid, 1, &mut modules, None).unwrap();
    // Again, in its place: there is as much room as before.
    let again = unwinding
        .read_code(pid, 1, &mut modules, Some(&map))
        .unwrap();
    assert_eq!(again.code.len(), map.code.len());
    (again, unwinding.left_out, modules.looks())
}

#[test]
fn a_file_is_opened_once_and_so_much_of_it_is_kept() {
    let many = ManyTimes::new(1000);
    let (all, left_out, looks) = read(100_000);
    assert!(all.code.len() > 1000 && left_out == 0);
    assert!(all.tables.len() < 20 && looks < 40, "{looks}");
    let (some, left_out, _) = read(800);
    assert_eq!(some.code.len(), 100);
    assert!(left_out >= 2 * 900, "{left_out}");
    drop(many);
}
