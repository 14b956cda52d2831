//! Commands that the operator wants run at events: `[[on_event]]` of the configuration file.
//!
//! Owns which rule runs for which event and how often, how commands are run, and what is told of it.
//! Nothing here waits for a command. Must not read the model, nor the file.
//!
//! - `rule`: which events, which command.
//! - `facts`: what a command is told of an event.
//! - `pace`: how often a rule runs for one container.
//! - `refusals`: how often it is told that a command was not run.
//! - `pool`: the threads that run commands.
//! - `process`: one run.

pub mod facts;
mod pace;
mod pool;
mod process;
mod refusals;
pub mod rule;
#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::host::escape;

pub use facts::Facts;
use pace::{Pace, Turn};
use pool::{Done, Job, Pool, Refused};
use process::{End, Invocation};
use refusals::{Refusals, Untold};
pub use rule::{Argument, Rule, Run, Trigger};

/// Characters of output in an outcome.
const MOST_OUTPUT_CHARS: usize = 4096;

/// What became of a command, for the log and for the history of the cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub cgroup_id: Option<u64>,
    /// One sentence.
    pub text: String,
    /// The last of its output, escaped; empty without any.
    pub output: String,
    /// It ran and ended with 0.
    pub good: bool,
    /// To be told one by one; others are told as a number.
    pub is_news: bool,
}

/// The rules and what runs by them.
#[derive(Debug, Default)]
pub struct Actions {
    rules: Arc<[Rule]>,
    pace: Pace,
    pool: Pool,
    refusals: Refusals,
    rate_limited: u64,
    queue_full: u64,
}

impl Actions {
    pub fn new(rules: Vec<Rule>) -> Self {
        Self {
            rules: rules.into(),
            ..Self::default()
        }
    }

    /// Takes other rules; what runs goes on, and a rule of the same name keeps its pace.
    pub fn set_rules(&mut self, rules: Vec<Rule>) {
        self.rules = rules.into();
    }

    /// Whether no event runs anything.
    pub fn is_off(&self) -> bool {
        self.rules.is_empty()
    }

    /// Acts on an event; gives what was not run and why.
    pub fn act(&mut self, facts: &Facts, now: Instant) -> Vec<Outcome> {
        let rules = Arc::clone(&self.rules);
        let matching = rules.iter().filter(|rule| rule.matches(facts));
        matching
            .filter_map(|rule| self.start(rule, facts, now))
            .collect()
    }

    fn start(&mut self, rule: &Rule, facts: &Facts, now: Instant) -> Option<Outcome> {
        let event = facts.trigger.name();
        let refusals = &mut self.refusals;
        let mut not_run = |why: String, news: bool| Outcome {
            cgroup_id: facts.cgroup_id,
            is_news: refusals.is_told(&rule.name, &why, now, news),
            text: format!("{:?} was not run for {event}: {why}", rule.name),
            output: String::new(),
            good: false,
        };
        let (program, arguments) = match command_line(&rule.run, facts) {
            Ok(command) => command,
            Err(fact) => {
                let why = format!("{{{fact}}} is not known, or begins like an option");
                return Some(not_run(why, true));
            }
        };
        let (interval, container) = (rule.min_interval, &facts.container);
        if let Turn::TooEarly { first } = self.pace.turn(&rule.name, container, interval, now) {
            self.rate_limited += 1;
            let seconds = interval.as_secs_f64();
            let why = format!("it ran less than {seconds} s ago (min_interval)");
            return Some(not_run(why, first)).filter(|_| first);
        }
        let job = Job {
            rule: rule.name.clone(),
            event,
            cgroup_id: facts.cgroup_id,
            invocation: Invocation {
                program,
                arguments,
                environment: facts
                    .environment()
                    .map(|(name, value)| (name, value.to_owned()))
                    .collect(),
                input: Arc::clone(&facts.line),
                timeout: rule.timeout,
            },
        };
        let submitted = self.pool.submit(job);
        if submitted.is_err() {
            self.pace.give_back(&rule.name, container);
        }
        match submitted {
            Ok(()) => None,
            Err(Refused::Full) => {
                self.queue_full += 1;
                Some(not_run("too many commands run and wait".to_owned(), true))
            }
            Err(Refused::NoThread(error)) => {
                self.queue_full += 1;
                Some(not_run(format!("no thread can be started: {error}"), true))
            }
        }
    }

