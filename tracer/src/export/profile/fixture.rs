//! Profiles for the tests of the formats.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::stacks::code::Root;
use crate::stacks::profile::{Estimate, Frame, Kind, Profile, ProfileStack};

/// Names that mean something to a format, or to a terminal.
pub(in crate::export) const HOSTILE: [&str; 8] = [
    "a;b 7",
    "line\nfeed\r",
    "<script>alert(1)</script>",
    "]]>&amp;\"'",
    "\x1b[2J\x07",
    "\u{202e}\u{ffff}\u{0}",
    "# 1 2",
    "",
];

pub(crate) fn frame(function: &str) -> Frame {
    Frame {
        function: Some(function.into()),
        module: "app".into(),
        offset: 0x10,
        source: None,
        inlined: false,
    }
}

/// A frame of this stack only.
pub(crate) fn frame_mut(stack: &mut ProfileStack, at: usize) -> &mut Frame {
    Arc::make_mut(&mut Arc::make_mut(&mut stack.frames)[at])
}

/// Of functions, the innermost first.
pub(crate) fn stack(pid: u32, functions: &[&str], resident: f64) -> ProfileStack {
    let estimate = |bytes: f64| Estimate {
        bytes,
        error_bytes: bytes / 10.0,
    };
    ProfileStack {
        pid,
        comm: "app".into(),
        kind: Kind::Resident,
        frames: functions.iter().map(|name| Arc::new(frame(name))).collect(),
        root: Root::Reached,
        resident: estimate(resident),
        growth: Estimate::default(),
        touched: estimate(resident),
        samples: 4,
        oldest: Duration::from_secs(60),
        median_age: Duration::from_secs(30),
    }
}

/// A minute long.
pub(crate) fn profile(stacks: Vec<ProfileStack>) -> Profile {
    let from = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045);
    Profile {
        scope: "/kubepods/app".into(),
        from,
        until: from + Duration::from_secs(60),
        base: from,
        pages_per_sample: 64,
        anon_bytes: Some(400_000),
        lost_samples: 3,
        programs: Vec::new(),
        stacks,
    }
}

/// Two processes: one leaks beside a cache, the other has the cache only.
pub(crate) fn leak_and_cache() -> Profile {
    let mut leak = stack(7, &["leak", "serve", "main", "_start"], 40_000.0);
    leak.growth = Estimate {
        bytes: 30_000.0,
        error_bytes: 3_000.0,
    };
    let mut leak_elsewhere = leak.clone();
    frame_mut(&mut leak_elsewhere, 0).offset = 0x20;
    profile(vec![
        leak,
        leak_elsewhere,
        stack(7, &["cache", "main", "_start"], 100_000.0),
        stack(8, &["cache", "main", "_start"], 90_000.0),
    ])
}

/// Every hostile name as function, module, file and process.
pub(crate) fn hostile() -> Profile {
    let stacks = HOSTILE.iter().enumerate().map(|(at, name)| {
        let mut stack = stack(at as u32 + 1, &[name, "main", name], 4096.0);
        stack.comm = (*name).into();
        for at in 0..3 {
            let frame = frame_mut(&mut stack, at);
            frame.module = (*name).into();
            frame.source = Some(((*name).into(), 1));
        }
        frame_mut(&mut stack, 2).function = None;
        stack
    });
    let mut profile = profile(stacks.collect());
    profile.scope = HOSTILE.concat();
    profile
}

/// Distinct paths of `depth` frames that soon part.
pub(crate) fn many(stacks: usize, depth: usize) -> Profile {
    let stacks = (0..stacks).map(|at| {
        let name = |level: usize| format!("function_{}_{level}", at % (level + 2));
        let names: Vec<String> = (0..depth).map(name).rev().collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        stack(1, &names, 4096.0 * (1 + at % 50) as f64)
    });
    profile(stacks.collect())
}
