use std::io::Write as _;

use super::*;

fn names(text: &[u8], most: u64, addresses: &[u64]) -> Vec<Option<String>> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text).unwrap();
    let mut names = Names::new(addresses);
    read(file, most, &mut names).unwrap();
    names.finish()
}

fn name(text: &[u8], address: u64) -> Option<String> {
    names(text, MOST_BYTES, &[address]).pop().unwrap()
}

#[test]
fn names_of_runtimes_are_whole_lines() {
    let text = b"7fbf1fc21000 b py::_find_and_load:<frozen importlib._bootstrap>\n\
        3ef414c0 398 LazyCompile:~foo /path/file.js:12\n\
        0x7f0000001000 0x20 Ljava/lang/String;::hashCode\n";
    let wanted = [
        (
            0x7fbf1fc2100a,
            "py::_find_and_load:<frozen importlib._bootstrap>",
        ),
        (0x3ef414c0, "LazyCompile:~foo /path/file.js:12"),
        (0x7f000000101f, "Ljava/lang/String;::hashCode"),
    ];
    for (address, wanted) in wanted {
        assert_eq!(name(text, address).as_deref(), Some(wanted));
    }
    for outside in [
        0,
        0x3ef414bf,
        0x3ef414c0 + 0x398,
        0x7fbf1fc2100b,
        0x7f0000001020,
        u64::MAX,
    ] {
        assert_eq!(name(text, outside), None, "{outside:x}");
    }
}

#[test]
fn the_newest_code_at_an_address_has_its_name() {
    let text = b"1000 100 old\n2000 100 other\n1000 100 new\n";
    assert_eq!(name(text, 0x1080).as_deref(), Some("new"));
    // What was partly overwritten is gone.
    let text = b"1000 100 old\n1080 100 new\n";
    let found = names(text, MOST_BYTES, &[0x1000, 0x1010, 0x1080, 0x1170, 0x1180]);
    let new = Some("new".to_owned());
    assert_eq!(found, [None, None, new.clone(), new, None]);
    let text = b"1080 100 old\n1000 100 new\n";
    assert_eq!(name(text, 0x1170), None);
}

#[test]
fn hostile_lines_name_nothing() {
    let mut text = Vec::new();
    for line in [
        &b"1000"[..],
        b"1000 ",
        b"1000 100",
        b"1000 100 ",
        b"1000 0 empty",
        b"-1000 100 minus",
        b"+1000 +100 plus",
        b"zzz 100 letters",
        b"11111111111111111 100 long",
        b"ffffffffffffffff 100 over the end",
        b"1000 ffffffffffffffff over the end",
        b"0x 0x nothing",
        b"\0\0\0 \0 \0",
        b"",
        b"\r",
    ] {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    assert_eq!(name(&text, 0x1000), None);
    text.extend_from_slice(b"1000 100 \xff\xfe\x1b[31m\n");
    assert_eq!(
        name(&text, 0x1000).as_deref(),
        Some("\u{fffd}\u{fffd}\u{1b}[31m")
    );
}

#[test]
fn long_lines_are_cut_and_unfinished_ones_are_left() {
    let mut text = b"1000 100 ".to_vec();
    text.resize(10_000_000, b'a');
    text.extend_from_slice(b"\n2000 100 next\n3000 100 unfin");
    assert!(name(&text, 0x1000).is_some_and(|name| name.len() <= MOST_TEXT));
    assert_eq!(name(&text, 0x2000).as_deref(), Some("next"));
    assert_eq!(name(&text, 0x3000), None);
}

#[test]
fn of_a_long_map_the_newest_lines_are_read() {
    let text = b"1000 100 old\n2000 100 middle\n3000 100 new\n";
    let found = names(text, 20, &[0x1000, 0x2000, 0x3000]);
    assert_eq!(found, [None, None, Some("new".to_owned())]);
}

#[test]
fn a_process_in_a_namespace_names_its_map_by_its_own_number() {
    let status = "Name:\tx\nTgid:\t77\nUid:\t0\t1000\t0\t0\nNStgid:\t77\t5\t1\nNSpid:\t77\t5\t1\n";
    let own = OwnView::parse(status).unwrap();
    assert_eq!((own.uid, own.pid), (1000, 1));
    assert!(OwnView::parse("Name:\tx\n").is_none());
}

#[test]
fn maps_of_others_and_links_are_refused() {
    let pid = std::process::id();
    let path = format!("/tmp/perf-{pid}.map");
    let own = own_pid();
    assert_eq!(own, pid, "in one namespace");
    assert_eq!(PerfMap::of_process(pid).state, PerfMapState::Absent);

    std::fs::write(&path, "1000 100 mine\n").unwrap();
    let map = PerfMap::of_process(pid);
    assert!(matches!(map.state, PerfMapState::Present { .. }));
    assert_eq!(map.names(&[0x1000]), [Some("mine".to_owned())]);
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
        assert!(PerfMap::of_process(pid).rejected);
    }
    std::fs::remove_file(&path).unwrap();

    std::os::unix::fs::symlink("/proc/self/maps", &path).unwrap();
    let map = PerfMap::of_process(pid);
    std::fs::remove_file(&path).unwrap();
    assert!(map.rejected);
}

fn own_pid() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    OwnView::parse(&status).unwrap().pid
}
