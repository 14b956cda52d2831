//! Names of generated code, as runtimes write them to `/tmp/perf-PID.map`.
//!
//! Node (`--perf-basic-prof`), agents of JVMs, .NET (`DOTNET_PerfMapEnabled`), Python (`-X perf`)
//! write a line for each piece of code: start and size in hexadecimal, and a name up to the end of
//! the line. Files grow to hundreds of MiB, so they are read past the wanted addresses, not kept.
//! Source: tools/perf/Documentation/jit-interface.txt of Linux.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    path::Path,
};

use nix::sys::stat::FileStat;

use super::wire::{MOST_TEXT, PerfMapState};
use crate::host::open_in_root::Root;

/// Only the end of a longer map is read: the newest code.
const MOST_BYTES: u64 = 64 << 20;
/// Longer lines are cut; the address comes first.
const MOST_LINE: usize = MOST_TEXT + 64;

/// A perf map, found and open.
#[derive(Debug)]
pub struct PerfMap {
    pub state: PerfMapState,
    file: Option<File>,
    /// It is somebody else's, or no regular file.
    pub rejected: bool,
}

impl PerfMap {
    /// That of a process, which may write it under another number than `pid`: that of its namespace.
    pub fn of_process(pid: u32) -> PerfMap {
        let mut map = PerfMap {
            state: PerfMapState::Absent,
            file: None,
            rejected: false,
        };
        let status = File::open(format!("/proc/{pid}/status")).and_then(|file| {
            let mut text = String::new();
            file.take(64 * 1024).read_to_string(&mut text)?;
            Ok(text)
        });
        let (Ok(status), Ok(root)) = (status, Root::of_process(pid)) else {
            return map;
        };
        let Some(own) = OwnView::parse(&status) else {
            return map;
        };
        let path = format!("/tmp/perf-{}.map", own.pid);
        match root.open(Path::new(&path), false) {
            Ok((file, stat)) if stat.st_uid == 0 || stat.st_uid == own.uid => {
                map.state = state(&stat);
                map.file = Some(file);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(_) | Err(_) => map.rejected = true,
        }
        map
    }

    /// Names of `addresses`, which are sorted.
    pub fn names(self, addresses: &[u64]) -> Vec<Option<String>> {
        match self.file {
            Some(file) => names(file, addresses),
            None => vec![None; addresses.len()],
        }
    }
}

/// What the perf map `file` calls `addresses`, which are sorted; of the latest code at each.
pub fn names(file: File, addresses: &[u64]) -> Vec<Option<String>> {
    let mut names = Names::new(addresses);
    // What was read so far is of use.
    let _ = read(file, MOST_BYTES, &mut names);
    names.finish()
}

/// How a process sees itself.
struct OwnView {
    uid: u32,
    pid: u32,
}

impl OwnView {
    /// Source: `proc_pid_status` in fs/proc/array.c.
    fn parse(status: &str) -> Option<OwnView> {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        let effective = field("Uid:")?.split_ascii_whitespace().nth(1)?;
        let innermost = field("NStgid:")
            .or_else(|| field("Tgid:"))?
            .split_ascii_whitespace()
            .next_back()?;
        Some(OwnView {
            uid: effective.parse().ok()?,
            pid: innermost.parse().ok()?,
        })
    }
}

fn state(stat: &FileStat) -> PerfMapState {
    PerfMapState::Present {
        device: stat.st_dev,
        inode: stat.st_ino,
        length: u64::try_from(stat.st_size).unwrap_or(0),
        modified_ns: i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec),
    }
}

fn read(mut file: File, most: u64, names: &mut Names) -> io::Result<()> {
    let length = file.metadata()?.len();
    let skipped = length.saturating_sub(most);
    file.seek(SeekFrom::Start(skipped))?;
    let mut text = BufReader::with_capacity(256 * 1024, file.take(most));
    if skipped > 0 {
        text.skip_until(b'\n')?;
    }
    let mut line = Vec::with_capacity(MOST_LINE);
    loop {
        line.clear();
        let taken = (&mut text)
            .take(MOST_LINE as u64)
            .read_until(b'\n', &mut line)?;
        match line.last() {
            None => return Ok(()),
            Some(b'\n') => {
                line.pop();
            }
            Some(_) if taken == MOST_LINE => {
                text.skip_until(b'\n')?;
            }
            // The runtime is still writing it: the name may go on.
            Some(_) => return Ok(()),
        }
        if let Some((start, end, name)) = parse(&line) {
            names.add(start, end, name);
        }
    }
}

fn parse(line: &[u8]) -> Option<(u64, u64, &[u8])> {
    let (start, rest) = hexadecimal(line)?;
    let (size, name) = hexadecimal(rest)?;
    let name = name.trim_ascii();
    if name.is_empty() || size == 0 {
        return None;
    }
    Some((start, start.checked_add(size)?, name))
}

/// A number and what follows the space after it.
fn hexadecimal(text: &[u8]) -> Option<(u64, &[u8])> {
    let text = text.trim_ascii_start();
    let text = text.strip_prefix(b"0x").unwrap_or(text);
    let digits = text.iter().position(|byte| *byte == b' ')?;
    let (number, rest) = text.split_at(digits);
    if !number.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let number = u64::from_str_radix(std::str::from_utf8(number).ok()?, 16).ok()?;
    Some((number, rest.get(1..)?))
}

/// The latest pieces of code at some addresses.
struct Names<'a> {
    addresses: &'a [u64],
    pieces: Vec<Option<Piece>>,
}

struct Piece {
    start: u64,
    end: u64,
    name: Vec<u8>,
}

impl<'a> Names<'a> {
    fn new(addresses: &'a [u64]) -> Self {
        let pieces = addresses.iter().map(|_| None).collect();
        Names { addresses, pieces }
    }

    fn add(&mut self, start: u64, end: u64, name: &[u8]) {
        let first = self.addresses.partition_point(|address| *address < start);
        let after = self.addresses.partition_point(|address| *address < end);
        // Code that was placed over a part of other code has ended that. No two pieces overlap, so
        // one that reaches in here holds all addresses on the way.
        let ended = |piece: &Option<Piece>| {
            let over = |old: &Piece| start < old.end && old.start < end;
            piece.as_ref().is_some_and(over)
        };
        let (before, rest) = self.pieces.split_at_mut(first);
        let (within, behind) = rest.split_at_mut(after.saturating_sub(first));
        for piece in before.iter_mut().rev().take_while(|piece| ended(piece)) {
            *piece = None;
        }
        for piece in behind.iter_mut().take_while(|piece| ended(piece)) {
            *piece = None;
        }
        for piece in within {
            let cut = name.get(..MOST_TEXT).unwrap_or(name);
            *piece = Some(Piece {
                start,
                end,
                name: cut.to_vec(),
            });
        }
    }

    fn finish(self) -> Vec<Option<String>> {
        let name = |piece: Piece| String::from_utf8_lossy(&piece.name).into_owned();
        self.pieces
            .into_iter()
            .map(|piece| piece.map(name))
            .collect()
    }
}

#[cfg(test)]
#[path = "perf_map_tests.rs"]
mod tests;
