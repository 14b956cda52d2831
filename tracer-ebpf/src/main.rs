//! memtrace's BPF programs: one module per probe family, mirrored by `tracer/src/probes/`.
//!
//! Built for the bpf target by `cargo xtask ebpf` and embedded from `prebuilt/`.
//! Programs are named `<family>_<hook>`; the name is the key in the loader's catalog.

#![no_std]
#![no_main]
// The target has atomic adds but no compare-and-swap, so the atomic types lack `fetch_add`.
#![feature(core_intrinsics)]
#![expect(
    internal_features,
    reason = "the stable name of the intrinsic is not on this target"
)]

mod bare;
mod counters;
mod globals;
mod maps;
mod probes;
mod registers;
mod task;

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
