//! Which incidents are stored, without holding them: an agent that is asked has little memory to spare.
//!
//! Owns which record of an incident is the one to tell, as `reader` does. Reads one record at a time.

use std::{
    collections::HashMap,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use crate::incident::Incident;

use super::{
    MOST_LINE_BYTES, StoreError,
    directory::Directory,
    reader::{Place, each},
};

/// An incident that can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub id: String,
    pub time: Timestamp,
    complete: bool,
    wanted: bool,
    place: Place,
}

/// The incidents of a store that are wanted.
pub struct Index {
    /// `None`: nothing was ever stored.
    directory: Option<Directory>,
    /// Newest first.
    pub entries: Vec<Entry>,
}

impl Index {
    /// Looks through the store below `state_dir` for what `wanted` takes.
    ///
    /// # Errors
    /// The directory cannot be read, or is a symbolic link.
    pub fn read(state_dir: &Path, wanted: impl Fn(&Incident) -> bool) -> Result<Self, StoreError> {
        let directory = Directory::open(state_dir)?;
        let mut entries: Vec<Entry> = Vec::new();
        if let Some(directory) = &directory {
            let mut by_id: HashMap<String, usize> = HashMap::new();
            each(directory, &mut |incident, place| {
                let entry = Entry {
                    wanted: wanted(&incident),
                    time: incident.time,
                    complete: incident.complete,
                    id: incident.id,
                    place,
                };
                let known = by_id
                    .get(&entry.id)
                    .and_then(|index| entries.get_mut(*index));
                match known {
                    Some(known) if entry.complete || !known.complete => *known = entry,
                    Some(_) => {}
                    None => {
                        by_id.insert(entry.id.clone(), entries.len());
                        entries.push(entry);
                    }
                }
            })?;
        }
        entries.retain(|entry| entry.wanted);
        entries.sort_by(|a, b| (b.time, &b.id).cmp(&(a.time, &a.id)));
        Ok(Self { directory, entries })
    }

    /// The incident of an entry; `None` if it was pruned in the meantime.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn incident(&self, entry: &Entry) -> Result<Option<Incident>, StoreError> {
        let Some(directory) = &self.directory else {
            return Ok(None);
        };
        let Some(segment) = directory.read_segment(entry.place.segment)? else {
            return Ok(None);
        };
        let path = || -> PathBuf { directory.segment_path(entry.place.segment) };
        let length = usize::try_from(entry.place.bytes).unwrap_or(usize::MAX);
        let mut line = vec![0; length.min(MOST_LINE_BYTES)];
        match segment.read_exact_at(&mut line, entry.place.offset) {
            Ok(()) => {}
            // A segment that was pruned and made again.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(source) => return Err(StoreError::io("read", &path(), source)),
        }
        let incident: Option<Incident> = serde_json::from_slice(&line).ok();
        Ok(incident.filter(|incident| incident.id == entry.id))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::fixture::incident;
    use super::*;

    fn line(n: u64, complete: bool) -> String {
        let mut incident = incident(n);
        incident.complete = complete;
        serde_json::to_string(&incident).unwrap() + "\n"
    }

    fn store(segments: &[String]) -> (tempfile::TempDir, Directory) {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::create(dir.path()).unwrap();
        for (text, number) in segments.iter().zip(1..) {
            fs::write(directory.segment_path(number), text).unwrap();
        }
        (dir, directory)
    }

    #[test]
    fn the_newest_come_first_each_once_and_read_as_the_reader_reads_them() {
        let damaged = [line(1, false), "no json\n".to_owned(), line(3, true)].concat();
        let (dir, _) = store(&[damaged, [line(2, true), line(1, true)].concat()]);
        let index = Index::read(dir.path(), |_| true).unwrap();
        let read: Vec<Incident> = index
            .entries
            .iter()
            .map(|entry| index.incident(entry).unwrap().unwrap())
            .collect();
        let mut expected = super::super::read(dir.path()).unwrap().incidents;
        expected.reverse();
        assert_eq!(read, expected);
        assert_eq!(read.len(), 3);
        assert!(read.iter().all(|incident| incident.complete));
    }

    #[test]
    fn an_incident_is_judged_by_the_record_that_is_told() {
        let (dir, _) = store(&[[line(1, false), line(1, true)].concat()]);
        let index = Index::read(dir.path(), |incident| !incident.complete).unwrap();
        assert!(index.entries.is_empty());
    }

    #[test]
    fn what_was_pruned_meanwhile_is_no_error() {
        let (dir, directory) = store(&[line(1, true), line(2, true), line(3, true)]);
        let index = Index::read(dir.path(), |_| true).unwrap();
        directory.remove_segment(3).unwrap();
        fs::write(directory.segment_path(2), "").unwrap();
        fs::write(directory.segment_path(1), line(4, true)).unwrap();
        for entry in &index.entries {
            assert!(index.incident(entry).unwrap().is_none(), "{entry:?}");
        }
        let nowhere = Index::read(&dir.path().join("no/where"), |_| true).unwrap();
        assert!(nowhere.entries.is_empty());
    }
}
