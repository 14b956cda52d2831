//! The judgement of one signal: looks at its rings as blocks close and moves between states.

use super::assess::{Figures, Past, Scene, assess, holds_enough, is_full_test};
use super::epochs::{Ending, Epochs};
use super::eta::{self, Rated, Track, track};
use super::onset::{self, Onset};
use super::ring::{BLOCK_MINUTES, RINGS, Ring, ring_minutes};
use super::thresholds::Thresholds;
use super::verdict::State;
use serde::{Deserialize, Serialize};

/// Minutes for which it is told that a leak's memory came back.
const RECLAIMED_MINUTES: i64 = 60;
/// Minutes that memory must stay down to have come back.
const FALLEN_MINUTES: usize = 10;
/// Blocks of a minute before which a container is young.
const YOUNG_BLOCKS: u32 = 12;

/// What a suspicion predicts.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Suspicion {
    minute: i64,
    floor: f64,
    slope: f64,
    span: f64,
}

/// What one ring has seen in this epoch.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Watch {
    suspicion: Option<Suspicion>,
    passed: Option<i64>,
    grew: Option<i64>,
    /// The ring was put to the full test.
    tested: bool,
    shaped: Option<i64>,
    /// Of the last look that found a trend.
    figures: Option<Figures>,
    /// The last look found a trend.
    #[serde(default)]
    trending: bool,
    /// The last growth flattened.
    flattens: bool,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Confirmed {
    ring: u8,
    until: i64,
}

/// The judgement of one signal of one cgroup.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Judge {
    rings: [Ring; RINGS],
    watch: [Watch; RINGS],
    first_floor: Option<f64>,
    epochs: Epochs,
    confirmed: Option<Confirmed>,
    onset: Option<Onset>,
    /// What a suspected growth rose from and to, in bytes.
    climb: Option<(f64, f64)>,
    /// Until when it is told that it came down.
    reclaimed_until: Option<i64>,
    minutes: i64,
    #[serde(skip)]
    rated: Option<Rated>,
    /// Whether it may be above `growing`.
    accusable: bool,
}

impl Judge {
    /// A judgement that has seen nothing; `accusable` is false for memory that the kernel takes back.
    pub fn new(accusable: bool) -> Self {
        Judge {
            rings: [Ring::new(); RINGS],
            watch: [Watch::default(); RINGS],
            first_floor: None,
            epochs: Epochs::default(),
            confirmed: None,
            onset: None,
            climb: None,
            reclaimed_until: None,
            minutes: 0,
            rated: None,
            accusable,
        }
    }

    /// Ends the epoch, and remembers how.
    pub fn restarted(&mut self) {
        let now = self.minutes;
        let leaking = self.leaking();
        let growing = self.watch.iter().enumerate().skip(1).any(|(ring, watch)| {
            let lately = (ring_minutes(ring) / 4).max(now / 4);
            watch.shaped.is_some_and(|minute| now - minute < lately)
        });
        let rises = self.grows().any(|(_, watch)| !watch.flattens);
        let peak = self.rings.get(1).map_or(0.0, |ring| {
            (0..ring.held())
                .filter_map(|back| ring.floor(back))
                .fold(0.0, f64::max)
        });
        self.epochs.end(&Ending {
            judged: self.watch.iter().skip(1).any(|watch| watch.tested),
            growing,
            leaking,
            plateau: (!growing && !leaking && !rises).then_some(peak),
        });
        let (epochs, accusable) = (self.epochs, self.accusable);
        *self = Judge {
            epochs,
            reclaimed_until: leaking.then_some(RECLAIMED_MINUTES),
            ..Judge::new(accusable)
        };
    }

    /// Takes the minimum and maximum of a minute, in pages; `None` where nothing was read.
    pub fn minute(&mut self, range: Option<(u32, u32)>, scene: &Scene) {
        self.minutes = scene.minute;
        for (index, minutes) in BLOCK_MINUTES.into_iter().enumerate() {
            let Some(ring) = self.rings.get_mut(index) else {
                continue;
            };
            let closed = ring.minute(range, minutes);
            if index == 0 && self.first_floor.is_none() && ring.closed() >= 5 {
                self.first_floor = ring.floor(0);
            }
            if closed {
                self.look(index, scene);
            }
        }
        self.expire(scene.minute);
        self.settle(scene.minute);
    }

