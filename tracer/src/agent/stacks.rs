//! Which code grows, beside the loop: samples on one thread, names on another, answers when they come.
//!
//! What was found last of each watched cgroup is held, so that a verdict is told with it at once. Must
//! not make the loop wait.

mod held;

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError, SyncSender, TrySendError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::mpsc as tokio_mpsc;

use crate::{
    export::profile::json,
    host::ProcRoot,
    incident::record::Victim,
    loader::stacks::StackSamples,
    stacks::{
        limits::CollectorLimits,
        profile::Profile,
        raw::{RawProfile, Selection},
        service::{StackService, StackSizes},
        told::StackRecord,
    },
    symbols::{Limits, Symbols},
};

use held::Held;

/// Growth counts from between one and two of these ago.
const REBASE: Duration = Duration::from_secs(900);
/// A watched cgroup is looked at again after this.
const REFRESH: Duration = Duration::from_secs(30);
/// What was held of a cgroup that is watched no more is forgotten after this.
const FORGET: Duration = Duration::from_secs(600);
/// Cgroups that are watched at once.
pub const MOST_WATCHED: usize = 32;
/// Call paths of a profile that get names; the rest counts, and stays unnamed.
const MOST_NAMED: usize = 128;
/// Stacks told of each.
const MOST_TOLD: usize = 5;
/// Questions that wait for names.
const MOST_WAITING: usize = 64;
/// The worker that reads symbols is ended when it had nothing to do for so long.
const REST_AFTER: Duration = Duration::from_secs(3);
/// An incident waits this long for its stacks.
const INCIDENT_WITHIN: Duration = Duration::from_secs(1);
/// Incidents that wait for stacks at once; in a storm the others are told without.
const MOST_INCIDENTS: usize = 8;

/// What a profile is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A watched memory cgroup.
    Cgroup(u64),
    /// Victims of the incident of this id.
    Incident(String),
}

/// A profile: without names at once, with names when they are known.
pub struct Found {
    pub subject: Subject,
    pub named: bool,
    pub profile: Arc<Profile>,
    pub top: Vec<StackRecord>,
}

impl Found {
    fn new(subject: Subject, named: bool, profile: Profile) -> Self {
        let top = json::top(&profile, MOST_TOLD);
        Self {
            subject,
            named,
            profile: Arc::new(profile),
            top,
        }
    }
}

struct Question {
    subject: Subject,
    scope: String,
    raw: RawProfile,
    lost: u64,
}

/// What an incident has so far.
#[derive(Default)]
struct Waiting {
    named: bool,
    top: Vec<StackRecord>,
}

/// Stack sampling of the agent.
pub struct Stacks {
    service: StackService,
    questions: SyncSender<Question>,
    answers: tokio_mpsc::Sender<Found>,
    began: SystemTime,
    found: tokio_mpsc::Receiver<Found>,
    namer: Option<JoinHandle<()>>,
    held: HashMap<u64, Held>,
    proc: ProcRoot,
    asked: HashMap<Subject, Instant>,
    incidents: HashMap<String, Waiting>,
    /// Questions that found no room.
    unanswered: Arc<AtomicU64>,
    sizes: Option<StackSizes>,
    lost_in_kernel: u64,
}

