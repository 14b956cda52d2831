//! The ring of sampled pages, and how densely they are sampled. Used by a thread of its own.

use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _},
    time::Duration,
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, MapError, RingBuf},
};
use memtrace_ebpf::stack::{OFF, StackControl};

/// Samples that wait to be unwound: a tenth of a second of the densest sampling.
const RING_BYTES: u32 = 2 << 20;
const LEAST_RING_BYTES: u32 = 4096;
const HUGE_PAGE_FILE: &str = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size";
const USUAL_HUGE_PAGE_BYTES: u64 = 2 << 20;

/// The kernel side of stack sampling.
pub struct StackSamples {
    ring: RingBuf<MapData>,
    control: Array<MapData, StackControl>,
    shifts: HashMap<MapData, u64, u32>,
    seed: u64,
}

impl StackSamples {
    pub(super) fn take(ebpf: &mut Ebpf, seed: u64) -> Result<Self, MapError> {
        Ok(Self {
            ring: RingBuf::try_from(super::attach::map(ebpf, "STACK_SAMPLES")?)?,
            control: Array::try_from(super::attach::map(ebpf, "STACK_CONTROL")?)?,
            shifts: HashMap::try_from(super::attach::map(ebpf, "STACK_SHIFTS")?)?,
            seed,
        })
    }

    /// What the lots of pages are drawn with.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Sets the density of all cgroups that have none of their own.
    pub fn set_control(&mut self, control: StackControl) -> Result<(), MapError> {
        self.control.set(0, control, 0)
    }

    /// Sets the density of one cgroup.
    pub fn set_shift(&mut self, cgroup_id: u64, shift: u32) -> Result<(), MapError> {
        self.shifts.insert(cgroup_id, shift, 0)
    }

    /// A cgroup is sampled as densely as all others again.
    pub fn forget_shift(&mut self, cgroup_id: u64) {
        // Absent is what is wanted.
        let _ = self.shifts.remove(&cgroup_id);
    }

    /// Waits until there are samples; `false` when none came in time.
    pub fn wait(&self, most: Duration) -> io::Result<bool> {
        let mut poll = libc::pollfd {
            fd: self.ring.as_fd().as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let most = i32::try_from(most.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one descriptor, which lives as long as `self`.
        let ready = unsafe { libc::poll(&raw mut poll, 1, most) };
        match ready {
            0 => Ok(false),
            ready if ready > 0 => Ok(true),
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => Ok(false),
                error => Err(error),
            },
        }
    }

    /// Hands out what is there, at most `most` records; the number of them.
    pub fn drain(&mut self, most: usize, mut each: impl FnMut(&[u8])) -> usize {
        for taken in 0..most {
            match self.ring.next() {
                Some(record) => each(&record),
                None => return taken,
            }
        }
        most
    }
}

/// Until somebody says what to sample; a fresh map would sample every page of every process.
pub(super) fn sample_nothing(ebpf: &mut Ebpf) -> Result<(), MapError> {
    const NAME: &str = "STACK_CONTROL";
    // Borrowed: the programs, not yet loaded, still need its descriptor.
    let map = ebpf.map_mut(NAME).ok_or_else(|| MapError::InvalidName {
        name: NAME.to_owned(),
    })?;
    let nothing = StackControl {
        floor_shift: OFF,
        usual_shift: OFF,
        boundary_shift: 0,
        only_tgid: 0,
        least_age_ns: 0,
    };
    Array::<&mut MapData, StackControl>::try_from(map)?.set(0, nothing, 0)
}

/// Not foreseeable by the programs that are traced.
pub(super) fn seed() -> u64 {
    let mut bytes = [0u8; 8];
    // SAFETY: writes at most the length given.
    let read = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if read == 8 {
        u64::from_ne_bytes(bytes)
    } else {
        u64::from(std::process::id())
    }
}

pub fn huge_page_bytes() -> u64 {
    fs::read_to_string(HUGE_PAGE_FILE)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .filter(|bytes: &u64| bytes.is_power_of_two())
        .unwrap_or(USUAL_HUGE_PAGE_BYTES)
}

pub(super) fn ring_bytes(used: bool) -> u32 {
    if used { RING_BYTES } else { LEAST_RING_BYTES }
}
