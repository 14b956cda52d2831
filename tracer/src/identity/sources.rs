//! The sources that run beside the agent, on a thread of their own.
//!
//! Owns which of them run and the bounded queues: updates to the agent, wants from it. A source that
//! fails says so and goes on trying; it never stops the agent, and the agent never waits for it.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use thiserror::Error;
use tokio::sync::mpsc;

use super::{
    cri::CriConfig,
    facts::{Source, SourceState, Update, Wanted},
    files::FilesConfig,
};

/// Updates that wait for the agent; a source waits then.
const MOST_UPDATES: usize = 256;
/// Wants that wait for the runtime; more are not needed, since it lists all containers.
const MOST_WANTED: usize = 64;
/// Wants that wait for the files, where each container is looked for: as many as a full host has at the
/// start of the agent.
const MOST_WANTED_OF_FILES: usize = 4096;

/// Between two looks at what the sources told, where nobody is woken by it.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What to ask for names.
#[derive(Debug, Clone, Default)]
pub struct SourcesConfig {
    /// The Kubernetes API, for pods of this node.
    pub kubernetes: Option<KubernetesConfig>,
    /// The container runtime.
    pub cri: Option<CriConfig>,
    /// Files of Docker, Podman and CRI-O; none there yet: they are looked for.
    pub files: Option<FilesConfig>,
}

impl SourcesConfig {
    /// Those that it asks.
    pub fn sources(&self) -> impl Iterator<Item = Source> + use<> {
        let asked = [
            (Source::Kubernetes, self.kubernetes.is_some()),
            (Source::Cri, self.cri.is_some()),
            (Source::Files, self.files.is_some()),
        ];
        asked
            .into_iter()
            .filter(|(_, on)| *on)
            .map(|(source, _)| source)
    }
}

/// How to watch the pods of a node.
#[derive(Debug, Clone, Default)]
pub struct KubernetesConfig {
    pub node_name: String,
    /// Annotations to keep beside those that memtrace reads.
    pub annotations: Vec<String>,
}

/// The sources cannot start.
#[derive(Debug, Error)]
pub enum SourcesError {
    #[error("no thread for the names of containers: {0}")]
    Thread(io::Error),
}

/// The running sources; they end when it is dropped.
#[derive(Debug)]
pub struct Sources {
    pub updates: mpsc::Receiver<Update>,
    of_runtime: Option<mpsc::Sender<Wanted>>,
    of_files: Option<mpsc::Sender<Wanted>>,
    /// Whether there are files to ask.
    files_present: Arc<AtomicBool>,
    wants_left_out: Arc<AtomicU64>,
}

impl Sources {
    /// Starts those that are configured.
    ///
    /// # Errors
    /// The thread cannot be made.
    pub fn start(config: SourcesConfig) -> Result<Self, SourcesError> {
        let (send_updates, updates) = mpsc::channel(MOST_UPDATES);
        let (of_runtime, for_runtime) = mpsc::channel(MOST_WANTED);
        let (of_files, for_files) = mpsc::channel(MOST_WANTED_OF_FILES);
        let wants_left_out = Arc::new(AtomicU64::new(0));
        let files = config.files.as_ref();
        let files_present = files.is_some_and(|files| !files.is_empty());
        let files_present = Arc::new(AtomicBool::new(files_present));
        let started = Self {
            updates,
            of_runtime: config.cri.is_some().then_some(of_runtime),
            of_files: config.files.is_some().then_some(of_files),
            files_present: Arc::clone(&files_present),
            wants_left_out: Arc::clone(&wants_left_out),
        };
        let queues = Queues {
            updates: send_updates,
            for_runtime,
            for_files,
            files_present,
            wants_left_out,
        };
        thread::Builder::new()
            .name("memtrace-names".into())
            .spawn(move || serve(config, queues))
            .map_err(SourcesError::Thread)?;
        Ok(started)
    }

