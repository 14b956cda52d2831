use super::*;

/// `print fmt` lines of Debian's kernels.
const V5_10: &str = include_str!("fixtures/gfp-5.10.txt");
const V6_1: &str = include_str!("fixtures/gfp-6.1.txt");
const V6_12: &str = include_str!("fixtures/gfp-6.12.txt");
/// Of `kmem:mm_page_alloc`, where other fields come first.
const V6_18: &str = include_str!("fixtures/gfp-6.18.txt");

fn no_enumerator(_: &str) -> Option<u32> {
    None
}

fn parse(format: &str) -> Option<GfpNames> {
    GfpNames::parse(format, &no_enumerator)
}

/// A format file whose list has only `value`.
fn with_value(value: &str) -> String {
    format!("print fmt: \"%s\", __print_flags(REC->gfp_flags, \"|\", {{{value}, \"X\"}})")
}

fn value_of(value: &str) -> Option<u32> {
    let names = GfpNames::parse(&with_value(value), &|name| match name {
        "___GFP_DMA_BIT" => Some(0),
        "___GFP_IO_BIT" => Some(6),
        "huge" => Some(u32::MAX),
        _ => None,
    })?;
    names.entries.first().map(|(value, _)| *value)
}

#[test]
fn masks_read_as_the_kernel_itself_prints_them() {
    // Kernel log, and events shown with and without the option `fields`.
    for (mask, names) in [
        (0xcc0, "GFP_KERNEL"),
        (0x140dca, "GFP_HIGHUSER_MOVABLE|__GFP_ZERO|__GFP_COMP"),
        (
            0x152c4a,
            "GFP_NOFS|__GFP_HIGHMEM|__GFP_MOVABLE|__GFP_NOWARN|__GFP_NORETRY|__GFP_COMP|__GFP_HARDWALL",
        ),
        (0x440dc0, "GFP_KERNEL_ACCOUNT|__GFP_ZERO|__GFP_COMP"),
        (0x148c40, "GFP_NOFS|__GFP_NOFAIL|__GFP_COMP|__GFP_HARDWALL"),
        (0x2800, "GFP_NOWAIT"),
        (
            0xd2050,
            "__GFP_RECLAIMABLE|__GFP_IO|__GFP_NOWARN|__GFP_NORETRY|__GFP_COMP|__GFP_NOMEMALLOC",
        ),
        (
            0x52830,
            "GFP_ATOMIC|__GFP_RECLAIMABLE|__GFP_NOWARN|__GFP_NORETRY|__GFP_COMP",
        ),
        (0x500cc2, "GFP_HIGHUSER|__GFP_ACCOUNT"),
        (
            0x252800,
            "GFP_NOWAIT|__GFP_NORETRY|__GFP_COMP|__GFP_THISNODE",
        ),
    ] {
        assert_eq!(parse(V6_18).unwrap().names(mask), names, "{mask:#x}");
    }
}

#[test]
fn one_name_has_other_values_in_other_kernels() {
    for (kernel, format, nowait, atomic) in [
        ("5.10", V5_10, 0x800, 0xa20),
        ("6.1", V6_1, 0x800, 0xa20),
        ("6.12", V6_12, 0x2800, 0x820),
        ("6.18", V6_18, 0x2800, 0x820),
    ] {
        let names = parse(format).unwrap();
        assert_eq!(names.names(0xcc0), "GFP_KERNEL", "{kernel}");
        assert_eq!(names.names(nowait), "GFP_NOWAIT", "{kernel}");
        assert_eq!(names.names(atomic), "GFP_ATOMIC", "{kernel}");
        assert_eq!(
            names.names(0x140cca),
            "GFP_HIGHUSER_MOVABLE|__GFP_COMP",
            "{kernel}"
        );
        assert!(names.entries.len() > 25, "{kernel}");
    }
}

#[test]
fn every_entry_of_the_real_tables_is_understood() {
    for format in [V5_10, V6_1, V6_12, V6_18] {
        let list = format.split_once("__print_flags(REC->gfp").unwrap().1;
        let named = list.matches("\"}").count();
        assert_eq!(parse(format).unwrap().entries.len(), named);
    }
}

#[test]
fn bits_without_a_name_are_a_number_at_the_end() {
    let names = parse(V6_18).unwrap();
    assert_eq!(names.names(0), "none");
    assert_eq!(names.names(0x8000_0000), "0x80000000");
    assert_eq!(names.names(0x8000_0cc0), "GFP_KERNEL|0x80000000");
}

