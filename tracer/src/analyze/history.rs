//! Recorded series in memory: a column each for the times and for what is known, in order of time.
//!
//! Owns order and merging. Must not parse, judge or print.

use std::collections::HashMap;

use globset::GlobMatcher;

use crate::{analysis::Sample, host::escape::display};

/// Series kept; more means that a column with ever new values was taken for the series.
pub const MOST_SERIES: usize = 65_536;
/// Samples kept of all series together.
pub const MOST_SAMPLES: usize = 64 << 20;
/// Bytes of the name of a series.
pub const MOST_NAME_BYTES: usize = 4096;
/// Characters of a name that are shown.
const SHOWN_CHARS: usize = 512;
/// Names told in an error, and characters of each.
const MOST_TOLD: usize = 5;
const MOST_TOLD_CHARS: usize = 80;
/// No value; no reading is that large, see [`Column::value`].
const GAP: u64 = u64::MAX;
/// From here on a limit is none: v1 writes "unlimited" as a little less than 2^63.
const UNLIMITED: u64 = 1 << 60;

/// What a sample may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Column {
    Anon,
    File,
    Shmem,
    Kernel,
    Usage,
    WorkingSet,
    /// 0 is no limit.
    Limit,
    Swap,
    /// CPU in use, in billionths of a core.
    CpuRate,
    /// CPU time since a start, in nanoseconds.
    CpuTotal,
    Epoch,
}

/// How many columns there are.
pub const COLUMNS: usize = 11;

/// One row: a value for each column, `None` where it is not known.
pub type Row = [Option<u64>; COLUMNS];

impl Column {
    /// Whether it is memory that can be judged.
    pub fn is_memory(self) -> bool {
        use Column::{Anon, File, Kernel, Shmem, Usage, WorkingSet};
        matches!(self, Anon | File | Shmem | Kernel | Usage | WorkingSet)
    }

    /// As it is kept, of a number in the unit of the input (bytes, cores, seconds of CPU time, epoch).
    /// `None` where it is no such quantity: negative, or beyond 64 bits.
    pub fn value(self, number: f64) -> Option<u64> {
        let scaled = match self {
            Column::CpuRate | Column::CpuTotal => number * 1e9,
            _ => number,
        };
        let fits = (0.0..=2f64.powi(64)).contains(&scaled);
        let whole =
            self != Column::Epoch || (number.fract() == 0.0 && number <= f64::from(u32::MAX));
        (fits && whole).then(|| (scaled.round() as u64).min(GAP - 1))
    }
}

/// The samples of one series.
#[derive(Debug, Default)]
pub struct Series {
    name: String,
    times_ms: Vec<i64>,
    columns: [Vec<u64>; COLUMNS],
}

impl Series {
    /// Safe to show.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Times of the samples, rising.
    pub fn times_ms(&self) -> &[i64] {
        &self.times_ms
    }

    /// Whether any value of it is known.
    pub fn has(&self, column: Column) -> bool {
        self.column(column).iter().any(|value| *value != GAP)
    }

    /// A value; `None` where it is not known.
    pub fn get(&self, column: Column, at: usize) -> Option<u64> {
        self.column(column)
            .get(at)
            .copied()
            .filter(|value| *value != GAP)
    }

    fn column(&self, column: Column) -> &[u64] {
        self.columns.get(column as usize).map_or(&[], Vec::as_slice)
    }

    fn set(&mut self, column: usize, at: usize, value: u64) {
        let rows = self.times_ms.len();
        let Some(values) = self.columns.get_mut(column) else {
            return;
        };
        if values.is_empty() {
            values.resize(rows, GAP);
        }
        if let Some(cell) = values.get_mut(at) {
            *cell = merged(column, *cell, value);
        }
    }

    fn add(&mut self, time_ms: i64) {
        self.times_ms.push(time_ms);
        for values in self.columns.iter_mut().filter(|values| !values.is_empty()) {
            values.push(GAP);
        }
    }

