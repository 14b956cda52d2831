use std::io::Write as _;

use super::*;

fn own_code() -> Mapping {
    let here = own_code as fn() -> Mapping as usize as u64;
    ProcRoot::default()
        .mappings(std::process::id(), &mut Vec::new())
        .unwrap()
        .into_iter()
        .find(|mapping| mapping.range.contains(&here))
        .unwrap()
}

fn modules() -> Modules {
    Modules::new(ProcRoot::default(), 4)
}

#[test]
fn the_code_of_this_process_has_tables_and_a_bias() {
    let mut modules = modules();
    let mapping = own_code();
    let id = modules.of(std::process::id(), &mapping);
    assert_eq!(modules.of(std::process::id(), &mapping), id);
    let tables = modules.tables(id, 1);
    assert!(tables.eh_frame.is_some() && tables.eh_frame_hdr.is_some());
    let bias = tables.bias(&mapping, 4096).unwrap();
    let text = tables.text.clone().unwrap();
    let here = own_code as fn() -> Mapping as usize as u64;
    assert!(text.contains(&(here - bias)));
}

#[test]
fn an_address_at_the_end_of_all_memory_has_a_bias_too() {
    let tables = UnwindTables {
        segments: vec![Segment {
            offset: 0,
            bytes: 0x3000,
            address: u64::MAX,
        }],
        ..UnwindTables::default()
    };
    let mapping = Mapping {
        offset: 0x2000,
        ..own_code()
    };
    let bias = tables.bias(&mapping, 4096).unwrap();
    assert_eq!(bias, mapping.range.start.wrapping_sub(0x1000));
}

#[test]
fn a_page_that_two_segments_share_is_mapped_for_the_later_one() {
    let segment = |offset, bytes, address| Segment {
        offset,
        bytes,
        address,
    };
    let tables = UnwindTables {
        segments: vec![
            segment(0, 0x13cf4, 0),
            segment(0x13d00, 0x3f1b0, 0x14d00),
            segment(0x52eb0, 0x2920, 0x54eb0),
        ],
        ..UnwindTables::default()
    };
    let mapping = |start, offset| Mapping {
        range: start..start + 0x1000,
        offset,
        ..own_code()
    };
    let bias = |mapping| tables.bias(&mapping, 4096);
    assert_eq!(bias(mapping(0x7000_0000, 0)), Some(0x7000_0000));
    assert_eq!(bias(mapping(0x7001_4000, 0x13000)), Some(0x7000_0000));
    // A part of the code, mapped apart from its beginning.
    assert_eq!(bias(mapping(0x7001_6000, 0x15000)), Some(0x7000_0000));
    assert_eq!(bias(mapping(0x7000_0000, 0x60000)), None);
}

#[test]
fn another_file_at_the_path_is_not_opened() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("library");
    std::fs::write(&path, "replaced").unwrap();
    let mut mapping = own_code();
    // No such mapping: only the path is left to go by.
    mapping.range = 0..4096;
    mapping.path = path.to_str().unwrap().as_bytes().to_vec();
    let mut modules = modules();
    let id = modules.of(std::process::id(), &mapping);
    let module = modules.get(id).unwrap();
    assert!(module.file.is_none() && module.build_id.is_none());
}

#[test]
fn a_mapped_file_under_a_lease_is_no_file_until_it_is_given_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("leased");
    std::fs::write(&path, "no program").unwrap();
    let leased = File::open(&path).unwrap();
    // Through the same descriptor: another open file would be in the way of the lease.
    let view = FileView::new(&leased, 0, 10, 1).unwrap();
    crate::host::open_in_root::tests::lease(&leased);
    let start = view.as_ptr() as u64;
    let mapping = Mapping {
        range: start..start + 4096,
        inode: leased.metadata().unwrap().ino(),
        path: path.to_str().unwrap().as_bytes().to_vec(),
        ..own_code()
    };
    let mut modules = modules();
    let id = modules.of(std::process::id(), &mapping);
    assert!(modules.get(id).unwrap().file.is_none());
    drop((view, leased));
}

#[test]
fn tables_that_found_no_room_are_there_for_who_has_some() {
    let (greedy, other) = (2001, 2002);
    let mut modules = modules();
    let id = modules.of(std::process::id(), &own_code());
    let file = tempfile::tempfile().unwrap();
    file.set_len(10).unwrap();
    let views = std::iter::from_fn(|| FileView::new(&file, 0, 10, greedy).ok());
    let views: Vec<_> = views.collect();
    assert!(modules.tables(id, greedy).eh_frame.is_none());
    assert!(modules.tables(id, greedy).eh_frame.is_none());
    assert_eq!(modules.tables_refused, 1, "it is read each time");
    assert!(modules.tables(id, other).eh_frame.is_some());
    assert!(modules.tables(id, greedy).eh_frame.is_some());
    assert_eq!(modules.tables_refused, 1);
    drop(views);
}

#[test]
fn damaged_files_have_no_tables_and_do_no_harm() {
    let program = std::fs::read("/proc/self/exe").unwrap();
    let head = &program[..program.len().min(1 << 16)];
    for (length, flipped) in [
        (0, 0),
        (10, 0),
        (64, 0),
        (4096, 40),
        (65536, 0x20),
        (65536, 0x3c),
    ] {
        let mut bytes = head[..length.min(head.len())].to_vec();
        if let Some(byte) = bytes.get_mut(flipped) {
            *byte ^= 0xff;
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let tables = read_tables(&file, 1);
        assert!(tables.eh_frame.is_none());
        let _ = build_id(&file);
    }
}

#[test]
fn the_module_that_was_not_used_for_longest_goes_first() {
    let directory = tempfile::tempdir().unwrap();
    let mut modules = Modules::new(ProcRoot::default(), 2);
    let ids: Vec<ModuleId> = (0..3)
        .map(|number| {
            let path = directory.path().join(number.to_string());
            std::fs::write(&path, "no program").unwrap();
            let mapping = Mapping {
                range: 0..4096,
                inode: std::fs::metadata(&path).unwrap().ino(),
                path: path.to_str().unwrap().as_bytes().to_vec(),
                ..own_code()
            };
            modules.of(std::process::id(), &mapping)
        })
        .collect();
    assert!(modules.get(ids[0]).is_none());
    assert!(modules.get(ids[2]).is_some());
    assert_eq!(modules.evicted, 1);
}

#[test]
fn a_file_that_nothing_needs_any_more_is_closed_after_a_while() {
    let mut modules = modules();
    let mapping = own_code();
    let id = modules.of(std::process::id(), &mapping);
    let file = Arc::downgrade(modules.get(id).unwrap().file.as_ref().unwrap());
    let now = Instant::now();
    let (used, unused) = (HashSet::from([id]), HashSet::new());
    modules.close_unused(&unused, now);
    modules.close_unused(&used, now + KEEP_UNUSED / 2);
    // Needed meanwhile: the time begins anew.
    modules.close_unused(&unused, now + KEEP_UNUSED);
    assert!(file.upgrade().is_some());
    modules.close_unused(&unused, now + KEEP_UNUSED * 2);
    assert!(file.upgrade().is_none() && modules.get(id).is_none());
    let again = modules.of(std::process::id(), &mapping);
    assert!(again != id && modules.get(again).unwrap().file.is_some());
}
