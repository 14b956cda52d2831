use std::{fs, path::Path};

use super::*;

const LONG: Duration = Duration::from_secs(60);

fn shell(text: &str, timeout: Duration) -> Ran {
    shell_with(text, timeout, b"")
}

fn shell_with(text: &str, timeout: Duration, input: &[u8]) -> Ran {
    let invocation = Invocation {
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), text.into()],
        environment: vec![("MEMTRACE_EVENT".into(), "incident".into())],
        input: input.into(),
        timeout,
    };
    run(&invocation, &AtomicBool::new(false))
}

fn text(ran: &Ran) -> String {
    String::from_utf8_lossy(&ran.output).into_owned()
}

/// Whether a process is there and no zombie.
fn lives(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_command_tells_how_it_ended() {
    assert_eq!(shell("exit 0", LONG).end, End::Exited(0));
    assert_eq!(shell("exit 7", LONG).end, End::Exited(7));
    assert_eq!(shell("kill -USR1 $$", LONG).end, End::Signalled(10));
    let missing = Invocation {
        program: "/nonexistent/program".into(),
        arguments: Vec::new(),
        environment: Vec::new(),
        input: Arc::default(),
        timeout: LONG,
    };
    let ran = run(&missing, &AtomicBool::new(false));
    assert!(matches!(ran.end, End::NotStarted(_)), "{ran:?}");
}

#[test]
fn no_signal_is_blocked_for_a_command() {
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGTERM);
    blocked.thread_block().unwrap();
    let ran = shell("grep SigBlk /proc/self/status", LONG);
    blocked.thread_unblock().unwrap();
    assert_eq!(text(&ran).trim(), "SigBlk:\t0000000000000000");
}

#[test]
fn a_timeout_ends_the_command_and_all_it_started() {
    let ran = shell(
        "trap '' TERM; sleep 1000 & echo $!; (trap '' TERM; sleep 1000) & echo $!; wait; sleep 1000",
        Duration::from_millis(300),
    );
    assert_eq!(ran.end, End::TimedOut);
    let output = text(&ran);
    let pids: Vec<&str> = output.lines().collect();
    assert_eq!(pids.len(), 2, "{output}");
    for pid in pids {
        // Killed at once, reaped by init when it comes to it.
        while lives(pid) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn what_a_command_leaves_behind_is_ended_with_it_and_holds_nothing_up() {
    let ran = shell("sleep 1000 & echo $!", LONG);
    assert_eq!(ran.end, End::Exited(0));
    while lives(&text(&ran)) {
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_command_that_ends_in_time_is_reaped() {
    let ran = shell("echo $$", LONG);
    let pid = text(&ran);
    assert!(!Path::new("/proc").join(pid.trim()).exists(), "{pid}");
}

#[test]
fn only_the_end_of_much_output_is_kept() {
    let ran = shell(
        "head -c 1000000 /dev/zero | tr '\\0' x; echo the end >&2",
        LONG,
    );
    assert_eq!(ran.end, End::Exited(0));
    assert_eq!(ran.output.len(), KEPT_OUTPUT);
    assert!(ran.output.ends_with(b"xthe end\n"), "{}", text(&ran));
}

#[test]
fn endless_output_is_no_way_around_the_timeout() {
    let ran = shell("yes", Duration::from_millis(300));
    assert_eq!(ran.end, End::TimedOut);
    assert!(ran.output.len() <= KEPT_OUTPUT);
}

#[test]
fn the_input_is_given_whole_and_a_command_that_closes_it_is_fine() {
    let input = vec![b'i'; 300_000];
    let ran = shell_with("wc -c", LONG, &input);
    assert_eq!(text(&ran).trim(), "300000");
    let ran = shell_with("exec <&-; echo closed", LONG, &input);
    assert_eq!(
        (ran.end, ran.output.as_slice()),
        (End::Exited(0), &b"closed\n"[..])
    );
}

#[test]
fn a_command_has_a_clean_environment_a_session_of_its_own_and_no_descriptor_of_the_agent() {
    // Without CLOEXEC, as a library might open it.
    let file = fs::File::open("/dev/null").unwrap();
    // SAFETY: the descriptor is this test's own; it only loses a flag.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, 0) };
    let number = file.as_raw_fd();
    let ran = shell(
        &format!(
            "env -u PWD -u SHLVL -u _ | sort; pwd; cut -d' ' -f1,5,6 /proc/$$/stat; test -e /proc/$$/fd/{number} && echo leaked"
        ),
        LONG,
    );
    let output = text(&ran);
    let lines: Vec<&str> = output.lines().collect();
    let [lang, event, path, directory, ids] = lines[..] else {
        panic!("{output}");
    };
    assert_eq!(
        (lang, event, directory),
        ("LANG=C.UTF-8", "MEMTRACE_EVENT=incident", "/")
    );
    assert!(path.starts_with("PATH=/"), "{path}");
    let ids: Vec<&str> = ids.split(' ').collect();
    assert_eq!(ids, [ids[0]; 3], "process, group and session");
}

#[test]
fn the_end_of_the_agent_ends_a_command() {
    let stopping = AtomicBool::new(true);
    let invocation = Invocation {
        program: "/bin/sleep".into(),
        arguments: vec!["1000".into()],
        environment: Vec::new(),
        input: Arc::default(),
        timeout: LONG,
    };
    assert_eq!(run(&invocation, &stopping).end, End::Stopped);
}
