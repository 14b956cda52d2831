//! Whether a row of an unwind table leads the same way to the caller each time.
//!
//! The library remembers for an address how it stepped. Where registers take part in more than an offset it
//! tries each time anew, but when that fails once it remembers the guess that took its place, and would follow
//! it from then on. Such rows are not remembered. Must not run expressions.

use gimli::{CfaRule, Register, RegisterRule, UnwindTableRow};

type Row = UnwindTableRow<usize>;

/// Where a register was saved.
enum Saved {
    /// At an offset from the frame's address.
    At(i64),
    /// Nowhere, or it has no value.
    Nowhere,
    /// In a way that is worked out each time.
    Otherwise,
}

fn saved(row: &Row, register: Register) -> Saved {
    match row.register(register) {
        None | Some(RegisterRule::Undefined | RegisterRule::SameValue) => Saved::Nowhere,
        Some(RegisterRule::Offset(offset)) => Saved::At(offset),
        _ => Saved::Otherwise,
    }
}

fn fits<T: TryFrom<i64>>(words: i64) -> bool {
    T::try_from(words).is_ok()
}

/// What the library turns into a rule that holds for every stack. Source: framehop's `translate_into_unwind_rule`.
#[cfg(target_arch = "x86_64")]
pub fn is_steady(row: &Row) -> bool {
    use gimli::X86_64;
    match row.register(X86_64::RA) {
        // The stack ends here.
        None | Some(RegisterRule::Undefined) => return true,
        Some(RegisterRule::Offset(-8)) => {}
        _ => return false,
    }
    let CfaRule::RegisterAndOffset { register, offset } = *row.cfa() else {
        return false;
    };
    match (register, saved(row, X86_64::RBP)) {
        (X86_64::RSP, Saved::Nowhere) => fits::<u16>(offset / 8),
        (X86_64::RSP, Saved::At(at)) => {
            fits::<u16>(offset / 8) && fits::<i16>(offset.saturating_add(at) / 8)
        }
        (X86_64::RBP, Saved::At(-16)) => offset == 16,
        _ => false,
    }
}

/// What the library turns into a rule that holds for every stack. Source: framehop's `translate_into_unwind_rule`.
#[cfg(target_arch = "aarch64")]
pub fn is_steady(row: &Row) -> bool {
    use gimli::AArch64;
    let CfaRule::RegisterAndOffset { register, offset } = *row.cfa() else {
        return false;
    };
    let near = |at: i64| fits::<i16>(offset.saturating_add(at) / 8);
    let (lr, fp) = (saved(row, AArch64::X30), saved(row, AArch64::X29));
    match (register, lr, fp) {
        (AArch64::SP, Saved::Nowhere, Saved::Nowhere) => fits::<u16>(offset / 16),
        (AArch64::SP, Saved::At(lr), Saved::Nowhere) => fits::<u16>(offset / 16) && near(lr),
        (AArch64::SP, Saved::At(lr), Saved::At(fp)) => {
            fits::<u16>(offset / 16) && near(lr) && near(fp)
        }
        (AArch64::X29, Saved::At(lr), Saved::At(fp)) => {
            (offset, fp, lr) == (16, -16, -8) || fits::<u16>(offset / 8) && near(lr) && near(fp)
        }
        _ => false,
    }
}
