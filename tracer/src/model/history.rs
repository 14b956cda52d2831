//! A bounded history of one number.

/// Samples kept: five minutes at the default interval.
pub const SAMPLES: usize = 60;

const UNKNOWN: u32 = u32::MAX;

/// The last [`SAMPLES`] values in KiB, which holds 4 TiB in half the bytes.
#[derive(Debug, Clone, Default)]
pub struct History {
    kib: Vec<u32>,
    /// Where the next value goes once the history is full.
    next: usize,
}

impl History {
    /// Adds a value, forgetting the oldest when full; `None` keeps the place of an unknown one.
    pub fn push(&mut self, bytes: Option<u64>) {
        let kib = bytes.map_or(UNKNOWN, |bytes| {
            u32::try_from(bytes / 1024)
                .unwrap_or(UNKNOWN)
                .min(UNKNOWN - 1)
        });
        if self.kib.len() < SAMPLES {
            self.kib.push(kib);
        } else {
            self.kib[self.next] = kib;
            self.next = (self.next + 1) % SAMPLES;
        }
    }

    /// Newest first, bytes.
    pub fn newest_first(&self) -> impl Iterator<Item = Option<u64>> + '_ {
        let (newest, oldest) = self.kib.split_at(self.next);
        oldest
            .iter()
            .chain(newest)
            .rev()
            .map(|&kib| (kib != UNKNOWN).then_some(u64::from(kib) * 1024))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_values_go_first_and_gaps_keep_their_place() {
        let mut history = History::default();
        for value in 0..SAMPLES as u64 + 3 {
            history.push((value != 60).then_some(value * 1024));
        }
        let values: Vec<Option<u64>> = history.newest_first().collect();
        assert_eq!(values.len(), SAMPLES);
        assert_eq!(values[..3], [Some(62 * 1024), Some(61 * 1024), None]);
        assert_eq!(values[SAMPLES - 1], Some(3 * 1024));
    }
}
