use std::{fs::File, os::unix::fs::FileExt as _};

use super::*;
use crate::stacks::{
    elf::read_tables,
    file_view::FileView,
    forged::{CIRCLE, NOP, STRAIGHT, eh_frame as forge},
};

const CGROUP: u64 = 1;
const FUNCTION: u64 = 0x1000;

/// A file of one function that is unwound by `program`, and its table.
fn tables(program: &[u8]) -> (File, UnwindTables) {
    let file = tempfile::tempfile().unwrap();
    let bytes = forge(FUNCTION..FUNCTION + 0x100, program);
    file.write_all_at(&bytes, 0).unwrap();
    let view = FileView::new(&file, 0, bytes.len(), CGROUP).unwrap();
    let tables = UnwindTables {
        eh_frame: Some(Section {
            address: 0x8000..0x8000 + bytes.len() as u64,
            bytes: Arc::new(view),
        }),
        ..UnwindTables::default()
    };
    (file, tables)
}

fn find(program: &[u8]) -> Found {
    found_at(&tables(program).1, FUNCTION + 4)
}

fn found_at(tables: &UnwindTables, address: u64) -> Found {
    FunctionTable::find(tables, address, &mut (1 << 30)).unwrap()
}

#[test]
fn a_program_of_a_megabyte_is_refused() {
    assert!(matches!(find(&[NOP; 33 << 10]), Found::Entry(_)));
    assert!(matches!(find(&[NOP; 1 << 20]), Found::Refused));
}

#[test]
fn an_expression_that_jumps_is_refused() {
    assert!(matches!(find(STRAIGHT), Found::Entry(_)));
    assert!(matches!(find(CIRCLE), Found::Refused));
}

#[test]
fn what_was_looked_through_does_not_change_with_its_file() {
    let (file, tables) = tables(STRAIGHT);
    let Found::Entry(table) = found_at(&tables, FUNCTION) else {
        panic!("it is there");
    };
    let before = table.bytes.clone();
    file.write_all_at(&[0xff; 40], 0).unwrap();
    assert_eq!(table.bytes, before);
    assert!(matches!(found_at(&tables, FUNCTION), Found::Nothing));
}

#[test]
fn damaged_entries_are_none() {
    for (at, bytes) in [
        // Longer than the section, of no length, and with a reference to before the section.
        (0, 0x7fff_0000_u32),
        (0, 0),
        (20, 0x7fff_0000),
        (20, 0),
        (24, 0x7fff_0000),
        (24, 1),
    ] {
        let (file, tables) = tables(STRAIGHT);
        file.write_all_at(&bytes.to_le_bytes(), at).unwrap();
        let found = found_at(&tables, FUNCTION);
        assert!(matches!(found, Found::Nothing), "{at} {bytes} {found:?}");
    }
}

#[test]
fn functions_of_this_program_are_found_alike_with_and_without_a_header() {
    let file = File::open("/proc/self/exe").unwrap();
    let with = read_tables(&file, CGROUP);
    let without = UnwindTables {
        eh_frame_hdr: None,
        ..with.clone()
    };
    let section = with.eh_frame.as_ref().unwrap();
    let of_section = bases(&with, section.address.start);
    let mut entries = eh_frame(&section.bytes).entries(&of_section);
    let mut functions = Vec::new();
    while let Ok(Some(entry)) = entries.next() {
        if let CieOrFde::Fde(entry) = entry {
            let entry = entry.parse(EhFrame::cie_from_offset).unwrap();
            functions.push(entry.initial_address());
        }
    }
    assert!(functions.len() > 1000);
    for first in functions.iter().step_by(functions.len() / 10) {
        let found = |tables| match found_at(tables, *first) {
            Found::Entry(table) => table,
            other => panic!("{first:x} {other:?}"),
        };
        let (by_header, by_scan) = (found(&with), found(&without));
        assert_eq!(by_header.bytes, by_scan.bytes);
        assert_eq!((by_header.function, by_scan.function), (*first, *first));
    }
}

#[test]
fn to_look_through_a_table_is_paid_for() {
    let (_file, tables) = tables(&[NOP; 32 << 10]);
    let section = tables.eh_frame.as_ref().unwrap().bytes.len();
    // The entry that all others refer to, too: 20 bytes.
    let both = section + section / LOOKED_THROUGH_PER_RUN + 20 / LOOKED_THROUGH_PER_RUN;
    for (mut left, is_enough) in [(both, true), (both - 1, false), (100, false)] {
        let found = FunctionTable::find(&tables, FUNCTION, &mut left);
        assert_eq!(found.is_ok(), is_enough, "{left}");
    }
}
