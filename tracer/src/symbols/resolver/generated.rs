//! Places of generated code: names that hold for one state of a process's perf map.

use std::sync::Arc;

use super::{MOST_SUBJECTS, Symbols, shown};
use crate::{
    host::{HostError, ProcRoot},
    symbols::{
        cache::{CachedFrame, Key, Named},
        wire::{MOST_PLACES, PerfMapState, ProcessReply, ProcessRequest, Reply, Request},
        worker_process::NoAnswer,
    },
};

#[derive(Debug, Clone, Copy)]
pub(super) struct ProcessState {
    start_ticks: u64,
    number: u64,
    state: PerfMapState,
    given_up: bool,
}

impl Symbols {
    pub(super) fn name_generated(
        &mut self,
        pid: u32,
        addresses: &[u64],
    ) -> impl Iterator<Item = (u64, Named)> + use<> {
        let mut found: Vec<(u64, Named)> = Vec::new();
        let state = self.process_state(pid);
        for batch in addresses.chunks(MOST_PLACES) {
            let cached = self.cached_generated(state, batch);
            // What is gone cannot be asked, and it keeps its names.
            let reply = match state {
                Some((state, true)) if !state.given_up => {
                    let known = (cached.len() == batch.len()).then_some(state.state);
                    self.ask_process(pid, batch, known)
                }
                _ => None,
            };
            match reply {
                Some(ProcessReply {
                    places: Some(places),
                    state,
                    ..
                }) => {
                    let number = self.renew(pid, state);
                    for (&address, place) in batch.iter().zip(places) {
                        let frame = CachedFrame {
                            function: place.name.as_deref().map(shown),
                            source: None,
                        };
                        let named = Named {
                            frames: Arc::new([frame]),
                            region: Some(place.region),
                        };
                        if let Some(names) = number {
                            self.cache
                                .insert(Key::Generated { names, address }, named.clone());
                        }
                        found.push((address, named));
                    }
                }
                _ => found.extend(cached),
            }
        }
        found.into_iter()
    }

    fn cached_generated(
        &mut self,
        state: Option<(ProcessState, bool)>,
        addresses: &[u64],
    ) -> Vec<(u64, Named)> {
        let Some((ProcessState { number: names, .. }, _)) = state else {
            return Vec::new();
        };
        let cached = |&address: &u64| {
            let named = self.cache.get(&Key::Generated { names, address })?;
            Some((address, named))
        };
        addresses.iter().filter_map(cached).collect()
    }

    fn ask_process(
        &mut self,
        pid: u32,
        addresses: &[u64],
        known: Option<PerfMapState>,
    ) -> Option<ProcessReply> {
        let request = Request::Process(ProcessRequest {
            pid,
            addresses: addresses.to_vec(),
            known,
        });
        let error = match self.workers.ask(&request, None) {
            Ok(Reply::Process(reply)) => {
                self.losses.rejected_perf_maps += reply.rejected_perf_maps;
                return Some(reply);
            }
            Ok(Reply::Module(_)) => {
                self.workers.end();
                None
            }
            Err(error) => Some(error),
        };
        match error {
            Some(NoAnswer::Start(_)) => {
                self.losses.worker_start_failures += 1;
                return None;
            }
            Some(NoAnswer::Killed) => {
                self.losses.worker_deaths += 1;
                return None;
            }
            Some(NoAnswer::TimedOut) => self.losses.worker_timeouts += 1,
            Some(NoAnswer::Died { .. }) | None => self.losses.worker_deaths += 1,
        }
        self.losses.processes_given_up += 1;
        if let Some(state) = self.processes.get_mut(&pid) {
            state.given_up = true;
        }
        None
    }

    /// The state of a process, and whether it lives; `None` if nothing was known of it and it is
    /// gone.
    fn process_state(&mut self, pid: u32) -> Option<(ProcessState, bool)> {
        let known = self.processes.get(&pid).copied();
        let reading = ProcRoot::default().process(pid, &mut Vec::new());
        let start_ticks = match reading {
            Ok(reading) => reading.start_ticks?,
            Err(HostError::Gone { .. }) => return known.map(|known| (known, false)),
            Err(_) => return None,
        };
        if let Some(known) = known.filter(|known| known.start_ticks == start_ticks) {
            return Some((known, true));
        }
        if self.processes.len() >= MOST_SUBJECTS {
            self.processes.clear();
        }
        self.last_number += 1;
        let state = ProcessState {
            start_ticks,
            number: self.last_number,
            state: PerfMapState::Absent,
            given_up: false,
        };
        self.processes.insert(pid, state);
        Some((state, true))
    }

    /// The number of names of this state, another one than that of the state before.
    fn renew(&mut self, pid: u32, state: PerfMapState) -> Option<u64> {
        let process = self.processes.get_mut(&pid)?;
        if process.state != state {
            self.last_number += 1;
            process.number = self.last_number;
            process.state = state;
        }
        Some(process.number)
    }
}
