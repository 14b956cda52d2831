//! How much may be kept of the code that processes map.
//!
//! A process maps pieces of a file as often as it likes, and each that is kept takes memory here.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// A process gets at most one part in so many of what is left: a few cannot take all from the others.
const PARTS: usize = 8;

/// Executable mappings that may be kept, of all processes together.
#[derive(Debug)]
pub struct CodeRoom {
    most: usize,
    taken: Arc<AtomicUsize>,
}

/// What one process takes, until it is dropped.
#[derive(Debug)]
pub struct Share {
    taken: usize,
    all: Arc<AtomicUsize>,
}

impl CodeRoom {
    pub fn new(most: usize) -> Self {
        Self {
            most,
            taken: Arc::default(),
        }
    }

    /// For one process, whose share so far is to be given back.
    pub fn for_one(&self, so_far: Option<&Share>) -> usize {
        let others = self.taken.load(Ordering::Relaxed) - so_far.map_or(0, |share| share.taken);
        self.most.saturating_sub(others) / PARTS
    }

    pub fn take(&self, taken: usize) -> Share {
        self.taken.fetch_add(taken, Ordering::Relaxed);
        Share {
            taken,
            all: Arc::clone(&self.taken),
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.fetch_sub(self.taken, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_takes_the_others_lack_until_it_is_given_back() {
        let room = CodeRoom::new(800);
        let first = room.take(room.for_one(None));
        assert_eq!(room.for_one(None), 87);
        assert_eq!(room.for_one(Some(&first)), 100);
        let second = room.take(700);
        assert_eq!(room.for_one(None), 0);
        drop((first, second));
        assert_eq!(room.for_one(None), 100);
    }
}
