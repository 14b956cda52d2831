//! The end of a process: once for each, with the page faults of all its threads.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{bpf_ktime_get_boot_ns, generated::bpf_probe_read_kernel},
};
use memtrace_ebpf::{
    counts::{CgroupCounts, Drop, ProcessKey},
    event::{KIND_PROCESS_EXITED, ProcessExit},
    offsets::ABSENT,
};

use crate::{
    bare::Bare,
    counters::{add, cgroup, dropped},
    globals::*,
    maps::{BREAKS, ENDED, EVENTS, Ended, PROCESSES, ProcessId},
    task::{self, Kernel},
};

/// Threads that are looked at for their faults.
const MOST_THREADS: u32 = 512;
/// Looks at the threads: each is in vain if one was released meanwhile.
const LOOKS: u32 = 2;
const EEXIST: i32 = 17;

#[inline(always)]
pub fn thread(task: Kernel) {
    let Some(signal) = task::ended_process(task) else {
        return;
    };
    let process = process_id(task);
    if !is_first(process) {
        later(task, signal, process);
        return;
    }
    let tgid = task::tgid(task);
    let _ = BREAKS.remove(tgid);
    let Some(id) = task::memory_cgroup(task) else {
        dropped(Drop::CgroupUnknown);
        return;
    };
    let key = ProcessKey {
        cgroup_id: id,
        tgid,
        padding: 0,
    };
    let _ = PROCESSES.remove(key);

    let faults = faults_of_all(task, signal);
    let peak_rss_pages = signal.read::<u64>(&OFF_SIGNAL_MAXRSS).unwrap_or(0);
    // Read once more: kept over the walk, verifiers would walk it for each of its states.
    if let Some(ended) = ENDED.get_ptr_mut(process_id(task)) {
        // SAFETY: a live map value.
        unsafe {
            (*ended).minor_faults = faults.minor;
            (*ended).major_faults = faults.major;
            // Last: it lets later threads read the others.
            (&raw mut (*ended).peak_rss_pages).write_volatile(peak_rss_pages);
        }
    }
    if let Some(counts) = cgroup(id) {
        // SAFETY: a live map value.
        unsafe {
            add(&raw mut (*counts).lifecycle.exits, 1);
            add(
                &raw mut (*counts).lifecycle.exited_minor_faults,
                faults.minor,
            );
            add(
                &raw mut (*counts).lifecycle.exited_major_faults,
                faults.major,
            );
            raise_peak(counts, peak_rss_pages);
        }
    }
    tell(task, id, peak_rss_pages, faults);
}

/// The kernel sets the peak in the thread that was the last to count down, which need not be the first here.
#[inline(always)]
fn later(task: Kernel, signal: Kernel, process: ProcessId) {
    let peak_rss_pages = signal.read::<u64>(&OFF_SIGNAL_MAXRSS).unwrap_or(0);
    let Some(ended) = ENDED.get_ptr_mut(process) else {
        return;
    };
    // SAFETY: a live map value.
    let told = unsafe { (&raw const (*ended).peak_rss_pages).read_volatile() };
    if peak_rss_pages <= told {
        return;
    }
    // SAFETY: as above.
    let faults = unsafe {
        (&raw mut (*ended).peak_rss_pages).write_volatile(peak_rss_pages);
        Faults {
            minor: (*ended).minor_faults,
            major: (*ended).major_faults,
        }
    };
    let Some(id) = task::memory_cgroup(task) else {
        dropped(Drop::CgroupUnknown);
        return;
    };
    if let Some(counts) = cgroup(id) {
        // SAFETY: a live map value.
        unsafe { raise_peak(counts, peak_rss_pages) };
    }
    if told < EXIT_MIN_PEAK_PAGES.load() {
        tell(task, id, peak_rss_pages, faults);
    }
}

/// # Safety
/// `counts` is a live map value.
#[inline(always)]
unsafe fn raise_peak(counts: *mut CgroupCounts, pages: u64) {
    // SAFETY: by contract. The maximum may lose a race; the sums may not.
    unsafe {
        let peak = &raw mut (*counts).lifecycle.exited_peak_rss_pages;
        if pages > *peak {
            *peak = pages;
        }
    }
}

