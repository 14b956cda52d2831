//! An agent of this process, for hosts on which none runs: it traces while top runs, and keeps nothing.

use std::{
    fs::{DirBuilder, DirEntry, File},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    unistd::geteuid,
};
use tokio::sync::oneshot;

use super::{Input, TopError};
use crate::{
    agent::{self, ApiAt, Config, Output},
    analysis::Thresholds,
    identity::options::{NamingArgs, NamingError, Process},
    loader,
};

/// Pages sampled a second, as `memtrace run` does.
const STACK_SAMPLES: f64 = 400.0;
const STALL_AFTER: Duration = Duration::from_secs(10);
/// Time that it has to let go of the kernel.
const END: Duration = Duration::from_secs(5);
/// Of the directory for temporary files that are looked at.
const MOST_ENTRIES: usize = 100_000;

/// The agent; ends when dropped.
#[derive(Debug)]
pub struct OwnAgent {
    directory: Directory,
    stop: Option<oneshot::Sender<()>>,
    ended: Receiver<()>,
}

/// For the socket, root's alone; removed when dropped. A lock on it says that it is in use, so that what is left
/// of a process that was killed is known, and removed by the next.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    _lock: Flock<File>,
}

const BEGINNING: &str = "memtrace-top-";
const SOCKET: &str = "agent.sock";

impl Directory {
    fn make(parent: &Path) -> io::Result<Self> {
        remove_left_behind(parent);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_nanos();
        let name = format!("{BEGINNING}{}-{now:x}", std::process::id());
        let path = parent.join(name);
        // Never one that is there, nor a link.
        DirBuilder::new().mode(0o700).create(&path)?;
        let lock = lock(&path)?.ok_or_else(|| io::Error::other("another process removes it"))?;
        Ok(Self { path, _lock: lock })
    }

    fn socket(&self) -> PathBuf {
        self.path.join(SOCKET)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// `None`: somebody else has it.
fn lock(directory: &Path) -> io::Result<Option<Flock<File>>> {
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let file = File::options()
        .read(true)
        .custom_flags(flags)
        .open(directory)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error.into()),
    }
}

fn remove(directory: &Path) {
    let _ = std::fs::remove_file(directory.join(SOCKET));
    let _ = std::fs::remove_dir(directory);
}

/// What processes of this user left that were killed. One that has just been made and is not locked yet may be
/// taken for such: its process says so and can be started again.
fn remove_left_behind(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else {
        return;
    };
    let is_ours = |entry: &DirEntry| {
        let is_named = entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(BEGINNING.as_bytes());
        // Not of what a link leads to.
        let metadata = entry.metadata().ok().filter(|_| is_named);
        metadata.is_some_and(|found| found.is_dir() && found.uid() == geteuid().as_raw())
    };
    for entry in entries.flatten().take(MOST_ENTRIES).filter(is_ours) {
        if let Ok(Some(_lock)) = lock(&entry.path()) {
            remove(&entry.path());
        }
    }
}

impl OwnAgent {
    /// Starts it; its end is told as [`Input::OwnEnded`].
    ///
    /// # Errors
    /// There is no place for its socket, or no thread can be started.
    pub fn start(interval: Duration, inputs: SyncSender<Input>) -> Result<Self, TopError> {
        let directory = Directory::make(&std::env::temp_dir()).map_err(TopError::OwnSocket)?;
        let config = config(&directory.socket(), interval)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(TopError::Threads)?;
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = sync_channel(1);
        let run = move || {
            let result = runtime.block_on(async {
                tokio::select! {
                    result = agent::run(config) => result,
                    _ = stopped => Ok(()),
                }
            });
            drop(runtime);
            let _ = end.send(());
            let _ = inputs.send(Input::OwnEnded(Box::new(result)));
        };
        thread::Builder::new()
            .name("agent".into())
            .spawn(run)
            .map_err(TopError::Threads)?;
        Ok(Self {
            directory,
            stop: Some(stop),
            ended,
        })
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.socket()
    }
}

impl Drop for OwnAgent {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        // What it does not let go of in time, the kernel takes at the end of the process.
        let _ = self.ended.recv_timeout(END);
    }
}

fn config(socket: &Path, interval: Duration) -> Result<Config, TopError> {
    let naming = NamingArgs::default()
        .resolve(&Process)
        .map_err(|error: NamingError| TopError::Names(error.to_string()))?;
    Ok(Config {
        output: Output::None,
        interval,
        duration: None,
        cgroup: None,
        cgroup_root: None,
        // Those of the agent that runs as a service are its own.
        state_dir: None,
        stall_after: STALL_AFTER,
        thresholds: Some(Thresholds::default()),
        kernel: loader::Options::default(),
        stack_samples_per_second: Some(STACK_SAMPLES),
        otlp: None,
        naming,
        listen: None,
        api: ApiAt::Only(socket.to_owned()),
        rules: Vec::new(),
        reloader: None,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_is_in_use_stays() {
        let temporary = tempfile::tempdir().unwrap();
        let parent = temporary.path();
        let left = parent.join("memtrace-top-1-abc");
        std::fs::create_dir(&left).unwrap();
        std::fs::write(left.join(SOCKET), "").unwrap();
        let foreign = parent.join("else");
        std::fs::create_dir(&foreign).unwrap();
        std::fs::write(foreign.join(SOCKET), "").unwrap();
        let link = parent.join("memtrace-top-2-abc");
        symlink(&foreign, &link).unwrap();

        let first = Directory::make(parent).unwrap();
        std::fs::write(first.socket(), "").unwrap();
        assert!(!left.exists());
        let second = Directory::make(parent).unwrap();
        assert!(first.socket().exists(), "it is in use");
        assert!(foreign.join(SOCKET).exists() && link.exists());
        let paths = [first.path.clone(), second.path.clone()];
        drop((first, second));
        assert!(paths.iter().all(|path| !path.exists()));
    }
}
