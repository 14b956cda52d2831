//! The tools, one file each: how to start it, and how to read what it told.

mod atop;
mod below;
mod bpftrace;
mod earlyoom;
mod kernel_log;
mod libbpf_tools;
mod memtrace;
mod netdata;
mod node_exporter;
mod poll;

use anyhow::Result;

use super::rival::{Rival, Surroundings};

/// `None`: it is not here.
pub type Start = fn(&Surroundings) -> Result<Option<Box<dyn Rival>>>;

/// Those that work without kprobes, with what each is called when it is not here.
pub const ON_A_HOST: &[(&str, Start)] = &[
    ("memtrace", memtrace::start),
    ("bpftrace", bpftrace::oom),
    ("bpftrace", bpftrace::processes),
    ("exitsnoop (libbpf-tools)", libbpf_tools::exitsnoop),
    ("dmesg", kernel_log::start),
    ("prometheus-node-exporter", node_exporter::start),
    ("netdata", netdata::start),
    ("atop", atop::start),
    ("below", below::start),
    ("the polling loop", poll::start),
    ("earlyoom", earlyoom::start),
];

/// Those that are put into a virtual machine for its kprobes.
pub const IN_A_MACHINE: &[(&str, Start)] = &[
    ("memtrace", memtrace::start),
    ("oomkill (libbpf-tools)", libbpf_tools::oomkill),
    ("exitsnoop (libbpf-tools)", libbpf_tools::exitsnoop),
    ("below", below::start),
    ("the polling loop", poll::start),
];
