//! Tables whose entries are referred to by number.

use std::{collections::HashMap, hash::Hash};

/// Values in the order of first use, each key once.
#[derive(Debug)]
pub(super) struct Dictionary<K, V> {
    places: HashMap<K, usize>,
    values: Vec<V>,
}

impl<K: Eq + Hash, V> Dictionary<K, V> {
    /// With what is at place 0.
    pub(super) fn new(values: Vec<V>) -> Self {
        Dictionary {
            places: HashMap::new(),
            values,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    pub(super) fn get(&self, key: &K) -> Option<usize> {
        self.places.get(key).copied()
    }

    /// The place that `value` now has.
    pub(super) fn put(&mut self, key: K, value: V) -> usize {
        let place = self.values.len();
        self.places.insert(key, place);
        self.values.push(value);
        place
    }

    pub(super) fn value(&mut self, place: usize) -> Option<&mut V> {
        self.values.get_mut(place)
    }

    pub(super) fn into_values(self) -> Vec<V> {
        self.values
    }
}

impl Dictionary<String, String> {
    /// Strings, the empty one at place 0.
    pub(super) fn strings() -> Self {
        let mut strings = Dictionary::new(Vec::new());
        strings.put(String::new(), String::new());
        strings
    }

    pub(super) fn text(&mut self, text: &str) -> usize {
        match self.places.get(text) {
            Some(place) => *place,
            None => self.put(text.to_owned(), text.to_owned()),
        }
    }
}
