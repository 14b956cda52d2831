//! System calls of one program that fail as a test wants.
//!
//! A seccomp filter, set between fork and exec, has the kernel ask the test before each call of the
//! kinds that it names; the test lets it go on or gives the error. So the program under test is the
//! one that is shipped, and sees what a kernel that refuses would show it.
//!
//! Sources: seccomp_unotify(2), `include/uapi/linux/{seccomp,bpf}.h`.

use std::fs::{self, File};
use std::io::{self, IoSliceMut};
use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

const RECEIVE: libc::c_ulong = 0xc050_2100;
const SEND: libc::c_ulong = 0xc018_2101;
/// `BPF_JEQ` looks at this half of an argument.
const LOW_HALF: u32 = 0;

/// A kind of system call that the test is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    pub number: libc::c_long,
    /// Only with this first argument.
    pub first: Option<u32>,
}

impl Kind {
    pub const OPEN: Kind = Kind::any(libc::SYS_openat);
    pub const CREATE_MAP: Kind = Kind::bpf(0);
    pub const LOAD_PROGRAM: Kind = Kind::bpf(5);

    pub const fn any(number: libc::c_long) -> Self {
        Self {
            number,
            first: None,
        }
    }

    pub const fn bpf(command: u32) -> Self {
        Self {
            number: libc::SYS_bpf,
            first: Some(command),
        }
    }
}

/// One call that waits for its answer.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub number: libc::c_long,
    pub arguments: [u64; 6],
    thread: u32,
}

impl Call {
    /// What the program has at an address, as far as it can be read.
    pub fn memory(&self, address: u64, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; most];
        let memory = File::open(format!("/proc/{}/mem", self.thread));
        let length = memory.and_then(|memory| memory.read_at(&mut bytes, address));
        bytes.truncate(length.unwrap_or(0));
        bytes
    }

    /// What a descriptor leads to.
    pub fn descriptor(&self, argument: usize) -> Option<PathBuf> {
        let descriptor = self.arguments[argument] as i32;
        fs::read_link(format!("/proc/{}/fd/{descriptor}", self.thread)).ok()
    }

    /// The whole path that an `openat` is about.
    pub fn opens(&self) -> Option<PathBuf> {
        let mut path = self.memory(self.arguments[1], 512);
        let end = path.iter().position(|byte| *byte == 0)?;
        path.truncate(end);
        let path = PathBuf::from(String::from_utf8(path).ok()?);
        if path.is_absolute() {
            return Some(path);
        }
        Some(self.descriptor(0)?.join(path))
    }

    /// A `bpf(2)` attribute: a number of 4 bytes.
    pub fn attribute(&self, offset: u64) -> Option<u32> {
        let bytes = self.memory(self.arguments[1] + offset, 4);
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    }

    /// The name of the map that is made, at most 15 bytes.
    pub fn map_name(&self) -> Option<String> {
        self.name(28)
    }

    /// The name of the program that is loaded, at most 15 bytes.
    pub fn program_name(&self) -> Option<String> {
        self.name(48)
    }

    /// The type of the kernel to which the program that is loaded is to be attached.
    pub fn attach_type(&self) -> Option<u32> {
        self.attribute(108)
    }

    fn name(&self, offset: u64) -> Option<String> {
        let bytes = self.memory(self.arguments[1] + offset, 16);
        let end = bytes.iter().position(|byte| *byte == 0)?;
        String::from_utf8(bytes[..end].to_vec()).ok()
    }
}

/// How many programs of memtrace's names the kernel holds, of all that run on this machine.
pub fn loaded_programs() -> Result<usize> {
    const NEXT_PROGRAM: libc::c_long = 11;
    const OPEN_PROGRAM: libc::c_long = 13;
    const INFO: libc::c_long = 15;
    const FAMILIES: [&str; 6] = [
        "oom_",
        "lifecycle_",
        "reclaim_",
        "heap_",
        "fault_",
        "stack_",
    ];
    let call = |command: libc::c_long, attribute: &mut [u64; 16]| {
        // SAFETY: an attribute of the kernel's size or more, whose pointers are to buffers that live.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                command,
                attribute.as_mut_ptr(),
                size_of_val(attribute),
            )
        };
        Errno::result(result)
    };
    let mut count = 0;
    let mut last = 0_u32;
    loop {
        let mut attribute = [0; 16];
        attribute[0] = u64::from(last);
        match call(NEXT_PROGRAM, &mut attribute) {
            Ok(_) => last = (attribute[0] >> 32) as u32,
            Err(Errno::ENOENT) => return Ok(count),
            Err(error) => return Err(error).context("cannot list BPF programs"),
        }
        let mut attribute = [0; 16];
        attribute[0] = u64::from(last);
        // It may have gone meanwhile.
        let Ok(descriptor) = call(OPEN_PROGRAM, &mut attribute) else {
            continue;
        };
        // SAFETY: just opened, nobody else has it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) };
        // Source: `struct bpf_prog_info`: the name is 16 bytes behind byte 64.
        let mut info = [0_u8; 80];
        let mut attribute = [0; 16];
        attribute[0] = descriptor.as_raw_fd() as u64 | (info.len() as u64) << 32;
        attribute[1] = info.as_mut_ptr() as u64;
        call(INFO, &mut attribute).context("cannot look at a BPF program")?;
        let name = String::from_utf8_lossy(&info[64..80]).into_owned();
        count += usize::from(FAMILIES.iter().any(|family| name.starts_with(family)));
    }
}

