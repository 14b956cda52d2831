//! Reads kernel pseudo files into a buffer that is used again and again.
//!
//! Owns how procfs and cgroupfs files end. Must not interpret their content.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const FIRST_SIZE: usize = 8 * 1024;
const LARGEST_RECORD: usize = 1 << 20;

/// The content of a file that the kernel renders in one piece (`memory.*`, `/proc/PID/stat`,
/// `/proc/meminfo`), normally with a single `pread`. Stops at 1 MiB.
///
/// Source: `seq_read_iter` in fs/seq_file.c: a file of one record is only cut short by the size of
/// the buffer, so a short read is the end.
pub fn read_record<'b>(file: &File, buffer: &'b mut Vec<u8>) -> io::Result<&'b [u8]> {
    if buffer.len() < FIRST_SIZE {
        buffer.resize(FIRST_SIZE, 0);
    }
    loop {
        let length = read_at(file, buffer, 0)?;
        if length < buffer.len() || buffer.len() >= LARGEST_RECORD {
            return Ok(&buffer[..length]);
        }
        // Read again from the start: two halves would be of two moments.
        buffer.resize(buffer.len() * 2, 0);
    }
}

/// The content of a file of many records (`cgroup.procs`, `/proc/vmstat`), read to its end or to
/// `most` bytes.
pub fn read_stream<'b>(file: &File, buffer: &'b mut Vec<u8>, most: usize) -> io::Result<&'b [u8]> {
    let mut length = 0;
    while length < most {
        if buffer.len() - length < FIRST_SIZE {
            buffer.resize(length + 2 * FIRST_SIZE, 0);
        }
        let end = buffer.len().min(most);
        match read_at(file, &mut buffer[length..end], length as u64)? {
            0 => break,
            more => length += more,
        }
    }
    Ok(&buffer[..length])
}

fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_of(content: &[u8]) -> File {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, content).unwrap();
        File::open(path).unwrap()
    }

    #[test]
    fn reads_records_of_any_size_and_reuses_the_buffer() {
        let mut buffer = Vec::new();
        for length in [0, 1, FIRST_SIZE - 1, FIRST_SIZE, 5 * FIRST_SIZE, 3] {
            let content = vec![b'x'; length];
            assert_eq!(
                read_record(&file_of(&content), &mut buffer).unwrap(),
                content
            );
            assert_eq!(
                read_stream(&file_of(&content), &mut buffer, 1 << 20).unwrap(),
                content
            );
        }
    }

    #[test]
    fn stops_at_the_bound() {
        let mut buffer = Vec::new();
        let content = vec![b'x'; 3 * FIRST_SIZE];
        assert_eq!(
            read_stream(&file_of(&content), &mut buffer, 100)
                .unwrap()
                .len(),
            100
        );
        let content = vec![b'x'; 2 * LARGEST_RECORD];
        assert_eq!(
            read_record(&file_of(&content), &mut buffer).unwrap().len(),
            LARGEST_RECORD
        );
    }

    #[test]
    fn reads_a_real_stream_file_whole() {
        let mut buffer = Vec::new();
        let file = File::open("/proc/self/mountinfo").unwrap();
        let content = read_stream(&file, &mut buffer, 1 << 20).unwrap();
        assert_eq!(content.last(), Some(&b'\n'));
    }
}