/// One record, of a process that was big enough.
#[inline(always)]
fn tell(task: Kernel, cgroup_id: u64, peak_rss_pages: u64, faults: Faults) {
    if peak_rss_pages < EXIT_MIN_PEAK_PAGES.load() {
        return;
    }
    // A process is known by its leader's name; the last thread to end may have another.
    let named = task.follow(&OFF_TASK_GROUP_LEADER).unwrap_or(task);
    let Some(mut entry) = EVENTS.reserve::<ProcessExit>(0) else {
        dropped(Drop::EventRingFull);
        return;
    };
    entry.write(ProcessExit {
        kind: KIND_PROCESS_EXITED,
        tgid: task::tgid(task),
        cgroup_id,
        // SAFETY: takes no argument.
        time_ns: unsafe { bpf_ktime_get_boot_ns() },
        peak_rss_pages,
        minor_faults: faults.minor,
        major_faults: faults.major,
        comm: task::comm(named),
    });
    entry.submit(0);
}

#[inline(always)]
fn process_id(task: Kernel) -> ProcessId {
    let leader = task.follow(&OFF_TASK_GROUP_LEADER).unwrap_or(task);
    ProcessId {
        start_boottime: leader.read::<u64>(&OFF_TASK_START_BOOTTIME).unwrap_or(0),
        tgid: u64::from(task::tgid(task)),
    }
}

/// Copied by the kernel from here: filling it on the stack is a call of `memset` for each end.
static UNDER_WAY: Ended = Ended {
    peak_rss_pages: u64::MAX,
    minor_faults: 0,
    major_faults: 0,
};

/// Whether no other thread has taken note of the end of this process.
#[inline(always)]
fn is_first(process: ProcessId) -> bool {
    // An end that finds no room is counted rather twice than never.
    ENDED.insert(process, &UNDER_WAY, BPF_NOEXIST.into()) != Err(-EEXIST)
}

#[derive(Clone, Copy)]
struct Faults {
    minor: u64,
    major: u64,
}

/// Of all threads: those that were released left theirs in `signal`, the others, first of all a leader that
/// ended before, still have them.
#[inline(always)]
fn faults_of_all(task: Kernel, signal: Kernel) -> Faults {
    let signal = Bare::new(signal.address());
    let mut faults = Faults { minor: 0, major: 0 };
    let mut threads = signal.u32(&OFF_SIGNAL_NR_THREADS, 1);
    if OFF_SIGNAL_THREAD_HEAD.load() == ABSENT || OFF_TASK_THREAD_NODE.load() == ABSENT {
        threads = 1;
    }
    for _ in 0..LOOKS {
        faults.minor = signal.value(&OFF_SIGNAL_MIN_FLT, 0);
        faults.major = signal.value(&OFF_SIGNAL_MAJ_FLT, 0);
        if threads <= 1 {
            faults.minor += task.read::<u64>(&OFF_TASK_MIN_FLT).unwrap_or(0);
            faults.major += task.read::<u64>(&OFF_TASK_MAJ_FLT).unwrap_or(0);
            return faults;
        }
        add_threads(signal, &mut faults);
        let left = signal.u32(&OFF_SIGNAL_NR_THREADS, 1);
        if left == threads {
            break;
        }
        threads = left;
    }
    if threads > MOST_THREADS {
        dropped(Drop::ExitThreadsLeftOut);
    }
    faults
}

/// Along `signal_struct::thread_head`, which is read as RCU readers do: a thread that leaves keeps its way on.
/// Without a branch but for the end, as verifiers follow each turn of the loop on its own.
#[inline(always)]
fn add_threads(signal: Bare, faults: &mut Faults) {
    let own = u64::from(OFF_TASK_THREAD_NODE.load());
    let minor = u64::from(OFF_TASK_MIN_FLT.load()).wrapping_sub(own);
    let major = u64::from(OFF_TASK_MAJ_FLT.load()).wrapping_sub(own);
    let head = signal.address() as u64 + u64::from(OFF_SIGNAL_THREAD_HEAD.load());
    let mut node = word(head);
    for _ in 0..MOST_THREADS {
        if node == head {
            return;
        }
        faults.minor += word(node.wrapping_add(minor));
        faults.major += word(node.wrapping_add(major));
        node = word(node);
    }
}

/// 0 where it cannot be read.
#[inline(always)]
fn word(address: u64) -> u64 {
    let mut word = 0_u64;
    // SAFETY: the helper tolerates any source, and fills the target, which is ours, with zeros if it fails.
    unsafe {
        bpf_probe_read_kernel(
            (&raw mut word).cast(),
            size_of::<u64>() as u32,
            address as *const _,
        );
    }
    word
}
