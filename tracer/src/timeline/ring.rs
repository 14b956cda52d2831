//! Readings of one cgroup at one resolution: a ring of steps, in which a step without a reading is a gap.
//! Owns neither the length of a step nor its time.

use serde::{Deserialize, Serialize};

const PAGE: u64 = 4096;
const UNKNOWN: u32 = u32::MAX;
/// Room that a ring begins with, cells.
const LEAST_ROOM: usize = 4;

/// Bytes in whole pages; saturates at 16 TiB.
pub fn pages(bytes: u64) -> u32 {
    u32::try_from(bytes / PAGE)
        .unwrap_or(UNKNOWN)
        .min(UNKNOWN - 1)
}

/// Bytes of so many pages.
pub fn bytes(pages: u32) -> u64 {
    u64::from(pages) * PAGE
}

/// What was read in one step, pages of 4 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    usage: u32,
    anon: u32,
}

impl Cell {
    const GAP: Cell = Cell {
        usage: UNKNOWN,
        anon: UNKNOWN,
    };

    pub fn new(usage_bytes: u64, anon_bytes: Option<u64>) -> Self {
        Self {
            usage: pages(usage_bytes),
            anon: anon_bytes.map_or(UNKNOWN, pages),
        }
    }

    /// `None`: nothing was read.
    pub fn usage_bytes(self) -> Option<u64> {
        (self.usage != UNKNOWN).then(|| bytes(self.usage))
    }

    pub fn anon_bytes(self) -> Option<u64> {
        (self.anon != UNKNOWN).then(|| bytes(self.anon))
    }

    fn is_gap(self) -> bool {
        self.usage == UNKNOWN
    }

    /// A later reading of the same step: the largest usage, the last anon that is known.
    fn take_in(&mut self, later: Cell) {
        self.usage = match (self.is_gap(), later.is_gap()) {
            (true, _) => later.usage,
            (_, true) => self.usage,
            _ => self.usage.max(later.usage),
        };
        if later.anon != UNKNOWN {
            self.anon = later.anon;
        }
    }
}

/// The last steps, one cell each. Takes memory as it fills.
#[derive(Debug, Clone)]
pub struct Ring {
    cells: Vec<Cell>,
    /// The oldest cell, once the ring is full.
    oldest: u16,
    most: u16,
    /// Step of the newest cell.
    newest: i64,
}

impl Ring {
    /// An empty ring of at most `most` steps.
    pub fn new(most: u16) -> Self {
        Self {
            cells: Vec::new(),
            oldest: 0,
            most: most.max(1),
            newest: 0,
        }
    }

    /// Takes in a reading of a step; one older than the ring is left out.
    pub fn put(&mut self, step: i64, cell: Cell) {
        if self.cells.is_empty() {
            self.newest = step;
            return self.push(cell);
        }
        let ahead = step.saturating_sub(self.newest);
        if ahead <= 0 {
            if let Some(at) = self.index(step)
                && let Some(kept) = self.cells.get_mut(at)
            {
                kept.take_in(cell);
            }
            return;
        }
        if ahead >= i64::from(self.most) {
            self.cells.clear();
            self.oldest = 0;
        } else {
            (1..ahead).for_each(|_| self.push(Cell::GAP));
        }
        self.newest = step;
        self.push(cell);
    }

    fn push(&mut self, cell: Cell) {
        let most = usize::from(self.most);
        if self.cells.len() < most {
            if self.cells.len() == self.cells.capacity() {
                let held = self.cells.len();
                // Not doubled: a full ring has no room to spare.
                let more = (held / 2).max(LEAST_ROOM).min(most - held);
                self.cells.reserve_exact(more);
            }
            return self.cells.push(cell);
        }
        if let Some(kept) = self.cells.get_mut(usize::from(self.oldest)) {
            *kept = cell;
        }
        self.oldest = (self.oldest + 1) % self.most;
    }

    /// Where a step is.
    fn index(&self, step: i64) -> Option<usize> {
        let back = usize::try_from(self.newest.checked_sub(step)?).ok()?;
        let held = self.cells.len();
        let from_oldest = held.checked_sub(back + 1)?;
        Some((usize::from(self.oldest) + from_oldest) % held)
    }

    /// What was read in a step; `None` for a gap and for a step that the ring does not have.
    pub fn get(&self, step: i64) -> Option<Cell> {
        let cell = *self.cells.get(self.index(step)?)?;
        (!cell.is_gap()).then_some(cell)
    }

    /// The newest step; `None` of an empty ring.
    pub fn newest(&self) -> Option<i64> {
        (!self.cells.is_empty()).then_some(self.newest)
    }

    /// Steps with a reading, the oldest first.
    pub fn readings(&self) -> impl Iterator<Item = (i64, Cell)> + '_ {
        let first = self.newest.saturating_sub(self.cells.len() as i64 - 1);
        self.in_order()
            .enumerate()
            .filter(|(_, cell)| !cell.is_gap())
            .map(move |(at, cell)| (first.saturating_add(at as i64), cell))
    }

    fn in_order(&self) -> impl Iterator<Item = Cell> + '_ {
        let (new, old) = self
            .cells
            .split_at_checked(usize::from(self.oldest))
            .unwrap_or_default();
        old.iter().chain(new).copied()
    }

    /// The newest step and all cells, the oldest first, to keep.
    pub fn kept(&self) -> (i64, Vec<Cell>) {
        (self.newest, self.in_order().collect())
    }

    /// A ring of what was kept; the oldest of too many are left out.
    pub fn restore(most: u16, newest: i64, cells: &[Cell]) -> Self {
        let mut ring = Self::new(most);
        let surplus = cells.len().saturating_sub(usize::from(ring.most));
        let cells = cells.get(surplus..).unwrap_or_default();
        if !cells.is_empty() {
            ring.cells.reserve_exact(cells.len());
            ring.cells.extend_from_slice(cells);
            ring.newest = newest;
        }
        ring
    }

    /// Bytes on the heap.
    pub fn held_bytes(&self) -> usize {
        self.cells.capacity() * size_of::<Cell>()
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
