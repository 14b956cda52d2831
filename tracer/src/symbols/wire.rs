//! What memtrace and its symbolization worker tell each other, over a socket.
//!
//! A message is its length (4 bytes, little endian) and a postcard record; the descriptor of the
//! file that a request is about comes along with the length. Both sides bound what they accept.

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut, Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Most places of one request.
pub const MOST_PLACES: usize = 4096;
/// Most bytes of a name or a path in an answer, before escaping.
pub const MOST_TEXT: usize = 2048;
/// Most frames of one place: itself and what is inlined there.
pub const MOST_FRAMES: usize = 128;
/// Most bytes of all names and paths of one answer.
pub const MOST_TEXTS: usize = 8 << 20;
/// Most bytes of a message: all texts, and what frames them.
const MOST_BYTES: usize = 32 << 20;

#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// The first message.
    Limits(WorkerLimits),
    Module(ModuleRequest),
    Process(ProcessRequest),
}

/// What the worker may use.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct WorkerLimits {
    /// `RLIMIT_DATA`: what it allocates, bytes.
    pub heap_bytes: u64,
    /// `RLIMIT_AS`: with the files that it maps, bytes.
    pub mapped_bytes: u64,
    /// CPU time of one request, seconds.
    pub request_cpu_seconds: u64,
}

/// Names places of a file, whose descriptor comes along.
#[derive(Debug, Serialize, Deserialize)]
pub struct ModuleRequest {
    /// Two requests with the same key are about the same file.
    pub key: u64,
    /// Inside the mount namespace of `pid`.
    pub path: String,
    /// `None`: not known.
    pub build_id: Option<Vec<u8>>,
    pub pid: u32,
    /// Whether DWARF and separate debug files are used.
    pub debug_information: bool,
    /// From the start of the file.
    pub offsets: Vec<u64>,
}

/// Names addresses outside of files.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProcessRequest {
    pub pid: u32,
    pub addresses: Vec<u64>,
    /// All addresses were named from this state of the perf map.
    pub known: Option<PerfMapState>,
}

/// A state of a perf map; it is only ever appended to or written anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PerfMapState {
    Absent,
    Present {
        device: u64,
        inode: u64,
        length: u64,
        modified_ns: i128,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    Module(ModuleReply),
    Process(ProcessReply),
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct ModuleReply {
    /// As the offsets were asked, perhaps only the first of them; each innermost first, and empty if
    /// nothing is known.
    pub places: Vec<Vec<WireFrame>>,
    /// The file has another build-id than the module.
    pub changed: bool,
    pub rejected_debug_files: u64,
    pub frames_over_budget: u64,
    /// It holds so much that it should be ended.
    pub full: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ProcessReply {
    pub state: PerfMapState,
    /// As the addresses were asked; `None` if `state` is what was known.
    pub places: Option<Vec<GeneratedPlace>>,
    pub rejected_perf_maps: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GeneratedPlace {
    pub region: Region,
    pub name: Option<String>,
}

/// What an address without a file lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Region {
    /// Executable memory without a file.
    Generated,
    /// `[vdso]`: code of the kernel that runs in user space.
    Vdso,
    Unknown,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireFrame {
    pub function: Option<String>,
    pub source: Option<(String, u32)>,
}

/// Sends a message, and a descriptor with it.
///
/// # Errors
/// The other side is gone, or takes nothing for too long.
pub fn send<M: Serialize>(
    socket: &UnixStream,
    message: &M,
    file: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let body = postcard::to_stdvec(message).map_err(io::Error::other)?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    if body.len() > MOST_BYTES {
        return Err(io::Error::other("a message is too long"));
    }
    let length = length.to_le_bytes();
    let descriptors: Vec<RawFd> = file.iter().map(|file| file.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let attached = if file.is_some() { &rights[..] } else { &[] };
    let sent = loop {
        match sendmsg::<()>(
            socket.as_raw_fd(),
            &[IoSlice::new(&length)],
            attached,
            MsgFlags::MSG_NOSIGNAL,
            None,
        ) {
            Err(Errno::EINTR) => {}
            result => break result?,
        }
    };
    if sent != length.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    let mut socket = socket;
    socket.write_all(&body)
}

/// Receives a message and the descriptor that came with it. `None`: the other side is done.
///
/// # Errors
/// The other side is gone in the middle of a message, sends none until `deadline`
/// ([`io::ErrorKind::WouldBlock`] or [`io::ErrorKind::TimedOut`]), or one that cannot be read.
pub fn receive<M: DeserializeOwned>(
    socket: &UnixStream,
    deadline: Option<Instant>,
) -> io::Result<Option<(M, Option<File>)>> {
    let mut length = [0; 4];
    let (received, file) = loop {
        wait_until(socket, deadline)?;
        match receive_length(socket, &mut length) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => break result?,
        }
    };
    match received {
        0 => return Ok(None),
        4 => {}
        _ => return Err(io::ErrorKind::UnexpectedEof.into()),
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MOST_BYTES {
        return Err(io::Error::other("a message is too long"));
    }
    let mut body = vec![0; length];
    let mut filled = 0;
    let mut socket = socket;
    while let Some(rest) = body.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        wait_until(socket, deadline)?;
        match socket.read(rest) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(more) => filled += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let message = postcard::from_bytes(&body).map_err(io::Error::other)?;
    Ok(Some((message, file)))
}

fn receive_length(socket: &UnixStream, length: &mut [u8]) -> io::Result<(usize, Option<File>)> {
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let mut slices = [IoSliceMut::new(length)];
    let received = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_WAITALL,
    )?;
    let mut file = None;
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = message {
            for descriptor in descriptors {
                // SAFETY: the kernel made this descriptor for this message; nothing else has it.
                file = Some(File::from(unsafe { OwnedFd::from_raw_fd(descriptor) }));
            }
        }
    }
    Ok((received.bytes, file))
}

fn wait_until(socket: &UnixStream, deadline: Option<Instant>) -> io::Result<()> {
    let Some(deadline) = deadline else {
        return socket.set_read_timeout(None);
    };
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))
}
