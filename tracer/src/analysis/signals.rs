//! Which memory is judged: takes the signals out of samples and gathers their minutes. Judges nothing.

use super::judge::Judge;
use super::ring::pages;
use super::sample::Sample;
use super::verdict::{Signal, State};
use serde::{Deserialize, Serialize};

/// One signal with its judgement and the minute that is open.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Track {
    /// What is judged.
    pub signal: Signal,
    /// The judgement.
    pub judge: Box<Judge>,
    open: Option<(u32, u32)>,
    /// The last value in bytes.
    pub last: u64,
}

impl Track {
    fn new(signal: Signal) -> Self {
        let accusable = !matches!(signal, Signal::File);
        Track {
            signal,
            judge: Box::new(Judge::new(accusable)),
            open: None,
            last: 0,
        }
    }

    fn take(&mut self, value: u64) {
        let value_pages = pages(value);
        let (low, high) = self.open.unwrap_or((value_pages, value_pages));
        self.open = Some((low.min(value_pages), high.max(value_pages)));
        self.last = value;
    }

    /// A new epoch; the minute that is open is left out.
    pub fn restarted(&mut self) {
        self.open = None;
        self.judge.restarted();
    }

    /// The minimum and maximum of the minute that ends, in pages.
    pub fn end_minute(&mut self) -> Option<(u32, u32)> {
        self.open.take()
    }
}

/// The signals of a cgroup: the main one (anon, else working set, else usage), then what else leaks.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Signals {
    tracks: Vec<Track>,
}

impl Signals {
    /// Takes the values of a sample.
    pub fn take(&mut self, sample: &Sample) {
        let anon = sample
            .anon_bytes
            .map(|anon| anon.saturating_add(sample.swap_bytes.unwrap_or(0)));
        let file = sample
            .file_bytes
            .map(|file| file.saturating_sub(sample.shmem_bytes.unwrap_or(0)));
        let main = [
            (Signal::Anon, anon),
            (Signal::WorkingSet, sample.working_set_bytes),
            (Signal::Usage, sample.usage_bytes),
        ];
        if let Some((signal, value)) = main
            .iter()
            .find_map(|(signal, value)| Some((*signal, (*value)?)))
        {
            self.take_main(signal, value);
        }
        for (signal, value) in [
            (Signal::Shmem, sample.shmem_bytes),
            (Signal::Kernel, sample.kernel_bytes),
            (Signal::File, file),
        ] {
            let known = self.tracks.iter_mut().find(|track| track.signal == signal);
            match (known, value) {
                (Some(track), Some(value)) => track.take(value),
                // What is always nothing needs no memory of its own.
                (None, Some(value)) if value > 0 => {
                    let mut track = Track::new(signal);
                    track.take(value);
                    self.tracks.push(track);
                }
                _ => {}
            }
        }
    }

    /// A better signal takes the place of a worse one; a sample that has only a worse one is a gap.
    fn take_main(&mut self, signal: Signal, value: u64) {
        let rank = |signal| match signal {
            Signal::Anon => 0,
            Signal::WorkingSet => 1,
            Signal::Usage => 2,
            _ => 3,
        };
        match self.tracks.iter_mut().find(|track| rank(track.signal) < 3) {
            Some(track) if track.signal == signal => track.take(value),
            Some(track) if rank(track.signal) > rank(signal) => {
                *track = Track::new(signal);
                track.take(value);
            }
            Some(_) => {}
            None => {
                let mut track = Track::new(signal);
                track.take(value);
                self.tracks.insert(0, track);
            }
        }
    }

    /// Every signal, the main one first.
    pub fn iter(&self) -> impl Iterator<Item = &Track> + '_ {
        self.tracks.iter()
    }

    /// The worst state, and the first signal that is in it.
    pub fn worst(&self) -> Option<(Signal, State)> {
        let states = self.tracks.iter().map(|t| (t.signal, t.judge.state()));
        states.reduce(|worst, other| if other.1 > worst.1 { other } else { worst })
    }

    /// The judgement of a signal.
    pub fn judge_mut(&mut self, signal: Signal) -> Option<&mut Judge> {
        let mut tracks = self.tracks.iter_mut();
        let track = tracks.find(|track| track.signal == signal)?;
        Some(&mut track.judge)
    }

    /// Every signal, the main one first.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Track> + '_ {
        self.tracks.iter_mut()
    }

    /// What of the limit `signal` may take: the limit less other unreclaimable memory. What is swapped
    /// out does not count against the limit.
    pub fn room(&self, signal: Signal, limit: Option<u64>, swap: u64) -> Option<f64> {
        let limit = limit? as f64;
        if matches!(signal, Signal::WorkingSet | Signal::Usage) {
            return Some(limit);
        }
        let of = |other: Signal| {
            let track = self
                .tracks
                .iter()
                .find(|track| track.signal == other && track.signal != signal);
            track.map_or(0.0, |track| track.last as f64)
        };
        Some(limit + swap as f64 - of(Signal::Anon) - of(Signal::Shmem) - of(Signal::Kernel))
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.tracks.capacity() * size_of::<Track>() + self.tracks.len() * size_of::<Judge>()
    }
}
