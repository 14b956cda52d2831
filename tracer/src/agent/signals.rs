//! The signals that end memtrace cleanly, and the one that has it read its configuration again; what of signals
//! is not taken over from whoever started it.

use std::{fs::File, io};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal as Number, sigaction};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Undoes what may be inherited over an exec and would break memtrace: a SIGCHLD that is ignored has the kernel reap
/// children before their status is read, and a SIGTERM that is blocked never comes. For the first thread, before
/// there are others. That SIGHUP is ignored (`nohup`) stays.
///
/// # Errors
/// The kernel refuses it, which it never does for these.
pub fn reset_inherited() -> nix::Result<()> {
    let usual = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of this process.
    unsafe { sigaction(Number::SIGCHLD, &usual) }?;
    SigSet::empty().thread_set_mask()
}

/// SIGINT, SIGTERM and SIGHUP.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    /// SIGHUP may come of a terminal that is closed, and is not ignored (`nohup`).
    has_terminal: bool,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    End,
    /// Read the configuration again.
    Reload,
}

impl Signals {
    pub fn new() -> io::Result<Self> {
        // Before the handler replaces what was inherited.
        let has_terminal = !ignores_hangup() && has_terminal();
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            has_terminal,
        })
    }

    /// Waits for any of them.
    pub async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }

    /// Waits for what the next of them asks for. SIGHUP asks for the end only where the terminal is gone.
    pub async fn asked(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::End,
            _ = self.terminate.recv() => Asked::End,
            _ = self.hangup.recv() => match self.has_terminal && !has_terminal() {
                true => Asked::End,
                false => Asked::Reload,
            },
        }
    }
}

/// Whether there is a controlling terminal. The kernel takes it away before it sends SIGHUP.
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

fn ignores_hangup() -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: reads the present action into a struct of the right type, of which zero is a valid value.
    let action = unsafe {
        libc::sigaction(libc::SIGHUP, std::ptr::null(), action.as_mut_ptr());
        action.assume_init()
    };
    action.sa_sigaction == libc::SIG_IGN
}