/// Answers the calls of one program until that has ended, or this is dropped.
#[derive(Debug)]
pub struct Refusals {
    refused: Arc<AtomicU64>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Refusals {
    /// Has `command`, once it is started, and what it starts, ask `refuses` before each call of these kinds.
    /// `sendmsg` must be none of them.
    pub fn of(
        command: &mut Command,
        kinds: &[Kind],
        refuses: impl FnMut(&Call) -> Option<Errno> + Send + 'static,
    ) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        // Of a command that is never started.
        ours.set_read_timeout(Some(Duration::from_secs(30)))?;
        let filter = filter(kinds);
        // SAFETY: only seccomp(2) and sendmsg(2) on what was made before, which is safe after fork.
        unsafe {
            command.pre_exec(move || {
                let program = libc::sock_fprog {
                    len: filter.len() as u16,
                    filter: filter.as_ptr().cast_mut(),
                };
                let listener = libc::syscall(
                    libc::SYS_seccomp,
                    libc::SECCOMP_SET_MODE_FILTER,
                    libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
                    &raw const program,
                );
                if listener < 0 {
                    return Err(io::Error::last_os_error());
                }
                hand_over(theirs.as_raw_fd(), listener as RawFd)
            });
        }
        let refused = Arc::new(AtomicU64::new(0));
        let end = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (refused, end) = (Arc::clone(&refused), Arc::clone(&end));
            // Nothing comes where the command was never started.
            move || {
                if let Ok(listener) = received(&ours) {
                    answer(&listener, &refused, &end, refuses);
                }
            }
        });
        Ok(Self {
            refused,
            end,
            thread: Some(thread),
        })
    }

    /// How many calls got an error so far.
    pub fn count(&self) -> u64 {
        self.refused.load(Ordering::SeqCst)
    }
}

impl Drop for Refusals {
    fn drop(&mut self) {
        self.end.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(
                ended.is_ok() || thread::panicking(),
                "the thread that answers calls panicked"
            );
        }
    }
}

/// Asks about these kinds and lets all else go on.
fn filter(kinds: &[Kind]) -> Vec<libc::sock_filter> {
    let statement = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let give = libc::BPF_RET | libc::BPF_K;
    let number = offset_of!(libc::seccomp_data, nr) as u32;
    let first = offset_of!(libc::seccomp_data, args) as u32 + LOW_HALF;
    let ask = statement(give, libc::SECCOMP_RET_USER_NOTIF, 0, 0);
    let mut program = Vec::new();
    for kind in kinds {
        program.push(statement(load, number, 0, 0));
        match kind.first {
            None => program.push(statement(equal, kind.number as u32, 0, 1)),
            Some(value) => {
                program.push(statement(equal, kind.number as u32, 0, 3));
                program.push(statement(load, first, 0, 0));
                program.push(statement(equal, value, 0, 1));
            }
        }
        program.push(ask);
    }
    program.push(statement(give, libc::SECCOMP_RET_ALLOW, 0, 0));
    program
}

/// Sends a descriptor without allocating.
fn hand_over(socket: RawFd, descriptor: RawFd) -> io::Result<()> {
    #[repr(C, align(8))]
    struct Control([u8; 32]);
    let mut byte = 0_u8;
    let mut part = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    let mut control = Control([0; 32]);
    // SAFETY: plain data, for which zero is valid; the buffer has room for one descriptor, and all of it
    // lives until the call returns.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = libc::CMSG_SPACE(size_of::<RawFd>() as u32) as usize;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as usize;
        libc::CMSG_DATA(header)
            .cast::<RawFd>()
            .write_unaligned(descriptor);
        if libc::sendmsg(socket, &raw const message, 0) != 1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn received(socket: &UnixStream) -> Result<OwnedFd> {
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!(RawFd);
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control
            && let Some(&descriptor) = descriptors.first()
        {
            // SAFETY: just received, nobody else has it.
            return Ok(unsafe { OwnedFd::from_raw_fd(descriptor) });
        }
    }
    None.context("no descriptor came")
}

fn answer(
    listener: &OwnedFd,
    refused: &AtomicU64,
    end: &AtomicBool,
    mut refuses: impl FnMut(&Call) -> Option<Errno>,
) {
    while !end.load(Ordering::SeqCst) {
        match waits(listener) {
            Waits::Call => {}
            Waits::Nothing => continue,
            Waits::Never => return,
        }
        // SAFETY: plain data, for which zero is valid, and which the kernel wants zeroed.
        let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the listener of a filter and a struct of the right type.
        let got = unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut asked) };
        if got != 0 {
            // The thread was killed, or a signal took it out of its call.
            continue;
        }
        let call = Call {
            number: libc::c_long::from(asked.data.nr),
            arguments: asked.data.args,
            thread: asked.pid,
        };
        let error = refuses(&call);
        let response = libc::seccomp_notif_resp {
            id: asked.id,
            val: 0,
            error: error.map_or(0, |errno| -(errno as i32)),
            flags: match error {
                Some(_) => 0,
                None => libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
            },
        };
        // SAFETY: as above. It fails where the thread is gone, which needs no answer.
        let sent = unsafe { libc::ioctl(listener.as_raw_fd(), SEND, &raw const response) };
        if sent == 0 && error.is_some() {
            refused.fetch_add(1, Ordering::SeqCst);
        }
    }
}

enum Waits {
    Call,
    Nothing,
    Never,
}

fn waits(listener: &OwnedFd) -> Waits {
    const LOOK: Duration = Duration::from_millis(100);
    let mut poll = libc::pollfd {
        fd: listener.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one valid entry.
    let ready = unsafe { libc::poll(&raw mut poll, 1, LOOK.as_millis() as i32) };
    if ready <= 0 {
        Waits::Nothing
    } else if poll.revents & libc::POLLIN != 0 {
        Waits::Call
    } else {
        Waits::Never
    }
}
