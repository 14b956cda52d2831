//! A bounded history of one number.

/// Samples kept: five minutes at the default interval.
pub const SAMPLES: usize = 60;

/// The last [`SAMPLES`] values in KiB, which holds 4 TiB in half the bytes.
#[derive(Debug, Clone, Default)]
pub struct History {
    kib: Vec<u32>,
    /// Where the next value goes once the history is full.
    next: usize,
}

impl History {
    /// Adds a value, forgetting the oldest when full.
    pub fn push(&mut self, bytes: u64) {
        let kib = u32::try_from(bytes / 1024).unwrap_or(u32::MAX);
        if self.kib.len() < SAMPLES {
            self.kib.push(kib);
        } else {
            self.kib[self.next] = kib;
            self.next = (self.next + 1) % SAMPLES;
        }
    }

    /// Oldest first, bytes.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        let (newest, oldest) = self.kib.split_at(self.next);
        oldest
            .iter()
            .chain(newest)
            .map(|&kib| u64::from(kib) * 1024)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_values_go_first() {
        let mut history = History::default();
        for value in 0..SAMPLES as u64 + 3 {
            history.push(value * 1024);
        }
        let values: Vec<u64> = history.iter().map(|bytes| bytes / 1024).collect();
        assert_eq!(values, (3..SAMPLES as u64 + 3).collect::<Vec<_>>());
    }
}
