//! Places of files: what makes a file the same file, and how much of it is read.

use std::{
    fs::File,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
};

use super::{MOST_CHARS, MOST_SUBJECTS, Symbols, shown, without_deleted};
use crate::{
    host::escape,
    stacks::code::{Module, ModuleId},
    symbols::{
        cache::{CachedFrame, Key, Named},
        wire::{MOST_PLACES, ModuleReply, ModuleRequest, Reply, Request, WireFrame},
        worker_process::NoAnswer,
    },
};

/// A file is not to blame for a worker that the kernel kills for want of memory; for so many it is.
const MOST_KILLS: u8 = 3;

/// What makes two files the same for the cache.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum FileIdentity {
    /// Not the build-id alone: `strip` and `patchelf` leave it as it is, and anyone can write one.
    Build {
        build_id: Vec<u8>,
        length: u64,
        modified: (i64, i64),
    },
    Module(ModuleId),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct ModuleState {
    number: u64,
    detail: Detail,
    changed: bool,
    /// Workers that somebody killed while they read it.
    kills: u8,
}

/// How much of a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detail {
    Full,
    SymbolTables,
    Nothing,
}

impl Symbols {
    pub(super) fn name_file(
        &mut self,
        module: &Module,
        offsets: &[u64],
    ) -> impl Iterator<Item = (u64, Named)> + use<> {
        let mut found = Vec::with_capacity(offsets.len());
        if let Some(file) = module.file.as_deref()
            && let Some(identity) = identity(module, file)
        {
            let number = self.module_state(&identity).number;
            let key = |offset| Key::File {
                module: number,
                offset,
            };
            let mut missing = Vec::new();
            for &offset in offsets {
                match self.cache.get(&key(offset)) {
                    Some(named) => found.push((offset, named)),
                    None => missing.push(offset),
                }
            }
            let mut rest = missing.as_slice();
            while !rest.is_empty() {
                let batch = rest.get(..MOST_PLACES).unwrap_or(rest);
                let Some(reply) = self.ask_module(module, file, &identity, batch) else {
                    break;
                };
                for (&offset, frames) in batch.iter().zip(&reply.places) {
                    let named = Named {
                        frames: frames.iter().map(cached).collect(),
                        region: None,
                    };
                    self.cache.insert(key(offset), named.clone());
                    found.push((offset, named));
                }
                rest = rest.get(reply.places.len()..).unwrap_or_default();
            }
        }
        found.into_iter()
    }

    fn ask_module(
        &mut self,
        module: &Module,
        file: &File,
        identity: &FileIdentity,
        offsets: &[u64],
    ) -> Option<ModuleReply> {
        let mut retried = false;
        loop {
            let state = self.module_state(identity);
            if state.detail == Detail::Nothing {
                return None;
            }
            let request = Request::Module(ModuleRequest {
                key: state.number,
                path: without_deleted(&module.path).to_owned(),
                build_id: module.build_id.clone(),
                pid: module.pid,
                debug_information: state.detail == Detail::Full,
                offsets: offsets.to_vec(),
            });
            match self.workers.ask(&request, Some(file.as_fd())) {
                Ok(Reply::Module(reply)) if (1..=offsets.len()).contains(&reply.places.len()) => {
                    self.account(identity, &reply);
                    return Some(reply);
                }
                // It does not keep to the protocol.
                Ok(_) => {
                    self.workers.end();
                    self.losses.worker_deaths += 1;
                    self.lower(identity);
                }
                Err(NoAnswer::Start(error)) => {
                    log::debug!("symbolization worker: {error}");
                    self.losses.worker_start_failures += 1;
                    return None;
                }
                Err(NoAnswer::Killed) => {
                    self.losses.worker_deaths += 1;
                    if self.excuse(identity) {
                        return None;
                    }
                    self.lower(identity);
                }
                // What it read before may be what was too much.
                Err(NoAnswer::Died { fresh: false, .. }) if !retried => {
                    self.losses.worker_deaths += 1;
                    retried = true;
                }
                Err(error) => {
                    log::debug!(
                        "{}: {error}",
                        escape::display(module.path.as_bytes(), MOST_CHARS)
                    );
                    match error {
                        NoAnswer::TimedOut => self.losses.worker_timeouts += 1,
                        _ => self.losses.worker_deaths += 1,
                    }
                    self.lower(identity);
                }
            }
        }
    }

    fn account(&mut self, identity: &FileIdentity, reply: &ModuleReply) {
        self.losses.rejected_debug_files += reply.rejected_debug_files;
        self.losses.frames_over_budget += reply.frames_over_budget;
        if let Some(state) = self.modules.get_mut(identity)
            && reply.changed
            && !state.changed
        {
            state.changed = true;
            self.losses.changed_modules += 1;
        }
        if reply.full {
            self.workers.end();
        }
    }

    /// Whether the file may be read by another worker, later.
    fn excuse(&mut self, identity: &FileIdentity) -> bool {
        self.modules.get_mut(identity).is_some_and(|state| {
            state.kills = (state.kills + 1) % MOST_KILLS;
            state.kills != 0
        })
    }

    fn lower(&mut self, identity: &FileIdentity) {
        let Some(state) = self.modules.get_mut(identity) else {
            return;
        };
        state.detail = match state.detail {
            Detail::Full => {
                self.losses.modules_without_debug_information += 1;
                Detail::SymbolTables
            }
            Detail::SymbolTables | Detail::Nothing => {
                self.losses.modules_given_up += 1;
                Detail::Nothing
            }
        };
    }

    fn module_state(&mut self, identity: &FileIdentity) -> ModuleState {
        if let Some(state) = self.modules.get(identity) {
            return *state;
        }
        if self.modules.len() >= MOST_SUBJECTS {
            self.modules.clear();
        }
        self.last_number += 1;
        let state = ModuleState {
            number: self.last_number,
            detail: Detail::Full,
            changed: false,
            kills: 0,
        };
        self.modules.insert(identity.clone(), state);
        state
    }
}

fn identity(module: &Module, file: &File) -> Option<FileIdentity> {
    let Some(build_id) = &module.build_id else {
        return Some(FileIdentity::Module(module.id));
    };
    let metadata = file.metadata().ok()?;
    Some(FileIdentity::Build {
        build_id: build_id.clone(),
        length: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    })
}

fn cached(frame: &WireFrame) -> CachedFrame {
    let source = frame.source.as_ref();
    CachedFrame {
        function: frame.function.as_deref().map(shown),
        source: source.map(|(file, line)| (shown(file), *line)),
    }
}
