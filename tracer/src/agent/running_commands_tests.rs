use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use nix::{sys::stat::Mode, unistd::mkfifo};

use super::*;

/// Arguments and executable.
type Command = (Option<Vec<u8>>, Vec<u8>);

/// What came into the map, by process.
#[derive(Clone, Default)]
struct Map(Arc<Mutex<BTreeMap<u32, Command>>>);

impl Kept for Map {
    fn add(&mut self, pid: u32, arguments: Option<&[u8]>, executable: &[u8]) -> bool {
        let mut map = lock(&self.0);
        let is_new = !map.contains_key(&pid);
        map.entry(pid)
            .or_insert_with(|| (arguments.map(<[u8]>::to_vec), executable.to_vec()));
        is_new
    }

    fn remove(&mut self, pid: u32) {
        lock(&self.0).remove(&pid);
    }
}

impl Map {
    fn pids(&self) -> Vec<u32> {
        lock(&self.0).keys().copied().collect()
    }

    fn has(&self, pid: u32) -> bool {
        lock(&self.0).contains_key(&pid)
    }
}

struct Host {
    directory: tempfile::TempDir,
    map: Map,
}

impl Host {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            map: Map::default(),
        }
    }

    fn path(&self, pid: u32) -> PathBuf {
        self.directory.path().join(pid.to_string())
    }

    fn process(&self, pid: u32, start_ticks: u64) -> PathBuf {
        let path = self.path(pid);
        fs::create_dir(&path).unwrap();
        started(&path, start_ticks);
        symlink(format!("/bin/p{pid}"), path.join("exe")).unwrap();
        fs::write(path.join("cmdline"), format!("p{pid}\0-v\0")).unwrap();
        path
    }

    /// A process whose command line does not come before somebody opens it for writing.
    fn hanging(&self, pid: u32, start_ticks: u64) -> PathBuf {
        let path = self.process(pid, start_ticks);
        fs::remove_file(path.join("cmdline")).unwrap();
        mkfifo(&path.join("cmdline"), Mode::S_IRWXU).unwrap();
        path
    }

    fn start(&self, with_arguments: bool) -> RunningCommands {
        let proc = ProcRoot::new(self.directory.path());
        RunningCommands::of(proc, self.map.clone(), with_arguments)
    }
}

fn started(process: &Path, start_ticks: u64) {
    let fields = "0 ".repeat(18);
    let stat = format!("1 (p) S {fields}{start_ticks} 0 0");
    fs::write(process.join("stat"), stat).unwrap();
}

fn release(process: &Path) -> File {
    let fifo = process.join("cmdline");
    OpenOptions::new().write(true).open(fifo).unwrap()
}

async fn until(what: impl Fn() -> bool) {
    while !what() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn every_process_is_known_when_the_wait_is_over() {
    let host = Host::new();
    for pid in 1..=50 {
        host.process(pid, 100);
    }
    // A kernel thread, and what is no process.
    fs::remove_file(host.process(60, 100).join("exe")).unwrap();
    fs::create_dir(host.directory.path().join("sys")).unwrap();
    let mut running = host.start(true);
    running.wait().await;
    assert_eq!(running.losses(), [("command_line_unread", 0)]);
    assert_eq!(host.map.pids(), (1..=50).collect::<Vec<u32>>());
    let seven = (Some(b"p7\0-v\0".to_vec()), b"/bin/p7".to_vec());
    assert_eq!(lock(&host.map.0).get(&7), Some(&seven));
}

#[tokio::test]
async fn without_arguments_no_command_line_is_read() {
    let host = Host::new();
    host.hanging(1, 100);
    let mut running = host.start(false);
    running.wait().await;
    assert_eq!(running.losses(), [("command_line_unread", 0)]);
    let one = (None, b"/bin/p1".to_vec());
    assert_eq!(lock(&host.map.0).get(&1), Some(&one));
}

#[tokio::test]
async fn a_process_that_never_tells_holds_up_neither_the_start_nor_the_others() {
    let host = Host::new();
    for pid in 1..=9 {
        if pid % 3 == 0 {
            host.hanging(pid, 100);
        } else {
            host.process(pid, 100);
        }
    }
    let mut running = host.start(true);
    running.wait().await;
    until(|| host.map.pids() == [1, 2, 4, 5, 7, 8]).await;
    assert_eq!(running.losses(), [("command_line_unread", 3)]);
    // It goes on after all.
    let _open = release(&host.path(6));
    until(|| host.map.has(6)).await;
}

#[tokio::test]
async fn beyond_what_hangs_at_most_the_rest_waits_for_one_to_go_on() {
    let host = Host::new();
    let most = MOST_THREADS as u32;
    for pid in 1..=most {
        host.hanging(pid, 100);
    }
    let mut running = host.start(true);
    // Listed in any order: behind all of them.
    lock(&running.queue).waiting.push_back(most + 1);
    host.process(most + 1, 100);
    running.wait().await;
    assert!(!host.map.has(most + 1));
    assert_eq!(running.losses()[0].1, u64::from(most) + 1);
    let _open = release(&host.path(1));
    until(|| host.map.has(most + 1)).await;
}

#[tokio::test]
async fn who_got_the_id_of_a_process_is_not_told_as_it() {
    let host = Host::new();
    let (reused, gone) = (host.hanging(1, 100), host.hanging(2, 100));
    let stays = host.hanging(3, 100);
    let running = host.start(true);
    until(|| lock(&running.queue).asked.len() == 3).await;
    started(&reused, 200);
    fs::remove_file(gone.join("stat")).unwrap();
    let _open = [release(&reused), release(&gone), release(&stays)];
    until(|| lock(&running.queue).asked.is_empty()).await;
    assert_eq!(host.map.pids(), [3]);
}

#[test]
fn what_ended_just_before_it_was_kept_is_not_kept() {
    /// A process ends while it is added.
    struct Late(Map, PathBuf);
    impl Kept for Late {
        fn add(&mut self, pid: u32, arguments: Option<&[u8]>, executable: &[u8]) -> bool {
            started(&self.1, 200);
            self.0.add(pid, arguments, executable)
        }
        fn remove(&mut self, pid: u32) {
            self.0.remove(pid);
        }
    }
    let host = Host::new();
    let path = host.process(1, 100);
    let proc = ProcRoot::new(host.directory.path());
    let kept = |map: &Map| Mutex::new(Late(map.clone(), path.clone()));
    tell(&proc, &kept(&host.map), 1, true, &mut Vec::new());
    assert!(!host.map.has(1));
    // What the programs know of the new one stays.
    host.map.clone().add(1, None, b"/bin/new");
    started(&path, 100);
    tell(&proc, &kept(&host.map), 1, true, &mut Vec::new());
    assert!(host.map.has(1));
}
