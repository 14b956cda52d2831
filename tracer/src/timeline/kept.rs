//! What is kept of histories across restarts of the agent, and of the host. A file may be anybody's: what
//! is read back is bounded and escaped again.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{api::records::MarkKind, growth::Moment, host::escape, identity::names::Names};

use super::{
    history::{COARSE, FINE_STEPS, History},
    limits::Limits,
    marks::{KeptMark, Marks},
    ring::{Cell, Ring},
};

/// Longest path and longest name, characters.
const MOST_CHARS: usize = 1024;
/// Longest names of one cgroup, bytes of JSON.
const MOST_NAMES: usize = 32 << 10;

/// What all histories of an agent have in common.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Shared {
    /// When it was written, on the sample clock.
    pub written_ms: i64,
    pub interval_ms: i64,
    /// Number and end of the last intervals.
    pub ticks: Vec<(i64, i64)>,
    /// When memtrace began and ended.
    pub agents: Marks,
}

/// The history of one cgroup.
#[derive(Debug, Serialize, Deserialize)]
pub struct Kept {
    pub cgroup_id: u64,
    id_is_known: bool,
    growth_told: bool,
    cgroup: String,
    /// JSON: names may have more fields next time.
    names: Option<String>,
    container: Option<String>,
    first_seen_ms: i64,
    gone_ms: Option<i64>,
    fine: (i64, Vec<Cell>),
    coarse: [(i64, Vec<Cell>); 3],
    limits: Limits,
    marks: Marks,
}

impl Kept {
    pub fn of(history: &History) -> Self {
        let names = &history.names;
        Self {
            cgroup_id: history.cgroup_id,
            id_is_known: history.id_is_known,
            growth_told: history.growth_told,
            cgroup: history.cgroup.to_string(),
            names: (!names.is_empty())
                .then(|| serde_json::to_string(&**names).ok())
                .flatten(),
            container: history.container.as_deref().map(str::to_owned),
            first_seen_ms: history.first_seen_ms,
            gone_ms: history.gone_ms,
            fine: history.fine.kept(),
            coarse: history.coarse.each_ref().map(Ring::kept),
            limits: history.limits.clone(),
            marks: history.marks.clone(),
        }
    }

    /// The history again, `shift_ms` earlier and not beyond `now`.
    pub fn restore(self, how: &Restoring) -> History {
        let (shift_ms, now_ms) = (how.shift_ms, how.now.sample_ms);
        let earlier = |ms: i64| ms.saturating_sub(shift_ms).min(now_ms);
        let ring = |(newest, cells): &(i64, Vec<Cell>), most, latest: i64| {
            if *newest > latest {
                return Ring::new(most);
            }
            Ring::restore(most, *newest, cells)
        };
        let [minutes, tens, hours] = self.coarse;
        let mut coarse = [minutes, tens, hours].into_iter().zip(COARSE);
        let coarse = std::array::from_fn(|_| {
            let ((newest, cells), (step_ms, most)) = coarse.next().unwrap_or_default();
            let steps = shift_ms.saturating_add(step_ms - 1) / step_ms.max(1);
            let kept = (newest.saturating_sub(steps), cells);
            ring(&kept, most, now_ms.div_euclid(step_ms.max(1)))
        });
        let fine = match how.latest_tick {
            Some(latest) => ring(&self.fine, FINE_STEPS, latest),
            None => Ring::new(FINE_STEPS),
        };
        History {
            cgroup_id: self.cgroup_id,
            id_is_known: self.id_is_known && how.same_boot,
            growth_told: self.growth_told,
            cgroup: escape::again(&self.cgroup, MOST_CHARS).into(),
            names: Arc::new(
                self.names
                    .and_then(|names| read(&names))
                    .unwrap_or_default(),
            ),
            container: self
                .container
                .map(|container| escape::again(&container, MOST_CHARS).into()),
            first_seen_ms: earlier(self.first_seen_ms),
            gone_ms: self.gone_ms.map(earlier),
            fine,
            coarse,
            limits: self.limits.restored(shift_ms),
            marks: self.marks.restored(shift_ms, now_ms),
            former_ids: Vec::new(),
        }
    }
}

/// How histories are read back.
#[derive(Debug, Clone, Copy)]
pub struct Restoring {
    pub now: Moment,
    /// Ids of cgroups are those of this boot.
    pub same_boot: bool,
    /// By how much the clock that wrote was ahead of this one's.
    pub shift_ms: i64,
    /// The last interval; `None`: intervals had another length.
    pub latest_tick: Option<i64>,
}

fn read(json: &str) -> Option<Names> {
    if json.len() > MOST_NAMES {
        return None;
    }
    serde_json::from_value(escaped(serde_json::from_str(json).ok()?)).ok()
}

fn escaped(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(escape::again(&text, MOST_CHARS)),
        Value::Array(values) => values.into_iter().map(escaped).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(key, value)| (escape::again(&key, MOST_CHARS), escaped(value)))
            .collect(),
        other => other,
    }
}

/// A sample of every field, and how the parts are read: another layout has another.
pub fn layout() -> impl Serialize {
    const KINDS: [MarkKind; 12] = [
        MarkKind::Started,
        MarkKind::Gone,
        MarkKind::Restarted,
        MarkKind::GrowthBegan,
        MarkKind::Verdict,
        MarkKind::LimitChanged,
        MarkKind::Stall,
        MarkKind::Oom,
        MarkKind::Report,
        MarkKind::Action,
        MarkKind::AgentStarted,
        MarkKind::AgentStopped,
    ];
    let mut marks = Marks::default();
    for (time_ms, kind) in KINDS.into_iter().enumerate() {
        let mark = KeptMark::new(time_ms as i64, kind, &format!("{kind:?}"));
        marks.put(mark.of_incident("1"));
    }
    let mut limits = Limits::default();
    limits.read(Some(3 << 20), 7);
    let ring = (5, vec![Cell::new(1 << 20, Some(2 << 20))]);
    let kept = Kept {
        cgroup_id: 1,
        id_is_known: true,
        growth_told: false,
        cgroup: "/a".into(),
        names: Some("{}".into()),
        container: Some("b".into()),
        first_seen_ms: 2,
        gone_ms: Some(3),
        fine: ring.clone(),
        coarse: [ring.clone(), ring.clone(), ring],
        limits,
        marks: marks.clone(),
    };
    let shared = Shared {
        written_ms: 1,
        interval_ms: 2,
        ticks: vec![(3, 4)],
        agents: marks,
    };
    ("timelines", FINE_STEPS, COARSE, shared, kept)
}
