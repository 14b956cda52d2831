//! Unwind tables and programs as nobody's compiler makes them, for tests.

use std::ops::Range;

/// `DW_CFA_nop`.
pub const NOP: u8 = 0;
/// The CFA is the stack pointer (7) + 16, by an expression.
pub const STRAIGHT: &[u8] = &[0x0f, 2, 0x77, 16];
/// The CFA is an expression that jumps back to its start without end.
pub const CIRCLE: &[u8] = &[0x0f, 3, 0x2f, 0xfd, 0xff];

/// The table of one function: the CFA is the stack pointer + 16, the caller's address lies right before it, and
/// then `program`.
pub fn eh_frame(function: Range<u64>, program: &[u8]) -> Vec<u8> {
    let mut common = Vec::new();
    common.extend(16_u32.to_le_bytes());
    common.extend(0_u32.to_le_bytes());
    // Version 1, no augmentation, aligned by 1 and -8; 16 is the caller's address.
    common.extend([1, 0, 1, 0x78, 16]);
    common.extend([0x0c, 7, 16, 0x80 | 16, 1]);
    common.resize(20, NOP);
    let mut own = Vec::new();
    own.extend((20 + program.len() as u32).to_le_bytes());
    own.extend(24_u32.to_le_bytes());
    own.extend(function.start.to_le_bytes());
    own.extend((function.end - function.start).to_le_bytes());
    own.extend(program);
    [common, own].concat()
}

/// Where the code of [`elf`] begins, in the file and in memory.
pub const CODE: u64 = 0x1000;

/// A program of one page of code, with this table.
pub fn elf(eh_frame: &[u8]) -> Vec<u8> {
    const NAMES: &[u8] = b"\0.eh_frame\0.names\0";
    let mut file = vec![0; 0x2000];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    for (at, value) in [
        (16, 3_u16),
        (18, 62),
        (52, 64),
        (54, 56),
        (56, 1),
        (58, 64),
        (60, 3),
        (62, 2),
    ] {
        put(at, &value.to_le_bytes());
    }
    for (at, value) in [(20, 1_u64), (32, 64), (40, 256)] {
        put(at, &value.to_le_bytes()[..if at == 20 { 4 } else { 8 }]);
    }
    // PT_LOAD, readable and executable: offset, address, length in the file and in memory.
    put(64, &1_u32.to_le_bytes());
    put(68, &5_u32.to_le_bytes());
    for (at, value) in [(72, CODE), (80, CODE), (96, 0x1000), (104, 0x1000)] {
        put(at, &value.to_le_bytes());
    }
    put(512, NAMES);
    let mut section = |number: usize, name: u32, kind: u32, offset: u64, bytes: u64| {
        let at = 256 + 64 * number;
        put(at, &name.to_le_bytes());
        put(at + 4, &kind.to_le_bytes());
        put(at + 16, &offset.to_le_bytes());
        put(at + 24, &offset.to_le_bytes());
        put(at + 32, &bytes.to_le_bytes());
    };
    section(1, 1, 1, 0x2000, eh_frame.len() as u64);
    section(2, 11, 3, 512, NAMES.len() as u64);
    file.extend(eh_frame);
    file
}
