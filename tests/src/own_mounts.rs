//! A mount namespace of one program's own, where a test puts something else in the place of what it finds.
//! Must not change the machine's mounts.

use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Has `command` run there; `cover` mounts, between fork and exec: system calls only.
pub fn give(command: &mut Command, cover: impl Fn() -> nix::Result<()> + Send + Sync + 'static) {
    let own = move || {
        let none = None::<&str>;
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        cover()?;
        Ok(())
    };
    // SAFETY: only system calls, which are safe after fork.
    unsafe { command.pre_exec(own) };
}
