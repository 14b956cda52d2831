use super::*;
use crate::stacks::{
    callpaths::{CallPath, CallPaths},
    code::{Place, Root},
};
use memtrace_ebpf::stack::lot;

const PAGE: u64 = 4096;

fn path_ids<const N: usize>() -> [CallPathId; N] {
    let mut paths = CallPaths::new(N);
    std::array::from_fn(|number| {
        let places = Box::new([Place::Anonymous {
            pid: 1,
            address: number as u64,
        }]);
        let root = Root::Reached;
        paths.take(CallPath { places, root }).0
    })
}

fn touch(page: u64, path: CallPathId, at_ns: u64, shift: u32) -> Touch {
    Touch {
        page,
        path,
        at_ns,
        lot: lot(3, 5, page),
        shift,
        boost: 0,
        protected: false,
    }
}

fn pages() -> Pages {
    Pages::new(PAGE, 512, Bases::default())
}

fn folio(pages: u32) -> Residency {
    Residency::Resident { pages, folio: 0 }
}

const ALONE: Residency = Residency::Resident { pages: 1, folio: 0 };

#[test]
fn what_is_given_back_is_touched_and_not_resident() {
    let [path] = path_ids();
    let mut pages = pages();
    pages.touch(&touch(1, path, 10, 4));
    pages.touch(&touch(2, path, 20, 4));
    pages.verified(1, ALONE, true);
    pages.verified(2, Residency::Gone, true);
    let by_path = &pages.by_path()[&path];
    assert_eq!(by_path.resident.bytes(), 16.0 * 4096.0);
    assert_eq!(by_path.touched.bytes(), 2.0 * 16.0 * 4096.0);
    assert_eq!(by_path.oldest_ns, Some(10));
}

#[test]
fn what_was_touched_and_not_looked_at_yet_counts_as_there() {
    let [path] = path_ids();
    let mut pages = pages();
    pages.touch(&touch(1, path, 10, 4));
    assert!(pages.is_unseen(1));
    let by_path = &pages.by_path()[&path];
    assert_eq!(by_path.resident.bytes(), 16.0 * 4096.0);
}

#[test]
fn a_page_that_is_touched_again_is_a_new_one() {
    let [first, second] = path_ids();
    let mut pages = pages();
    pages.touch(&touch(1, first, 10, 4));
    pages.verified(1, ALONE, true);
    pages.touch(&touch(1, second, 50, 4));
    pages.verified(1, ALONE, true);
    let by_path = pages.by_path();
    assert_eq!(by_path[&first].resident.bytes(), 0.0);
    assert_eq!(by_path[&second].oldest_ns, Some(50));
}

#[test]
fn a_page_copied_after_a_fork_or_read_back_from_swap_stays_who_it_was() {
    let [owner, writer] = path_ids();
    let mut pages = pages();
    pages.touch(&touch(1, owner, 10, 4));
    pages.verified(1, ALONE, true);
    let copied = Touch {
        protected: true,
        ..touch(1, writer, 20, 4)
    };
    assert!(!pages.touch(&copied));
    pages.verified(1, Residency::Swapped, true);
    assert_eq!(pages.by_path()[&owner].resident.bytes(), 0.0);
    pages.touch(&touch(1, writer, 30, 4));
    pages.verified(1, ALONE, true);
    assert_eq!(pages.by_path()[&owner].oldest_ns, Some(10));
}

#[test]
fn growth_is_what_came_less_what_went() {
    let [cache, leak] = path_ids();
    let mut pages = pages();
    for page in 0..8 {
        pages.touch(&touch(page, cache, 10, 0));
        pages.verified(page, ALONE, true);
    }
    pages.rebase(Bases {
        older_ns: 0,
        newer_ns: 100,
    });
    pages.rebase(Bases {
        older_ns: 100,
        newer_ns: 200,
    });
    // The cache replaces half of itself; the leak grows.
    for page in 0..4 {
        pages.verified(page, Residency::Gone, true);
        pages.touch(&touch(page + 100, cache, 150, 0));
        pages.verified(page + 100, ALONE, true);
    }
    for page in 200..203 {
        pages.touch(&touch(page, leak, 250, 0));
        pages.verified(page, ALONE, true);
    }
    let by_path = pages.by_path();
    let growth = |path| by_path[path].new.minus(&by_path[path].gone).bytes;
    assert_eq!(growth(&cache), 0.0);
    assert_eq!(growth(&leak), 3.0 * 4096.0);
}

