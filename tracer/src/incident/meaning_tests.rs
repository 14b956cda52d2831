use super::super::record::{KernelCounts, Killer, Request};
use super::*;
use crate::incident::record::Stall;

const CONTAINER: &str = "/kubepods/burstable/pod1/c1";
const POD: &str = "/kubepods/burstable/pod1";

fn charged(id: u64, cgroup: &str) -> Option<ChargedCgroup> {
    Some(ChargedCgroup {
        cgroup_id: id,
        cgroup: Some(cgroup.into()),
        limit_bytes: Some(512 << 20),
        ..ChargedCgroup::default()
    })
}

/// PID 1 of a container in a pod, killed for the limit of the container.
fn pod_oom() -> Incident {
    let (cgroup, cgroup_id) = (Some(CONTAINER.to_owned()), Some(10));
    Incident {
        id: String::new(),
        kind: Kind::CgroupOom,
        time: jiff::Timestamp::UNIX_EPOCH,
        boot_time_ns: 0,
        boot_id: String::new(),
        complete: true,
        group_kill: Some(false),
        charged: charged(10, CONTAINER),
        trigger: Some(Trigger {
            pid: 700,
            tid: 701,
            comm: "thread".into(),
            process_comm: Some("java".into()),
            cgroup_id,
            cgroup: cgroup.clone(),
            names: None,
        }),
        request: Request::default(),
        killer: None,
        victims: vec![Victim {
            pid: Some(700),
            tid: 700,
            comm: Some("java".into()),
            cgroup_id,
            cgroup,
            anon_bytes: Some(480 << 20),
            namespace_pid: Some(1),
            container_init: Some(true),
            killed: Some(true),
            ..Victim::default()
        }],
        victims_left_out: 0,
        evidence: Default::default(),
        kernel_counts: KernelCounts::default(),
        stall: None,
        kubernetes: None,
        meaning: Meaning::default(),
    }
}

fn with(change: impl FnOnce(&mut Incident)) -> Incident {
    let mut incident = pod_oom();
    change(&mut incident);
    incident
}

/// A child in the same container.
fn child() -> Incident {
    with(|incident| {
        let victim = &mut incident.victims[0];
        (victim.pid, victim.tid, victim.comm) = (Some(800), 800, Some("worker".into()));
        (victim.namespace_pid, victim.container_init) = (Some(17), Some(false));
    })
}

fn on_host(cgroup: &str) -> Incident {
    let mut incident = child();
    incident.charged = charged(10, cgroup);
    incident.victims[0].cgroup = Some(cgroup.into());
    incident.victims[0].namespace_pid = Some(800);
    incident
}

fn stalled(change: impl FnOnce(&mut Stall)) -> Incident {
    let mut stall = Stall {
        duration_ms: 45_000,
        stalled_ns: Some(40_000_000_000),
        oom_disabled: false,
        at_high: false,
        ongoing: true,
        ended_by_kill: false,
    };
    change(&mut stall);
    with(|incident| {
        incident.kind = Kind::Stall;
        incident.victims.clear();
        incident.trigger = None;
        incident.stall = Some(stall);
    })
}

/// Asserts the summary, and what the consequence must and must not contain.
fn assert_meaning(case: &str, incident: &Incident, summary: &str, has: &[&str], not: &[&str]) {
    let meaning = meaning(incident);
    assert_eq!(meaning.summary, summary, "{case}");
    for words in has {
        assert!(
            meaning.consequence.contains(words),
            "{case}: no {words:?} in {:?}",
            meaning.consequence
        );
    }
    for words in not {
        assert!(
            !meaning.consequence.contains(words),
            "{case}: {words:?} in {:?}",
            meaning.consequence
        );
    }
    for text in [&meaning.summary, &meaning.consequence] {
        assert!(
            !text.contains("  ") && (text.ends_with('.') || text.ends_with(".)")),
            "{case}: {text:?}"
        );
    }
}

