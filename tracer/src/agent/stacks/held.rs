//! What was found last of a watched cgroup, and what of it still holds.
//!
//! Owns whose call paths are told: those of programs that still run, or, for an incident, those of its victims
//! as they were before. Must not sample.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Instant, SystemTime},
};

use jiff::Timestamp;

use crate::{
    export::profile::json,
    host::ProcRoot,
    incident::record::Victim,
    stacks::{profile::Profile, told::StackRecord},
};

use super::{Found, MOST_TOLD};

/// A profile and when it came.
pub struct Held {
    pub at: Instant,
    /// Its functions have names.
    pub named: bool,
    pub profile: Arc<Profile>,
    /// Its first suspects.
    top: Vec<StackRecord>,
}

impl Held {
    pub fn new(found: Found) -> Self {
        Self {
            at: Instant::now(),
            named: found.named,
            profile: found.profile,
            top: found.top,
        }
    }

    /// Without what has ended, or has become another program, since; `None` if nothing is left.
    pub fn running(&self, proc: &ProcRoot) -> Option<Arc<Profile>> {
        let programs = self.profile.programs.iter();
        let ended: HashSet<u32> = programs
            .filter(|program| !proc.is_running(program))
            .map(|program| program.pid)
            .collect();
        match ended.is_empty() {
            true => Some(Arc::clone(&self.profile)),
            false => self.only(|pid| !ended.contains(&pid)).map(Arc::new),
        }
    }

    /// The first suspects of what still runs.
    pub fn top_running(&self, proc: &ProcRoot) -> Vec<StackRecord> {
        match self.running(proc) {
            Some(profile) if Arc::ptr_eq(&profile, &self.profile) => self.top.clone(),
            Some(profile) => json::top(&profile, MOST_TOLD),
            None => Vec::new(),
        }
    }

    /// The first suspects of what these processes had, whether they still run or not.
    pub fn top_of(&self, victims: &[Victim]) -> Vec<StackRecord> {
        // A process that began later has only the PID of one that was looked at.
        let was_there = |started: Timestamp| SystemTime::from(started) <= self.profile.until;
        let pids: HashSet<u32> = victims
            .iter()
            .filter(|victim| victim.started.is_none_or(was_there))
            .filter_map(|victim| victim.pid)
            .collect();
        let profile = self.only(|pid| pids.contains(&pid));
        profile.map_or_else(Vec::new, |profile| json::top(&profile, MOST_TOLD))
    }

    fn only(&self, wanted: impl Fn(u32) -> bool) -> Option<Profile> {
        let whole = &self.profile;
        let stacks = whole.stacks.iter().filter(|stack| wanted(stack.pid));
        let stacks: Vec<_> = stacks.cloned().collect();
        let programs = whole.programs.iter().filter(|it| wanted(it.pid));
        (!stacks.is_empty()).then(|| Profile {
            scope: whole.scope.clone(),
            programs: programs.copied().collect(),
            // Known of all together only.
            anon_bytes: whole
                .anon_bytes
                .filter(|_| stacks.len() == whole.stacks.len()),
            stacks,
            ..**whole
        })
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::{super::Subject, *};
    use crate::{
        export::profile::fixture,
        host::process::Program,
        incident::{Incident, record::Victim},
    };

    /// A process that waits until it is killed.
    fn waiting() -> Child {
        let mut command = Command::new("sleep");
        command.arg("600").stdin(Stdio::null()).spawn().unwrap()
    }

    fn held(pids: &[u32]) -> (Held, ProcRoot) {
        let proc = ProcRoot::default();
        let stacks = pids.iter().map(|pid| fixture::stack(*pid, &["leak"], 1e6));
        let mut profile = fixture::profile(stacks.collect());
        let program = |pid: &u32| proc.program_of(*pid).unwrap().0;
        profile.programs = pids.iter().map(program).collect();
        (
            Held::new(Found::new(Subject::Cgroup(1), true, profile)),
            proc,
        )
    }

    fn pids(top: &[StackRecord]) -> Vec<u32> {
        let mut pids: Vec<u32> = top.iter().map(|stack| stack.process.pid).collect();
        pids.sort_unstable();
        pids
    }

    fn victim(pid: u32, started: Option<SystemTime>) -> Victim {
        let text = include_str!("../../incident/fixtures/cgroup_oom.json");
        let incident: Incident = serde_json::from_str(text).unwrap();
        let mut victim = incident.victims.into_iter().next().unwrap();
        victim.pid = Some(pid);
        victim.started = started.map(|at| Timestamp::try_from(at).unwrap());
        victim
    }

    #[test]
    fn call_paths_of_a_process_that_has_ended_are_not_told_any_more() {
        let own = std::process::id();
        let mut other = waiting();
        let (held, proc) = held(&[own, other.id()]);
        let mut both = vec![own, other.id()];
        both.sort_unstable();
        assert_eq!(pids(&held.top_running(&proc)), both);
        assert!(held.running(&proc).unwrap().anon_bytes.is_some());

        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(pids(&held.top_running(&proc)), [own]);
        let profile = held.running(&proc).unwrap();
        assert_eq!((profile.stacks.len(), profile.programs.len()), (1, 1));
        assert_eq!(profile.anon_bytes, None, "that was of both");
        assert_eq!(profile.scope, held.profile.scope);
    }

    #[test]
    fn a_process_that_has_the_pid_of_another_is_not_taken_for_it() {
        let (mut held, proc) = held(&[std::process::id()]);
        let mut profile = Profile::clone(&held.profile);
        let Program { start_ticks, .. } = profile.programs[0];
        profile.programs[0].start_ticks = start_ticks.map(|ticks| ticks - 1);
        held.profile = Arc::new(profile);
        assert!(held.running(&proc).is_none());
        assert!(held.top_running(&proc).is_empty());
    }

    #[test]
    fn an_incident_is_told_what_its_victims_had_before() {
        let mut victims = [waiting(), waiting()];
        let ids = [victims[0].id(), victims[1].id()];
        let (held, proc) = held(&ids);
        for victim in &mut victims {
            victim.kill().unwrap();
            victim.wait().unwrap();
        }
        assert!(held.top_running(&proc).is_empty());
        assert_eq!(pids(&held.top_of(&[victim(ids[0], None)])), [ids[0]]);
        let until = held.profile.until;
        let before = victim(ids[1], Some(held.profile.from));
        assert_eq!(pids(&held.top_of(&[before])), [ids[1]]);
        let later = until + std::time::Duration::from_secs(1);
        assert!(held.top_of(&[victim(ids[1], Some(later))]).is_empty());
        assert!(held.top_of(&[victim(std::process::id(), None)]).is_empty());
    }
}
