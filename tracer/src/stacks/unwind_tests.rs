use std::{fs::File, os::fd::AsRawFd as _};

use super::*;
use crate::stacks::forged::{CIRCLE, CODE, NOP, STRAIGHT, eh_frame, elf};

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

#[test]
fn a_list_of_mappings_that_is_cut_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let of_process = directory.path().join(PID.to_string());
    std::fs::create_dir(&of_process).unwrap();
    let proc = ProcRoot::new(directory.path());
    let mut modules = Modules::new(proc.clone(), 4);
    let mut unwinding = Unwinding::new(proc, PAGE as u64, 100);
    let line = b"1000-2000 r-xp 00000000 00:00 0 \n";
    for (bytes, cut) in [(1 << 20, 0), (17 << 20, 1)] {
        let lines = line.repeat(bytes / line.len());
        std::fs::write(of_process.join("maps"), lines).unwrap();
        let map = unwinding.read_code(PID, CGROUP, &mut modules, None);
        assert!(!map.unwrap().code.is_empty());
        assert_eq!(unwinding.lists_cut, cut);
    }
}

const PID: u32 = 42;
const CGROUP: u64 = 7;
const BASE: u64 = 0x40_0000;

/// Of a process that runs a file of one function, which is unwound by `program`, and called itself 1000 times.
struct Forged {
    _proc: tempfile::TempDir,
    unwinding: Unwinding,
    map: CodeMap,
    stack: Vec<u8>,
}

impl Forged {
    fn new(program: &[u8]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let end = BASE + PAGE as u64;
        let of_process = directory.path().join(PID.to_string());
        let links = of_process.join("map_files");
        std::fs::create_dir_all(&links).unwrap();
        let line = format!("{BASE:x}-{end:x} r-xp {CODE:08x} 08:01 7 /bin/program\n");
        std::fs::write(of_process.join("maps"), line).unwrap();
        let file = elf(&eh_frame(CODE..CODE + 0x100, program));
        std::fs::write(links.join(format!("{BASE:x}-{end:x}")), file).unwrap();
        let proc = ProcRoot::new(directory.path());
        let mut unwinding = Unwinding::new(proc.clone(), PAGE as u64, 32_768);
        let mut modules = Modules::new(proc, 4);
        let map = unwinding.read_code(PID, CGROUP, &mut modules, None);
        let map = map.unwrap();
        assert!(map.tables.iter().any(|tables| tables.eh_frame.is_some()));
        let call = [[0; 8], (BASE + 0x20).to_le_bytes()].concat();
        Self {
            _proc: directory,
            unwinding,
            map,
            stack: call.repeat(1000),
        }
    }

    fn unwind(&mut self) -> (usize, Root, u64) {
        let sample = sample(PID, BASE + 0x10, 0x7000_0000, 0, &self.stack);
        let path = self.unwinding.unwind(&self.map, &sample);
        (path.places.len(), path.root, self.unwinding.paths_cut)
    }
}

