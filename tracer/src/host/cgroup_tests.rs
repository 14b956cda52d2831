//! Tests of the cgroup reader over temporary trees and, where there is one, the real cgroupfs.

use std::fs;

use super::*;
use crate::host::CgroupMode;
use crate::model::snapshot::Limit;

fn hierarchy(root: &Path, mode: CgroupMode) -> CgroupHierarchy {
    CgroupHierarchy {
        mode,
        memory_root: root.to_owned(),
        unified_root: None,
    }
}

fn fill(directory: &Path, files: &[(&str, &str)]) {
    fs::create_dir_all(directory).unwrap();
    fs::write(directory.join("cgroup.procs"), "12\n0\n7\n7\n").unwrap();
    for (name, content) in files {
        fs::write(directory.join(name), content).unwrap();
    }
}

const V2: [(&str, &str); 9] = [
    ("memory.current", "5000\n"),
    ("memory.stat", "anon 10\nfile 20\nkernel 30\nslab 4\n"),
    ("memory.max", "max\n"),
    ("memory.peak", "9000\n"),
    ("memory.swap.current", "77\n"),
    ("memory.high", "8192\n"),
    ("memory.events", "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\n"),
    (
        "memory.events.local",
        "low 0\nhigh 0\nmax 0\noom 0\noom_kill 1\n",
    ),
    (
        "memory.pressure",
        "some avg10=0.00 total=3\nfull avg10=0.00 total=2\n",
    ),
];

/// No budget, directory only, everything kept: all must read alike.
fn budgets() -> [FdBudget; 3] {
    [FdBudget::new(0), FdBudget::new(1), FdBudget::new(100)]
}

#[test]
fn v2_under_every_budget() {
    for budget in budgets() {
        let root = tempfile::tempdir().unwrap();
        fill(&root.path().join("a b"), &V2);
        let hierarchy = hierarchy(root.path(), CgroupMode::V2);
        let mut reader = CgroupReader::open(&hierarchy, Path::new("/a b"), &budget).unwrap();
        let mut buffer = Vec::new();
        let full = reader.read(ReadDepth::Full, &mut buffer).unwrap();
        assert_eq!(
            (full.usage_bytes, full.anon_bytes, full.kernel_bytes),
            (Some(5000), Some(10), Some(30))
        );
        assert_eq!(
            (full.limit, full.high),
            (Some(Limit::Unlimited), Some(Limit::Bytes(8192)))
        );
        assert_eq!((full.peak_bytes, full.swap_bytes), (Some(9000), Some(77)));
        assert_eq!(
            (full.events.oom_kill, full.events_local.oom_kill),
            (Some(4), Some(1))
        );
        assert_eq!(full.pressure.some_ns, Some(3000));
        fs::write(root.path().join("a b/memory.current"), "6000\n").unwrap();
        let usage = reader.read(ReadDepth::Usage, &mut buffer).unwrap();
        assert_eq!(
            usage,
            MemoryReading {
                usage_bytes: Some(6000),
                ..MemoryReading::default()
            }
        );
    }
}

#[test]
fn v1_files() {
    let root = tempfile::tempdir().unwrap();
    fill(
        root.path(),
        &[
            ("memory.usage_in_bytes", "5000\n"),
            ("memory.stat", "rss 1\ntotal_rss 10\ntotal_swap 3\n"),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory.max_usage_in_bytes", "9000\n"),
            ("memory.kmem.usage_in_bytes", "40\n"),
            ("memory.kmem.tcp.usage_in_bytes", "5\n"),
            ("memory.failcnt", "6\n"),
            (
                "memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
            ),
        ],
    );
    let hierarchy = hierarchy(root.path(), CgroupMode::Hybrid);
    let mut reader = CgroupReader::open(&hierarchy, Path::new(""), &FdBudget::new(9)).unwrap();
    let full = reader.read(ReadDepth::Full, &mut Vec::new()).unwrap();
    assert_eq!(
        (full.usage_bytes, full.anon_bytes, full.swap_bytes),
        (Some(5000), Some(10), Some(3))
    );
    assert_eq!(
        (full.limit, full.peak_bytes),
        (Some(Limit::Unlimited), Some(9000))
    );
    assert_eq!(
        (full.kernel_bytes, full.sock_bytes, full.slab_bytes),
        (Some(40), Some(5), None)
    );
    assert_eq!(
        (full.events.max, full.events.oom_kill, full.high),
        (Some(6), Some(2), None)
    );
}

#[test]
fn missing_files_are_none_and_not_tried_again() {
    for budget in budgets() {
        let root = tempfile::tempdir().unwrap();
        // The root cgroup of v2.
        fill(root.path(), &[("memory.stat", "anon 10\n")]);
        let hierarchy = hierarchy(root.path(), CgroupMode::V2);
        let mut reader = CgroupReader::open(&hierarchy, Path::new("/"), &budget).unwrap();
        let mut buffer = Vec::new();
        let expected = MemoryReading {
            anon_bytes: Some(10),
            ..MemoryReading::default()
        };
        assert_eq!(reader.read(ReadDepth::Full, &mut buffer).unwrap(), expected);
        fill(root.path(), &[("memory.current", "5\n")]);
        assert_eq!(
            reader.read(ReadDepth::Usage, &mut buffer).unwrap(),
            MemoryReading::default()
        );
        assert_eq!(reader.read(ReadDepth::Full, &mut buffer).unwrap(), expected);
    }
}

