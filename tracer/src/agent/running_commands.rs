//! What the processes that run already were started as: the programs see only those that start later.

use std::{fs, os::unix::ffi::OsStrExt as _};

use crate::{host::process::ProcRoot, loader::commands::Commands};

/// Tells the programs of every process of this moment. One that ends or starts meanwhile is theirs.
pub fn tell(commands: &mut Commands, proc: &ProcRoot, with_arguments: bool, buffer: &mut Vec<u8>) {
    let Ok(entries) = fs::read_dir(proc.path("")) else {
        return;
    };
    for entry in entries.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // A kernel thread has no executable.
        let Ok(executable) = fs::read_link(entry.path().join("exe")) else {
            continue;
        };
        let arguments = with_arguments
            .then(|| proc.command_line(pid, buffer).ok())
            .flatten();
        commands.add(pid, arguments, executable.as_os_str().as_bytes());
    }
}
