//! Whose memory ran out: the counters of memory cgroups at that moment.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns};
use memtrace_ebpf::{
    counts::Drop,
    offsets,
    oom::{ABSENT, ABSENT_I32, ABSENT_U32, KIND_CHARGE, MOST_LEVELS, MemcgLevel, OomCharge},
};

use crate::{
    bare::{self, Bare},
    counters::dropped,
    globals::*,
    maps::{OOM_EVENTS, OOM_TRIGGER},
};

/// The charged cgroup and those above it, from `struct oom_control`.
#[inline(always)]
pub fn of_oom_control(control: Bare) {
    if let Some(slot) = OOM_TRIGGER.get_ptr_mut(0) {
        // SAFETY: a live map value; `oom_lock` lets one task at a time come here.
        unsafe { *slot = bpf_get_current_pid_tgid() as u32 };
    }
    let Some(mut entry) = OOM_EVENTS.reserve::<OomCharge>(0) else {
        dropped(Drop::OomRingFull);
        return;
    };
    let charge = entry.as_mut_ptr();
    // SAFETY: the record is ours until submitted.
    unsafe {
        begin(charge);
        (*charge).from_oom_control = 1;
        (*charge).constraint = control.u32(&OFF_OC_CONSTRAINT, ABSENT_U32);
        (*charge).order = control.value(&OFF_OC_ORDER, ABSENT_I32);
        (*charge).gfp_mask = control.u32(&OFF_OC_GFP_MASK, ABSENT_U32);
        (*charge).total_pages = control.u64(&OFF_OC_TOTALPAGES);
        (*charge).chosen_points = control.value(&OFF_OC_CHOSEN_POINTS, i64::MIN);
        tell_levels(charge, control.follow(&OFF_OC_MEMCG));
    }
    entry.submit(0);
}

/// The cgroup that the running task charges and those above it, unless `oom_kill_process` told.
#[inline(always)]
pub fn of_trigger() {
    if let Some(slot) = OOM_TRIGGER.get_ptr_mut(0) {
        // SAFETY: a live map value.
        if unsafe { *slot } == bpf_get_current_pid_tgid() as u32 {
            return;
        }
    }
    let Some(mut entry) = OOM_EVENTS.reserve::<OomCharge>(0) else {
        dropped(Drop::OomRingFull);
        return;
    };
    let charge = entry.as_mut_ptr();
    // SAFETY: the record is ours until submitted.
    unsafe {
        begin(charge);
        (*charge).from_oom_control = 0;
        (*charge).constraint = ABSENT_U32;
        (*charge).order = ABSENT_I32;
        (*charge).gfp_mask = ABSENT_U32;
        (*charge).total_pages = ABSENT;
        (*charge).chosen_points = i64::MIN;
        tell_levels(charge, charged_by_current());
    }
    entry.submit(0);
}

/// # Safety
/// `charge` is a record of ours.
#[inline(always)]
unsafe fn begin(charge: *mut OomCharge) {
    let pid_tgid = bpf_get_current_pid_tgid();
    // SAFETY: by contract; the helper takes no argument.
    unsafe {
        (*charge).kind = KIND_CHARGE;
        (*charge).time_ns = bpf_ktime_get_boot_ns();
        (*charge).trigger_tgid = (pid_tgid >> 32) as u32;
        (*charge).trigger_tid = pid_tgid as u32;
    }
}

/// As `get_mem_cgroup_from_mm` (mm/memcontrol.c): a remote charge first, then the owner of the mm.
#[inline(always)]
fn charged_by_current() -> Bare {
    let current = Bare::current();
    let remote = current.follow(&OFF_TASK_ACTIVE_MEMCG);
    if !remote.is_none() {
        return remote;
    }
    let owner = current.follow(&OFF_TASK_MM).follow(&OFF_MM_OWNER);
    let charged = if owner.is_none() { current } else { owner };
    bare::memory_css(charged).container(&OFF_MEMCG_CSS)
}

/// # Safety
/// `charge` is a record of ours.
#[inline(always)]
unsafe fn tell_levels(charge: *mut OomCharge, memcg: Bare) {
    let mut memcg = memcg;
    let mut count = 0;
    let mut truncated = 1;
    if OFF_MEMCG_CSS.load() == offsets::ABSENT {
        memcg = Bare::NONE;
    }
    while count < MOST_LEVELS {
        if memcg.is_none() {
            truncated = 0;
            break;
        }
        let css = memcg.add(OFF_MEMCG_CSS.load() as usize);
        // SAFETY: by contract, and below the length.
        unsafe {
            let level = (&raw mut (*charge).levels).cast::<MemcgLevel>().add(count);
            (*level).cgroup_id = bare::css_cgroup_id(css);
            (*level).usage_pages = memcg.u64(&OFF_MEMCG_USAGE);
            (*level).max_pages = memcg.u64(&OFF_MEMCG_MAX);
            (*level).swap_usage_pages = memcg.u64(&OFF_MEMCG_SWAP_USAGE);
            (*level).swap_max_pages = memcg.u64(&OFF_MEMCG_SWAP_MAX);
            (*level).failcnt = memcg.u64(&OFF_MEMCG_FAILCNT);
            (*level).oom_events = memcg.u64(&OFF_MEMCG_OOM_EVENTS);
            (*level).oom_kills = memcg.u64(&OFF_MEMCG_OOM_KILLS);
        }
        count += 1;
        // v1 without `use_hierarchy` charges no parent.
        let charges_parent = !memcg.follow(&OFF_MEMCG_PARENT).is_none();
        memcg = if charges_parent {
            css.follow(&OFF_CSS_PARENT).container(&OFF_MEMCG_CSS)
        } else {
            Bare::NONE
        };
    }
    // SAFETY: by contract.
    unsafe {
        (*charge).level_count = count as u32;
        (*charge).truncated = truncated;
        (*charge).padding = 0;
    }
}