#[test]
fn memory_that_is_shared_is_told_where_it_is_the_most() {
    let summary = |shared: u64| {
        let incident = with(|incident| incident.victims[0].shmem_bytes = Some(shared));
        meaning(&incident).summary
    };
    let most = summary(600 << 20);
    assert!(
        most.contains("(PID 700, 480M anonymous, 600M shared) was"),
        "{most}"
    );
    let little = summary(400 << 20);
    assert!(little.contains("(PID 700, 480M anonymous) was"), "{little}");
}

#[test]
fn pid_1_of_a_container() {
    assert_meaning(
        "container limit",
        &pod_oom(),
        "/kubepods/burstable/pod1/c1 reached its limit of 512M: java (PID 700, 480M anonymous) \
         was killed.",
        &["the container ends", "OOMKilled, exit 137", "restartPolicy"],
        &["A child", "neighbour"],
    );
    assert_meaning(
        "docker",
        &with(|incident| incident.victims[0].cgroup = Some("/docker/0123".into())),
        "/kubepods/burstable/pod1/c1 reached its limit of 512M: java (PID 700, 480M anonymous) \
         was killed.",
        &["the container ends", "exit 137"],
        &["Kubernetes"],
    );
}

#[test]
fn a_child_of_pid_1() {
    assert_meaning(
        "pod",
        &child(),
        "/kubepods/burstable/pod1/c1 reached its limit of 512M: worker (PID 800, 480M anonymous) \
         was killed; java (PID 700) asked for the memory.",
        &[
            "A child of PID 1 was killed and the container goes on",
            "Kubernetes will not report OOMKilled",
            "dead worker",
        ],
        &["exit 137"],
    );
}

#[test]
fn a_whole_group() {
    let group = with(|incident| {
        incident.group_kill = Some(true);
        incident.victims.push(child().victims[0].clone());
        incident.victims_left_out = 3;
    });
    assert_meaning(
        "group with PID 1",
        &group,
        "/kubepods/burstable/pod1/c1 reached its limit of 512M: 5 processes were killed as a \
         group, java (PID 700, 480M anonymous) first.",
        &["The whole container was killed as a group; expect OOMKilled, exit 137"],
        &["PID 1 was not among"],
    );
    let mut part = child();
    part.group_kill = Some(true);
    let said = meaning(&part).consequence;
    assert!(said.contains("PID 1 was not among the victims"), "{said}");
}

#[test]
fn a_neighbour_pays_for_a_common_limit() {
    let mut incident = child();
    incident.charged = charged(5, POD);
    if let Some(trigger) = &mut incident.trigger {
        trigger.cgroup_id = Some(11);
        trigger.cgroup = Some("/kubepods/burstable/pod1/c2".into());
    }
    assert_meaning(
        "neighbour",
        &incident,
        "/kubepods/burstable/pod1 reached its limit of 512M: worker (PID 800, 480M anonymous) \
         was killed; java (PID 700) asked for the memory.",
        &[
            "A neighbour paid: /kubepods/burstable/pod1/c2 reached the limit of \
             /kubepods/burstable/pod1, which it shares with the victim in \
             /kubepods/burstable/pod1/c1.",
            "goes on",
        ],
        &[],
    );
    let own = with(|incident| incident.charged = charged(5, POD));
    let said = meaning(&own).consequence;
    assert!(said.contains("not the victim's own but that of /kubepods/burstable/pod1 above"));
    assert!(!said.contains("neighbour"));
}

