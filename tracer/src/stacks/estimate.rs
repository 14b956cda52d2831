//! Sums over samples and what they estimate: Horvitz and Thompson's estimator (1952) for pages
//! that are drawn independently of each other, each with a probability of its own.

use super::profile::Estimate;

/// Samples added up.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sum {
    bytes: f64,
    variance: f64,
    samples: u64,
    /// Most bytes that one sample stands for.
    largest: f64,
}

impl Sum {
    /// Adds a sample of `bytes` that was drawn with a probability of 1 in `2^shift`.
    pub fn add(&mut self, bytes: u64, shift: u32) {
        self.add_weighted(bytes, (1u64 << shift.min(63)) as f64);
    }

    /// Adds a sample of `bytes` that was drawn with a probability of 1 in `weight`, at least 1.
    pub fn add_weighted(&mut self, bytes: u64, weight: f64) {
        let bytes = bytes as f64;
        self.bytes += weight * bytes;
        self.variance += weight * (weight - 1.0) * bytes * bytes;
        self.samples += 1;
        if weight > 1.0 {
            self.largest = self.largest.max(weight * bytes);
        }
    }

    pub fn merge(&mut self, other: &Sum) {
        self.bytes += other.bytes;
        self.variance += other.variance;
        self.samples += other.samples;
        self.largest = self.largest.max(other.largest);
    }

    pub fn samples(&self) -> u64 {
        self.samples
    }

    pub fn bytes(&self) -> f64 {
        self.bytes
    }

    /// The sum, and how exact it is. A few samples tell little of their own variance: as with
    /// counts of a Poisson distribution, one sample more is allowed for.
    pub fn estimate(&self) -> Estimate {
        Estimate {
            bytes: self.bytes,
            error_bytes: (self.variance + self.largest * self.largest).sqrt(),
        }
    }

    /// What is more here than there.
    pub fn minus(&self, less: &Sum) -> Estimate {
        let largest = self.largest.max(less.largest);
        Estimate {
            bytes: self.bytes - less.bytes,
            error_bytes: (self.variance + less.variance + largest * largest).sqrt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_sampled_is_exact() {
        let mut sum = Sum::default();
        sum.add(4096, 0);
        sum.add_weighted(100, 1.0);
        let estimate = sum.estimate();
        assert_eq!((estimate.bytes, estimate.error_bytes), (4196.0, 0.0));
    }

    #[test]
    fn a_sample_stands_for_as_many_as_it_was_drawn_from() {
        let mut sum = Sum::default();
        for _ in 0..100 {
            sum.add(4096, 6);
        }
        let estimate = sum.estimate();
        assert_eq!(estimate.bytes, 100.0 * 64.0 * 4096.0);
        let relative = estimate.error_bytes / estimate.bytes;
        assert!((0.09..0.11).contains(&relative), "{relative}");
    }

    #[test]
    fn a_difference_has_the_errors_of_both() {
        let (mut new, mut gone) = (Sum::default(), Sum::default());
        new.add(4096, 4);
        gone.add(4096, 4);
        let growth = new.minus(&gone);
        assert_eq!(growth.bytes, 0.0);
        assert!(growth.error_bytes > new.estimate().error_bytes);
    }
}