    fn look(&mut self, index: usize, scene: &Scene) {
        let past = Past {
            first_floor: self.first_floor,
            plateau: self.epochs.plateau(),
            epochs_growing: self.epochs.growing(),
            leaking: self.leaking(),
            base: self.climb.map(|(from, _)| from),
        };
        let figures = assess(&self.rings, index, scene, &past);
        let ring = self.rings.get(index);
        let tested = ring.is_some_and(|ring| {
            is_full_test(ring, index) && holds_enough(ring, index, scene.thresholds)
        });
        let now = scene.minute;
        let Some(watch) = self.watch.get_mut(index) else {
            return;
        };
        watch.trending = figures.is_some();
        watch.tested |= tested;
        let Some(figures) = figures else {
            watch.drop_stale(now, index);
            return;
        };
        watch.figures = Some(figures);
        if figures.significant {
            watch.grew = Some(now);
            watch.flattens = figures.flattens;
        }
        if figures.shaped {
            watch.shaped = Some(now);
        }
        let is_new = watch.suspicion.is_none();
        let accused = figures.passed && self.accusable;
        // A suspicion outlives a time in which the growth pauses.
        let rises = accused && self.surely_rises(index, &figures, now);
        let Some(watch) = self.watch.get_mut(index) else {
            return;
        };
        if !accused || (is_new && !rises) {
            watch.drop_stale(now, index);
            if figures.significant && !self.leaking() && (index > 0 || self.onset.is_none()) {
                self.onset = onset::find(&self.rings, index, now);
            }
            return;
        }
        watch.passed = Some(now);
        let suspicion = *watch.suspicion.get_or_insert(Suspicion {
            minute: now,
            floor: f64::from(figures.floor),
            slope: f64::from(figures.slope),
            span: f64::from(figures.span),
        });
        if rises && self.verified(&figures, &suspicion, scene) {
            self.confirm(index, scene);
        } else if self.onset.is_none() {
            self.onset = onset::find(&self.rings, index, now);
        }
        let (from, to) = self.climb.unwrap_or((f64::INFINITY, 0.0));
        let (start, floor) = (f64::from(figures.start), f64::from(figures.floor));
        self.climb = Some((from.min(start), to.max(floor)));
    }

    /// Whether a rate can be told that lies above zero with its whole interval: that of the window, or that
    /// since the onset.
    fn surely_rises(&mut self, index: usize, figures: &Figures, now: i64) -> bool {
        if figures.slope_low > 0.0 {
            return true;
        }
        let onset = match self.confirmed {
            Some(_) => self.onset,
            None => onset::find(&self.rings, index, now),
        };
        let since =
            onset.and_then(|onset| eta::since(&self.rings, now - onset.minute, &mut self.rated));
        since.is_some_and(|(_, low, _)| low > 0.0)
    }

    /// Whether the growth went on as the suspicion predicted, or there is no time to wait for that.
    fn verified(&self, figures: &Figures, suspicion: &Suspicion, scene: &Scene) -> bool {
        let thresholds = scene.thresholds;
        let floor = f64::from(figures.floor);
        let waited = (scene.minute - suspicion.minute) as f64;
        let growth = self.growth(figures, suspicion);
        let enough = f64::from(figures.reduced_weight(growth)) >= 1.0;
        let followed =
            floor >= suspicion.floor + thresholds.verify_growth * suspicion.slope * waited;
        let urgent = f64::from(figures.minutes_left()) < thresholds.urgent_minutes;
        let again = self.epochs.leaking() >= 2 && waited >= 0.15 * suspicion.span;
        urgent
            || (enough
                && ((waited >= thresholds.verify_share * suspicion.span && followed) || again))
    }

    /// What it grew by in the window of the suspicion and since.
    fn growth(&self, figures: &Figures, suspicion: &Suspicion) -> f32 {
        let origin = (suspicion.floor - suspicion.slope * suspicion.span)
            .max(self.first_floor.unwrap_or(0.0));
        figures
            .growth
            .max((f64::from(figures.floor) - origin) as f32)
    }

    fn confirm(&mut self, index: usize, scene: &Scene) {
        let now = scene.minute;
        if self.confirmed.is_none() {
            self.onset = onset::find(&self.rings, index, now);
        }
        let ring = self
            .confirmed
            .map_or(index, |confirmed| index.max(usize::from(confirmed.ring)));
        self.confirmed = Some(Confirmed {
            ring: ring as u8,
            until: now + ring_minutes(index) / 2,
        });
    }

    fn expire(&mut self, now: i64) {
        let Some(confirmed) = self.confirmed else {
            return;
        };
        let ring = usize::from(confirmed.ring);
        let half = ring_minutes(ring) / 2;
        let stale = self
            .watch
            .get(ring)
            .is_none_or(|watch| watch.passed.is_none_or(|minute| now - minute > half));
        if now > confirmed.until && stale {
            self.confirmed = None;
        }
    }

    fn leaking(&self) -> bool {
        self.confirmed.is_some() || self.watch.iter().any(|watch| watch.suspicion.is_some())
    }

