//! `oom_incident` lines: finding them, and holding them against the kernel log.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::agent::{Agent, of_type, run, text};
use crate::machine::{self, MIB, PAGE};
use crate::matrix::{assert_absent, assert_holds, assert_right};
use crate::oom_report::{Counter, Kill, Report};

/// Charges that other CPUs keep back or give back between the log and the kill.
const CHARGES_IN_FLIGHT: u64 = MIB;
/// The kernel's number for no limit at all.
const UNLIMITED_KIB: u64 = 1 << 52;

/// The complete incident in which that process was a victim.
pub fn of_victim(agent: &Agent, pid: u32) -> Result<Value> {
    agent.wait_for(
        &format!("the complete incident of {pid}"),
        Duration::from_secs(15),
        |line| is_complete(line) && victim(line, pid).is_ok(),
    )
}

/// The first incident of one kind about one charged cgroup.
pub fn of_cgroup(agent: &Agent, kind: &str, cgroup_id: u64) -> Result<Value> {
    agent.wait_for(
        &format!("an incident {kind} of {cgroup_id}"),
        Duration::from_secs(30),
        |line| {
            of_type("oom_incident")(line)
                && line["kind"] == kind
                && line["charged"]["cgroup_id"] == cgroup_id
        },
    )
}

/// Accepts incidents that will not change any more.
pub fn is_complete(line: &Value) -> bool {
    of_type("oom_incident")(line) && line["complete"] == true
}

/// What `memtrace incidents` lists of a state directory.
pub fn stored(state: &str) -> Result<Vec<Value>> {
    let began = Instant::now();
    let json = text(&run(&["incidents", "--json", "--state-dir", state])?)
        .with_context(|| format!("after {:?}", began.elapsed()))?;
    json.lines()
        .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
        .collect()
}

/// Whether the kernel's OOM killer killed.
pub fn is_kernel_kill(incident: &Value) -> bool {
    let kind = incident["kind"].as_str().unwrap_or_default();
    [
        "cgroup_oom",
        "cpuset_oom",
        "mempolicy_oom",
        "global_oom",
        "kernel_oom",
    ]
    .contains(&kind)
}

/// The victims of an incident.
pub fn victims(incident: &Value) -> &[Value] {
    incident["victims"].as_array().map_or(&[], Vec::as_slice)
}

/// The victim of that pid.
pub fn victim(incident: &Value, pid: u32) -> Result<&Value> {
    victims(incident)
        .iter()
        .find(|victim| victim["pid"] == pid)
        .with_context(|| format!("{pid} is no victim of {incident}"))
}

/// A time in RFC 3339.
pub fn time(value: &Value) -> Result<Timestamp> {
    let text = value
        .as_str()
        .with_context(|| format!("no time: {value}"))?;
    text.parse().with_context(|| format!("no time: {text}"))
}

/// Asserts that the meaning speaks of one of these words.
pub fn assert_means(incident: &Value, words: &[&str]) {
    let meaning = &incident["meaning"];
    let field = |name: &str| meaning[name].as_str().unwrap_or_default().to_owned();
    let (summary, consequence) = (field("summary"), field("consequence"));
    assert!(!summary.is_empty() && !consequence.is_empty(), "{incident}");
    let text = format!("{summary} {consequence}").to_lowercase();
    let found = words.iter().any(|word| text.contains(&word.to_lowercase()));
    assert!(found, "none of {words:?} in {meaning}");
}

