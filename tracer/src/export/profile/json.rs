//! The first suspects as small objects, for embedding in lines, reports and events.
//!
//! Owns how they are made of a profile; names are escaped and bounded.

use std::{sync::Arc, time::Duration};

use super::summary::whole;
use super::{View, names, total};
use crate::host::escape::display;
use crate::stacks::profile::{Frame, Profile};
use crate::stacks::suspects::{Suspect, suspect_paths};
use crate::stacks::told::{ProcessRecord, StackRecord, by_code};

/// Stacks that are told unless asked otherwise.
pub const DEFAULT_STACKS: usize = 5;
/// Frames of a stack, with the entry that stands for those left out.
pub const MOST_FRAMES: usize = 64;
/// Call paths that are looked at for each one that is told.
const PATHS_PER_STACK: usize = 8;
/// Most characters of a function or a module.
const MOST_NAME_CHARS: usize = 160;

/// The first `most` suspects of `profile`; those that differ only in the allocator's functions are one.
pub fn top(profile: &Profile, most: usize) -> Vec<StackRecord> {
    let resident = total(profile, View::Resident).bytes;
    let looked_at = most.saturating_mul(PATHS_PER_STACK);
    let suspects = suspect_paths(profile).into_iter().take(looked_at);
    let mut stacks = by_code(suspects.map(|suspect| record(&suspect, resident)));
    stacks.truncate(most);
    stacks
}

fn record(suspect: &Suspect, total_bytes: f64) -> StackRecord {
    let stack = suspect.stack;
    let (frames, mark) = names::bounded(stack);
    let share = suspect.resident.bytes / total_bytes;
    StackRecord {
        resident_bytes: whole(suspect.resident.bytes),
        error_bytes: whole(suspect.resident.error_bytes),
        growth_bytes: suspect.growth.bytes.round() as i64,
        growth_error_bytes: whole(suspect.growth.error_bytes),
        share: (total_bytes > 0.0).then(|| (share * 1e4).round() / 1e4),
        oldest_seconds: seconds(suspect.oldest),
        median_age_seconds: seconds(suspect.median_age),
        samples: suspect.samples,
        process: ProcessRecord {
            pid: stack.pid,
            comm: display(stack.comm.as_bytes(), MOST_NAME_CHARS),
        },
        frames: elided(frames),
        truncated: mark.is_some(),
    }
}

/// With milliseconds.
fn seconds(age: Duration) -> f64 {
    (age.as_secs_f64() * 1e3).round() / 1e3
}

/// Both ends, and how many are missing between them.
fn elided(frames: &[Arc<Frame>]) -> Vec<String> {
    let ends = MOST_FRAMES / 2;
    let (Some(inner), Some(outer)) = (
        frames.get(..ends),
        frames.get(frames.len().saturating_sub(ends - 1)..),
    ) else {
        return frames.iter().map(|frame| shown(frame)).collect();
    };
    if frames.len() <= MOST_FRAMES {
        return frames.iter().map(|frame| shown(frame)).collect();
    }
    let left_out = frames.len() - inner.len() - outer.len();
    let inner = inner.iter().map(|frame| shown(frame));
    inner
        .chain([format!("… {left_out} frames")])
        .chain(outer.iter().map(|frame| shown(frame)))
        .collect()
}

fn shown(frame: &Frame) -> String {
    match frame.function.as_deref().filter(|name| !name.is_empty()) {
        Some(function) => format!(
            "{} ({})",
            display(function.as_bytes(), MOST_NAME_CHARS),
            display(frame.module.as_bytes(), MOST_NAME_CHARS)
        ),
        None => names::function(frame),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::profile::fixture::{self, HOSTILE, profile, stack};
    use crate::stacks::code::Root;

    #[test]
    fn the_leak_is_told_first_and_with_its_error() {
        let top = top(&fixture::leak_and_cache(), DEFAULT_STACKS);
        let json = serde_json::to_value(&top[0]).unwrap();
        let expected = serde_json::json!({
            "resident_bytes": 80_000, "error_bytes": 5657,
            "growth_bytes": 60_000, "growth_error_bytes": 4243,
            "share": 0.2963, "oldest_seconds": 60.0, "median_age_seconds": 30.0, "samples": 8,
            "process": {"pid": 7, "comm": "app"},
            "frames": ["leak (app)", "serve (app)", "main (app)", "_start (app)"],
            "truncated": false,
        });
        assert_eq!(json, expected);
        assert_eq!(top[0].line(), "leak < serve < main < _start");
        assert_eq!(top.len(), 3);
        let again: StackRecord = serde_json::from_value(json).unwrap();
        assert_eq!(again, top[0]);
    }

    #[test]
    fn a_deep_stack_keeps_both_ends_and_tells_what_is_missing() {
        let names: Vec<String> = (0..200).map(|at| format!("f{at}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut deep = stack(1, &names, 1.0);
        deep.root = Root::Cut;
        let top = top(&profile(vec![deep]), 1);
        let frames = &top[0].frames;
        assert_eq!(frames.len(), MOST_FRAMES);
        assert_eq!(frames[0], "f0 (app)");
        assert_eq!(frames[32], "… 137 frames");
        assert_eq!(frames[63], "f199 (app)");
        assert!(top[0].truncated);
        assert!(top[0].line().ends_with("f7 < …"));
    }

    #[test]
    fn hostile_names_are_one_short_line() {
        let mut hostile = fixture::hostile();
        fixture::frame_mut(&mut hostile.stacks[0], 0).function = Some("x(".repeat(100_000));
        for record in top(&hostile, 100) {
            let json = serde_json::to_string(&record).unwrap();
            assert!(!json.contains('\x1b') && !json.contains('\u{202e}'));
            assert!(json.len() < 4000 && record.line().len() < 1500);
            assert!(!record.line().chars().any(char::is_control));
        }
        assert_eq!(hostile.stacks.len(), HOSTILE.len());
    }

    #[test]
    fn nothing_resident_has_no_share() {
        let top = top(&profile(vec![stack(1, &["f"], 0.0)]), 5);
        assert_eq!(top[0].share, None);
        assert!(super::top(&profile(Vec::new()), 5).is_empty());
    }
}