fn sample(pid: u32, ip: u64, sp: u64, bp: u64, stack: &[u8]) -> StackSample<'_> {
    StackSample {
        touched: crate::probes::stack::Touched::Page { protected: false },
        pid,
        tid: pid,
        cgroup_id: CGROUP,
        shift: 0,
        mm: 1,
        start_stack: None,
        address: 0,
        boot_ns: 1,
        ip,
        sp,
        bp,
        lr: 0,
        process_start_ns: None,
        comm: String::new(),
        stack,
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn an_expression_is_run_unless_it_may_loop() {
    assert_eq!(Forged::new(STRAIGHT).unwind(), (MOST_FRAMES, Root::Cut, 0));
    let mut circle = Forged::new(CIRCLE);
    assert_eq!(circle.unwind(), (1, Root::Cut, 1));
    assert_eq!(circle.unwind(), (1, Root::Cut, 2));
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_stack_is_unwound_as_far_as_its_tables_are_short_together() {
    let program = [NOP; 40 << 10];
    let bytes = eh_frame(0..1, &program).len();
    // Without a header it is looked through, too.
    assert_eq!(
        Forged::new(&program).unwind(),
        (MOST_TABLE_BYTES / (bytes + bytes / 16) + 1, Root::Cut, 1)
    );
    assert_eq!(Forged::new(&[NOP; 300 << 10]).unwind(), (1, Root::Cut, 1));
    assert_eq!(Forged::new(&[NOP]).unwind(), (MOST_FRAMES, Root::Cut, 0));
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_cgroup_that_took_too_much_time_is_told_by_its_leaves_for_a_while() {
    let mut forged = Forged::new(&[]);
    assert_eq!(forged.unwind(), (MOST_FRAMES, Root::Cut, 0));
    let took = Duration::from_secs(1);
    let shares = &mut forged.unwinding.shares;
    shares.take(CGROUP + 1, Instant::now(), took);
    assert_eq!(forged.unwind(), (MOST_FRAMES, Root::Cut, 0));
    let shares = &mut forged.unwinding.shares;
    shares.take(CGROUP, Instant::now(), took);
    assert_eq!(forged.unwind(), (1, Root::Cut, 1));
}

#[test]
fn more_places_than_are_remembered_are_unwound_alike() {
    let mut functions = Functions::new();
    let mut forged = Forged::new(STRAIGHT);
    let first = forged.unwind();
    let mut tables = (*forged.map.tables[0]).clone();
    for number in 0..40_000 {
        tables.number = number;
        let address = FrameAddress::from_instruction_pointer(CODE + number % 0x100);
        let sample = sample(PID, BASE, 0x7000_0000, 0, &forged.stack);
        let mut read = |_: u64| Ok(BASE + number);
        let mut registers = registers(&sample);
        let tables = Some((&tables, 0));
        let caller = functions.step(tables, address, &mut registers, &mut 1000, &mut read);
        assert_eq!(caller.unwrap(), Some(BASE + number));
    }
    assert_eq!(forged.unwind(), first);
}

/// Where this thread is, and its stack from there on.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
fn here(depth: usize) -> ([u64; 3], Vec<u8>) {
    if depth > 0 {
        return std::hint::black_box(here(depth - 1));
    }
    let own = std::process::id();
    let mappings = ProcRoot::default().mappings(own, &mut Vec::new()).unwrap();
    let (ip, sp, bp): (u64, u64, u64);
    // SAFETY: only reads registers.
    unsafe {
        std::arch::asm!("lea {}, [rip]", "mov {}, rsp", "mov {}, rbp", out(reg) ip, out(reg) sp, out(reg) bp);
    }
    let stack = mappings.iter().find(|mapping| mapping.range.contains(&sp));
    let bytes = (stack.unwrap().range.end - sp).min(64 << 10) as usize;
    // SAFETY: so much is mapped from there on, and lives as long as this thread.
    let stack = unsafe { std::slice::from_raw_parts(sp as *const u8, bytes) };
    ([ip, sp, bp], stack.to_vec())
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_callers_of_this_test_are_found() {
    let ([ip, sp, bp], stack) = here(20);
    let pid = std::process::id();
    let proc = ProcRoot::default();
    let mut modules = Modules::new(proc.clone(), 64);
    let mut unwinding = Unwinding::new(proc, PAGE as u64, 32_768);
    let map = unwinding
        .read_code(pid, CGROUP, &mut modules, None)
        .unwrap();
    let sample = sample(pid, ip, sp, bp, &stack);
    let path = unwinding.unwind(&map, &sample);
    // The same call 19 times, then others up to the start of the thread.
    let places = &path.places;
    let repeated = places.windows(2).filter(|pair| pair[0] == pair[1]).count();
    assert!(repeated >= 18, "{path:?}");
    assert!(places.len() > 25 && path.root == Root::Reached, "{path:?}");
    assert_eq!(unwinding.unwind(&map, &sample), path);
    assert_eq!(unwinding.paths_cut, 0);
}