/// Asserts everything that the kernel log witnesses about a kill by the kernel.
pub fn assert_is_logged(agent: &Agent, incident: &Value, report: &Report) -> Result<()> {
    let choice = report.choice.as_ref().context("no choice in the log")?;
    let hooked = agent.has_probe("oom.kill_process");
    let is_cgroup_oom = assert_kind(incident, &choice.constraint, hooked);
    let charged = &incident["charged"];
    if is_cgroup_oom {
        let cgroup = choice.charged_cgroup.as_deref();
        assert_right("charged_cgroup", &charged["cgroup"], cgroup, incident);
        let memory = report.memory.as_ref().context("no usage in the log")?;
        assert_counter(charged, "usage_bytes", "limit_bytes", memory, incident)?;
        let swap = report.swap.as_ref().context("no swap in the log")?;
        assert_counter(
            charged,
            "swap_usage_bytes",
            "swap_limit_bytes",
            swap,
            incident,
        )?;
        let known_by = charged["known_by"].as_str().unwrap_or_default();
        let expected: &[&str] = match hooked {
            true => &["oom_control"],
            false => &["full_counter", "oom_events"],
        };
        assert!(expected.contains(&known_by), "{incident}");
    } else {
        assert!(charged.is_null(), "{incident}");
    }

    let invocation = report.invocation.as_ref().context("no invocation")?;
    let trigger = &incident["trigger"]["comm"];
    assert_right("trigger_comm", trigger, &*invocation.comm, incident);
    let request = &incident["request"];
    if hooked {
        assert_right("order", &request["order"], invocation.order, incident);
        assert_right(
            "gfp_mask",
            &request["gfp_mask"],
            invocation.gfp_mask,
            incident,
        );
        let flags = &*invocation.gfp_flags;
        assert_right("gfp_flags", &request["gfp_flags"], flags, incident);
        assert!(request["total_bytes"].is_u64(), "{incident}");
    } else {
        for field in ["order", "gfp_mask", "gfp_flags", "total_bytes"] {
            assert_absent(field, &request[field], incident);
        }
    }

    let group_kill = report.group.is_some();
    assert_right("group_kill", &incident["group_kill"], group_kill, incident);
    let killed: BTreeSet<u32> = report.kills.iter().map(|kill| kill.pid).collect();
    let once = victims(incident).len() == killed.len();
    assert_holds(
        "victims",
        once && pids(incident) == killed,
        &killed,
        incident,
    );
    assert_eq!(incident["victims_left_out"], 0, "{incident}");
    for pid in killed {
        let kill = report.kill_of(pid).context("no such kill")?;
        let victim = victim(incident, pid)?;
        assert_victim_is(victim, kill)?;
        if let Some(pages) = report.swapped_pages.get(&pid) {
            let told = victim["swap_bytes"].as_u64().unwrap_or(u64::MAX) / 1024;
            let near = is_near_log("swap_bytes", told, pages * PAGE / 1024);
            assert_holds("swap_bytes", near, pages, victim);
        }
    }
    let chosen = victim(incident, choice.pid)?;
    assert_eq!(chosen["uid"], choice.uid, "{incident}");
    if let Some(cgroup) = choice.victim_cgroup.as_deref()
        && !group_kill
    {
        assert_right("victim_cgroup", &chosen["cgroup"], cgroup, incident);
    }
    assert_badness(chosen, report, hooked);
    assert_means(incident, &[""]);
    Ok(())
}

/// Whether it was an OOM of a cgroup.
fn assert_kind(incident: &Value, constraint: &str, hooked: bool) -> bool {
    let kind = match constraint {
        "CONSTRAINT_MEMCG" => "cgroup_oom",
        "CONSTRAINT_CPUSET" => "cpuset_oom",
        "CONSTRAINT_MEMORY_POLICY" => "mempolicy_oom",
        _ => "global_oom",
    };
    let told = &incident["kind"];
    let is_cgroup_oom = kind == "cgroup_oom";
    // Without that hook a machine's OOM looks like any other of the kernel.
    if !hooked && !is_cgroup_oom && told == "kernel_oom" {
        assert_absent("kind", &Value::Null, incident);
    } else {
        assert_right("kind", told, kind, incident);
    }
    is_cgroup_oom
}

/// The pids of all victims.
pub fn pids(incident: &Value) -> BTreeSet<u32> {
    let pids = victims(incident).iter().filter_map(|v| v["pid"].as_u64());
    pids.filter_map(|pid| u32::try_from(pid).ok()).collect()
}

/// What the log and the mark may differ by.
///
/// Before 6.2 a thread keeps the pages of up to 65 faults to itself until it runs again, which each of
/// a victim's threads (two at most here) does between its mark and the message; one fault of a file
/// maps up to 16 pages (`check_sync_rss_stat` and `do_fault_around`, mm/memory.c). Since then each CPU
/// keeps some back (`percpu_counter_batch`, lib/percpu_counter.c), which the log of 6.18 leaves out as
/// memtrace does and that of 7.2 adds.
fn unsynced_kib(field: &str) -> u64 {
    let pages = if machine::kernel_before(6, 2) {
        match field {
            "swap_bytes" => 0,
            "anon_bytes" => 2 * 65,
            _ => 2 * 65 * 16,
        }
    } else if machine::kernel_before(7, 0) {
        0
    } else {
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
        cpus * (2 * cpus).max(32)
    };
    pages * PAGE / 1024
}

