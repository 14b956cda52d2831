use std::time::{Duration, Instant};

use super::*;
use crate::export::profile::fixture::{self, profile, stack};
use crate::stacks::code::Root;

fn drawn(profile: &Profile, options: TreeOptions) -> String {
    let mut out = Vec::new();
    write(profile, &options, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn plain(profile: &Profile) -> String {
    drawn(profile, TreeOptions::default())
}

#[test]
fn a_tree_is_read_from_the_root_and_the_heaviest_branch_comes_first() {
    assert_eq!(
        plain(&fixture::leak_and_cache()),
        "\
/kubepods/app  2026-01-02 03:04:05Z to 2026-01-02 03:05:05Z (1m00s)
RESIDENT       ±  SHARE   GROWTH     AGE  CALL PATH
    176K  ±11.2K  66.7%   +58.6K     30s  app (pid 7)
                                          _start
                                          main
   97.7K   ±9.8K  37.0%        0     30s  ├ cache
   78.1K   ±5.5K  29.6%   +58.6K     30s  └ serve
                                            leak
   87.9K   ±8.8K  33.3%        0     30s  app (pid 8)
                                          _start
                                          main
                                          cache
explained 264K of 391K anon (68%); 1 in 64 pages sampled, error ±14.3K, 3 samples lost
± is one standard error; growth since 2026-01-02 03:04:05Z, ? where it may be chance
"
    );
}

#[test]
fn small_branches_are_summed_up() {
    let mut stacks: Vec<ProfileStack> = (0..5)
        .map(|at| stack(1, &[&format!("small{at}"), "main"], 40.0))
        .collect();
    stacks.push(stack(1, &["big", "main"], 39_800.0));
    let text = plain(&profile(stacks));
    let rows: Vec<&str> = text.lines().skip(2).take(3).collect();
    assert!(rows[1].ends_with("├ big"), "{text}");
    assert_eq!(
        rows[2],
        "    200B           0.5%                   └ … 5 more"
    );
    assert!(text.starts_with("/kubepods/app  app (pid 1)  "), "{text}");
}

#[test]
fn growth_that_may_be_chance_and_shrinking_are_told_apart() {
    let mut chance = stack(1, &["chance"], 300.0);
    chance.growth = Estimate {
        bytes: 10.0,
        error_bytes: 8.0,
    };
    let mut shrank = stack(1, &["shrank"], 200.0);
    shrank.growth = Estimate {
        bytes: -100.0,
        error_bytes: 8.0,
    };
    let text = plain(&profile(vec![chance, shrank]));
    assert!(text.contains(" +10B? "), "{text}");
    assert!(text.contains(" -100B "), "{text}");
}

#[test]
fn a_cut_stack_begins_with_its_mark() {
    let mut lost = stack(1, &["leaf"], 5.0);
    lost.root = Root::Lost;
    let text = plain(&profile(vec![lost]));
    assert!(text.contains("  [unwound by frame pointer: truncated]\n"));
}

#[test]
fn a_long_run_keeps_both_ends() {
    let names: Vec<String> = (0..100).map(|at| format!("f{at}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let text = plain(&profile(vec![stack(1, &names, 5.0)]));
    let shown: Vec<&str> = text
        .lines()
        .skip(2)
        .take(MOST_RUN)
        .filter_map(|line| line.get(41..))
        .map(str::trim)
        .collect();
    assert_eq!(shown, ["f99", "f98", "… 94 frames", "f3", "f2", "f1", "f0"]);
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    let long = "very_long_name".repeat(30);
    let mut hostile = fixture::hostile();
    hostile.stacks.push(stack(3, &[&long, "main"], 5e6));
    hostile.stacks.extend(fixture::many(50, 60).stacks);
    for columns in [40, 60, 80, 100, 200] {
        let options = TreeOptions {
            columns,
            ..Default::default()
        };
        let text = drawn(&hostile, options);
        for line in text.lines() {
            assert!(line.chars().count() <= columns, "{columns}: {line}");
        }
        assert!(columns < WIDE || text.contains("very_"), "{text}");
        assert!(text.contains("03:05:05Z"), "{text}");
    }
}

#[test]
fn the_tree_has_the_lines_it_is_given() {
    let profile = fixture::many(500, 30);
    for lines in [5, 20, 100] {
        let options = TreeOptions {
            lines,
            least_share: 0.0,
            ..Default::default()
        };
        let shown = drawn(&profile, options).lines().count();
        assert!(shown <= lines + 2 + 2 + MOST_RUN, "{shown} of {lines}");
    }
}

#[test]
fn nothing_branches_below_the_depth() {
    let stacks = vec![
        stack(1, &["a", "f", "main"], 5.0),
        stack(1, &["b", "f", "main"], 5.0),
    ];
    let options = TreeOptions {
        depth: 2,
        ..Default::default()
    };
    let text = drawn(&profile(stacks), options);
    assert!(text.contains("└ … 2 more"), "{text}");
}

#[test]
fn colours_are_only_for_who_wants_them_and_names_bring_none() {
    let hostile = fixture::hostile();
    assert!(!plain(&hostile).chars().any(|c| c.is_control() && c != '\n'));
    let options = TreeOptions {
        colour: true,
        ..Default::default()
    };
    let text = drawn(&fixture::leak_and_cache(), options);
    assert!(text.contains("\x1b[31m    176K"), "{text}");
    assert!(!text.contains("\x1b[31m   97.7K"), "{text}");
}

#[test]
fn a_profile_of_nothing_says_so() {
    let text = plain(&profile(Vec::new()));
    let told = "No memory that is still resident was sampled in this time, 3 samples lost.";
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words(&text).ends_with(told), "{text}");
    for figure in ["±", "RESIDENT", "0B"] {
        assert!(!text.contains(figure), "{figure}: {text}");
    }
    let options = TreeOptions {
        kind: Kind::Mapped,
        ..Default::default()
    };
    let mapped = drawn(&profile(Vec::new()), options);
    assert!(
        mapped.contains("No address space was mapped in this time, 3"),
        "{mapped}"
    );
}

#[test]
fn how_many_pages_were_sampled_is_said_as_it_was() {
    let mut every = profile(vec![stack(1, &["f"], 4096.0)]);
    every.pages_per_sample = 1;
    assert!(plain(&every).contains("; every page sampled, error "));
    assert_eq!(summary::sampling(&profile(Vec::new())), "no page sampled");
}

#[test]
fn of_memory_that_nobody_counted_no_share_is_explained() {
    let mut unknown = profile(vec![stack(1, &["f"], 4096.0)]);
    unknown.anon_bytes = None;
    assert!(plain(&unknown).contains("of unknown anon"));
}

#[test]
fn address_space_is_a_tree_of_its_own() {
    let mut mapped = stack(1, &["mmap"], 4096.0);
    mapped.kind = Kind::Mapped;
    let profile = profile(vec![mapped, stack(1, &["f"], 1.0)]);
    let options = TreeOptions {
        kind: Kind::Mapped,
        ..Default::default()
    };
    let text = drawn(&profile, options);
    assert!(text.contains("  MAPPED "), "{text}");
    assert!(text.contains(" mmap") && !text.contains(" f\n"), "{text}");
}

#[test]
fn ten_thousand_deep_stacks_take_seconds() {
    let profile = fixture::many(10_000, 100);
    let begun = Instant::now();
    plain(&profile);
    assert!(begun.elapsed() < Duration::from_secs(60));
}
