//! Registers that a kprobe was given, by offsets from BTF: one object serves every architecture.
//!
//! Read by helper: the verifier lets no program add a frozen offset to its context and load there.

use aya_ebpf::{
    EbpfContext, Global,
    programs::{ProbeContext, RetProbeContext},
};

use crate::{bare::Bare, globals::*};

/// A pointer that is the first argument of the function.
#[inline(always)]
pub fn first_argument(ctx: &ProbeContext) -> Bare {
    Bare::new(word(ctx, &OFF_REGS_FUNCTION_ARG0) as *const u8)
}

/// What the function returned.
#[inline(always)]
pub fn returned(ctx: &RetProbeContext) -> u64 {
    word(ctx, &OFF_REGS_RET)
}

#[inline(always)]
fn word(ctx: &impl EbpfContext, offset: &Global<u32>) -> u64 {
    Bare::new(ctx.as_ptr().cast::<u8>().cast_const()).value(offset, 0)
}
