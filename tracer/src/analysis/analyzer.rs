//! One cgroup's analysis: takes samples, ends minutes and epochs, keeps the verdict.

use super::assess::Scene;
use super::clock::{Clock, Tick};
use super::load::Load;
use super::near_limit::Nearness;
use super::report::{Frame, report};
use super::sample::Sample;
use super::signals::Signals;
use super::thresholds::Thresholds;
use super::verdict::{Change, NearLimit, Signal, State, StateChange, Verdict};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Minutes between reports while nothing changes.
const REPORT_MINUTES: i64 = 6;
/// Time to the limit below which every minute is reported.
const SOON_SECONDS: f64 = 7200.0;

/// The analysis of one cgroup.
#[derive(Debug, Clone)]
pub struct Analyzer {
    thresholds: Arc<Thresholds>,
    kept: Saved,
}

/// What is kept of an analysis across restarts of the agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Saved {
    clock: Clock,
    epoch: Option<u32>,
    signals: Signals,
    load: Load,
    near: Nearness,
    limit: Option<u64>,
    swap: u64,
    verdict: Verdict,
}

impl Analyzer {
    /// An analysis that has seen nothing.
    pub fn new(thresholds: Arc<Thresholds>) -> Self {
        let kept = Saved {
            clock: Clock::default(),
            epoch: None,
            signals: Signals::default(),
            load: Load::new(),
            near: Nearness::default(),
            limit: None,
            swap: 0,
            verdict: Verdict::default(),
        };
        Analyzer { thresholds, kept }
    }

    /// Goes on from what [`Analyzer::saved`] gave. The time in between counts as a gap.
    pub fn restore(thresholds: Arc<Thresholds>, saved: Saved) -> Self {
        Analyzer {
            thresholds,
            kept: saved,
        }
    }

    /// Judges by these from the next sample on. Their time scale must be the same.
    pub fn set_thresholds(&mut self, thresholds: Arc<Thresholds>) {
        self.thresholds = thresholds;
    }

    /// What to keep for [`Analyzer::restore`].
    pub fn saved(&self) -> &Saved {
        &self.kept
    }

    /// Takes a sample; tells of a change of state or of nearness to the limit. A sample that is
    /// older than the one before it is left out, unless by so much that the clock was set back.
    pub fn push(&mut self, sample: &Sample) -> Option<Change> {
        let minute_ms = self.thresholds.minute_ms();
        if let (Some(before), Some(now)) = (self.kept.epoch, sample.epoch)
            && before != now
        {
            self.restarted();
        }
        self.kept.epoch = sample.epoch.or(self.kept.epoch);
        let judged = match self.kept.clock.tick(sample.time_ms, minute_ms) {
            Tick::Old => return None,
            Tick::First => true,
            Tick::Same => self.kept.verdict.state == State::Unknown,
            Tick::Later(minutes) => {
                self.end_minutes(minutes);
                true
            }
            Tick::Lost => {
                self.restarted();
                self.kept.clock.tick(sample.time_ms, minute_ms);
                true
            }
        };
        self.kept.signals.take(sample);
        self.kept.load.take(sample);
        self.kept.limit = sample.limit_bytes.or(self.kept.limit);
        self.kept.swap = sample.swap_bytes.unwrap_or(self.kept.swap);
        let limit = self.limit();
        let near = self
            .kept
            .near
            .take(sample, limit, &self.thresholds, minute_ms);
        let before = self.kept.verdict.state;
        if judged && self.due() {
            self.report(minute_ms);
        }
        self.change(sample.time_ms, before, near)
    }

    /// Ends the epoch: the container restarted, and the next sample is of a new one. The same as a
    /// new `epoch` in the samples.
    pub fn restarted(&mut self) {
        for track in self.kept.signals.iter_mut() {
            track.restarted();
        }
        self.kept.load.restarted();
        self.kept.clock.restart();
    }

    /// Time of the last sample.
    pub fn last_ms(&self) -> i64 {
        self.kept.clock.last_ms()
    }