impl Stacks {
    /// Begins to sample.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(kernel: StackSamples, limits: CollectorLimits, names: Limits) -> io::Result<Self> {
        let service = StackService::start(kernel, limits, Some(REBASE))?;
        let (questions, asked) = mpsc::sync_channel::<Question>(MOST_WAITING);
        let (answers, found) = tokio_mpsc::channel(MOST_WAITING);
        let began = SystemTime::now();
        let named = answers.clone();
        let namer = thread::Builder::new()
            .name("symbols".to_owned())
            .spawn(move || {
                let mut symbols = Symbols::new(names);
                loop {
                    let question = match asked.recv_timeout(REST_AFTER) {
                        Ok(question) => question,
                        Err(RecvTimeoutError::Timeout) => {
                            symbols.rest();
                            continue;
                        }
                        Err(RecvTimeoutError::Disconnected) => return,
                    };
                    let profile = question.raw.named(
                        &mut symbols,
                        question.scope,
                        began,
                        question.lost,
                        MOST_NAMED,
                    );
                    let found = Found::new(question.subject, true, profile);
                    if named.blocking_send(found).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self {
            service,
            questions,
            answers,
            began,
            found,
            namer: Some(namer),
            held: HashMap::new(),
            proc: ProcRoot::default(),
            asked: HashMap::new(),
            incidents: HashMap::new(),
            unanswered: Arc::default(),
            sizes: None,
            lost_in_kernel: 0,
        })
    }

    /// Asks for what these cgroups hold, unless it was asked a moment ago; `path` names them.
    pub fn watch(&mut self, cgroups: impl Iterator<Item = (u64, String)>) {
        let now = Instant::now();
        let mut watched = HashSet::new();
        for (id, path) in cgroups.take(MOST_WATCHED) {
            watched.insert(id);
            let subject = Subject::Cgroup(id);
            let recent = |asked: &Instant| now.duration_since(*asked) < REFRESH;
            if !self.asked.get(&subject).is_some_and(recent) {
                self.ask(subject, Selection::Cgroups(vec![id]), path);
            }
        }
        self.held
            .retain(|id, held| watched.contains(id) || held.at.elapsed() < FORGET);
        self.asked.retain(|_, asked| asked.elapsed() < FORGET);
    }

    /// Asks for what the victims of an incident had.
    pub fn look_at_victims(&mut self, id: &str, pids: Vec<u32>) {
        let subject = Subject::Incident(id.to_owned());
        let waiting = self.incidents.values().filter(|it| !it.named).count();
        if pids.is_empty() || self.asked.contains_key(&subject) {
            return;
        }
        if waiting >= MOST_INCIDENTS {
            self.unanswered.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.incidents.insert(id.to_owned(), Waiting::default());
        self.ask(subject, Selection::Processes(pids), id.to_owned());
    }

    fn ask(&mut self, subject: Subject, selection: Selection, scope: String) {
        self.asked.insert(subject.clone(), Instant::now());
        let questions = self.questions.clone();
        let unanswered = Arc::clone(&self.unanswered);
        let lost = self.lost();
        let (answers, began) = (self.answers.clone(), self.began);
        self.service.profile_then(selection, move |raw| {
            // Names take a moment, and on a busy machine many. Without room the named one is enough.
            let unnamed = raw.clone().unnamed(scope.clone(), began, lost);
            let mut found = Found::new(subject.clone(), false, unnamed);
            // Nothing of it will be told: no name is missing.
            found.named = found.top.is_empty();
            let is_whole = found.named;
            let _ = answers.try_send(found);
            if is_whole {
                return;
            }
            let question = Question {
                subject,
                scope,
                raw,
                lost,
            };
            if let Err(TrySendError::Full(_)) = questions.try_send(question) {
                unanswered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }

    /// The next answer; waits for ever where nothing is sampled.
    pub async fn heard(stacks: &mut Option<Stacks>) -> Found {
        match stacks {
            Some(stacks) => match stacks.found.recv().await {
                Some(found) => found,
                None => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }

    /// Takes an answer in.
    pub fn take(&mut self, found: Found) {
        match found.subject {
            Subject::Cgroup(id) => {
                if found.top.is_empty() {
                    // Nothing sampled yet: what comes next is not to wait.
                    self.asked.remove(&Subject::Cgroup(id));
                    return;
                }
                // Older names say more than younger offsets.
                let known = self.held.get(&id).is_some_and(|held| held.named);
                if found.named || !known {
                    self.held.insert(id, Held::new(found));
                }
            }
            Subject::Incident(id) => {
                if let Some(waiting) = self.incidents.get_mut(&id) {
                    *waiting = Waiting {
                        named: found.named,
                        top: found.top,
                    };
                }
            }
        }
    }

    /// The first suspects of a cgroup among what still runs, as of the last look; empty if nothing is known.
    pub fn of_cgroup(&self, id: u64) -> Vec<StackRecord> {
        let held = self.held.get(&id);
        held.map_or_else(Vec::new, |held| held.top_running(&self.proc))
    }

    /// The last profile of what still runs in a cgroup; `None` if it is not watched, or nothing that runs was
    /// sampled yet.
    pub fn profile_of(&self, id: u64) -> Option<Arc<Profile>> {
        self.held.get(&id)?.running(&self.proc)
    }

    /// The last profile with names of every watched cgroup that was made after `since`.
    pub fn profiles(&self, since: Option<Instant>) -> Vec<(u64, Arc<Profile>)> {
        self.held
            .iter()
            .filter(|(_, held)| held.named && since.is_none_or(|since| held.at > since))
            .map(|(id, held)| (*id, Arc::clone(&held.profile)))
            .collect()
    }

    /// Whether the stacks of an incident may still come.
    pub fn is_expecting(&self, id: &str) -> bool {
        let recent = |asked: &Instant| asked.elapsed() < INCIDENT_WITHIN;
        self.incidents.get(id).is_some_and(|it| !it.named)
            && self
                .asked
                .get(&Subject::Incident(id.to_owned()))
                .is_some_and(recent)
    }

    /// The stacks of an incident, once: with names, or else what its victims' cgroup had when it was looked
    /// at last, or else without names.
    pub fn of_incident(
        &mut self,
        id: &str,
        cgroup_id: Option<u64>,
        victims: &[Victim],
    ) -> Vec<StackRecord> {
        let own = self.incidents.remove(id).unwrap_or_default();
        if own.named && !own.top.is_empty() {
            return own.top;
        }
        let held = cgroup_id.and_then(|id| self.held.get(&id));
        let before = held.map_or_else(Vec::new, |held| held.top_of(victims));
        if before.is_empty() { own.top } else { before }
    }

    /// What the kernel side lost since the start, and what the collector holds by now.
    pub fn measured(&mut self, lost_in_kernel: u64) {
        self.lost_in_kernel = lost_in_kernel;
        self.sizes = Some(self.service.sizes_now());
    }

    fn lost(&self) -> u64 {
        let collector = self.sizes.map_or(0, |sizes| sizes.losses.samples());
        self.lost_in_kernel + collector
    }

    /// What was lost, by cause.
    pub fn losses(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let losses = self.sizes.unwrap_or_default().losses;
        [
            ("stack_not_decoded", losses.undecoded),
            ("stack_process_gone", losses.process_gone),
            ("stack_process_unreadable", losses.process_unreadable),
            ("stack_process_evicted", losses.spaces_evicted),
            ("stack_call_path_evicted", losses.call_paths_evicted),
            ("stack_page_evicted", losses.pages_evicted),
            ("stack_module_evicted", losses.modules_evicted),
            ("stack_unwind_table_refused", losses.tables_refused),
            ("stack_code_left_out", losses.code_left_out),
            ("stack_unwind_cut", losses.paths_cut),
            ("stack_mappings_cut", losses.lists_cut),
            ("stack_page_table_unreadable", losses.page_tables_unreadable),
            ("stack_density_refused", losses.densities_refused),
            (
                "stack_profile_unanswered",
                self.unanswered.load(Ordering::Relaxed),
            ),
        ]
        .into_iter()
    }

    /// For `/status`.
    pub fn status(&self) -> serde_json::Value {
        let sizes = self.sizes.unwrap_or_default();
        serde_json::json!({
            "processes": sizes.address_spaces,
            "sampled_pages": sizes.pages,
            "call_paths": sizes.call_paths,
            "watched_cgroups": self.held.len(),
        })
    }
}

impl Drop for Stacks {
    fn drop(&mut self) {
        // Ends the threads without waiting for names that nobody hears.
        let (closed, _) = mpsc::sync_channel(1);
        self.questions = closed;
        self.found.close();
        drop(self.namer.take());
    }
}