    /// Asks those that are asked for single containers; never waits.
    pub fn want(&self, wanted: &Wanted) {
        if let Some(of_runtime) = &self.of_runtime {
            // A full queue has it list all of them anyway.
            let _ = of_runtime.try_send(wanted.clone());
        }
        if let Some(of_files) = &self.of_files
            && self.files_present.load(Ordering::Relaxed)
            && of_files.try_send(wanted.clone()).is_err()
        {
            self.wants_left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Containers that were not looked for, because too many were wanted at once.
    pub fn wants_left_out(&self) -> u64 {
        self.wants_left_out.load(Ordering::Relaxed)
    }
}

/// The sources' ends of the queues.
struct Queues {
    updates: mpsc::Sender<Update>,
    for_runtime: mpsc::Receiver<Wanted>,
    for_files: mpsc::Receiver<Wanted>,
    files_present: Arc<AtomicBool>,
    wants_left_out: Arc<AtomicU64>,
}

/// Starts the sources, and says how each fares once all have told it, or at the deadline. Says nothing of
/// those that nobody asked for and that are not there.
///
/// # Errors
/// The thread cannot be made.
pub fn tried(
    config: SourcesConfig,
    within: Duration,
) -> Result<BTreeMap<Source, SourceState>, SourcesError> {
    let starting = |source| (source, SourceState::Starting);
    let mut states: BTreeMap<_, _> = config.sources().map(starting).collect();
    let deadline = Instant::now() + within;
    let mut running = Sources::start(config)?;
    while states.values().any(|state| *state == SourceState::Starting) && Instant::now() < deadline
    {
        match running.updates.try_recv() {
            Ok(Update::Source(source, state)) => {
                states.insert(source, state);
            }
            Ok(_) => {}
            Err(_) => thread::sleep(LOOK_EVERY),
        }
    }
    states.retain(|_, state| *state != SourceState::Absent);
    Ok(states)
}

fn serve(config: SourcesConfig, queues: Queues) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            log::warn!("no names of containers: {error}");
            return;
        }
    };
    runtime.block_on(async {
        let updates = &queues.updates;
        let left_out = &queues.wants_left_out;
        let kubernetes = async {
            if let Some(config) = &config.kubernetes {
                super::kubernetes::watch(config, updates.clone()).await;
            }
        };
        let cri = async {
            if let Some(config) = config.cri {
                let (updates, left_out) = (updates.clone(), Arc::clone(left_out));
                super::cri::follow(config, updates, queues.for_runtime, left_out).await;
            }
        };
        let files = async {
            if let Some(config) = config.files {
                let (updates, left_out) = (updates.clone(), Arc::clone(left_out));
                let (wanted, present) = (queues.for_files, queues.files_present);
                super::files::follow(config, updates, wanted, left_out, present).await;
            }
        };
        let all = async { tokio::join!(kubernetes, cri, files) };
        tokio::select! {
            _ = all => {}
            () = updates.closed() => {}
        }
    });
    // A read of a file that hangs is not waited for.
    runtime.shutdown_background();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::files::Root;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn a_socket_that_is_not_there_fails_with_its_path_and_nobody_asked_tells_nothing() {
        let config = SourcesConfig {
            cri: Some(CriConfig::at("/nowhere/containerd.sock".into())),
            ..SourcesConfig::default()
        };
        let states = tried(config, PATIENCE).unwrap();
        let Some(SourceState::Failing(cause)) = states.get(&Source::Cri) else {
            panic!("{states:?}");
        };
        assert!(cause.contains("/nowhere/containerd.sock"), "{cause}");
        let none = tried(SourcesConfig::default(), PATIENCE).unwrap();
        assert!(none.is_empty(), "{none:?}");
    }

    #[test]
    fn what_is_not_there_and_not_asked_for_is_no_finding_and_costs_no_wants() {
        let host = tempfile::tempdir().unwrap();
        let config = || SourcesConfig {
            cri: Some(CriConfig::first_of(
                &["/nowhere/a", "/nowhere/b"],
                true,
                |_| false,
            )),
            files: Some(FilesConfig::find(Root::at(host.path()))),
            ..SourcesConfig::default()
        };
        let states = tried(config(), PATIENCE).unwrap();
        assert!(states.is_empty(), "{states:?}");
        let sources = Sources::start(config()).unwrap();
        for number in 0..2 * MOST_WANTED_OF_FILES {
            sources.want(&Wanted {
                container_id: format!("{number:064x}"),
            });
        }
        assert_eq!(sources.wants_left_out(), 0);
    }
}
