//! Reads what is stored, also while agents write and prune.
//!
//! The files may be damaged or hostile: lines and bytes are bounded, what is no incident is skipped
//! and counted.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead, BufReader, Read as _},
    path::Path,
    time::Duration,
};

use crate::incident::Incident;

use super::{MOST_LINE_BYTES, StoreError, directory::Directory};

/// Read at most, of the newest segments; the writer's default cap is an eighth of it.
const MOST_BYTES: u64 = 512 << 20;
/// An agent may be in the midst of a write.
const PATIENCE: Duration = Duration::from_millis(20);

/// What is in a store.
#[derive(Debug, Default)]
pub struct Incidents {
    /// Oldest first, each once: of several records of one id the last complete one.
    pub incidents: Vec<Incident>,
    /// Lines that are no incident: torn by a crash, damaged, or of an incompatible version; and
    /// files in place of segments that are none.
    pub damaged: u64,
    /// Bytes of old segments that were not looked at because there is too much.
    pub unread_bytes: u64,
    /// Whether there is a directory of incidents at all.
    pub exists: bool,
}

/// Reads the store below `state_dir`. A missing directory is an empty store.
///
/// Fails if the directory is a symbolic link or cannot be read.
pub fn read(state_dir: &Path) -> Result<Incidents, StoreError> {
    let mut found = Incidents::default();
    let Some(directory) = Directory::open(state_dir)? else {
        return Ok(found);
    };
    found.exists = true;
    let mut folded = Folded::default();
    let read = each(&directory, &mut |incident, _| folded.add(incident))?;
    found.damaged = read.damaged;
    found.unread_bytes = read.unread_bytes;
    found.incidents = folded.incidents;
    found
        .incidents
        .sort_by(|a, b| (a.time, &a.id).cmp(&(b.time, &b.id)));
    Ok(found)
}

/// Hands every record of the store below `state_dir` to `take`, oldest segment first, one at a time: an
/// agent has less memory than a full store takes. An incident may have several records (see [`Incidents`]).
///
/// Fails as [`read`] does.
pub fn each_record(state_dir: &Path, take: &mut dyn FnMut(Incident)) -> Result<(), StoreError> {
    let Some(directory) = Directory::open(state_dir)? else {
        return Ok(());
    };
    each(&directory, &mut |incident, _| take(incident)).map(drop)
}

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub segment: u64,
    pub offset: u64,
    /// With its newline.
    pub bytes: u64,
}

/// What reading came to.
#[derive(Debug, Default)]
pub struct Read {
    /// As [`Incidents::damaged`].
    pub damaged: u64,
    /// As [`Incidents::unread_bytes`].
    pub unread_bytes: u64,
}

/// Hands every record to `take`, oldest segment first, one at a time.
pub fn each(
    directory: &Directory,
    take: &mut dyn FnMut(Incident, Place),
) -> Result<Read, StoreError> {
    let mut read = Read::default();
    for (number, bytes) in newest(directory, &mut read)? {
        let segment = match directory.read_segment(number) {
            Ok(Some(segment)) => segment,
            // Pruned in the meantime.
            Ok(None) => continue,
            Err(error) => {
                log::warn!("{error}");
                read.damaged += 1;
                continue;
            }
        };
        let mut placed = |incident, offset, bytes| {
            let segment = number;
            take(
                incident,
                Place {
                    segment,
                    offset,
                    bytes,
                },
            );
        };
        read.damaged += read_segment(segment, bytes, &mut placed)
            .map_err(|source| StoreError::io("read", &directory.segment_path(number), source))?;
    }
    Ok(read)
}

/// The newest segments that are not too much together, oldest first, with the bytes to read of each.
fn newest(directory: &Directory, read: &mut Read) -> Result<Vec<(u64, u64)>, StoreError> {
    let mut left = MOST_BYTES;
    let mut segments = Vec::new();
    for number in directory.segments()?.into_iter().rev() {
        let bytes = match directory.read_segment(number) {
            Ok(Some(file)) => file.metadata().map_or(0, |metadata| metadata.len()),
            Err(error) if error.is_permission() => return Err(error),
            Ok(None) | Err(_) => 0,
        };
        if bytes > left {
            read.unread_bytes = read.unread_bytes.saturating_add(bytes);
            // Older ones that fit would leave a gap.
            left = 0;
            continue;
        }
        left -= bytes;
        segments.push((number, bytes));
    }
    segments.reverse();
    Ok(segments)
}

#[derive(Default)]
struct Folded {
    incidents: Vec<Incident>,
    by_id: HashMap<String, usize>,
}

impl Folded {
    fn add(&mut self, incident: Incident) {
        let known = self
            .by_id
            .get(&incident.id)
            .and_then(|index| self.incidents.get_mut(*index));
        match known {
            Some(known) if incident.complete || !known.complete => *known = incident,
            Some(_) => {}
            None => {
                self.by_id.insert(incident.id.clone(), self.incidents.len());
                self.incidents.push(incident);
            }
        }
    }
}