#[test]
fn a_huge_page_weighs_what_became_resident_with_the_touch() {
    let [path] = path_ids();
    let mut pages = pages();
    pages.touch(&touch(512, path, 10, 0));
    pages.touch(&touch(2000, path, 10, 0));
    pages.verified(512, folio(512), true);
    pages.verified(2000, ALONE, true);
    // Collapsed later: its neighbours were sampled by themselves.
    pages.verified(2000, folio(512), true);
    assert_eq!(pages.by_path()[&path].resident.bytes(), 513.0 * 4096.0);
    // A part was given back.
    pages.verified(512, folio(100), true);
    assert_eq!(pages.by_path()[&path].resident.bytes(), 101.0 * 4096.0);
}

#[test]
fn thinning_keeps_the_estimate() {
    let [path] = path_ids();
    let mut pages = pages();
    let count = 1 << 16;
    for page in 0..count {
        if lot(3, 5, page) <= threshold(2) {
            pages.touch(&touch(page, path, 1, 2));
            pages.verified(page, ALONE, true);
        }
    }
    let truth = (count * PAGE) as f64;
    let before = pages.len();
    pages.thin(6);
    assert!(pages.len() < before / 8);
    let estimate = pages.by_path()[&path].resident.estimate();
    assert!((estimate.bytes - truth).abs() < 3.0 * estimate.error_bytes);
    let thinned = pages.len();
    pages.thin(4);
    assert_eq!(pages.len(), thinned);
}

#[test]
fn estimates_of_any_density_are_within_three_errors() {
    let [small, large] = path_ids();
    let mut outside = 0;
    for seed in 0..200 {
        for shift in [4, 6, 8, 10, 12] {
            let mut pages = pages();
            for (path, first, count) in [(small, 0, 3_000), (large, 1 << 20, 60_000)] {
                for page in first..first + count {
                    let lot = lot(seed, 77, page);
                    if lot <= threshold(shift) {
                        let touch = Touch {
                            lot,
                            ..touch(page, path, 1, shift)
                        };
                        pages.touch(&touch);
                        pages.verified(page, ALONE, true);
                    }
                }
                let truth = (count * PAGE) as f64;
                let estimate = pages
                    .by_path()
                    .get(&path)
                    .map(|path| path.resident.estimate());
                // Nothing sampled: nothing is said of it.
                let Some(estimate) = estimate else { continue };
                outside += u32::from((estimate.bytes - truth).abs() > 3.0 * estimate.error_bytes);
            }
        }
    }
    // 2,000 estimates; 0.3 % of a normal distribution lie outside.
    assert!(outside <= 20, "{outside}");
}

#[test]
fn call_paths_of_which_nothing_is_left_can_be_forgotten() {
    let [gone, kept] = path_ids();
    let mut pages = pages();
    assert!(pages.touch(&touch(1, gone, 1, 0)));
    assert!(pages.touch(&touch(2, kept, 1, 0)));
    assert!(!pages.touch(&touch(3, kept, 1, 0)));
    pages.verified(1, Residency::Gone, true);
    assert_eq!(pages.forget_empty(), [gone]);
    assert_eq!(pages.paths().collect::<Vec<_>>(), [kept]);
}

#[test]
fn a_huge_page_is_told_once_where_small_ones_were() {
    let [small, huge] = path_ids();
    let mut pages = pages();
    for page in 1024..1030 {
        pages.touch(&touch(page, small, 10, 0));
        pages.verified(page, ALONE, false);
    }
    // Given back, and faulted in as a whole.
    pages.touch(&touch(1100, huge, 20, 0));
    pages.verified(1100, folio(512), false);
    assert_eq!(pages.by_path()[&huge].resident.bytes(), 512.0 * 4096.0);
    assert_eq!(pages.by_path()[&small].resident.bytes(), 0.0);
}

#[test]
fn small_pages_under_a_huge_one_are_old_only_if_nothing_collapsed_them() {
    let [path] = path_ids();
    for (collapsed, left) in [(true, 4096.0), (false, 0.0)] {
        let mut pages = pages();
        pages.touch(&touch(1, path, 10, 0));
        pages.verified(1, ALONE, false);
        pages.verified(1, folio(512), collapsed);
        assert_eq!(pages.by_path()[&path].resident.bytes(), left);
    }
}
