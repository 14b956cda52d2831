//! The contract between memtrace's BPF programs and user space.
//!
//! Owns every type that crosses the border: map keys and values, ring records,
//! drop causes, and the offsets that user space resolves from the kernel's BTF.
//! All are `repr(C)` without implicit padding, asserted below, so that both
//! sides read the same bytes. Must not depend on aya-ebpf or on `std`.

#![no_std]

pub mod counts;
pub mod event;
pub mod offsets;
pub mod oom;
pub mod stack;

/// A contract type: `repr(C)`, integers only, no padding; any bytes are a value.
///
/// # Safety
/// The type must be just that.
pub unsafe trait Record: Copy {}

/// Bytes of `task_struct::comm` (`TASK_COMM_LEN`, include/linux/sched.h).
pub const COMM_LEN: usize = 16;
