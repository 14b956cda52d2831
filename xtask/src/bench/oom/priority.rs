//! Lets the threads that note a moment run as soon as there is something to note.
//! Must not touch any other thread: memtrace and the load keep the priority they are given.

use std::io;

/// Real-time priority for the calling thread.
///
/// # Errors
/// Without `CAP_SYS_NICE`, and in a CPU cgroup without real-time bandwidth.
pub fn raise() -> io::Result<()> {
    // SAFETY: all-zero is a valid sched_param, and the call gets a pointer to it; 0 is this thread.
    let result = unsafe {
        let mut param: libc::sched_param = std::mem::zeroed();
        param.sched_priority = 1;
        libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const param)
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether [`raise`] works here.
pub fn can_be_raised() -> bool {
    // Of a thread that ends at once.
    std::thread::spawn(raise)
        .join()
        .is_ok_and(|raised| raised.is_ok())
}
