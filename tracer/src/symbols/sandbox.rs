//! What the worker gives up before it reads anything untrusted.
//!
//! Each step is done as far as it is allowed: under a service manager some system calls are filtered.

use std::fs;

use nix::sys::{
    prctl,
    resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit},
    signal::Signal,
    time::TimeValLike as _,
};

use super::wire::WorkerLimits;

/// Weighs a ninth of a program of usual priority. With 19 it got no name in a minute on a machine with
/// two busy programs a CPU, which is where people want to know.
const NICE: libc::c_int = 10;

/// Ends with the agent, yields to others, dies first for want of memory, leaves no dump.
pub fn enter() {
    let _ = prctl::set_pdeathsig(Some(Signal::SIGKILL));
    let _ = prctl::set_no_new_privs();
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    // SAFETY: it takes plain numbers; 0 is this very process.
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
    let _ = std::env::set_current_dir("/");
    // A dump would hold what it mapped, and collecting it costs more than its work.
    let _ = prctl::set_dumpable(false);
    limit(Resource::RLIMIT_CORE, 0);
}

/// Bounds memory for good.
pub fn limit_memory(limits: &WorkerLimits) {
    limit(Resource::RLIMIT_DATA, limits.heap_bytes);
    limit(Resource::RLIMIT_AS, limits.mapped_bytes);
}

/// Gives this much CPU time from now on; then the process ends.
pub fn allow_cpu_seconds(seconds: u64) {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else {
        return;
    };
    let used = usage.user_time() + usage.system_time();
    let used = u64::try_from(used.num_seconds()).unwrap_or(0);
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_CPU) {
        // Whole seconds: the one that has begun is given away.
        let soft = used.saturating_add(seconds).saturating_add(1).min(hard);
        let _ = setrlimit(Resource::RLIMIT_CPU, soft, hard);
    }
}

fn limit(resource: Resource, most: u64) {
    if let Ok((_, hard)) = getrlimit(resource) {
        let most = most.min(hard);
        let _ = setrlimit(resource, most, most);
    }
}

/// Bytes that this process allocated, and that it mapped in all. Source: `proc_pid_statm`, whose
/// field 6 is what `RLIMIT_DATA` counts, and the stack.
pub fn used_bytes() -> Option<(u64, u64)> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = statm
        .split_ascii_whitespace()
        .map(|field| field.parse::<u64>());
    let mapped = pages.next()?.ok()?;
    let data = pages.nth(4)?.ok()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    let page = u64::try_from(page).ok()?;
    Some((data.checked_mul(page)?, mapped.checked_mul(page)?))
}