#[test]
fn the_machine_ran_out() {
    let global = |incident: &mut Incident| {
        incident.kind = Kind::GlobalOom;
        incident.charged = None;
    };
    assert_meaning(
        "PID 1",
        &with(global),
        "The machine ran out of memory: java (PID 700, 480M anonymous) was killed.",
        &[
            "No cgroup limit was at fault",
            "short of memory",
            "OOMKilled, exit 137",
        ],
        &[],
    );
    let mut of_child = child();
    global(&mut of_child);
    let said = meaning(&of_child).consequence;
    assert!(said.contains("will not report OOMKilled"), "{said}");
    for (kind, start) in [
        (Kind::CpusetOom, "The memory nodes of a cpuset ran out: "),
        (
            Kind::MempolicyOom,
            "The memory nodes of a memory policy ran out: ",
        ),
        (
            Kind::KernelOom,
            "The kernel ran out of memory; for whose limit is not known: ",
        ),
    ] {
        let said = meaning(&with(|incident| incident.kind = kind)).summary;
        assert!(said.starts_with(start), "{said}");
    }
    let asked = meaning(&with(|incident| {
        global(incident);
        incident.request.order = Some(-1);
    }));
    assert_eq!(
        asked.summary,
        "SysRq f: java (PID 700, 480M anonymous) was killed."
    );
    assert!(
        asked
            .consequence
            .starts_with("A person asked for this kill")
    );
}

#[test]
fn a_mark_without_a_kill() {
    assert_meaning(
        "marked",
        &with(|incident| {
            incident.kind = Kind::MarkedExiting;
            incident.victims[0].killed = Some(false);
        }),
        "/kubepods/burstable/pod1/c1 reached its limit of 512M, but java (PID 700, 480M \
         anonymous) was already exiting: nobody was killed.",
        &["nothing is reported"],
        &["OOMKilled", "137"],
    );
}

#[test]
fn a_user_space_killer() {
    let by_killer = |mut incident: Incident| {
        incident.kind = Kind::UserSpaceKill;
        incident.charged = None;
        incident.killer = Some(Killer {
            pid: 55,
            comm: "earlyoom".into(),
            cgroup: None,
            signal: Some(9),
        });
        incident
    };
    assert_meaning(
        "PID 1",
        &by_killer(pod_oom()),
        "java (PID 700, 480M anonymous) was killed by earlyoom (PID 55), not by the kernel.",
        &[
            "counts no oom_kill",
            "exit 137 with reason Error, not OOMKilled",
        ],
        &[],
    );
    let mut told = by_killer(pod_oom());
    if let Some(killer) = &mut told.killer {
        killer.signal = Some(15);
    }
    assert_meaning(
        "SIGTERM",
        &told,
        "java (PID 700, 480M anonymous) was told to end (SIGTERM) by earlyoom (PID 55), not killed \
         by the kernel.",
        &["its own exit code (143 unless", "not OOMKilled"],
        &["137"],
    );
    told.victims[0].killed = Some(false);
    told.victims.push(Victim {
        killed: Some(true),
        ..told.victims[0].clone()
    });
    let ignored = meaning(&told).consequence;
    assert!(ignored.contains("1 of 2 had not ended"), "{ignored}");
    let said = meaning(&by_killer(child())).consequence;
    assert!(said.contains("goes on unless"), "{said}");
    let service = meaning(&by_killer(on_host("/system.slice/db.service"))).consequence;
    assert!(service.contains("systemd-oomd"), "{service}");
    assert!(!service.contains("Kubernetes"), "{service}");
    let mut unknown = by_killer(pod_oom());
    unknown.killer = None;
    unknown.victims.clear();
    assert_eq!(
        meaning(&unknown).summary,
        "A process was killed by a user-space OOM killer, not by the kernel."
    );
}

