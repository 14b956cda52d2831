//! An agent of this process, for hosts on which none runs: it traces while top runs, and keeps nothing.

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
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

/// The agent; ends when dropped.
#[derive(Debug)]
pub struct OwnAgent {
    directory: Directory,
    stop: Option<oneshot::Sender<()>>,
    ended: Receiver<()>,
}

/// For the socket, root's alone; removed when dropped.
#[derive(Debug)]
struct Directory(PathBuf);

impl Directory {
    fn make() -> io::Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_nanos();
        let name = format!("memtrace-top-{}-{now:x}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // Never one that is there, nor a link.
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    fn socket(&self) -> PathBuf {
        self.0.join("agent.sock")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.socket());
        let _ = std::fs::remove_dir(&self.0);
    }
}

impl OwnAgent {
    /// Starts it; its end is told as [`Input::OwnEnded`].
    ///
    /// # Errors
    /// There is no place for its socket, or no thread can be started.
    pub fn start(interval: Duration, inputs: SyncSender<Input>) -> Result<Self, TopError> {
        let directory = Directory::make().map_err(TopError::OwnSocket)?;
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
