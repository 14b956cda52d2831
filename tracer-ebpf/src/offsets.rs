//! Field offsets that user space finds in the kernel's BTF and freezes into the object.
//!
//! The name of a global in the object is `OFF_<STRUCT>_<FIELD>`; its value is
//! bytes from the start of the struct, or `ABSENT` when this kernel has no such field.

/// The kernel has no such field.
pub const ABSENT: u32 = u32::MAX;
