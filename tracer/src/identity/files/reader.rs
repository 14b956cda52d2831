//! Looks containers up in the stores, and remembers what it found. Blocks: for a thread that may wait.

use std::collections::{HashMap, HashSet};

use super::{
    docker,
    root::{FileError, Stamp},
    storage::List,
    stores::FilesConfig,
};
use crate::identity::facts::RuntimeContainer;

/// Containers followed at once, all stores together.
const MOST_CONTAINERS: usize = 4096;

/// The stores, and the containers found in them that are still there.
#[derive(Debug)]
pub struct Reader {
    config: FilesConfig,
    lists: Vec<List>,
    found: HashMap<String, Found>,
}

#[derive(Debug)]
struct Found {
    container: RuntimeContainer,
    /// Of Docker's file; a list has its own.
    stamp: Option<Stamp>,
}

/// What one look brought.
#[derive(Debug, Default)]
pub struct Looked {
    /// New ones, and those that say something else than before.
    pub containers: Vec<RuntimeContainer>,
    /// Not there any more.
    pub gone: Vec<String>,
    /// Of those wanted, all that are there and run.
    pub known: HashSet<String>,
    /// Containers that there was no room for.
    pub left_out: usize,
    /// The stores, if they are others than before.
    pub stores: Option<FilesConfig>,
    /// The first thing that went wrong with a store. What is wrong with one container's file is logged.
    pub problem: Option<String>,
}

/// A container that was looked for.
enum Answer {
    Absent,
    Same,
    Is(Box<Found>),
}

impl Reader {
    pub fn new(config: &FilesConfig) -> Self {
        Self {
            lists: lists(config),
            config: config.clone(),
            found: HashMap::new(),
        }
    }

    /// Looks for those wanted, and with `all` again for those found before, and for stores.
    pub fn look(&mut self, wanted: Vec<String>, all: bool) -> Looked {
        let mut looked = Looked::default();
        if all {
            looked.stores = self.find_stores();
        }
        self.refresh(&mut looked, all);
        let is_wanted: HashSet<String> = wanted.into_iter().collect();
        let again: Vec<String> = self.found.keys().filter(|_| all).cloned().collect();
        let again = again.into_iter().filter(|id| !is_wanted.contains(id));
        let ids: Vec<String> = again.chain(is_wanted.iter().cloned()).collect();
        for id in ids {
            let answer = match self.answer(&id) {
                Ok(answer) => answer,
                Err(error) => {
                    log::debug!("no name from the files of container {id}: {error}");
                    continue;
                }
            };
            let mut is_present = !matches!(answer, Answer::Absent);
            match answer {
                // Whoever wants it does not know it.
                Answer::Same if is_wanted.contains(&id) => {
                    let found = self.found.get(&id);
                    looked
                        .containers
                        .extend(found.map(|found| found.container.clone()));
                }
                Answer::Same => {}
                Answer::Absent => {
                    if self.found.remove(&id).is_some() {
                        looked.gone.push(id.clone());
                    }
                }
                Answer::Is(found) => {
                    if self.found.len() >= MOST_CONTAINERS && !self.found.contains_key(&id) {
                        looked.left_out += 1;
                        continue;
                    }
                    looked.containers.push(found.container.clone());
                    self.found.insert(id.clone(), *found);
                }
            }
            // It may start now: that is written later.
            is_present &= self
                .found
                .get(&id)
                .is_none_or(|found| found.container.container.runs != Some(false));
            if is_present && is_wanted.contains(&id) {
                looked.known.insert(id);
            }
        }
        looked
    }

    fn find_stores(&mut self) -> Option<FilesConfig> {
        let config = self.config.again();
        if config == self.config {
            return None;
        }
        self.lists = lists(&config);
        self.config = config.clone();
        Some(config)
    }

    fn refresh(&mut self, looked: &mut Looked, all: bool) {
        if all {
            for data_root in &self.config.docker {
                let containers = data_root.join("containers");
                let seen = self.config.root.check_directory(&containers);
                looked.problem = looked.problem.take().or_else(|| seen.err().map(words));
            }
        }
        for list in &mut self.lists {
            match list.refresh(&self.config.root) {
                Ok(left_out) => looked.left_out += left_out,
                Err(error) => {
                    looked.problem.get_or_insert(words(error));
                }
            }
        }
    }

    fn answer(&self, id: &str) -> Result<Answer, FileError> {
        let former = self.found.get(id);
        let mut problem = None;
        for data_root in &self.config.docker {
            let known = former.and_then(|former| former.stamp);
            match docker::look(&self.config.root, data_root, id, known) {
                Ok(None) => {}
                Ok(Some((_, None))) => return Ok(Answer::Same),
                Ok(Some((stamp, Some(container)))) => {
                    return Ok(Answer::Is(Box::new(Found {
                        container,
                        stamp: Some(stamp),
                    })));
                }
                // Another store may have it.
                Err(error) => {
                    problem.get_or_insert(error);
                }
            }
        }
        let Some(listed) = self.lists.iter().find_map(|list| list.get(id)) else {
            return problem.map_or(Ok(Answer::Absent), Err);
        };
        if former.is_some_and(|former| former.container == *listed) {
            return Ok(Answer::Same);
        }
        Ok(Answer::Is(Box::new(Found {
            container: listed.clone(),
            stamp: None,
        })))
    }
}

fn lists(config: &FilesConfig) -> Vec<List> {
    let roots = config.storage.iter();
    roots.flat_map(|root| List::all(root)).collect()
}

fn words(error: FileError) -> String {
    let denied = matches!(&error, FileError::Io { cause, .. }
        if cause.kind() == std::io::ErrorKind::PermissionDenied);
    let remedy = if denied {
        "\n  memtrace must be allowed to read files of others: CAP_DAC_READ_SEARCH, in a container \
         CAP_SYS_PTRACE too"
    } else {
        ""
    };
    format!("{error}{remedy}")
}
