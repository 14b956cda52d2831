//! Files of procfs: every file has the same text.

use std::{cell::RefCell, path::Path};

use memtrace::{
    host::{CgroupHierarchy, CgroupMode, ProcRoot},
    kernel::capability::Effective,
};

use crate::{promise, scratch::Scratch};

const PID: u32 = 42;
const FILES: [&str; 11] = [
    "42/cgroup",
    "42/cmdline",
    "42/maps",
    "42/stat",
    "42/statm",
    "meminfo",
    "pressure/memory",
    "self/mountinfo",
    "self/stat",
    "self/statm",
    "vmstat",
];
const STATUS: &str = "self/status";
const COMM_CHARS: usize = 64;
const MOST_COMMAND_LINE: usize = 64 * 1024;

thread_local! {
    static PROC: Scratch = Scratch::new(&[&FILES[..], &[STATUS]].concat());
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

pub fn run(data: &[u8]) {
    PROC.with(|files| {
        files.fill(data);
        let proc = ProcRoot::new(files.path());
        BUFFER.with_borrow_mut(|buffer| {
            process(&proc, data, buffer);
            host(&proc, files.path(), buffer);
        });
    });
}

fn process(proc: &ProcRoot, data: &[u8], buffer: &mut Vec<u8>) {
    let reading = proc.process(PID, buffer).expect("the files are there");
    assert!(reading.rss_anon_bytes <= reading.rss_bytes || reading.rss_bytes.is_none());
    let (start_stack, comm) = proc.program_of(PID).expect("the file is there");
    promise::line(&comm, COMM_CHARS);
    assert_ne!(start_stack, Some(0));
    let command_line = proc.command_line(PID, buffer).expect("the file is there");
    assert!(data.starts_with(command_line) && command_line.len() <= MOST_COMMAND_LINE);
    for mode in [CgroupMode::V1, CgroupMode::Hybrid, CgroupMode::V2] {
        let path = proc.memory_cgroup(PID, mode, buffer);
        if let Some(path) = path.expect("the file is there") {
            assert!(path.is_absolute(), "{path:?}");
        }
    }
    for mapping in proc.mappings(PID, buffer).expect("the file is there") {
        assert!(mapping.range.start < mapping.range.end);
        assert!(!mapping.path.contains(&b'\n'));
    }
}

fn host(proc: &ProcRoot, root: &Path, buffer: &mut Vec<u8>) {
    proc.machine(buffer).expect("the files are there");
    proc.self_usage(buffer).expect("the files are there");
    let _ = Effective::read(root);
    for explicit in [None, Some(root)] {
        if let Err(error) = CgroupHierarchy::detect(proc, explicit) {
            promise::printable(&error.to_string());
        }
    }
}
