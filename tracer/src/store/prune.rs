//! Keeps the store below its caps by removing whole segments, oldest first.
//!
//! Removes a segment only under its lock, so never one that an agent appends to. Others may prune
//! the same directory at the same time.

use std::time::Duration;

use jiff::Timestamp;

use super::{StoreError, StoreLimits, directory::Directory, record_time};

/// Removes what is too old or too much, so that `reserved` bytes more stay below the cap. `own` is
/// the segment in use by the caller.
pub fn prune(
    directory: &Directory,
    limits: &StoreLimits,
    own: Option<u64>,
    reserved: u64,
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut total = reserved;
    let mut removable = Vec::new();
    for number in directory.segments()? {
        if own == Some(number) {
            continue;
        }
        // What is not a segment is not counted: it is not ours to remove.
        let Ok(Some(file)) = directory.read_segment(number) else {
            continue;
        };
        let bytes = file.metadata().map_or(0, |metadata| metadata.len());
        if file.try_lock().is_err() {
            // Another agent may fill it.
            total = total.saturating_add(bytes.max(limits.segment_bytes));
        } else if record_time::last(&file).is_some_and(|last| is_older(last, limits.age, now)) {
            directory.remove_segment(number)?;
        } else {
            total = total.saturating_add(bytes);
            removable.push((number, bytes));
        }
    }
    for (number, bytes) in removable {
        if total <= limits.total_bytes {
            break;
        }
        let Ok(Some(file)) = directory.read_segment(number) else {
            total = total.saturating_sub(bytes);
            continue;
        };
        // An agent that just started may have taken it.
        if file.try_lock().is_ok() {
            directory.remove_segment(number)?;
            total = total.saturating_sub(bytes);
        }
    }
    Ok(())
}

/// Whether more than `age` lies between.
pub fn is_older(time: Timestamp, age: Duration, now: Timestamp) -> bool {
    Duration::try_from(now.duration_since(time)).is_ok_and(|passed| passed > age)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const NOW: &str = "2026-11-21T00:00:00Z";

    fn limits() -> StoreLimits {
        StoreLimits {
            segment_bytes: 100,
            total_bytes: 400,
            age: Duration::from_secs(86400),
        }
    }

    fn segment(directory: &Directory, number: u64, time: &str, bytes: usize) {
        let mut line = format!("{{\"time\":\"{time}\",\"pad\":\"");
        line.push_str(&"x".repeat(bytes - line.len() - 3));
        line.push_str("\"}\n");
        assert_eq!(line.len(), bytes);
        fs::write(directory.segment_path(number), line).unwrap();
    }

    fn left(directory: &Directory, own: Option<u64>, reserved: u64) -> Vec<u64> {
        prune(directory, &limits(), own, reserved, NOW.parse().unwrap()).unwrap();
        directory.segments().unwrap()
    }

    #[test]
    fn the_oldest_segments_make_room() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::create(dir.path()).unwrap();
        for number in 1..=5 {
            segment(&directory, number, "2026-11-20T23:00:00Z", 100);
        }
        assert_eq!(left(&directory, None, 0), [2, 3, 4, 5]);
        assert_eq!(left(&directory, None, 100), [3, 4, 5]);
        assert_eq!(left(&directory, Some(5), 100), [3, 4, 5], "own counts once");
    }

    #[test]
    fn old_incidents_go_whatever_the_time_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::create(dir.path()).unwrap();
        segment(&directory, 1, "2026-11-19T23:59:59Z", 100);
        segment(&directory, 2, "2026-11-20T00:00:01Z", 100);
        segment(&directory, 3, "2031-01-01T00:00:00Z", 100);
        assert_eq!(left(&directory, None, 0), [2, 3]);
    }

    #[test]
    fn a_segment_that_an_agent_appends_to_stays() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::create(dir.path()).unwrap();
        for number in 1..=5 {
            segment(&directory, number, "2020-01-01T00:00:00Z", 100);
        }
        let used = directory.read_segment(1).unwrap().unwrap();
        used.lock().unwrap();
        assert_eq!(left(&directory, None, 0), [1]);
    }
}
