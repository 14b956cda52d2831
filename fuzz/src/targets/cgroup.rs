//! Files of one cgroup, of both versions: every file has the same text.

use std::path::Path;

use memtrace::{
    host::{
        CgroupHierarchy, CgroupMode,
        cgroup::{CgroupReader, ReadDepth},
        fd_budget::FdBudget,
        fields,
    },
    model::snapshot::Limit,
};

use crate::scratch::Scratch;

const FILES: [&str; 18] = [
    "a/cgroup.procs",
    "a/cpu.stat",
    "a/memory.current",
    "a/memory.events",
    "a/memory.events.local",
    "a/memory.failcnt",
    "a/memory.high",
    "a/memory.kmem.tcp.usage_in_bytes",
    "a/memory.kmem.usage_in_bytes",
    "a/memory.limit_in_bytes",
    "a/memory.max",
    "a/memory.max_usage_in_bytes",
    "a/memory.oom_control",
    "a/memory.peak",
    "a/memory.pressure",
    "a/memory.stat",
    "a/memory.swap.current",
    "a/memory.usage_in_bytes",
];
const MOST_PIDS: usize = 64;

thread_local! {
    static CGROUP: Scratch = Scratch::new(&FILES);
    static BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

pub fn run(data: &[u8]) {
    number(data);
    CGROUP.with(|cgroup| {
        cgroup.fill(data);
        BUFFER.with_borrow_mut(|buffer| {
            for mode in [CgroupMode::V1, CgroupMode::V2] {
                read(cgroup.path(), mode, data, buffer);
            }
        });
    });
}

fn read(root: &Path, mode: CgroupMode, data: &[u8], buffer: &mut Vec<u8>) {
    let hierarchy = CgroupHierarchy {
        mode,
        memory_root: root.to_owned(),
        unified_root: None,
    };
    let mut reader = CgroupReader::open(&hierarchy, Path::new("/a"), &FdBudget::new(4))
        .expect("the directory is there");
    let reading = reader
        .read(ReadDepth::Full, buffer)
        .expect("files are there");
    assert_eq!(reading.usage_bytes, fields::number(data));
    let pids = reader.pids(MOST_PIDS, buffer).expect("the file is there");
    assert!(pids.pids.len() <= MOST_PIDS && !pids.pids.contains(&0));
    reader.cpu_ns(buffer);
    // A file that lies about what it was does not change what is read again.
    assert_eq!(reader.read(ReadDepth::Full, buffer).ok(), Some(reading));
}

/// A number is what the standard library takes for one, without its signs.
fn number(data: &[u8]) {
    let text = std::str::from_utf8(data.trim_ascii()).ok();
    let expected = text.filter(|text| !text.starts_with('+'));
    let expected = expected.and_then(|text| text.parse().ok());
    assert_eq!(fields::number(data), expected);
    if let Some(Limit::Bytes(bytes)) = fields::limit_v1(data, 4096) {
        assert_eq!(Some(bytes), expected);
    }
}