    /// Puts the samples into order and makes one of those that have the same time; how many were out
    /// of order and how many were made one with another.
    fn settle(&mut self) -> (usize, usize) {
        let steps = || self.times_ms.iter().zip(self.times_ms.iter().skip(1));
        let back = steps().filter(|(before, after)| after < before).count();
        if steps().all(|(before, after)| before < after) {
            return (0, 0);
        }
        let mut order: Vec<usize> = (0..self.times_ms.len()).collect();
        // Stable: of two values for one time the later row counts.
        order.sort_by_key(|row| self.times_ms.get(*row).copied());
        let old = std::mem::take(&mut self.times_ms);
        let old_columns = std::mem::take(&mut self.columns);
        self.times_ms.reserve(old.len());
        for row in order {
            let Some(time) = old.get(row).copied() else {
                continue;
            };
            if self.times_ms.last() != Some(&time) {
                self.add(time);
            }
            let at = self.times_ms.len() - 1;
            for (column, values) in old_columns.iter().enumerate() {
                if let Some(value) = values.get(row).filter(|value| **value != GAP) {
                    self.set(column, at, *value);
                }
            }
        }
        (back, old.len() - self.times_ms.len())
    }

    /// The samples as the analysis takes them. A limit holds until another is read, 0 is none; where
    /// none was read yet it is `limit`.
    pub fn samples(&self, limit: Option<u64>) -> impl Iterator<Item = Sample> + '_ {
        let mut limit = limit;
        let mut cpu = Cpu::default();
        self.times_ms.iter().enumerate().map(move |(at, time_ms)| {
            let get = |column| self.get(column, at);
            if let Some(read) = get(Column::Limit) {
                limit = Some(if read < UNLIMITED { read } else { 0 });
            }
            let cpu_ns = get(Column::CpuTotal).or_else(|| cpu.add(*time_ms, get(Column::CpuRate)));
            Sample {
                time_ms: *time_ms,
                anon_bytes: get(Column::Anon),
                file_bytes: get(Column::File),
                shmem_bytes: get(Column::Shmem),
                kernel_bytes: get(Column::Kernel),
                usage_bytes: get(Column::Usage),
                working_set_bytes: get(Column::WorkingSet),
                limit_bytes: limit,
                swap_bytes: get(Column::Swap),
                cpu_ns,
                epoch: get(Column::Epoch).and_then(|epoch| u32::try_from(epoch).ok()),
                ..Sample::default()
            }
        })
    }
}

/// The limits of several levels are one: the least. Of anything else the later value counts.
fn merged(column: usize, old: u64, new: u64) -> u64 {
    if column == Column::Limit as usize && old != GAP && old != 0 && new != 0 {
        old.min(new)
    } else if column == Column::Limit as usize && new == 0 && old != GAP {
        old
    } else {
        new
    }
}

/// CPU time as the sum of CPU in use.
#[derive(Debug, Default)]
struct Cpu {
    total_ns: u64,
    before_ms: Option<i64>,
}

impl Cpu {
    fn add(&mut self, time_ms: i64, nanocores: Option<u64>) -> Option<u64> {
        let before = self.before_ms.replace(time_ms);
        let elapsed = before.map_or(0, |before| time_ms.saturating_sub(before).max(0));
        let added = u128::from(nanocores?) * elapsed.unsigned_abs() as u128 / 1000;
        self.total_ns = self
            .total_ns
            .saturating_add(u64::try_from(added).unwrap_or(u64::MAX));
        Some(self.total_ns)
    }
}

/// Why a sample found no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TooMuch {
    #[error("series: the name is longer than {MOST_NAME_BYTES} bytes")]
    Name,
    #[error("more than {MOST_SERIES} series: is the column of another thing called series?")]
    Series,
    #[error("more than {MOST_SAMPLES} samples: narrow it down with --series")]
    Samples,
}

/// Everything that was read.
#[derive(Debug, Default)]
pub struct History {
    series: Vec<Series>,
    by_name: HashMap<Vec<u8>, Option<usize>>,
    filter: Option<GlobMatcher>,
    samples: usize,
    last: Option<(Vec<u8>, Option<usize>)>,
}

/// Where the samples of a series go; `None` for a series that is not asked for.
pub type Place = Option<usize>;

impl History {
    /// Keeps only the series whose name matches.
    pub fn new(filter: Option<GlobMatcher>) -> Self {
        History {
            filter,
            ..History::default()
        }
    }

