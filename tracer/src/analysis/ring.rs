//! The bounded memory of a signal: blocks of minima and maxima at four resolutions, and the same for
//! load. A block without a reading is a hole. Owns no judgement.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// Blocks of a ring.
pub const BLOCKS: usize = 60;
/// Rings of a signal.
pub const RINGS: usize = 4;
/// Minutes of a block, for each ring.
pub const BLOCK_MINUTES: [i64; RINGS] = [1, 6, 36, 216];

const PAGE: u64 = 4096;
const HOLE: u32 = u32::MAX;

/// Minutes of a whole ring.
pub fn ring_minutes(ring: usize) -> i64 {
    BLOCK_MINUTES.get(ring).copied().unwrap_or(1) * BLOCKS as i64
}

/// Bytes in whole pages; saturates at 16 TiB.
pub fn pages(bytes: u64) -> u32 {
    u32::try_from(bytes / PAGE)
        .unwrap_or(HOLE - 1)
        .min(HOLE - 1)
}

/// Bytes of so many pages.
pub fn bytes(pages: u32) -> f64 {
    f64::from(pages) * PAGE as f64
}

/// Sixty values; the newest overwrites the oldest.
#[derive(Debug, Clone, Copy)]
struct Cells<T> {
    values: [T; BLOCKS],
    next: u8,
    held: u8,
}

impl<T: Copy> Cells<T> {
    fn filled(hole: T) -> Self {
        Cells {
            values: [hole; BLOCKS],
            next: 0,
            held: 0,
        }
    }

    /// Puts in a value and gives back the one that it drove out.
    fn push(&mut self, value: T) -> Option<T> {
        let full = usize::from(self.held) >= BLOCKS;
        let at = usize::from(self.next) % BLOCKS;
        let old = self.values.get(at).copied().filter(|_| full);
        if let Some(cell) = self.values.get_mut(at) {
            *cell = value;
        }
        self.next = ((at + 1) % BLOCKS) as u8;
        if !full {
            self.held += 1;
        }
        old
    }

    /// Every value held, the oldest first.
    fn oldest_first(&self) -> impl DoubleEndedIterator<Item = T> + '_ {
        let held = usize::from(self.held).min(BLOCKS);
        let next = usize::from(self.next) % BLOCKS;
        let full = held == BLOCKS;
        let old = self.values.get(next..).filter(|_| full);
        let new = self.values.get(..if full { next } else { held });
        let cells = |cells: Option<_>| cells.unwrap_or_default();
        let (old, new): (&[T], &[T]) = (cells(old), cells(new));
        old.iter().chain(new).copied()
    }

    /// The value `back` blocks before the newest.
    fn back(&self, back: usize) -> Option<T> {
        if back >= usize::from(self.held).min(BLOCKS) {
            return None;
        }
        let at = (usize::from(self.next) + 2 * BLOCKS - 1 - back) % BLOCKS;
        self.values.get(at).copied()
    }
}

/// Minima and maxima of one signal at one resolution.
#[derive(Debug, Clone, Copy)]
pub struct Ring {
    floors: Cells<u32>,
    tops: Cells<u32>,
    open_floor: u32,
    open_top: u32,
    /// Minutes that the open block has taken, empty ones too.
    open_minutes: i64,
    /// Blocks closed since the start, the first (the start-up) left out.
    closed: u32,
    fresh: bool,
    left: u32,
    /// Blocks held that are no holes.
    filled: u8,
}

impl Ring {
    /// A ring with nothing in it.
    pub fn new() -> Self {
        Ring {
            floors: Cells::filled(HOLE),
            tops: Cells::filled(HOLE),
            open_floor: HOLE,
            open_top: 0,
            open_minutes: 0,
            closed: 0,
            fresh: true,
            left: 0,
            filled: 0,
        }
    }

    /// Puts in a block; gives back the floor that it drove out.
    fn push(&mut self, floor: u32, top: u32) -> Option<u32> {
        let old = self.floors.push(floor).filter(|old| *old != HOLE);
        self.tops.push(top);
        self.filled += u8::from(floor != HOLE);
        self.filled -= u8::from(old.is_some()).min(self.filled);
        old
    }

