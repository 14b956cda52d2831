//! Reads `/proc/PID/maps`: what lies where in a process.
//!
//! Must not open what is mapped.

use std::{fs::File, io, ops::Range};

use super::{HostError, ProcRoot, pseudo_file::read_stream};

/// Much longer lists than real programs have (`vm.max_map_count` is 65,530).
const MOST_BYTES: usize = 16 << 20;
/// Buffers that longer lists made larger are made smaller again.
const KEPT_BYTES: usize = 1 << 20;

/// One line of `/proc/PID/maps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    pub range: Range<u64>,
    pub executable: bool,
    pub writable: bool,
    pub private: bool,
    /// Of the first byte, in the file.
    pub offset: u64,
    /// Major and minor number of the file's device.
    pub device: (u32, u32),
    /// 0: no file.
    pub inode: u64,
    /// Raw and untrusted, as the kernel escapes it (`\012` for a newline); may end in ` (deleted)`.
    pub path: Vec<u8>,
}

/// Where a list of mappings ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListEnd {
    /// After the last mapping.
    Whole,
    /// It is longer than what is read of it.
    Cut,
}

impl ProcRoot {
    /// The mappings of a process, in the order of addresses; of a longer list than any real program's only
    /// the first. [`HostError::Gone`] when it has ended.
    pub fn mappings(&self, pid: u32, buffer: &mut Vec<u8>) -> Result<Vec<Mapping>, HostError> {
        let mut all = Vec::new();
        self.each_mapping(pid, buffer, |mapping| all.push(mapping))?;
        Ok(all)
    }

    /// Like [`ProcRoot::mappings`], but keeps none: a process may have many. Source: `show_map_vma` in
    /// fs/proc/task_mmu.c.
    pub fn each_mapping(
        &self,
        pid: u32,
        buffer: &mut Vec<u8>,
        then: impl FnMut(Mapping),
    ) -> Result<ListEnd, HostError> {
        let path = self.path(&format!("{pid}/maps"));
        let text = File::open(&path)
            .and_then(|file| read_stream(&file, buffer, MOST_BYTES))
            .map_err(|error| match (error.kind(), error.raw_os_error()) {
                (io::ErrorKind::NotFound, _) | (_, Some(libc::ESRCH)) => {
                    HostError::Gone { path: path.clone() }
                }
                _ => HostError::read(&path, error),
            })?;
        let is_cut = text.len() >= MOST_BYTES;
        // The last line of a list that was cut is not whole.
        let last = text.iter().rposition(|byte| *byte == b'\n');
        let whole = last.filter(|_| is_cut).unwrap_or(text.len());
        text.get(..whole)
            .unwrap_or_default()
            .split(|byte| *byte == b'\n')
            .filter_map(mapping)
            .for_each(then);
        if buffer.len() > KEPT_BYTES {
            buffer.truncate(KEPT_BYTES);
            buffer.shrink_to_fit();
        }
        Ok(if is_cut { ListEnd::Cut } else { ListEnd::Whole })
    }
}

/// One line; `None` if it is malformed.
pub(crate) fn mapping(line: &[u8]) -> Option<Mapping> {
    let mut rest = line;
    let mut field = || {
        let start = rest.iter().position(|byte| *byte != b' ')?;
        let text = &rest[start..];
        let end = text
            .iter()
            .position(|byte| *byte == b' ')
            .unwrap_or(text.len());
        rest = &text[end..];
        std::str::from_utf8(&text[..end]).ok()
    };
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (start, end) = field()?.split_once('-')?;
    let permissions = field()?.as_bytes();
    let offset = hex(field()?)?;
    let (major, minor) = field()?.split_once(':')?;
    let device = (
        u32::from_str_radix(major, 16).ok()?,
        u32::from_str_radix(minor, 16).ok()?,
    );
    let inode = field()?.parse().ok()?;
    let (start, end) = (hex(start)?, hex(end)?);
    (start < end).then(|| Mapping {
        range: start..end,
        writable: permissions.get(1) == Some(&b'w'),
        executable: permissions.get(2) == Some(&b'x'),
        private: permissions.get(3) == Some(&b'p'),
        offset,
        device,
        inode,
        path: rest.trim_ascii_start().to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_every_kind() {
        let line = b"7f00c000-7f00d000 r-xp 00001000 fe:01 131  /usr/lib/a b (deleted)";
        let read = mapping(line).unwrap();
        assert_eq!(read.range, 0x7f00_c000..0x7f00_d000);
        assert_eq!(
            (read.executable, read.writable, read.private),
            (true, false, true)
        );
        assert_eq!(
            (read.offset, read.device, read.inode),
            (0x1000, (0xfe, 1), 131)
        );
        assert_eq!(read.path, b"/usr/lib/a b (deleted)");
        let anonymous = mapping(b"1000-2000 rw-s 00000000 00:00 0 ").unwrap();
        assert!(anonymous.path.is_empty() && anonymous.inode == 0 && !anonymous.private);
    }

    #[test]
    fn malformed_lines_are_no_mappings() {
        for line in [
            &b""[..],
            b"1000",
            b"2000-1000 r-xp 0 00:00 0",
            b"x-y r-xp 0 00:00 0",
            b"1000-2000 r-xp 0 00:00",
        ] {
            assert_eq!(mapping(line), None);
        }
    }

    #[test]
    fn a_list_that_is_too_long_is_cut_between_two_mappings_and_says_so() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("1")).unwrap();
        let line = "1000-2000 r-xp 00000000 00:00 7 /file-of-a-name\n";
        let lines = MOST_BYTES / line.len();
        assert_ne!(lines * line.len(), MOST_BYTES);
        let read = |lines: usize| {
            std::fs::write(directory.path().join("1/maps"), line.repeat(lines)).unwrap();
            let mut found = 0;
            let proc = ProcRoot::new(directory.path());
            let end = proc.each_mapping(1, &mut Vec::new(), |mapping| {
                assert_eq!(mapping.path, b"/file-of-a-name");
                found += 1;
            });
            (end.unwrap(), found)
        };
        assert_eq!(read(lines), (ListEnd::Whole, lines));
        assert_eq!(read(lines + 1), (ListEnd::Cut, lines));
    }

    #[test]
    fn the_running_process_has_its_code_mapped() {
        let mappings = ProcRoot::default()
            .mappings(std::process::id(), &mut Vec::new())
            .unwrap();
        let here = lines_of_every_kind as fn() as usize as u64;
        let code = mappings.iter().find(|m| m.range.contains(&here)).unwrap();
        assert!(code.executable && code.inode != 0);
    }
}
