//! Unwinding through an executable that anybody may have written: ELF, `.eh_frame`, registers and stack.
//!
//! Instruction, stack and frame pointer (8 bytes each), a length (2 bytes) and as much of the stack, and the
//! file, which is mapped as a whole.

use std::{cell::LazyCell, fs};

use memtrace::{
    host::ProcRoot,
    probes::stack::{StackSample, Touched},
    stacks::{modules::Modules, unwind::Unwinding},
};

use crate::scratch::Scratch;

const PID: u32 = 42;
const PAGE: u64 = 4096;
const BASE: u64 = 0x40_0000;
/// Longer than any input.
const END: u64 = BASE + (1 << 20);
const MOST_FRAMES: usize = 257;
/// One process gets an eighth of it.
const MOST_CODE: usize = 32_768;

thread_local! {
    static PROC: LazyCell<Scratch> = LazyCell::new(|| {
        let link = format!("{PID}/map_files/{BASE:x}-{END:x}");
        let proc = Scratch::new(&[&link]);
        let line = format!("{BASE:x}-{END:x} r-xp 00000000 08:01 7 /bin/program\n");
        fs::write(proc.path().join(format!("{PID}/maps")), line).expect("TMPDIR has room");
        proc
    });
}

pub fn run(data: &[u8]) {
    let Some((registers, rest)) = data.split_at_checked(26) else {
        return;
    };
    let word = |at: usize| {
        let bytes = registers
            .get(8 * at..8 * at + 8)
            .and_then(|word| word.try_into().ok());
        u64::from_le_bytes(bytes.unwrap_or_default())
    };
    let length = usize::from(u16::from_le_bytes([registers[24], registers[25]]));
    let (stack, elf) = rest.split_at(length.min(rest.len()));
    PROC.with(|files| {
        files.fill(elf);
        let proc = ProcRoot::new(files.path());
        let mut modules = Modules::new(proc.clone(), 4);
        let mut unwinding = Unwinding::new(proc, PAGE, MOST_CODE);
        let code = unwinding
            .read_code(PID, 1, &mut modules, None)
            .expect("the files are there");
        assert_eq!(code.modules().count(), 1);
        let sample = StackSample {
            touched: Touched::Page { protected: false },
            pid: PID,
            tid: PID,
            cgroup_id: 1,
            shift: 0,
            mm: 1,
            start_stack: None,
            address: 0,
            boot_ns: 1,
            // Most of all what lies in the file.
            ip: BASE.wrapping_add(word(0)),
            sp: word(1),
            bp: word(2),
            // Of arm64 alone.
            lr: 0,
            process_start_ns: None,
            comm: String::new(),
            stack,
        };
        let path = unwinding.unwind(&code, &sample);
        assert!((1..=MOST_FRAMES).contains(&path.places.len()));
        assert!(!code.is_damaged());
        // The cache does not change what is found.
        assert_eq!(unwinding.unwind(&code, &sample), path);
    });
}