    /// Takes the minimum and maximum of a minute; true when that closed a block of `minutes` with data.
    pub fn minute(&mut self, range: Option<(u32, u32)>, minutes: i64) -> bool {
        if let Some((low, high)) = range {
            self.open_floor = self.open_floor.min(low);
            self.open_top = self.open_top.max(high);
        }
        self.open_minutes += 1;
        if self.open_minutes < minutes {
            return false;
        }
        let (floor, top) = (self.open_floor, self.open_top);
        self.open_floor = HOLE;
        self.open_top = 0;
        self.open_minutes = 0;
        if self.fresh {
            self.fresh = false;
            return false;
        }
        if let Some(old) = self.push(floor, top) {
            self.left = self.left.max(old);
        }
        self.closed = self.closed.saturating_add(1);
        floor != HOLE
    }

    /// Blocks held, holes among them.
    pub fn held(&self) -> usize {
        usize::from(self.floors.held).min(BLOCKS)
    }

    /// Blocks held that are no holes.
    pub fn filled(&self) -> usize {
        usize::from(self.filled)
    }

    /// Blocks from the oldest floor to the newest, both counted.
    pub fn span(&self) -> usize {
        let known = |floor: u32| floor != HOLE;
        let before = self.floors.oldest_first().position(known);
        let after = self.floors.oldest_first().rev().position(known);
        self.held()
            .saturating_sub(before.unwrap_or(0) + after.unwrap_or(BLOCKS))
    }

    /// The floors held, the oldest first, in bytes; `None` for a hole.
    pub fn floors(&self) -> impl DoubleEndedIterator<Item = Option<f64>> + '_ {
        let known = |floor: u32| (floor != HOLE).then(|| bytes(floor));
        self.floors.oldest_first().map(known)
    }

    /// The least of the three oldest floors and of the three newest, in bytes.
    pub fn ends(&self) -> (f64, f64) {
        let known = |floor: &u32| *floor != HOLE;
        let least = |least: u32, floor: u32| least.min(floor);
        let floors = || self.floors.oldest_first().filter(known);
        (
            bytes(floors().take(3).fold(HOLE, least)),
            bytes(floors().rev().take(3).fold(HOLE, least)),
        )
    }

    /// The largest distance of maximum and floor in the newest `blocks` blocks, in bytes.
    pub fn swing(&self, blocks: usize) -> f64 {
        let pairs = self.floors.oldest_first().zip(self.tops.oldest_first());
        let newest = pairs.skip(self.held().saturating_sub(blocks));
        let known = newest.filter(|(floor, _)| *floor != HOLE);
        bytes(known.fold(0, |swing, (floor, top)| {
            swing.max(top.saturating_sub(floor))
        }))
    }

    /// Blocks closed since the epoch began.
    pub fn closed(&self) -> u32 {
        self.closed
    }

    /// Minutes in the block that is open.
    pub fn open_minutes(&self) -> i64 {
        self.open_minutes
    }

    /// The floor so many blocks back, in bytes; `None` for a hole.
    pub fn floor(&self, back: usize) -> Option<f64> {
        self.floors
            .back(back)
            .filter(|value| *value != HOLE)
            .map(bytes)
    }

    /// The maximum so many blocks back, in bytes; `None` for a hole.
    pub fn top(&self, back: usize) -> Option<f64> {
        self.floor(back)?;
        self.tops.back(back).map(bytes)
    }

    /// The highest floor that ever left the ring, in bytes; 0 when none did.
    pub fn left(&self) -> f64 {
        bytes(self.left)
    }
}

/// Mean load at one resolution.
#[derive(Debug, Clone, Copy)]
pub struct LoadRing {
    means: Cells<f32>,
    sum: f64,
    seen: u32,
    open_minutes: i64,
    fresh: bool,
}

impl LoadRing {
    /// A ring with nothing in it.
    pub fn new() -> Self {
        LoadRing {
            means: Cells::filled(f32::NAN),
            sum: 0.0,
            seen: 0,
            open_minutes: 0,
            fresh: true,
        }
    }

