//! What the analysis says: the verdict, its figures and its evidence. Types only.

use serde::{Deserialize, Serialize};

/// The state of one cgroup or of one of its signals, from harmless to certain.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Too little was seen to judge.
    #[default]
    Unknown,
    /// No growth that matters.
    Healthy,
    /// Young, or growing along a curve that flattens.
    Warming,
    /// Was suspected or confirmed, and came down.
    Reclaimed,
    /// A significant trend that does not (yet) look like a leak.
    Growing,
    /// Looks like a leak; being verified.
    Suspected,
    /// A leak: the growth went on as predicted.
    Confirmed,
}

impl State {
    /// The name in lines, attributes and options.
    pub fn name(self) -> &'static str {
        match self {
            State::Unknown => "unknown",
            State::Healthy => "healthy",
            State::Warming => "warming",
            State::Reclaimed => "reclaimed",
            State::Growing => "growing",
            State::Suspected => "suspected",
            State::Confirmed => "confirmed",
        }
    }

    /// Whether an operator is to be told: suspected or confirmed.
    pub fn is_leak(self) -> bool {
        matches!(self, State::Suspected | State::Confirmed)
    }
}

/// The memory that is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// Anonymous memory, what was swapped out included.
    Anon,
    /// tmpfs and shared memory.
    Shmem,
    /// Kernel memory: slab, page tables, sockets.
    Kernel,
    /// Page cache less shmem. The kernel takes it back, so that it is never above `growing`.
    File,
    /// Working set, judged where anon is not known.
    WorkingSet,
    /// Usage, judged where neither anon nor working set is known.
    Usage,
}

impl Signal {
    /// The name in lines, attributes and options.
    pub fn name(self) -> &'static str {
        match self {
            Signal::Anon => "anon",
            Signal::Shmem => "shmem",
            Signal::Kernel => "kernel",
            Signal::File => "file",
            Signal::WorkingSet => "working_set",
            Signal::Usage => "usage",
        }
    }
}

/// An estimate with its interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Lower end of the interval.
    pub low: f64,
    /// The estimate.
    pub mid: f64,
    /// Upper end of the interval; `None` is unbounded.
    pub high: Option<f64>,
}

/// Since when it grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Since {
    /// Time on the clock of the samples, in milliseconds.
    pub time_ms: i64,
    /// Half width of the interval around it, in milliseconds.
    pub uncertainty_ms: i64,
}

/// When the growth reaches the limit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TimeToLimit {
    /// Seconds from the time of the verdict, with interval.
    pub seconds: Estimate,
    /// The limit that is reached.
    pub limit_bytes: u64,
}

/// How near unreclaimable memory is to the limit, growing or not.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct NearLimit {
    /// Whether the signal is on (with hysteresis).
    pub near: bool,
    /// Unreclaimable memory (anon, kernel, shmem) over the limit.
    pub ratio: f64,
    /// Unreclaimable memory in bytes.
    pub unreclaimable_bytes: u64,
    /// The limit.
    pub limit_bytes: u64,
    /// Whether stalls or reclaim bear it out; `None` where neither is known.
    pub pressure: Option<bool>,
    /// Since when it is on.
    pub since_ms: Option<i64>,
}

/// The statistics of the window that the verdict rests on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Which ring: 0 (finest) to 3.
    pub ring: u8,
    /// Length of the window in seconds.
    pub window_seconds: f64,
    /// Blocks with data in the window.
    pub blocks: u8,
    /// Mann–Kendall Z, its variance inflated by autocorrelation.
    pub mann_kendall_z: f64,
    /// Lag-1 correlation of the residuals.
    pub autocorrelation: f64,
    /// R² of a line through the floors.
    pub r_squared: f64,
    /// Growth of the floor along the fitted line in the window.
    pub floor_growth_bytes: f64,
    /// Floor at the end of the window.
    pub floor_bytes: f64,
    /// Robust standard deviation of the floors around the line.
    pub residual_bytes: f64,
    /// Largest distance of maximum and floor in a block: garbage collection, bursts.
    pub swing_bytes: f64,
    /// Headroom above floor, swing and other unreclaimable memory; `None` without a limit.
    pub headroom_bytes: Option<f64>,
    /// Earlier epochs in a row that ended growing.
    pub epochs_growing: u8,
}

/// A harmless explanation of growth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Explanation {
    /// Noise: value is growth over residual deviation.
    Noise,
    /// Too little to matter before the limit: value is growth × κ over headroom.
    Insignificant,
    /// It slows down: value is slope of the last half over the first half, or of the window over the
    /// time before it.
    Slowing,
    /// It saturates (warm-up, cache): value is squared error of a line over the best flattening curve.
    Saturating,
    /// The level was there before (daily cycle, refilled cache): value is the excess over the earlier
    /// peak, as a share of what is asked.
    EarlierPeak,
    /// Load grew as much: value is relative load growth over relative memory growth.
    Load,
    /// It never was calm, so that a slow fill to a cap is possible: value is all its growth × κ over
    /// headroom. Bars a confirmation, not a suspicion.
    FillingCache,
    /// Not yet verified: value is the share of the verification that is done, of its time or of the growth
    /// that it asks for. Bars a confirmation, not a suspicion.
    Unverified,
}

impl Explanation {
    /// The name in lines.
    pub fn name(self) -> &'static str {
        match self {
            Explanation::Noise => "noise",
            Explanation::Insignificant => "insignificant",
            Explanation::Slowing => "slowing",
            Explanation::Saturating => "saturating",
            Explanation::EarlierPeak => "earlier_peak",
            Explanation::Load => "load",
            Explanation::FillingCache => "filling_cache",
            Explanation::Unverified => "unverified",
        }
    }
}

/// One explanation that was weighed, and how it came out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Considered {
    /// What was weighed.
    pub explanation: Explanation,
    /// Whether it holds (then it is why the state is not yet, or soon no longer, worse) or was rejected.
    pub holds: bool,
    /// The figure, as the explanation says.
    pub value: f64,
    /// The threshold it was held against.
    pub threshold: f64,
}

/// The verdict on a cgroup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Verdict {
    /// The worst state of its signals.
    pub state: State,
    /// Since when this state holds, on the clock of the samples.
    pub state_since_ms: i64,
    /// The signal it rests on; `None` while unknown.
    pub signal: Option<Signal>,
    /// Growth in bytes an hour; absent without a trend. Of a leak it lies above zero with its interval, and is
    /// absent while the verdict is held over a pause in which none does.
    pub rate_bytes_per_hour: Option<Estimate>,
    /// Since when it grows; absent without a trend.
    pub since: Option<Since>,
    /// When it reaches the limit; absent without a trend or a limit.
    pub time_to_limit: Option<TimeToLimit>,
    /// Nearness to the limit; absent without a limit.
    pub near_limit: Option<NearLimit>,
    /// What it rests on; absent without a trend.
    pub evidence: Option<Evidence>,
    /// What else was weighed: what holds explains why the state is no worse, or will not last; what does
    /// not hold was rejected.
    pub considered: Vec<Considered>,
}

impl Verdict {
    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.considered.capacity() * size_of::<Considered>()
    }
}

/// A change of the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Time of the sample that made it.
    pub time_ms: i64,
    /// The states before and after, where the state changed.
    pub state: Option<StateChange>,
    /// Whether the limit is near now, where that changed.
    pub near_limit: Option<bool>,
}

/// From one state to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateChange {
    /// The state before.
    pub from: State,
    /// The state now.
    pub to: State,
}