    /// The next command that ended, or how many were not run.
    pub async fn ended(&mut self) -> Outcome {
        loop {
            let due = self.refusals.due();
            tokio::select! {
                done = self.pool.done() => return self.outcome(done),
                () = sleep_until(due) => {
                    if let Some(untold) = self.refusals.take(Instant::now()) {
                        return number(&untold);
                    }
                }
            }
        }
    }

    fn outcome(&mut self, done: Done) -> Outcome {
        let is_news = match &done.ran.end {
            // A program that cannot be started fails at each event.
            End::NotStarted(error) => {
                let why = format!("it could not be started: {error}");
                let now = Instant::now();
                self.refusals.is_told(&done.job.rule, &why, now, true)
            }
            _ => true,
        };
        outcome(done, is_news)
    }

    /// Lets what runs go on for `time`, then ends it.
    pub fn stop(&mut self, time: Duration) -> Vec<Outcome> {
        let ended = self.pool.stop(Instant::now() + time).into_iter();
        let mut told: Vec<Outcome> = ended.map(|done| self.outcome(done)).collect();
        told.extend(self.refusals.rest().iter().map(number));
        told
    }

    /// Events that were not acted on, by cause.
    pub fn losses(&self) -> [(&'static str, u64); 2] {
        [
            ("action_rate_limited", self.rate_limited),
            ("action_queue_full", self.queue_full),
        ]
    }
}

fn command_line(run: &Run, facts: &Facts) -> Result<(String, Vec<String>), &'static str> {
    match run {
        Run::Shell(text) => Ok(("/bin/sh".to_owned(), vec!["-c".to_owned(), text.clone()])),
        Run::Command { program, arguments } => {
            let filled = arguments.iter().map(|argument| argument.fill(facts));
            Ok((program.clone(), filled.collect::<Result<_, _>>()?))
        }
    }
}

/// Never completes without a time.
async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

fn number(untold: &Untold) -> Outcome {
    let Untold { rule, why, count } = untold;
    let events = if *count == 1 { "event" } else { "events" };
    Outcome {
        cgroup_id: None,
        text: format!("{rule:?} was not run for {count} more {events}: {why}"),
        output: String::new(),
        good: false,
        is_news: true,
    }
}

fn outcome(done: Done, is_news: bool) -> Outcome {
    let Done { job, ran } = done;
    let (rule, event, took) = (job.rule, job.event, ran.took.as_secs_f64());
    let text = match &ran.end {
        End::Exited(0) => format!("{rule:?} ran for {event}: done in {took:.1} s"),
        End::Exited(code) => {
            format!("{rule:?} ran for {event}: exit code {code} after {took:.1} s")
        }
        End::Signalled(signal) => {
            format!("{rule:?} ran for {event}: ended by signal {signal} after {took:.1} s")
        }
        End::TimedOut => format!("{rule:?} ran for {event}: timed out and ended after {took:.1} s"),
        End::Stopped => format!("{rule:?} for {event}: ended after {took:.1} s with memtrace"),
        End::NotRun => format!("{rule:?} was not run for {event}: memtrace ends"),
        End::NotStarted(error) => {
            let program = escape::display(job.invocation.program.as_bytes(), 256);
            format!("{rule:?} could not be started for {event}: {program}: {error}")
        }
    };
    Outcome {
        cgroup_id: job.cgroup_id,
        text,
        output: escape::display(ran.output.trim_ascii(), MOST_OUTPUT_CHARS),
        good: ran.end == End::Exited(0),
        is_news,
    }
}