#[test]
fn a_stall() {
    assert_meaning(
        "at the limit",
        &stalled(|_| {}),
        "/kubepods/burstable/pod1/c1 has been stuck at its limit of 512M for 45 s, stalled 88% of \
         the time, without an OOM kill.",
        &[
            "alive",
            "neither the kernel nor Kubernetes reports",
            "Raise the limit",
        ],
        &["memory.high"],
    );
    assert_meaning(
        "at memory.high, over",
        &stalled(|stall| {
            stall.at_high = true;
            stall.ongoing = false;
            stall.stalled_ns = None;
            stall.duration_ms = 300_000;
        }),
        "/kubepods/burstable/pod1/c1 was stuck at memory.high for 5 min without an OOM kill.",
        &["It is over", "Raise or remove memory.high, or reduce"],
        &[],
    );
    let said = meaning(&stalled(|stall| stall.oom_disabled = true)).consequence;
    assert!(said.contains("OOM killer is switched off"), "{said}");
    let mut host = stalled(|_| {});
    host.charged = charged(9, "/system.slice/db.service");
    assert!(!meaning(&host).consequence.contains("Kubernetes"));
    host.stall = None;
    host.charged = None;
    assert_eq!(meaning(&host).summary, "A cgroup is stuck at its limit.");
}

#[test]
fn missed_kills() {
    let missed = |kills, cgroup| {
        with(|incident| {
            incident.kind = Kind::MissedKills;
            incident.victims.clear();
            incident.charged = cgroup;
            incident.kernel_counts.missed = kills;
        })
    };
    assert_meaning(
        "in a cgroup",
        &missed(Some(1), charged(10, CONTAINER)),
        "The kernel counted 1 OOM kill in /kubepods/burstable/pod1/c1 that memtrace did not see.",
        &["not known", "kernel log"],
        &[],
    );
    assert_meaning(
        "on the host",
        &missed(Some(12), None),
        "The kernel counted 12 OOM kills on this host that memtrace did not see; in which cgroups \
         is not known.",
        &[],
        &[],
    );
}

#[test]
fn outside_containers_nothing_is_said_of_kubernetes() {
    for (cgroup, words) in [
        (
            "/system.slice/db.service",
            "db.service with the result oom-kill",
        ),
        ("/user.slice/session-1.scope", "only this process ends"),
    ] {
        let said = meaning(&on_host(cgroup)).consequence;
        assert!(said.contains("Not a container"), "{said}");
        assert!(said.contains(words), "{said}");
        for word in ["Kubernetes", "OOMKilled"] {
            assert!(!said.contains(word), "{said}");
        }
    }
    let mut group = on_host("/system.slice/db.service");
    group.group_kill = Some(true);
    let said = meaning(&group).consequence;
    assert!(said.contains("All processes of db.service"), "{said}");
}

#[test]
fn what_is_not_known_is_not_guessed() {
    let unknown = with(|incident| {
        let victim = &mut incident.victims[0];
        (victim.container_init, victim.namespace_pid) = (None, None);
    });
    let said = meaning(&unknown).consequence;
    assert!(said.contains("is not known: if it was"), "{said}");

    // The pod has the host's PIDs: not PID 1 says nothing.
    let mut host_pids = child();
    host_pids.victims[0].namespace_pid = Some(800);
    let said = meaning(&host_pids).consequence;
    assert!(said.contains("uses the host's PIDs"), "{said}");
    host_pids.victims[0].cgroup = Some("/docker/1".into());
    let said = meaning(&host_pids).consequence;
    assert!(said.contains("is not known: if it was"), "{said}");

    // Neither a path that tells nor a namespace.
    let nowhere = with(|incident| {
        let victim = &mut incident.victims[0];
        (victim.container_init, victim.namespace_pid) = (None, None);
        (victim.cgroup, victim.comm, victim.anon_bytes) = (None, None, None);
        (victim.pid, victim.tid) = (None, 801);
        incident.charged = None;
        incident.trigger = None;
    });
    assert_meaning(
        "nothing",
        &nowhere,
        "A memory cgroup reached its limit; which one is not known: a process (thread 801) was \
         killed.",
        &["is not known"],
        &["Kubernetes", "goes on"],
    );
    let empty = with(|incident| incident.victims.clear());
    assert!(
        meaning(&empty)
            .consequence
            .contains("The victim is not known.")
    );
}