#[test]
fn expressions_have_the_meaning_that_c_gives_them() {
    for (text, value) in [
        ("0", Some(0)),
        ("0x400u|0x800u", Some(0xc00)),
        ("( gfp_t)(0x0fUL) & ~((gfp_t)0x05u)", Some(0x0a)),
        ("1 | 2 & 2 << 1", Some(1)),
        ("6 ^ 2 | 1", Some(5)),
        ("010", Some(8)),
        ("~~(unsigned long)7", Some(7)),
        ("(( unsigned long)~1U)", Some(0xffff_fffe)),
        ("(( gfp_t)((((1UL))) << (___GFP_IO_BIT)))", Some(0x40)),
        ("1 << ___GFP_DMA_BIT", Some(1)),
        ("(__force gfp_t)0x20u", Some(0x20)),
        ("0xffffffffULL", Some(u32::MAX)),
        // Not for a gfp mask, or not in these lists.
        ("0x100000000", None),
        ("1UL << 32", None),
        ("1UL << 64", None),
        ("1 << huge", None),
        ("1 << ___GFP_UNKNOWN_BIT", None),
        ("1 +2", None),
        ("1 || 2", None),
        ("sizeof(int)", None),
        ("REC->flags", None),
        ("(1", None),
        ("1)", None),
        ("()", None),
        ("(gfp_t)", None),
        ("(gfp_t 1)", None),
        ("", None),
        ("12ab", None),
        ("1uuuu", None),
        ("0x", None),
        ("99999999999999999999999", None),
    ] {
        assert_eq!(value_of(text), value, "{text}");
    }
}

#[test]
fn an_entry_that_cannot_be_told_leaves_the_others() {
    let format = "print fmt: \"%s\", __print_flags(REC->gfp_flags, \"|\", \
        {1 << ___GFP_NEW_BIT, \"A\"}, {0x2u, \"B\"}, {4, \"bad name\"}, {8, \"D\"}, \
        { 0, ((void *)0) }, {16, \"AFTER_THE_END\"})";
    let names = parse(format).unwrap();
    assert_eq!(names.names(0b11111), "B|D|0x15");
}

#[test]
fn other_flags_in_the_same_format_are_passed_over() {
    let format = "print fmt: \"%s %s\", __print_flags(REC->flags, \"|\", {1, \"RECLAIM\"}), \
        __print_flags((unsigned long)REC->gfp_flags, \"|\", {1, \"GFP\"})";
    assert_eq!(parse(format).unwrap().names(1), "GFP");
    assert_eq!(
        parse("__print_flags(REC->flags, \"|\", {1, \"RECLAIM\"})"),
        None
    );
}

#[test]
fn hostile_formats_neither_panic_nor_run_away() {
    for text in [
        "",
        "__print_flags(",
        "__print_flags(REC->gfp_flags",
        "__print_flags(REC->gfp_flags,",
        "__print_flags(REC->gfp_flags, \"|\", {",
        "__print_flags(REC->gfp_flags, \"|\", {}",
        "__print_flags(REC->gfp_flags, \"|\", {1}",
        "__print_flags(REC->gfp_flags, \"|\", {1, \"}",
        "__print_flags(REC->gfp_flags, \"|\", {1, \"\"})",
        "__print_flags(REC->gfp_flags, \"|\", {\u{e9}, \"\u{e9}\"})",
    ] {
        assert_eq!(parse(text), None, "{text}");
    }
    let many = 60_000;
    for text in ["(", "~", "(gfp_t)", "1|", "1<<", "((1)", " ", "unsigned "] {
        assert_eq!(parse(&with_value(&text.repeat(many))), None, "{text}");
    }
    let deep = format!("{}1{}", "(".repeat(many), ")".repeat(many));
    assert_eq!(value_of(&deep), None);
    let shallow = format!("{}1{}", "(".repeat(20), ")".repeat(20));
    assert_eq!(value_of(&shallow), Some(1));
    assert_eq!(value_of(&vec!["1"; many].join("|")), Some(1));

    let entries = vec!["{1, \"A\"}"; many].join(", ");
    let list = format!("__print_flags(REC->gfp_flags, \"|\", {entries})");
    assert_eq!(parse(&list).unwrap().entries.len(), MOST_ENTRIES);
    let name = "N".repeat(LONGEST_NAME + 1);
    let list = format!("__print_flags(REC->gfp_flags, \"|\", {{1, \"{name}\"}})");
    assert_eq!(parse(&list), None);
}

#[test]
fn every_cut_of_a_real_format_is_survived() {
    for end in 0..V6_12.len() {
        if let Some(names) = parse(&V6_12[..end]) {
            names.names(u32::MAX);
        }
    }
}

#[test]
fn the_first_event_that_can_be_read_serves() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(GfpNames::read(root.path(), &no_enumerator), None);
    for (format, content) in [
        (FORMATS[1], V6_18.as_bytes()),
        (FORMATS[0], b"\xff not text"),
        (FORMATS[0], V5_10.as_bytes()),
    ] {
        let path = root.path().join(format);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        let names = GfpNames::read(root.path(), &no_enumerator).unwrap();
        assert_eq!(names.names(0xcc0), "GFP_KERNEL");
    }
    let names = GfpNames::read(root.path(), &no_enumerator).unwrap();
    assert_eq!(names, parse(V5_10).unwrap());
}