    /// The verdict as of the last sample.
    pub fn verdict(&self) -> &Verdict {
        &self.kept.verdict
    }

    /// The state of each signal that is judged, the main one first.
    pub fn signals(&self) -> impl Iterator<Item = (Signal, State)> + '_ {
        self.kept
            .signals
            .iter()
            .map(|track| (track.signal, track.judge.state()))
    }

    /// Bytes that this analysis holds, on the heap too.
    pub fn state_bytes(&self) -> usize {
        size_of::<Self>() + self.kept.signals.heap_bytes() + self.kept.verdict.heap_bytes()
    }

    /// The limit that holds, if any does.
    fn limit(&self) -> Option<u64> {
        self.kept
            .limit
            .filter(|limit| (1..u64::MAX).contains(limit))
    }

    /// Ends the open minute and the empty ones up to the sample that came `minutes` after it.
    fn end_minutes(&mut self, minutes: i64) {
        let now = self.kept.clock.minute();
        let first = now - minutes;
        for minute in first..now {
            let kept = minute as f64 >= self.thresholds.start_minutes;
            self.kept.load.end_minute(kept);
            self.end_minute(minute, kept);
        }
    }

    fn end_minute(&mut self, minute: i64, kept: bool) {
        let (limit, swap) = (self.limit(), self.kept.swap);
        let rooms: [Option<(Signal, f64)>; 4] = {
            let mut rooms = self
                .kept
                .signals
                .iter()
                .map(|t| Some((t.signal, self.kept.signals.room(t.signal, limit, swap)?)));
            std::array::from_fn(|_| rooms.next().flatten())
        };
        for track in self.kept.signals.iter_mut() {
            let range = track.end_minute();
            if !kept {
                continue;
            }
            let room = rooms
                .iter()
                .flatten()
                .find(|(signal, _)| *signal == track.signal)
                .map(|(_, room)| *room);
            let scene = Scene {
                thresholds: &self.thresholds,
                load: self.kept.load.rings(),
                minute,
                limit: limit.map(|limit| limit as f64),
                room,
            };
            track.judge.minute(range, &scene);
        }
    }

    /// Whether the verdict is to be written anew: at each change, often near the limit, else now and then.
    fn due(&self) -> bool {
        let verdict = &self.kept.verdict;
        let worst = self.kept.signals.worst().map(|(_, state)| state);
        let soon = verdict
            .time_to_limit
            .is_some_and(|time| time.seconds.mid < SOON_SECONDS);
        worst != Some(verdict.state) || soon || self.kept.clock.minute() % REPORT_MINUTES == 0
    }

    fn report(&mut self, minute_ms: f64) {
        let limit = self.limit();
        let kept = &mut self.kept;
        let swap = kept.swap;
        let frame = Frame {
            thresholds: &self.thresholds,
            clock: &kept.clock,
            minute_ms,
            limit,
            swap,
        };
        let verdict = report(&mut kept.signals, &frame);
        let before = &mut kept.verdict;
        let since = if before.state == verdict.state {
            before.state_since_ms
        } else {
            verdict.state_since_ms
        };
        let near_limit = before.near_limit;
        // The same leak began when it began, also while no window shows it anew.
        let goes_on =
            before.state.is_leak() && verdict.state.is_leak() && before.signal == verdict.signal;
        let began = verdict.since.or(before.since.filter(|_| goes_on));
        *before = Verdict {
            state_since_ms: since,
            since: began,
            near_limit,
            ..verdict
        };
    }

    fn change(&mut self, time_ms: i64, from: State, near: Option<NearLimit>) -> Option<Change> {
        let is_near = |near: Option<NearLimit>| near.is_some_and(|near| near.near);
        let was = is_near(self.kept.verdict.near_limit);
        self.kept.verdict.near_limit = near;
        let near_limit = (was != is_near(near)).then_some(is_near(near));
        let to = self.kept.verdict.state;
        let state = (from != to).then_some(StateChange { from, to });
        (state.is_some() || near_limit.is_some()).then_some(Change {
            time_ms,
            state,
            near_limit,
        })
    }
}
