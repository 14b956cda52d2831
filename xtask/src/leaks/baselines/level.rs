//! Rules on the level: thresholds, minima, records and shifts.

use super::super::draw::trailing_mean;
use super::super::minutes::MINUTES;
use super::block_means;

/// Above a level for `hold` minutes.
pub fn above(bytes: &[f64], level: f64, hold: usize) -> Vec<bool> {
    let mut minutes = 0;
    bytes
        .iter()
        .map(|bytes| {
            minutes = if *bytes > level { minutes + 1 } else { 0 };
            minutes >= hold
        })
        .collect()
}

/// The last `count` minima after a garbage collection rise. A fall by the share `drop` from the local
/// peak is taken for a collection, a rise by a quarter of that for its end.
pub fn rising_minima(bytes: &[f64], drop: f64, count: usize) -> Vec<bool> {
    let mut minima: Vec<f64> = Vec::new();
    let first = bytes.first().copied().unwrap_or_default();
    let (mut peak, mut lowest, mut collecting, mut rising) = (first, first, false, false);
    bytes
        .iter()
        .map(|bytes| {
            if !collecting {
                peak = peak.max(*bytes);
                collecting = *bytes < peak * (1.0 - drop);
                lowest = *bytes;
            } else if *bytes < lowest {
                lowest = *bytes;
            } else if *bytes > lowest * (1.0 + drop / 4.0) {
                if minima.len() == count {
                    minima.remove(0);
                }
                minima.push(lowest);
                rising = minima.len() == count && minima.windows(2).all(|pair| pair[0] < pair[1]);
                collecting = false;
                peak = *bytes;
            }
            rising
        })
        .collect()
}

/// Precog's maximum filter: the hourly mean is above all that are older than `lag` minutes, on the
/// second day at the earliest.
pub fn record(bytes: &[f64], lag: usize) -> Vec<bool> {
    let smooth = trailing_mean(bytes, 60);
    let mut highest = 0.0_f64;
    (0..smooth.len())
        .map(|minute| {
            if let Some(old) = minute.checked_sub(lag) {
                highest = highest.max(smooth[old]);
            }
            minute >= 1440 && smooth[minute] > highest
        })
        .collect()
}

/// A cumulative sum of what block means exceed the level by, in deviations of the first twelve; when it
/// passes the threshold it alarms, learns twelve blocks anew, and alarms with the next eleven.
pub fn page_hinkley(bytes: &[f64], width: usize, slack: f64, threshold: f64) -> Vec<bool> {
    const BLOCKS: usize = 12;
    let mut alarm = vec![false; MINUTES];
    let mut learned: Vec<f64> = Vec::new();
    let (mut mean, mut deviation, mut sum) = (0.0, 1.0, 0.0);
    let mut alarming = 0;
    for (block, level) in block_means(bytes, width).into_iter().enumerate() {
        if learned.len() < BLOCKS {
            learned.push(level);
            if learned.len() == BLOCKS {
                mean = learned.iter().sum::<f64>() / BLOCKS as f64;
                let squares: f64 = learned.iter().map(|level| (level - mean).powi(2)).sum();
                let variance = squares / (BLOCKS - 1) as f64 + (0.002 * mean).powi(2);
                deviation = variance.sqrt();
            }
            continue;
        }
        sum = f64::max(0.0, sum + (level - mean) / deviation - slack);
        if sum > threshold {
            alarming = BLOCKS;
            sum = 0.0;
            learned.clear();
        }
        if alarming > 0 {
            alarm[block * width..(block + 1) * width].fill(true);
            alarming -= 1;
        }
    }
    alarm
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_must_be_exceeded_for_a_while() {
        let alarm = above(&[1.0, 9.0, 9.0, 9.0, 1.0], 5.0, 3);
        assert_eq!(alarm, [false, false, false, true, false]);
    }

    #[test]
    fn minima_that_rise_alarm_and_those_that_repeat_do_not() {
        let sawtooth = |rise: f64| -> Vec<f64> {
            (0..200)
                .map(|minute| 100.0 + f64::from(minute % 20) * 2.0 + rise * f64::from(minute / 20))
                .collect()
        };
        assert!(rising_minima(&sawtooth(1.0), 0.05, 5).contains(&true));
        assert!(!rising_minima(&sawtooth(0.0), 0.05, 5).contains(&true));
    }
}