    /// Takes the load of a minute, in step with [`Ring::minute`].
    pub fn minute(&mut self, load: Option<f64>, minutes: i64) {
        if let Some(load) = load.filter(|load| load.is_finite()) {
            self.sum += load;
            self.seen += 1;
        }
        self.open_minutes += 1;
        if self.open_minutes < minutes {
            return;
        }
        let mean = if self.seen > 0 {
            (self.sum / f64::from(self.seen)) as f32
        } else {
            f32::NAN
        };
        (self.sum, self.seen, self.open_minutes) = (0.0, 0, 0);
        if self.fresh {
            self.fresh = false;
        } else {
            self.means.push(mean);
        }
    }

    /// Means held, holes among them.
    pub fn held(&self) -> usize {
        usize::from(self.means.held).min(BLOCKS)
    }

    /// The means held, the oldest first; `None` for a hole.
    pub fn means(&self) -> impl DoubleEndedIterator<Item = Option<f64>> + '_ {
        let known = |mean: f32| mean.is_finite().then(|| f64::from(mean));
        self.means.oldest_first().map(known)
    }
}

/// The stored form of a ring: oldest first, floors as differences, maxima above their floors.
#[derive(Serialize, Deserialize)]
struct StoredRing {
    cells: Vec<Option<(i64, u32)>>,
    open: Option<(u32, u32)>,
    minutes: i64,
    closed: u32,
    fresh: bool,
    left: u32,
}

impl Serialize for Ring {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut before = 0;
        let cells = (0..self.held()).rev().map(|back| {
            let floor = self.floors.back(back).filter(|floor| *floor != HOLE)?;
            let above = self.tops.back(back).unwrap_or(floor).saturating_sub(floor);
            let step = i64::from(floor) - before;
            before = i64::from(floor);
            Some((step, above))
        });
        StoredRing {
            cells: cells.collect(),
            open: (self.open_floor != HOLE).then_some((self.open_floor, self.open_top)),
            minutes: self.open_minutes,
            closed: self.closed,
            fresh: self.fresh,
            left: self.left,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Ring {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = StoredRing::deserialize(deserializer)?;
        if stored.cells.len() > BLOCKS {
            return Err(D::Error::custom("too many blocks in a ring"));
        }
        let mut ring = Ring::new();
        let mut before: i64 = 0;
        for cell in stored.cells {
            let (floor, top) = match cell {
                None => (HOLE, 0),
                Some((step, above)) => {
                    before = before.saturating_add(step);
                    let floor = u32::try_from(before)
                        .map_err(D::Error::custom)?
                        .min(HOLE - 1);
                    (floor, floor.saturating_add(above).min(HOLE - 1))
                }
            };
            ring.push(floor, top);
        }
        if let Some((floor, top)) = stored.open {
            (ring.open_floor, ring.open_top) = (floor, top);
        }
        ring.open_minutes = stored.minutes.max(0);
        ring.closed = stored.closed.max(ring.held() as u32);
        ring.fresh = stored.fresh;
        ring.left = stored.left.min(HOLE - 1);
        Ok(ring)
    }
}

#[derive(Serialize, Deserialize)]
struct StoredLoad {
    means: Vec<Option<f32>>,
    sum: f64,
    seen: u32,
    minutes: i64,
    fresh: bool,
}

impl Serialize for LoadRing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let means = self.means.oldest_first();
        let means = means.map(|mean| mean.is_finite().then_some(mean)).collect();
        let (sum, seen, minutes, fresh) = (self.sum, self.seen, self.open_minutes, self.fresh);
        StoredLoad {
            means,
            sum,
            seen,
            minutes,
            fresh,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for LoadRing {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = StoredLoad::deserialize(deserializer)?;
        let mut ring = LoadRing::new();
        for mean in stored.means.into_iter().take(BLOCKS) {
            ring.means.push(mean.unwrap_or(f32::NAN));
        }
        (ring.sum, ring.seen, ring.open_minutes, ring.fresh) =
            (stored.sum, stored.seen, stored.minutes.max(0), stored.fresh);
        Ok(ring)
    }
}
