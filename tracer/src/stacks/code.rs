//! Places in code that outlive the process that ran there.

use std::{fs::File, sync::Arc};

/// A place in code. Of a caller it is an address inside its call, not the one it returns to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// A byte of a mapped file, at this offset from the file's start.
    File { module: ModuleId, offset: u64 },
    /// Code without a file, such as what a just-in-time compiler made.
    Anonymous { pid: u32, address: u64 },
}

/// A [`Module`], for as long as memtrace runs; never given to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModuleId(pub u32);

/// A file whose code processes run, as it was when it was mapped.
#[derive(Debug, Clone)]
pub struct Module {
    pub id: ModuleId,
    /// As in `/proc/PID/maps`: inside the process's mount namespace. Untrusted.
    pub path: String,
    /// `NT_GNU_BUILD_ID`; `None` if it has none or cannot be read.
    pub build_id: Option<Vec<u8>>,
    /// Kept open, so that it can be read after the process died or the file was replaced.
    /// `None`: what is at the path now is another file, or it cannot be opened.
    pub file: Option<Arc<File>>,
    /// A process that maps it, whose `/proc/PID/root` has the debug files of its container.
    pub pid: u32,
}

/// How a stack ends at its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Root {
    /// At the first function of the thread.
    Reached,
    /// The copied piece of the stack ended, the most frames were reached, or more would cost too much.
    Cut,
    /// No unwind information, and the frame pointer led nowhere.
    Lost,
}