#[test]
fn removed_and_replaced_cgroups_are_gone() {
    for budget in budgets() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a");
        fill(&path, &V2);
        let hierarchy = hierarchy(root.path(), CgroupMode::V2);
        let mut reader = CgroupReader::open(&hierarchy, Path::new("a"), &budget).unwrap();
        let mut buffer = Vec::new();
        // Holds the inode number, so the new directory gets another.
        fs::rename(&path, root.path().join("old")).unwrap();
        fill(&path, &V2);
        fs::remove_dir_all(root.path().join("old")).unwrap();
        assert!(
            reader
                .read(ReadDepth::Full, &mut buffer)
                .unwrap_err()
                .is_gone()
        );
        assert!(reader.pids(9, &mut buffer).unwrap_err().is_gone());
        fs::remove_dir_all(&path).unwrap();
        assert!(
            reader
                .read(ReadDepth::Full, &mut buffer)
                .unwrap_err()
                .is_gone()
        );
        assert!(
            CgroupReader::open(&hierarchy, Path::new("a"), &budget)
                .unwrap_err()
                .is_gone()
        );
    }
}

#[test]
fn paths_stay_inside_the_hierarchy() {
    let root = tempfile::tempdir().unwrap();
    fill(&root.path().join("in/a"), &V2);
    let hierarchy = hierarchy(&root.path().join("in"), CgroupMode::V2);
    let open = |path: &str| CgroupReader::open(&hierarchy, Path::new(path), &FdBudget::new(9));
    assert!(matches!(
        open("../x"),
        Err(HostError::OutsideHierarchy { .. })
    ));
    assert!(matches!(
        open("a/../../x"),
        Err(HostError::OutsideHierarchy { .. })
    ));
    assert_eq!(open("/a").unwrap().path(), root.path().join("in/a"));
}

#[test]
fn process_ids_are_bounded() {
    let root = tempfile::tempdir().unwrap();
    fill(root.path(), &[]);
    let hierarchy = hierarchy(root.path(), CgroupMode::V1);
    let mut reader = CgroupReader::open(&hierarchy, Path::new(""), &FdBudget::new(9)).unwrap();
    let mut pids = |most| reader.pids(most, &mut Vec::new()).unwrap();
    assert_eq!(
        pids(9),
        CgroupPids {
            pids: vec![12, 7, 7],
            truncated: false
        }
    );
    assert_eq!(
        pids(3),
        CgroupPids {
            pids: vec![12, 7, 7],
            truncated: false
        }
    );
    assert_eq!(
        pids(2),
        CgroupPids {
            pids: vec![12, 7],
            truncated: true
        }
    );
}

#[test]
fn a_cut_list_yields_no_half_numbers() {
    let root = tempfile::tempdir().unwrap();
    fill(
        root.path(),
        &[("cgroup.procs", "0\n0\n0\n0\n0\n0\n0\n4194304\n")],
    );
    let hierarchy = hierarchy(root.path(), CgroupMode::V1);
    let mut reader = CgroupReader::open(&hierarchy, Path::new(""), &FdBudget::new(9)).unwrap();
    let found = reader.pids(1, &mut Vec::new()).unwrap();
    assert_eq!(
        found,
        CgroupPids {
            pids: vec![],
            truncated: true
        }
    );
}

#[test]
fn malformed_content_is_none() {
    let root = tempfile::tempdir().unwrap();
    let garbage = "-1 99999999999999999999999999 \u{0}x";
    fill(root.path(), &V2.map(|(name, _)| (name, garbage)));
    let hierarchy = hierarchy(root.path(), CgroupMode::V2);
    let mut reader = CgroupReader::open(&hierarchy, Path::new(""), &FdBudget::new(9)).unwrap();
    assert_eq!(
        reader.read(ReadDepth::Full, &mut Vec::new()).unwrap(),
        MemoryReading::default()
    );
}

#[test]
fn the_real_hierarchy() {
    // Needs a mounted memory controller; without one there is nothing to compare.
    let Ok(hierarchy) = CgroupHierarchy::detect(&crate::host::ProcRoot::default(), None) else {
        return;
    };
    let mut buffer = Vec::new();
    let budget = FdBudget::new(4);
    for cgroup in crate::host::walk(&hierarchy, 50).unwrap().cgroups {
        let Ok(mut reader) = CgroupReader::open(&hierarchy, &cgroup.path, &budget) else {
            continue;
        };
        assert_eq!(reader.id(), cgroup.id);
        match reader.read(ReadDepth::Full, &mut buffer) {
            Ok(full) if !hierarchy.is_v2() => {
                assert!(full.usage_bytes.is_some() && full.limit.is_some())
            }
            Ok(_) => {}
            Err(error) => assert!(error.is_gone(), "{error}"),
        }
    }
}
