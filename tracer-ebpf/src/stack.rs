//! Records of the stack ring: one sampled page, with the registers and a piece of the user stack
//! of the thread that touched it; and how densely pages are sampled.

use crate::COMM_LEN;

/// Most bytes of a user stack that a sample carries.
pub const STACK_BYTES: usize = 16 * 1024;

/// Bytes that are copied at once: what lies behind the end of a stack is not readable.
pub const CHUNK_BYTES: usize = 4096;

/// What a sample stands for.
pub const KIND_FAULT: u32 = 1;
pub const KIND_MMAP: u32 = 2;
pub const KIND_BRK: u32 = 3;

/// Head of a sample; `stack_len` bytes of stack, read upwards from `sp`, follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackHead {
    pub kind: u32,
    pub tgid: u32,
    pub tid: u32,
    /// One page in `2^shift` is sampled. Of a mapping: one in `2^shift` pages, or all of it.
    pub shift: u32,
    pub cgroup_id: u64,
    /// Address of the `mm_struct`: tells address spaces apart while they live.
    pub mm: u64,
    /// `mm_struct::start_stack`: with the process id tells whether it has execed since; 0 if unknown.
    pub start_stack: u64,
    /// The touched address, or the start of the mapping.
    pub address: u64,
    /// Bytes of the mapping; 0 for a page.
    pub bytes: u64,
    /// `CLOCK_BOOTTIME`.
    pub time_ns: u64,
    pub ip: u64,
    pub sp: u64,
    pub bp: u64,
    /// Where a function without a frame of its own returns to; 0 where the stack says so (x86-64).
    pub lr: u64,
    /// `start_boottime` of the process's first thread; 0 if unknown.
    pub process_start_ns: u64,
    pub stack_len: u32,
    /// 1: the page was there and could not be written to, as after a fork.
    pub protected: u32,
    pub comm: [u8; COMM_LEN],
}

/// How densely pages are sampled, for all cgroups without a word of their own.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackControl {
    /// The densest sampling of any cgroup: one page in `2^floor_shift`; [`OFF`] samples nothing.
    pub floor_shift: u32,
    /// Of cgroups that are not in the map of shifts.
    pub usual_shift: u32,
    /// The first page of a huge page is sampled `2^boundary_shift` times as often.
    pub boundary_shift: u32,
    /// Only this process is sampled; 0: all are.
    pub only_tgid: u32,
    /// Processes that are younger are not sampled.
    pub least_age_ns: u64,
}

/// A shift that samples nothing.
pub const OFF: u32 = 64;

/// One page in how many, as a bound for its hash; `shift` below 64.
#[inline(always)]
pub const fn threshold(shift: u32) -> u64 {
    u64::MAX >> (shift & 63)
}

/// The lot of a page: the same whenever it is touched, and independent of its neighbours'.
/// The finalizer is that of splitmix64 (Steele, Lea, Flood, OOPSLA 2014).
#[inline(always)]
pub const fn lot(seed: u64, process: u64, page: u64) -> u64 {
    let mut x = page
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(process.rotate_left(17))
        ^ seed;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

const _: () = {
    assert!(size_of::<StackHead>() == 112 + COMM_LEN);
    assert!(size_of::<StackControl>() == 24);
};

// SAFETY: repr(C), integers only, no implicit padding (sizes asserted above).
unsafe impl crate::Record for StackHead {}

#[cfg(feature = "user")]
mod user {
    // SAFETY: repr(C), integers only, no implicit padding (size asserted above).
    unsafe impl aya::Pod for super::StackControl {}
}

#[cfg(test)]
mod tests {
    use super::{lot, threshold};

    #[test]
    fn the_share_of_sampled_pages_is_that_of_the_shift() {
        for shift in [2, 4, 6, 8] {
            let pages = 1 << 18;
            for process in [1, 4711] {
                let sampled = (0..pages)
                    .filter(|page| lot(7, process, 0x7_f000_0000 + page) <= threshold(shift))
                    .count() as f64;
                let expected = pages as f64 / f64::from(1 << shift);
                assert!((sampled - expected).abs() < 4.0 * expected.sqrt());
            }
        }
    }

    #[test]
    fn a_denser_sampling_keeps_what_a_sparser_one_has() {
        for page in 0..10_000 {
            let lot = lot(1, 2, page);
            assert!(lot > threshold(8) || lot <= threshold(4));
        }
    }
}