/// Whether a figure of a victim's memory is that of the log.
pub fn is_near_log(field: &str, told_kib: u64, logged_kib: u64) -> bool {
    told_kib.abs_diff(logged_kib) <= unsynced_kib(field)
}

/// Asserts what a `Killed process` message tells, and what holds for every kill.
pub fn assert_victim_is(victim: &Value, kill: &Kill) -> Result<()> {
    let kib = |field: &str| Value::from(victim[field].as_u64().map(|bytes| bytes / 1024));
    assert_eq!(victim["pid"], kill.pid, "{victim}");
    assert_right("victim_comm", &victim["comm"], &*kill.comm, victim);
    assert_right("victim_uid", &victim["uid"], kill.uid, victim);
    for (field, logged) in [
        ("total_vm_bytes", kill.total_vm_kib),
        ("page_table_bytes", kill.page_tables_kib),
    ] {
        assert_right(field, &kib(field), logged, victim);
    }
    for (field, logged) in [
        ("anon_bytes", kill.anon_kib),
        ("file_bytes", kill.file_kib),
        ("shmem_bytes", kill.shmem_kib),
    ] {
        let told = kib(field).as_u64();
        let near = told.is_some_and(|told| is_near_log(field, told, logged));
        assert_holds(field, near, logged, victim);
    }
    let adjustment = &victim["oom_score_adj"];
    assert_right("oom_score_adj", adjustment, kill.oom_score_adj, victim);
    assert_ne!(victim["killed"], false, "{victim}");
    assert_died(victim)
}

/// Asserts that the times of a victim that is gone fit together.
pub fn assert_died(victim: &Value) -> Result<()> {
    let marked = time(&victim["marked"])?;
    let died = time(&victim["died"]).with_context(|| format!("of its death in {victim}"))?;
    let after = victim["died_after_ns"]
        .as_i64()
        .with_context(|| format!("died_after_ns is missing in {victim}"))?;
    let difference = died.duration_since(marked) - SignedDuration::from_nanos(after);
    let millisecond = SignedDuration::from_millis(1);
    assert!(difference.abs() <= millisecond, "{victim}");
    if !victim["reaped"].is_null() {
        assert!(time(&victim["reaped"])? >= marked, "{victim}");
    }
    Ok(())
}

fn assert_counter(
    charged: &Value,
    usage: &str,
    limit: &str,
    logged: &Counter,
    incident: &Value,
) -> Result<()> {
    let used = charged[usage]
        .as_u64()
        .with_context(|| format!("{usage} is missing in {incident}"))?;
    let near = used.abs_diff(logged.usage_kib * 1024) <= CHARGES_IN_FLIGHT;
    assert_holds(usage, near, logged, incident);
    let expected = (logged.limit_kib < UNLIMITED_KIB).then_some(logged.limit_kib * 1024);
    assert_right(limit, &charged[limit], expected, incident);
    Ok(())
}

/// Source: mm/oom_kill.c, oom_badness.
fn assert_badness(victim: &Value, report: &Report, hooked: bool) {
    let pid = victim["pid"].as_u64().unwrap_or_default() as u32;
    let Some(kill) = report.kill_of(pid).filter(|kill| kill.oom_score_adj == 0) else {
        return;
    };
    let Some(badness) = victim["badness"].as_u64() else {
        assert!(!hooked, "no badness in {victim}");
        return assert_absent("badness", &victim["badness"], victim);
    };
    let pages =
        (kill.anon_kib + kill.file_kib + kill.shmem_kib + kill.page_tables_kib) * 1024 / PAGE;
    let swapped = report.swapped_pages.get(&pid).copied().unwrap_or_default();
    // The log shows the figures of the kill; other threads fault between the choice and that.
    let difference = badness.abs_diff(pages + swapped);
    let near = difference * 10 <= badness;
    assert_holds("badness", near, pages + swapped, victim);
}
