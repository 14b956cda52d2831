//! The terminal: taken, drawn on, given back as it was, whatever ends this process.
//!
//! Owns the screen, the keys and the signals. Knows nothing of what is drawn.

use std::{
    io::{self, BufWriter, Stdout, stdout},
    mem::ManuallyDrop,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::SyncSender,
    },
    thread,
};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};
use ratatui::{
    Frame, Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor::Show,
        event::{self, Event},
        execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
};
use tokio::signal::unix::{SignalKind, signal};

use super::Input;

/// Whether the terminal is ours to give back.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// A whole screen in one write.
const BUFFER: usize = 64 << 10;

type Drawing = Terminal<CrosstermBackend<BufWriter<Stdout>>>;

/// The screen while it is ours; given back when dropped.
pub struct Screen {
    /// Never dropped: it would show the cursor once more, and panic where the terminal is gone.
    drawing: ManuallyDrop<Drawing>,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// It cannot be set up.
    pub fn take() -> io::Result<Self> {
        take()?;
        let buffer = BufWriter::with_capacity(BUFFER, stdout());
        match Terminal::new(CrosstermBackend::new(buffer)) {
            Ok(drawing) => Ok(Self {
                drawing: ManuallyDrop::new(drawing),
            }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }

    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.drawing.draw(draw).map(|_| ())
    }

    /// The next drawing writes every cell.
    pub fn clear(&mut self) -> io::Result<()> {
        // `clear` would ask the terminal where its cursor is, and another thread reads the answer.
        let size = self.drawing.size()?;
        self.drawing.resize(size.into())
    }

    /// Gives the terminal to the shell, and stops until that goes on with this process.
    pub fn suspend(&mut self) -> io::Result<()> {
        give_back();
        stop()?;
        self.resume()
    }

    /// Takes the terminal again, which others had.
    pub fn resume(&mut self) -> io::Result<()> {
        give_back();
        take()?;
        self.clear()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn take() -> io::Result<()> {
    TAKEN.store(true, Ordering::SeqCst);
    let taken = enable_raw_mode().and_then(|()| execute!(stdout(), EnterAlternateScreen));
    if taken.is_err() {
        give_back();
    }
    taken
}

/// Whether the terminal is not there any more, as opposed to one that cannot be used.
pub fn is_gone(error: &io::Error) -> bool {
    let gone = [libc::EIO, libc::ENXIO, libc::EPIPE, libc::ENODEV];
    error
        .raw_os_error()
        .is_some_and(|code| gone.contains(&code))
}

/// What cannot be given back is gone.
fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let _ = execute!(stdout(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

/// As Ctrl-Z does outside raw mode: nothing happens where no shell could go on with this process.
fn stop() -> io::Result<()> {
    let usual = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of this process.
    let ours = unsafe { sigaction(Signal::SIGTSTP, &usual) }?;
    let stopped = raise(Signal::SIGTSTP);
    // SAFETY: the action that was there a moment ago.
    unsafe { sigaction(Signal::SIGTSTP, &ours) }?;
    Ok(stopped?)
}

/// A panic of any thread gives the terminal back before it is told, and ends top.
pub fn end_on_panic(inputs: SyncSender<Input>) {
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        give_back();
        told(info);
        // A full queue is read soon; the thread that reads it must not wait for itself.
        let _ = inputs.try_send(Input::Panicked);
    }));
}

/// Sends keys and changes of size from a thread of its own.
///
/// # Errors
/// No thread can be started.
pub fn send_events(inputs: SyncSender<Input>) -> io::Result<()> {
    let read = move || {
        loop {
            let (input, is_last) = match event::read() {
                Ok(Event::Key(key)) => (Input::Key(key), false),
                Ok(Event::Resize(..)) => (Input::Resized, false),
                Ok(_) => continue,
                Err(error) => (Input::NoTerminal(error), true),
            };
            if inputs.send(input).is_err() || is_last {
                return;
            }
        }
    };
    thread::Builder::new().name("keys".into()).spawn(read)?;
    Ok(())
}

/// Sends what signals ask for from a thread of its own.
///
/// # Errors
/// Signals cannot be handled, or no thread can be started.
pub fn send_signals(inputs: SyncSender<Input>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let guard = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut suspend = signal(SignalKind::from_raw(Signal::SIGTSTP as i32))?;
    let mut go_on = signal(SignalKind::from_raw(Signal::SIGCONT as i32))?;
    drop(guard);
    let wait = move || {
        runtime.block_on(async {
            loop {
                let input = tokio::select! {
                    _ = interrupt.recv() => Input::End,
                    _ = terminate.recv() => Input::End,
                    _ = hangup.recv() => Input::End,
                    _ = suspend.recv() => Input::Suspend,
                    _ = go_on.recv() => Input::Resume,
                };
                if inputs.send(input).is_err() {
                    return;
                }
            }
        });
    };
    thread::Builder::new().name("signals".into()).spawn(wait)?;
    Ok(())
}
