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
    let mut tables = UnwindTables {
        eh_frame: Some(Section {
            address: 0x8000..0x8000 + bytes.len() as u64,
            bytes: Arc::new(view),
        }),
        ..UnwindTables::default()
    };
    tables.index = index(&tables);
    (file, tables)
}

fn find(program: &[u8]) -> Found {
    FunctionTable::find(&tables(program).1, FUNCTION + 4)
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
    let Found::Entry(table) = FunctionTable::find(&tables, FUNCTION) else {
        panic!("it is there");
    };
    let before = table.bytes.clone();
    file.write_all_at(&[0xff; 40], 0).unwrap();
    assert_eq!(table.bytes, before);
    assert!(matches!(
        FunctionTable::find(&tables, FUNCTION),
        Found::Nothing
    ));
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
        let found = FunctionTable::find(&tables, FUNCTION);
        assert!(matches!(found, Found::Nothing), "{at} {bytes} {found:?}");
    }
}

#[test]
fn all_functions_of_this_program_are_found_with_and_without_a_header() {
    let file = File::open("/proc/self/exe").unwrap();
    let with = read_tables(&file, CGROUP);
    let index = index(&with);
    let without = UnwindTables {
        eh_frame_hdr: None,
        index: index.clone(),
        ..with.clone()
    };
    assert!(index.len() > 1000);
    for (first, _) in index.iter().step_by(index.len() / 1000) {
        let found = |tables| match FunctionTable::find(tables, *first) {
            Found::Entry(table) => table,
            other => panic!("{first:x} {other:?}"),
        };
        let (by_header, by_index) = (found(&with), found(&without));
        assert_eq!(by_header.bytes, by_index.bytes);
        let bases = bases(&with, by_header.address.start);
        let entry = eh_frame(&by_header.bytes)
            .fde_for_address(&bases, *first, EhFrame::cie_from_offset)
            .unwrap();
        assert_eq!(entry.initial_address(), *first);
    }
}
