//! What the kernel says of itself: BTF, and the format file that names allocation flags.

use memtrace::kernel::{
    btf::Btf,
    fields::{FIELDS, Offsets},
    gfp::GfpNames,
};

const TRACEPOINTS: [&str; 2] = ["mark_victim", "sched_process_exit"];
const FUNCTIONS: [&str; 2] = ["oom_kill_process", "mem_cgroup_out_of_memory"];

pub fn run(data: &[u8]) {
    if let Ok(btf) = Btf::parse(data) {
        of_kernel(&btf);
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Some(names) = GfpNames::parse(text, &|name| u32::try_from(name.len()).ok())
    {
        assert_eq!(names.names(0), "none");
        for mask in [1, 0xcc0, u32::MAX] {
            assert!(!names.names(mask).is_empty());
        }
    }
}

fn of_kernel(btf: &Btf<'_>) {
    let offsets = Offsets::resolve(btf);
    assert!(offsets.values.len() <= FIELDS.len());
    let names: Vec<String> = TRACEPOINTS
        .iter()
        .map(|name| format!("btf_trace_{name}"))
        .chain(FUNCTIONS.map(str::to_owned))
        .collect();
    for tracepoint in TRACEPOINTS {
        btf.tracepoint_params(tracepoint);
    }
    // What is cut out of it is BTF, and knows the functions that it is cut out for.
    let cut = btf.only(&names);
    let cut = Btf::parse(&cut).expect("BTF that memtrace makes is BTF");
    for function in FUNCTIONS {
        assert_eq!(cut.has_function(function), btf.has_function(function));
    }
}