    /// The place of the series called `name`.
    ///
    /// # Errors
    /// A name too long, or too many series.
    pub fn place(&mut self, name: &[u8]) -> Result<Place, TooMuch> {
        // Rows of one series mostly follow each other.
        if let Some((last, place)) = &self.last
            && last == name
        {
            return Ok(*place);
        }
        let place = match self.by_name.get(name) {
            Some(place) => *place,
            None => self.make(name)?,
        };
        self.last = Some((name.to_owned(), place));
        Ok(place)
    }

    fn make(&mut self, name: &[u8]) -> Result<Place, TooMuch> {
        if name.len() > MOST_NAME_BYTES {
            return Err(TooMuch::Name);
        }
        if self.by_name.len() >= MOST_SERIES {
            return Err(TooMuch::Series);
        }
        let wanted = |glob: &GlobMatcher| glob.is_match(&*String::from_utf8_lossy(name));
        let place = self.filter.as_ref().is_none_or(wanted).then(|| {
            self.series.push(Series {
                name: display(name, SHOWN_CHARS),
                ..Series::default()
            });
            self.series.len() - 1
        });
        self.by_name.insert(name.to_owned(), place);
        Ok(place)
    }

    /// Adds a sample.
    ///
    /// # Errors
    /// Too many samples.
    pub fn add(&mut self, place: Place, time_ms: i64, row: &Row) -> Result<(), TooMuch> {
        let Some(series) = place.and_then(|place| self.series.get_mut(place)) else {
            return Ok(());
        };
        self.samples += 1;
        if self.samples > MOST_SAMPLES {
            return Err(TooMuch::Samples);
        }
        series.add(time_ms);
        let at = series.times_ms.len() - 1;
        for (column, value) in row.iter().enumerate() {
            if let Some(value) = value {
                series.set(column, at, *value);
            }
        }
        Ok(())
    }

    /// Adds the values of one column; those at times that the series has already join these samples.
    ///
    /// # Errors
    /// Too many samples.
    pub fn join(
        &mut self,
        place: Place,
        column: Column,
        values: &[(i64, Option<u64>)],
    ) -> Result<(), TooMuch> {
        let Some(series) = place.and_then(|place| self.series.get_mut(place)) else {
            return Ok(());
        };
        let known = series.times_ms.len();
        let mut at = 0;
        for (time_ms, value) in values {
            let earlier = |at: usize| at < known && series.times_ms.get(at) < Some(time_ms);
            while earlier(at) {
                at += 1;
            }
            let row = if at < known && series.times_ms.get(at) == Some(time_ms) {
                at
            } else {
                self.samples += 1;
                if self.samples > MOST_SAMPLES {
                    return Err(TooMuch::Samples);
                }
                series.add(*time_ms);
                series.times_ms.len() - 1
            };
            if let Some(value) = value {
                series.set(column as usize, row, *value);
            }
        }
        Ok(())
    }

    /// The first few series that are not asked for, for a person.
    pub fn left_out_names(&self) -> String {
        let left_out = self.by_name.iter().filter(|(_, place)| place.is_none());
        let mut names: Vec<&[u8]> = left_out.map(|(name, _)| name.as_slice()).collect();
        names.sort_unstable();
        let first = names
            .iter()
            .take(MOST_TOLD)
            .map(|name| display(name, MOST_TOLD_CHARS));
        let first: Vec<String> = first.collect();
        let more = if names.len() > MOST_TOLD { ", …" } else { "" };
        format!("{}{more}", first.join(", "))
    }

    /// The series in order of appearance, each in order of time, and what had to be done for that.
    pub fn settle(mut self) -> Settled {
        let mut settled = Settled::default();
        for series in &mut self.series {
            let (back, joined) = series.settle();
            settled.back += back;
            settled.joined += joined;
        }
        settled.left_out = self.by_name.len() - self.series.len();
        settled.series = self.series;
        settled
    }
}

/// What was read, ready to be judged.
#[derive(Debug, Default)]
pub struct Settled {
    pub series: Vec<Series>,
    /// How often time went back.
    pub back: usize,
    /// Samples made one with another of the same time.
    pub joined: usize,
    /// Series that are not asked for.
    pub left_out: usize,
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
