//! libFuzzer over one target, which `MEMTRACE_FUZZ_TARGET` names.

#![no_main]

use std::sync::OnceLock;

use memtrace_fuzz::{TARGETS, Target};

static TARGET: OnceLock<&Target> = OnceLock::new();

fn target() -> &'static Target {
    TARGET.get_or_init(|| {
        let name = std::env::var("MEMTRACE_FUZZ_TARGET").unwrap_or_default();
        TARGETS
            .iter()
            .find(|target| target.name == name)
            .unwrap_or_else(|| panic!("MEMTRACE_FUZZ_TARGET names no target: {name:?}"))
    })
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| (target().run)(data));