    /// Lets go of a leak whose memory came back, and of what belongs to a growth that is over.
    fn settle(&mut self, now: i64) {
        if let Some((from, to)) = self.climb {
            let recent = self.rings.first().and_then(|ring| {
                let floors = (0..FALLEN_MINUTES).filter_map(|back| ring.floor(back));
                floors.reduce(f64::max)
            });
            if recent.is_some_and(|recent| recent < f64::midpoint(from, to)) {
                self.confirmed = None;
                for watch in &mut self.watch {
                    (watch.suspicion, watch.grew, watch.passed) = (None, None, None);
                }
                self.reclaimed_until = Some(now + RECLAIMED_MINUTES);
            }
            if !self.leaking() {
                self.climb = None;
            }
        }
        if self.reclaimed_until.is_some_and(|until| now >= until) {
            self.reclaimed_until = None;
        }
        if self.onset.is_some() && self.state() < State::Growing {
            self.onset = None;
        }
    }

    /// Floor of the last minute that closed, bytes.
    pub fn level(&self) -> Option<f64> {
        self.rings.first().and_then(|ring| ring.floor(0))
    }

    /// The state now.
    pub fn state(&self) -> State {
        if self.confirmed.is_some() {
            return State::Confirmed;
        }
        if self.leaking() {
            return State::Suspected;
        }
        let flattens = self.grows().map(|(_, watch)| watch.flattens).min();
        if flattens == Some(false) {
            return State::Growing;
        }
        if self.reclaimed_until.is_some() {
            return State::Reclaimed;
        }
        let blocks = self.rings.first().map_or(0, Ring::closed);
        match (flattens, blocks) {
            (_, 0) => State::Unknown,
            (Some(_), _) | (_, ..YOUNG_BLOCKS) => State::Warming,
            _ => State::Healthy,
        }
    }

    /// The rings that grew lately.
    fn grows(&self) -> impl Iterator<Item = (usize, &Watch)> {
        self.watch.iter().enumerate().filter(|(ring, watch)| {
            let lately = ring_minutes(*ring) / 4;
            watch
                .grew
                .is_some_and(|minute| self.minutes - minute < lately)
        })
    }

    /// Since when it grows; `None` while it does not.
    pub fn onset(&self) -> Option<Onset> {
        self.onset
    }

    /// Rate and peaks since the onset.
    pub fn track(&mut self, room: Option<f64>) -> Option<Track> {
        let since = self.onset?.minute;
        track(&self.rings, self.minutes, since, room, &mut self.rated)
    }

    /// The ring that the state rests on and its last figures: the one that was confirmed, else suspected,
    /// else the longest that grows; `None` when nothing does.
    pub fn figures(&self) -> Option<(usize, Figures)> {
        let confirmed = self.confirmed.map(|confirmed| usize::from(confirmed.ring));
        let rank = |(ring, watch): &(usize, &Watch)| {
            let grows = self.grows().find(|(other, _)| other == ring);
            let rests = confirmed == Some(*ring) || watch.suspicion.is_some() || grows.is_some();
            (rests || watch.trending).then_some((
                confirmed == Some(*ring),
                watch.suspicion.is_some(),
                grows.map(|(_, watch)| !watch.flattens),
                *ring,
            ))
        };
        let known = self.watch.iter().enumerate();
        let known = known.filter(|(_, watch)| watch.figures.is_some());
        known
            .filter_map(|entry| Some((rank(&entry)?, entry)))
            .max_by_key(|(rank, _)| *rank)
            .and_then(|(_, (ring, watch))| Some((ring, watch.figures?)))
    }

    /// Growth × κ over headroom, of all the growth that verification counts.
    pub fn weight(&self, ring: usize, figures: &Figures) -> f32 {
        let suspicion = self.watch.get(ring).and_then(|watch| watch.suspicion);
        let growth = suspicion.map_or(figures.growth, |suspicion| self.growth(figures, &suspicion));
        figures.reduced_weight(growth) * figures.horizon_factor
    }

    /// Share of the verification that is done, of its time or of the growth that it asks for, whichever
    /// is less; `None` unless suspected.
    pub fn verified_share(
        &self,
        ring: usize,
        figures: &Figures,
        thresholds: &Thresholds,
    ) -> Option<f64> {
        let suspicion = self.watch.get(ring)?.suspicion?;
        let waited = (figures.minute - suspicion.minute) as f64;
        let time = waited / (thresholds.verify_share * suspicion.span).max(1.0);
        let asked = thresholds.verify_growth * suspicion.slope * waited;
        let grown = (f64::from(figures.floor) - suspicion.floor) / asked.max(1.0);
        Some(time.min(grown).clamp(0.0, 1e6))
    }

    /// Earlier epochs.
    pub fn epochs(&self) -> &Epochs {
        &self.epochs
    }
}

impl Watch {
    fn drop_stale(&mut self, now: i64, ring: usize) {
        let half = ring_minutes(ring) / 2;
        if self.passed.is_none_or(|minute| now - minute > half) {
            self.suspicion = None;
        }
    }
}
