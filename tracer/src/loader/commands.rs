//! What processes were started as, and the names of user-space OOM killers: maps that user space fills.

use aya::{
    Ebpf,
    maps::{HashMap, MapData, MapError},
};
use memtrace_ebpf::{
    COMM_LEN,
    oom::{ARGS_LEN, Command, EXECUTABLE_LEN},
};

const BPF_NOEXIST: u64 = 1;

/// The map of command lines.
pub struct Commands {
    map: HashMap<MapData, u32, Command>,
}

impl Commands {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, MapError> {
        Ok(Self {
            map: HashMap::try_from(super::attach::map(ebpf, "COMMANDS")?)?,
        })
    }

    /// A process that ran before the programs did. What they found out since stays.
    /// `args`: as in `/proc/PID/cmdline`; `None`: not to be kept.
    /// `false`: it is there already, or the map is full, which later processes count.
    pub fn add(&mut self, tgid: u32, args: Option<&[u8]>, executable: &[u8]) -> bool {
        let mut command = Command::UNKNOWN;
        if let Some(args) = args {
            command.args_len = u32::try_from(args.len()).unwrap_or(u32::MAX - 1);
            let kept = args.len().min(ARGS_LEN);
            command.args[..kept].copy_from_slice(&args[..kept]);
        }
        let kept = executable.len().min(EXECUTABLE_LEN);
        command.executable[..kept].copy_from_slice(&executable[..kept]);
        command.executable_len = kept as u32;
        self.map.insert(tgid, command, BPF_NOEXIST).is_ok()
    }

    /// A process that is gone.
    pub fn remove(&mut self, tgid: u32) {
        // The programs may have been faster.
        let _ = self.map.remove(&tgid);
    }
}

/// `comm` is cut by the kernel, so a longer name is cut here too.
pub(super) fn name_killers(ebpf: &mut Ebpf, names: &[String]) -> Result<(), MapError> {
    // Borrowed: the programs, not yet loaded, still need its descriptor.
    let map = ebpf
        .map_mut("OOM_KILLERS")
        .ok_or_else(|| MapError::InvalidName {
            name: "OOM_KILLERS".to_owned(),
        })?;
    let mut killers: HashMap<&mut MapData, [u8; COMM_LEN], u8> = HashMap::try_from(map)?;
    for name in names {
        let mut comm = [0; COMM_LEN];
        let kept = name.len().min(COMM_LEN - 1);
        comm[..kept].copy_from_slice(&name.as_bytes()[..kept]);
        killers.insert(comm, 1, 0)?;
    }
    Ok(())
}