/// Reads about `bytes` of a segment: as long as it was, and the end of a line begun there.
/// `take` gets each record with its offset and length; gives how many are damaged.
fn read_segment(
    segment: File,
    bytes: u64,
    take: &mut dyn FnMut(Incident, u64, u64),
) -> io::Result<u64> {
    let mut reader = BufReader::with_capacity(64 * 1024, segment);
    let mut line = Vec::new();
    let mut damaged = 0;
    let mut done = 0;
    while done < bytes {
        line.clear();
        let begin = done;
        done += read_line(&mut reader, &mut line)?;
        if line.is_empty() {
            break;
        }
        if line.last() != Some(&b'\n') && line.len() <= MOST_LINE_BYTES {
            std::thread::sleep(PATIENCE);
            done += read_line(&mut reader, &mut line)?;
        }
        match line.strip_suffix(b"\n").map(serde_json::from_slice) {
            Some(Ok(incident)) => take(incident, begin, done - begin),
            Some(Err(_)) | None => damaged += 1,
        }
        if line.len() > MOST_LINE_BYTES {
            line = Vec::new();
            done += skip_line(&mut reader, bytes.saturating_sub(done))?;
        }
    }
    Ok(damaged)
}

/// Appends up to and with the next newline, at most one byte more than a line may have.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<u64> {
    let room = (MOST_LINE_BYTES + 1).saturating_sub(line.len());
    let read = reader.take(room as u64).read_until(b'\n', line)?;
    Ok(read as u64)
}

/// Passes the rest of a line that is too long, at most `most` bytes of it and a little.
fn skip_line(reader: &mut impl BufRead, most: u64) -> io::Result<u64> {
    let mut skipped = 0;
    while skipped < most {
        let chunk = reader.fill_buf()?;
        if chunk.is_empty() {
            break;
        }
        let newline = memchr::memchr(b'\n', chunk);
        let used = newline.map_or(chunk.len(), |at| at + 1);
        reader.consume(used);
        skipped += used as u64;
        if newline.is_some() {
            break;
        }
    }
    Ok(skipped)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::fixture::incident;
    use super::*;

    fn store(segments: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::create(dir.path()).unwrap();
        for (text, number) in segments.iter().zip(1..) {
            fs::write(directory.segment_path(number), text).unwrap();
        }
        dir
    }

    fn line(n: u64, complete: bool) -> String {
        let mut incident = incident(n);
        incident.complete = complete;
        serde_json::to_string(&incident).unwrap() + "\n"
    }

    #[test]
    fn a_missing_directory_is_empty_and_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        for missing in [dir.path().to_owned(), dir.path().join("no/where")] {
            let found = read(&missing).unwrap();
            assert!(found.incidents.is_empty() && !found.exists);
        }
        let dir = store(&[]);
        assert!(read(dir.path()).unwrap().exists);
    }

    #[test]
    fn the_complete_record_wins_wherever_it_stands() {
        let (partial, whole) = (line(1, false), line(1, true));
        for segments in [
            [partial.as_str(), whole.as_str()],
            [whole.as_str(), partial.as_str()],
        ] {
            let dir = store(&segments);
            let found = read(dir.path()).unwrap();
            assert_eq!(found.incidents.len(), 1);
            assert!(found.incidents[0].complete);
        }
    }

    #[test]
    fn the_oldest_comes_first() {
        let dir = store(&[&(line(3, true) + &line(1, true)), &line(2, true)]);
        let ids: Vec<_> = read(dir.path())
            .unwrap()
            .incidents
            .into_iter()
            .map(|incident| incident.id)
            .collect();
        assert_eq!(ids, [1, 2, 3].map(|n| incident(n).id));
    }

    #[test]
    fn damage_is_counted_and_the_rest_read() {
        let long = "x".repeat(MOST_LINE_BYTES * 2);
        let torn = line(3, true);
        let text = [
            &line(1, true),
            "no json\n",
            "{}\n",
            &format!("{long}\n"),
            "\0\0\0\n",
            &"[".repeat(100_000),
            "\n",
            &line(2, true),
            &torn[..torn.len() / 2],
        ]
        .concat();
        let dir = store(&[&text, &line(4, true)]);
        let found = read(dir.path()).unwrap();
        assert_eq!(found.incidents.len(), 3);
        assert_eq!(found.damaged, 6);
    }

    #[test]
    fn fields_of_a_newer_version_are_ignored_and_absent_ones_unknown() {
        let mut value = serde_json::to_value(incident(1)).unwrap();
        value["brand_new"] = serde_json::json!({"a": [1, 2]});
        value.as_object_mut().unwrap().remove("killer");
        let dir = store(&[&format!("{value}\n")]);
        let found = read(dir.path()).unwrap();
        assert_eq!(found.incidents.len(), 1);
        assert_eq!(found.incidents[0].killer, None);
    }

    #[test]
    fn a_link_in_place_of_a_segment_is_skipped() {
        let dir = store(&[&line(1, true)]);
        let other = dir.path().join("other");
        fs::write(&other, line(2, true)).unwrap();
        std::os::unix::fs::symlink(&other, dir.path().join("incidents/00000002.jsonl")).unwrap();
        let found = read(dir.path()).unwrap();
        assert_eq!((found.incidents.len(), found.damaged), (1, 1));
    }
}
