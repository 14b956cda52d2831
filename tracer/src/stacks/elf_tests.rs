use std::os::unix::fs::FileExt as _;

use super::*;

const NAMES: &[u8] = b"\0.eh_frame\0.eh_frame_hdr\0.note\0.names\0";
const PROGBITS: u32 = 1;
const STRTAB: u32 = 3;
const NOTE: u32 = 7;

/// A file of sections, each of a type and as many zeros as asked for; it takes no room on disk.
fn elf(sections: &[(&str, u32, u64)]) -> File {
    let file = tempfile::tempfile().unwrap();
    let mut header = [0; 64];
    header[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    header[16] = 3;
    header[20] = 1;
    header[40..48].copy_from_slice(&64_u64.to_le_bytes());
    header[52] = 64;
    header[58] = 64;
    header[60] = sections.len() as u8 + 2;
    header[62] = 1;
    file.write_all_at(&header, 0).unwrap();
    file.write_all_at(NAMES, 2048).unwrap();
    let name = |name: &str| {
        let name = format!("{name}\0").into_bytes();
        let mut places = NAMES.windows(name.len());
        places.position(|place| place == name).unwrap() as u32
    };
    let mut end = 4096;
    let all = [(".names", STRTAB, 0)].into_iter();
    for (number, (called, kind, bytes)) in all.chain(sections.iter().copied()).enumerate() {
        let (offset, bytes) = match kind {
            STRTAB => (2048, NAMES.len() as u64),
            _ => (end, bytes),
        };
        end = end.max(offset + bytes);
        let mut section = [0; 64];
        section[..4].copy_from_slice(&name(called).to_le_bytes());
        section[4..8].copy_from_slice(&kind.to_le_bytes());
        section[24..32].copy_from_slice(&offset.to_le_bytes());
        section[32..40].copy_from_slice(&bytes.to_le_bytes());
        file.write_all_at(&section, 128 + 64 * number as u64)
            .unwrap();
    }
    file.set_len(end).unwrap();
    file
}

#[test]
fn a_large_table_without_a_header_is_refused() {
    let small = read_tables(&elf(&[(".eh_frame", PROGBITS, 64 << 10)]), 1);
    assert!(small.eh_frame.is_some() && !small.refused);
    let large = (".eh_frame", PROGBITS, 1 << 20);
    let without = read_tables(&elf(&[large]), 1);
    assert!(without.eh_frame.is_none() && without.refused);
    let with = read_tables(&elf(&[large, (".eh_frame_hdr", PROGBITS, 64)]), 1);
    assert!(with.eh_frame.is_some() && !with.refused);
}

/// What this thread's process has taken of memory at most, bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let field = line.unwrap().trim().trim_end_matches(" kB");
    field.parse::<u64>().unwrap() << 10
}

#[test]
fn notes_as_large_as_memory_are_not_read() {
    let file = elf(&[(".note", NOTE, 1 << 30)]);
    let before = peak();
    assert_eq!(build_id(&file), None);
    assert!(peak() - before < 512 << 20);
}

#[test]
fn the_program_itself_has_a_build_id_or_none_and_tables() {
    let file = File::open("/proc/self/exe").unwrap();
    let tables = read_tables(&file, 1);
    assert!(tables.eh_frame.is_some() && tables.eh_frame_hdr.is_some() && !tables.refused);
    assert!(tables.text.is_some() && !tables.segments.is_empty());
    let bytes = std::fs::read("/proc/self/exe").unwrap();
    let object = object::File::parse(&*bytes).unwrap();
    let expected = object::Object::build_id(&object).unwrap();
    assert_eq!(build_id(&file).as_deref(), expected);
}
