//! Standard output behind a bounded queue, so that a reader that stalls never stalls the tracing.
//!
//! A thread does the blocking writes. A full queue is waited for a moment, then
//! whole chunks of lines are dropped and counted until there is room again.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Lines are handed over in chunks of about this size.
const CHUNK_BYTES: usize = 64 * 1024;
/// Most that waits for the reader.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;
/// Kept free for what must not be lost behind ordinary lines.
const URGENT_BYTES: usize = 512 * 1024;
/// Longest wait for room, once per stall.
const PATIENCE: Duration = Duration::from_millis(300);

#[derive(Default)]
struct Queue {
    chunks: VecDeque<Vec<u8>>,
    bytes: usize,
    dropped: u64,
    /// The reader did not keep up: no more waiting until it does.
    stalled: bool,
    /// The thread is in a write.
    writing: bool,
    failed: Option<io::ErrorKind>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, queue: MutexGuard<'a, Queue>, time: Duration) -> MutexGuard<'a, Queue> {
        self.changed
            .wait_timeout(queue, time)
            .map_or_else(|poisoned| poisoned.into_inner().0, |(queue, _)| queue)
    }
}

/// The writing end. Each `write` is a whole line or frame.
pub struct QueuedWriter {
    shared: Arc<Shared>,
    chunk: Vec<u8>,
    urgent: bool,
}

impl QueuedWriter {
    /// Starts the thread that writes to `out`.
    pub fn new(mut out: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || drain(&theirs, &mut out))?;
        Ok(Self {
            shared,
            chunk: Vec::with_capacity(CHUNK_BYTES),
            urgent: false,
        })
    }

    /// What is written until the next flush may use the room kept free for it.
    pub fn urgent(&mut self) {
        self.urgent = true;
    }

    /// Chunks that the reader did not take.
    pub fn dropped(&self) -> u64 {
        self.shared.lock().dropped
    }

    /// Waits until everything is written, for a bounded time.
    pub fn finish(&mut self, deadline: Duration) {
        // A failure was told by an earlier write, or nobody is left to read of it.
        let _ = self.flush();
        let end = Instant::now() + deadline;
        let mut queue = self.shared.lock();
        while (queue.bytes > 0 || queue.writing) && queue.failed.is_none() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            queue = self.shared.wait(queue, left);
        }
    }

    fn hand_over(&mut self) -> io::Result<()> {
        let most = QUEUE_BYTES + if self.urgent { URGENT_BYTES } else { 0 };
        let end = Instant::now() + PATIENCE;
        let mut queue = self.shared.lock();
        let has_room = |queue: &Queue| queue.bytes + self.chunk.len() <= most;
        while queue.failed.is_none() && !queue.stalled && !has_room(&queue) {
            let left = end.saturating_duration_since(Instant::now());
            queue.stalled = left.is_zero();
            if !queue.stalled {
                queue = self.shared.wait(queue, left);
            }
        }
        if let Some(kind) = queue.failed {
            return Err(kind.into());
        }
        if has_room(&queue) {
            queue.bytes += self.chunk.len();
            queue.chunks.push_back(std::mem::take(&mut self.chunk));
            self.shared.changed.notify_all();
        } else {
            queue.dropped += 1;
            self.chunk.clear();
        }
        Ok(())
    }
}

impl Write for QueuedWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= CHUNK_BYTES && bytes.ends_with(b"\n") {
            self.hand_over()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = if self.chunk.is_empty() {
            match self.shared.lock().failed {
                Some(kind) => Err(kind.into()),
                None => Ok(()),
            }
        } else {
            self.hand_over()
        };
        self.urgent = false;
        result
    }
}

/// Writes until a write fails. Ends with the process.
fn drain(shared: &Shared, out: &mut impl Write) {
    let mut queue = shared.lock();
    loop {
        let Some(chunk) = queue.chunks.pop_front() else {
            queue = shared
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        queue.writing = true;
        drop(queue);
        let result = out.write_all(&chunk).and_then(|()| out.flush());
        queue = shared.lock();
        queue.writing = false;
        queue.bytes -= chunk.len();
        queue.stalled = false;
        shared.changed.notify_all();
        if let Err(error) = result {
            queue.failed = Some(error.kind());
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_takes_nothing_costs_lines_not_time() {
        let (_reader, out) = io::pipe().unwrap();
        let mut writer = QueuedWriter::new(out).unwrap();
        let line = [vec![b'x'; 1023], vec![b'\n']].concat();
        for _ in 0..3 * QUEUE_BYTES / line.len() {
            writer.write_all(&line).unwrap();
        }
        writer.flush().unwrap();
        assert!(writer.dropped() > 0);
        assert!(writer.shared.lock().bytes <= QUEUE_BYTES);
        writer.urgent();
        let before = writer.dropped();
        writer.write_all(b"kill\n").unwrap();
        writer.flush().unwrap();
        assert_eq!(
            writer.dropped(),
            before,
            "urgent lines have room of their own"
        );
        writer.finish(Duration::from_millis(10));
    }

    #[test]
    fn a_reader_that_went_away_is_an_error() {
        let (reader, out) = io::pipe().unwrap();
        drop(reader);
        let mut writer = QueuedWriter::new(out).unwrap();
        writer.write_all(b"line\n").unwrap();
        writer.flush().unwrap();
        writer.finish(Duration::from_secs(5));
        let error = writer.flush().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
