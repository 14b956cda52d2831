//! When the first and the last incident of a segment happened, without reading all of it.

use std::{fs::File, os::unix::fs::FileExt as _};

use jiff::Timestamp;
use serde::Deserialize;

/// Read of either end; a record longer than this has no time.
const END_BYTES: u64 = 256 * 1024;

#[derive(Deserialize)]
struct Timed {
    time: Timestamp,
}

/// Time of the first record; `None` if there is none, or if it is damaged.
pub fn first(file: &File) -> Option<Timestamp> {
    let len = file.metadata().ok()?.len();
    let head = read(file, 0, len.min(END_BYTES))?;
    time(head.get(..memchr::memchr(b'\n', &head)?)?)
}

/// Time of the last whole record, else of the last write.
pub fn last(file: &File) -> Option<Timestamp> {
    let metadata = file.metadata().ok()?;
    last_record(file, metadata.len())
        .or_else(|| Timestamp::try_from(metadata.modified().ok()?).ok())
}

fn last_record(file: &File, len: u64) -> Option<Timestamp> {
    let start = len.saturating_sub(END_BYTES);
    let tail = read(file, start, len - start)?;
    let whole = tail.get(..memchr::memrchr(b'\n', &tail)?)?;
    match memchr::memrchr(b'\n', whole) {
        Some(before) => time(whole.get(before + 1..)?),
        None if start == 0 => time(whole),
        None => None,
    }
}

fn read(file: &File, from: u64, bytes: u64) -> Option<Vec<u8>> {
    let mut text = vec![0; usize::try_from(bytes).ok()?];
    file.read_exact_at(&mut text, from).ok()?;
    Some(text)
}

fn time(line: &[u8]) -> Option<Timestamp> {
    serde_json::from_slice::<Timed>(line)
        .ok()
        .map(|record| record.time)
}
