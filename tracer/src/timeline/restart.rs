//! Histories across restarts of the agent: what an earlier one kept, and for how long nothing was seen.

use serde::Serialize;

use crate::{api::records::MarkKind, export::console::duration, growth::Moment};

use super::{
    KeptMark, Timelines,
    kept::{self, Kept, Restoring, Shared},
    marks::Marks,
};

/// Marks of memtrace's own beginnings and ends.
const MOST_AGENT_MARKS: usize = 16;
/// Beyond is no number of an interval that ever was.
const LAST_TICK: i64 = 1 << 53;

/// What was read of an earlier agent.
#[derive(Debug, Clone, Copy)]
pub struct Before {
    /// Since it wrote last; `None`: its clock was ahead.
    absent_ms: Option<i64>,
    same_boot: bool,
}

impl Timelines {
    /// Tells the layout of what is kept from any other.
    pub fn layout() -> impl Serialize {
        kept::layout()
    }

    /// Takes in what an earlier agent kept. `same_boot`: ids of cgroups are those of this boot.
    pub fn restore(&mut self, shared: Shared, kept: Vec<Kept>, same_boot: bool, now: Moment) {
        // A clock that was set back: what it wrote ends now.
        let shift_ms = shared.written_ms.saturating_sub(now.sample_ms).max(0);
        let absent_ms = (shift_ms == 0).then(|| now.sample_ms.saturating_sub(shared.written_ms));
        if self
            .before
            .is_none_or(|before| same_boot && !before.same_boot || absent_ms < before.absent_ms)
        {
            self.before = Some(Before {
                absent_ms,
                same_boot,
            });
        }
        let agents = shared.agents.restored(shift_ms, now.sample_ms);
        let time_ms = |marks: &Marks| marks.last().map(|mark| mark.time_ms);
        if time_ms(&agents) > time_ms(&self.agents) {
            self.agents = agents;
            self.agents.shrink_to(MOST_AGENT_MARKS);
        }
        let same_interval = shared.interval_ms == self.interval_ms;
        for (tick, time_ms) in shared.ticks {
            let time_ms = time_ms.saturating_sub(shift_ms);
            if same_interval && (0..LAST_TICK).contains(&tick) && time_ms <= now.sample_ms {
                self.ticks.put(tick, time_ms);
            }
        }
        let how = Restoring {
            now,
            same_boot,
            shift_ms,
            latest_tick: self.ticks.latest().filter(|_| same_interval),
        };
        for kept in kept {
            if self.gone.len() < self.most {
                self.gone.put(Box::new(kept.restore(&how)));
            } else {
                self.gone.forgotten += 1;
            }
        }
        self.now = now;
    }

    /// This agent begins: says for how long nothing was seen, where there was one before.
    pub fn began(&mut self, now: Moment) {
        self.now = now;
        let Some(before) = self.before else {
            return;
        };
        let mut text = "memtrace started again".to_owned();
        if !before.same_boot {
            text += " after a start of the host";
        }
        if self.agents.last().map(|mark| mark.kind) != Some(MarkKind::AgentStopped) {
            text += ", without having ended in order";
        }
        if let Some(absent_ms) = before.absent_ms {
            let absent = duration::rough(absent_ms as f64 / 1000.0);
            text += &format!("; nothing was seen for {absent}");
        }
        self.mark_agent(MarkKind::AgentStarted, &text, now);
    }

    /// This agent ends in order.
    pub fn stopped(&mut self, now: Moment) {
        self.mark_agent(MarkKind::AgentStopped, "memtrace stopped", now);
    }

    pub(super) fn mark_agent(&mut self, kind: MarkKind, text: &str, now: Moment) {
        self.agents.put(KeptMark::new(now.sample_ms, kind, text));
        self.agents.shrink_to(MOST_AGENT_MARKS);
    }

    /// What to keep of all together.
    pub fn shared(&self, now: Moment) -> Shared {
        Shared {
            written_ms: now.sample_ms,
            interval_ms: self.interval_ms,
            ticks: self.ticks.iter().collect(),
            agents: self.agents.clone(),
        }
    }

    /// What to keep of those whose path `wanted` takes.
    pub fn kept(&self, wanted: impl Fn(&str) -> bool) -> impl Iterator<Item = Kept> {
        self.all()
            .filter(move |history| wanted(&history.cgroup))
            .map(Kept::of)
    }
}
