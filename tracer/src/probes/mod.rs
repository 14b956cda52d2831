//! What the BPF programs send, decoded: one module per family, as in `tracer-ebpf/src/probes/`.
//!
//! Bytes and contract types in, model types out. Every length is checked; must not keep state.

pub mod heap;
pub mod lifecycle;
pub mod oom;
pub mod reclaim;
pub mod stack;

use memtrace_ebpf::Record;

/// Reads a contract type out of a ring record; `None` if the record is too short.
fn record<T: Record>(bytes: &[u8]) -> Option<T> {
    if bytes.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: long enough, any bit pattern is a value, alignment is not assumed.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// A kernel string up to its NUL, escaped for display.
fn text(bytes: &[u8], most_chars: usize) -> String {
    let end = bytes
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(bytes.len());
    crate::host::escape::display(&bytes[..end], most_chars)
}
