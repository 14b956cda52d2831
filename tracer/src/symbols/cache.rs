//! Names that were found, so that a place is looked up once: bounded in number and bytes.

use std::{collections::HashMap, sync::Arc};

use super::wire::Region;

/// A place for as long as memtrace runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Key {
    File {
        module: u64,
        offset: u64,
    },
    /// `names`: one state of what a process says of its generated code.
    Generated {
        names: u64,
        address: u64,
    },
}

/// Without what the asker knows: module and offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedFrame {
    pub function: Option<Box<str>>,
    pub source: Option<(Box<str>, u32)>,
}

/// Frames of a place, innermost first, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub frames: Arc<[CachedFrame]>,
    /// Of places without a file.
    pub region: Option<Region>,
}

/// A cache of two generations: what was not asked for during one of them is forgotten.
#[derive(Debug)]
pub struct Cache {
    young: Generation,
    old: Generation,
    most_frames: usize,
    most_bytes: usize,
    evictions: u64,
}

#[derive(Debug, Default)]
struct Generation {
    places: HashMap<Key, Named>,
    frames: usize,
    bytes: usize,
}

impl Cache {
    pub fn new(most_frames: usize, most_bytes: usize) -> Self {
        Cache {
            young: Generation::default(),
            old: Generation::default(),
            most_frames,
            most_bytes,
            evictions: 0,
        }
    }

    pub fn get(&mut self, key: &Key) -> Option<Named> {
        if let Some(named) = self.young.places.get(key) {
            return Some(named.clone());
        }
        let named = self.old.places.remove(key)?;
        self.old.discount(&named);
        self.insert(*key, named.clone());
        Some(named)
    }

    pub fn insert(&mut self, key: Key, named: Named) {
        let (frames, bytes) = (named.frames.len(), named.bytes());
        if self.young.frames + frames > self.most_frames / 2
            || self.young.bytes + bytes > self.most_bytes / 2
        {
            let forgotten = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
            self.evictions += forgotten.places.len() as u64;
        }
        self.young.frames += frames;
        self.young.bytes += bytes;
        if let Some(before) = self.young.places.insert(key, named) {
            self.young.discount(&before);
        }
    }

    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    #[cfg(test)]
    pub fn frames(&self) -> usize {
        self.young.frames + self.old.frames
    }

    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.young.bytes + self.old.bytes
    }
}

impl Generation {
    fn discount(&mut self, named: &Named) {
        self.frames = self.frames.saturating_sub(named.frames.len());
        self.bytes = self.bytes.saturating_sub(named.bytes());
    }
}

impl Named {
    /// With what the allocator and the table add, roughly.
    fn bytes(&self) -> usize {
        const ALLOCATION: usize = 16;
        let text = |text: &str| text.len() + ALLOCATION;
        let frame = |frame: &CachedFrame| {
            size_of::<CachedFrame>()
                + frame.function.as_deref().map_or(0, text)
                + frame.source.as_ref().map_or(0, |(file, _)| text(file))
        };
        // A hash table is two thirds full on average.
        let entry = (size_of::<Key>() + size_of::<Named>()) * 3 / 2;
        let frames: usize = self.frames.iter().map(frame).sum();
        entry + 2 * ALLOCATION + frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(function: &str) -> Named {
        let frame = CachedFrame {
            function: Some(function.into()),
            source: None,
        };
        Named {
            frames: Arc::new([frame]),
            region: None,
        }
    }

    fn key(offset: u64) -> Key {
        Key::File { module: 1, offset }
    }

    #[test]
    fn it_stays_within_its_bounds_and_counts_what_it_forgets() {
        let mut cache = Cache::new(1000, 1 << 20);
        for offset in 0..10_000 {
            cache.insert(key(offset), named("a"));
            assert!(cache.frames() <= 1000);
        }
        assert!(cache.evictions() >= 9000);
        let mut cache = Cache::new(usize::MAX, 1 << 20);
        for offset in 0..10_000 {
            cache.insert(key(offset), named(&"a".repeat(500)));
            assert!(cache.bytes() <= 1 << 20);
        }
        assert!(cache.evictions() > 0);
    }

    #[test]
    fn what_is_asked_for_stays() {
        let mut cache = Cache::new(100, 1 << 20);
        cache.insert(key(0), named("hot"));
        for offset in 1..1000 {
            cache.insert(key(offset), named("cold"));
            assert_eq!(cache.get(&key(0)), Some(named("hot")));
        }
        assert_eq!(cache.get(&key(1)), None);
    }

    #[test]
    fn a_name_that_is_replaced_counts_once() {
        let mut cache = Cache::new(100, 1 << 20);
        for _ in 0..1000 {
            cache.insert(key(0), named("again"));
        }
        assert_eq!((cache.frames(), cache.evictions()), (1, 0));
    }
}
