//! Records of the OOM ring: charge, victim, end.
//!
//! Pages become bytes, the kernel's absent values `None`; names stay as the kernel has them until
//! they are escaped here.

use memtrace_ebpf::oom::{
    ABSENT, ABSENT_I32, ABSENT_U32, ARGS_LEN, Command, EXECUTABLE_LEN, KIND_CHARGE, KIND_DEATH,
    KIND_KILLED_AGAIN, KIND_MARK, KIND_REAPED, KIND_SIGNAL, MOST_LEVELS, MemcgLevel, OomCharge,
    OomEnd, OomVictim,
};

use super::{record, text};
use crate::host::escape;

/// Longest name of a thread or process shown, characters.
const COMM_CHARS: usize = 64;
/// Longest command line shown, characters: every byte may need four.
const COMMAND_CHARS: usize = 4 * ARGS_LEN;

/// One record.
#[derive(Debug, Clone, PartialEq)]
pub enum OomRecord {
    Charge(Charge),
    /// The kernel marked a victim.
    Mark(Box<VictimRecord>),
    /// A user-space OOM killer sent a signal.
    Signal(Box<VictimRecord>),
    /// The last thread of a victim ended.
    Death {
        tgid: u32,
        boot_ns: u64,
    },
    /// The kernel killed, and counted, a victim once more.
    KilledAgain {
        tgid: u32,
        boot_ns: u64,
    },
    /// The OOM reaper has freed a victim's memory.
    Reaped {
        tid: u32,
        boot_ns: u64,
    },
}

/// Whose memory ran out.
#[derive(Debug, Clone, PartialEq)]
pub struct Charge {
    pub boot_ns: u64,
    /// `levels` start at the charged cgroup, and are empty if there is none; else at the one that
    /// the trigger charges.
    pub from_oom_control: bool,
    /// `enum oom_constraint`.
    pub constraint: Option<u32>,
    pub order: Option<i32>,
    pub gfp_mask: Option<u32>,
    pub total_bytes: Option<u64>,
    pub chosen_points: Option<i64>,
    pub trigger_tid: u32,
    /// Lowest first.
    pub levels: Vec<Level>,
    /// There are more above these.
    pub truncated: bool,
}

/// Counters of a memory cgroup at that moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Level {
    pub cgroup_id: u64,
    pub usage_bytes: Option<u64>,
    /// `None`: unlimited or unknown.
    pub limit_bytes: Option<u64>,
    pub swap_usage_bytes: Option<u64>,
    pub swap_limit_bytes: Option<u64>,
    pub failcnt: Option<u64>,
    pub oom_events: Option<u64>,
    pub oom_kills: Option<u64>,
}

/// A process about to die.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VictimRecord {
    pub boot_ns: u64,
    /// Signal that was seen just before; `None`: none was.
    pub signal: Option<u32>,
    pub tid: u32,
    pub tgid: Option<u32>,
    /// Names are escaped.
    pub comm: Option<String>,
    pub command_line: Option<String>,
    pub executable: Option<String>,
    pub uid: Option<u32>,
    pub started_boot_ns: Option<u64>,
    pub cgroup_id: Option<u64>,
    /// In the default hierarchy.
    pub leaf_cgroup_id: Option<u64>,
    pub total_vm_bytes: Option<u64>,
    pub anon_bytes: Option<u64>,
    pub file_bytes: Option<u64>,
    pub shmem_bytes: Option<u64>,
    pub swap_bytes: Option<u64>,
    pub page_table_bytes: Option<u64>,
    pub oom_score_adj: Option<i16>,
    pub namespace_pid: Option<u32>,
    /// 0: the host's PID namespace.
    pub namespace_level: Option<u32>,
    /// The trigger of a mark, the sender of a signal.
    pub sender_tgid: u32,
    pub sender_tid: u32,
    pub sender_comm: String,
    pub sender_process_comm: Option<String>,
    pub sender_cgroup_id: Option<u64>,
}

/// `None`: of an unknown kind, or cut short.
pub fn decode(bytes: &[u8], page_size: u64) -> Option<OomRecord> {
    let kind = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    match kind {
        KIND_CHARGE => charge(&record(bytes)?, page_size).map(OomRecord::Charge),
        KIND_MARK => Some(OomRecord::Mark(Box::new(victim(
            &record(bytes)?,
            page_size,
        )))),
        KIND_SIGNAL => Some(OomRecord::Signal(Box::new(victim(
            &record(bytes)?,
            page_size,
        )))),
        KIND_DEATH | KIND_REAPED | KIND_KILLED_AGAIN => {
            let OomEnd { id, time_ns, .. } = record(bytes)?;
            let boot_ns = time_ns;
            Some(match kind {
                KIND_DEATH => OomRecord::Death { tgid: id, boot_ns },
                KIND_REAPED => OomRecord::Reaped { tid: id, boot_ns },
                _ => OomRecord::KilledAgain { tgid: id, boot_ns },
            })
        }
        _ => None,
    }
}

fn known(value: u64) -> Option<u64> {
    (value != ABSENT).then_some(value)
}

fn known_u32(value: u32) -> Option<u32> {
    (value != ABSENT_U32).then_some(value)
}

fn pages_to_bytes(pages: u64, page_size: u64) -> Option<u64> {
    known(pages).map(|pages| pages.saturating_mul(page_size))
}

fn charge(charge: &OomCharge, page_size: u64) -> Option<Charge> {
    let count = usize::try_from(charge.level_count).ok()?;
    if count > MOST_LEVELS {
        return None;
    }
    Some(Charge {
        boot_ns: charge.time_ns,
        from_oom_control: charge.from_oom_control != 0,
        constraint: known_u32(charge.constraint),
        order: (charge.order != ABSENT_I32).then_some(charge.order),
        gfp_mask: known_u32(charge.gfp_mask),
        total_bytes: pages_to_bytes(charge.total_pages, page_size),
        chosen_points: (charge.chosen_points != i64::MIN).then_some(charge.chosen_points),
        trigger_tid: charge.trigger_tid,
        truncated: charge.truncated != 0,
        levels: charge.levels[..count]
            .iter()
            .filter(|level| level.cgroup_id != ABSENT)
            .map(|level| self::level(level, page_size))
            .collect(),
    })
}

fn level(level: &MemcgLevel, page_size: u64) -> Level {
    // `PAGE_COUNTER_MAX` (include/linux/page_counter.h).
    let unlimited = i64::MAX as u64 / page_size;
    let limit = |pages: u64| pages_to_bytes(pages, page_size).filter(|_| pages < unlimited);
    Level {
        cgroup_id: level.cgroup_id,
        usage_bytes: pages_to_bytes(level.usage_pages, page_size),
        limit_bytes: limit(level.max_pages),
        swap_usage_bytes: pages_to_bytes(level.swap_usage_pages, page_size),
        swap_limit_bytes: limit(level.swap_max_pages),
        failcnt: known(level.failcnt),
        oom_events: known(level.oom_events),
        oom_kills: known(level.oom_kills),
    }
}

fn victim(victim: &OomVictim, page_size: u64) -> VictimRecord {
    let pages = |pages| pages_to_bytes(pages, page_size);
    let comm = |comm: &[u8]| (comm[0] != 0).then(|| text(comm, COMM_CHARS));
    VictimRecord {
        boot_ns: victim.time_ns,
        signal: (victim.signal != 0).then_some(victim.signal),
        tid: victim.tid,
        tgid: (victim.tgid != 0).then_some(victim.tgid),
        comm: comm(&victim.comm),
        command_line: command_line(&victim.command),
        executable: executable(&victim.command),
        uid: known_u32(victim.uid),
        started_boot_ns: known(victim.started_ns),
        cgroup_id: known(victim.cgroup_id),
        leaf_cgroup_id: known(victim.leaf_cgroup_id),
        total_vm_bytes: pages(victim.total_vm_pages),
        anon_bytes: pages(victim.anon_pages),
        file_bytes: pages(victim.file_pages),
        shmem_bytes: pages(victim.shmem_pages),
        swap_bytes: pages(victim.swap_pages),
        page_table_bytes: known(victim.page_table_bytes),
        oom_score_adj: i16::try_from(victim.oom_score_adj).ok(),
        namespace_pid: known_u32(victim.namespace_pid),
        namespace_level: known_u32(victim.namespace_level),
        sender_tgid: victim.sender_tgid,
        sender_tid: victim.sender_tid,
        sender_comm: text(&victim.sender_comm, COMM_CHARS),
        sender_process_comm: comm(&victim.sender_process_comm),
        sender_cgroup_id: known(victim.sender_cgroup_id),
    }
}

/// Arguments with a space between, escaped; `…` where the kernel side kept no more.
fn command_line(command: &Command) -> Option<String> {
    let length = usize::try_from(known_u32(command.args_len)?).ok()?;
    let kept = command.args.get(..length.min(ARGS_LEN))?;
    let arguments = kept.strip_suffix(b"\0").unwrap_or(kept);
    let joined: Vec<u8> = arguments
        .iter()
        .map(|&byte| if byte == 0 { b' ' } else { byte })
        .collect();
    let mut shown = escape::display(&joined, COMMAND_CHARS);
    if length > ARGS_LEN {
        shown.push('…');
    }
    Some(shown)
}

fn executable(command: &Command) -> Option<String> {
    let length = usize::try_from(command.executable_len).ok()?;
    let path = command.executable.get(..length.min(EXECUTABLE_LEN))?;
    (!path.is_empty()).then(|| escape::display(path, 4 * EXECUTABLE_LEN))
}

#[cfg(test)]
mod tests {
    use memtrace_ebpf::COMM_LEN;

    use super::*;

    fn bytes<T>(value: &T) -> Vec<u8> {
        let start = std::ptr::from_ref(value).cast::<u8>();
        // SAFETY: contract types are plain bytes without padding.
        unsafe { std::slice::from_raw_parts(start, size_of::<T>()) }.to_vec()
    }

    fn unknown_victim() -> OomVictim {
        OomVictim {
            kind: KIND_MARK,
            signal: 0,
            time_ns: 1,
            cgroup_id: ABSENT,
            leaf_cgroup_id: ABSENT,
            sender_cgroup_id: ABSENT,
            started_ns: ABSENT,
            total_vm_pages: ABSENT,
            anon_pages: ABSENT,
            file_pages: ABSENT,
            shmem_pages: ABSENT,
            swap_pages: ABSENT,
            page_table_bytes: ABSENT,
            tid: 7,
            tgid: 0,
            uid: ABSENT_U32,
            oom_score_adj: ABSENT_I32,
            namespace_pid: ABSENT_U32,
            namespace_level: ABSENT_U32,
            sender_tgid: 3,
            sender_tid: 4,
            comm: [0; COMM_LEN],
            sender_comm: *b"stress\0\0\0\0\0\0\0\0\0\0",
            sender_process_comm: [0; COMM_LEN],
            command: Command::UNKNOWN,
        }
    }

    #[test]
    fn what_the_kernel_could_not_give_is_unknown() {
        let Some(OomRecord::Mark(victim)) = decode(&bytes(&unknown_victim()), 4096) else {
            panic!("not a mark");
        };
        let expected = VictimRecord {
            boot_ns: 1,
            tid: 7,
            sender_tgid: 3,
            sender_tid: 4,
            sender_comm: "stress".into(),
            ..VictimRecord::default()
        };
        assert_eq!(*victim, expected);
    }

    #[test]
    fn a_hostile_command_line_is_escaped_and_a_long_one_says_so() {
        let mut command = Command::UNKNOWN;
        command.args[..9].copy_from_slice(b"a\nb\0\x1bc\xff\0\0");
        command.args_len = 8;
        assert_eq!(command_line(&command).as_deref(), Some("a\\nb \\x1bc\\xff"));
        command.args = [b'x'; ARGS_LEN];
        command.args_len = 300;
        let long = command_line(&command).unwrap();
        assert_eq!(long, format!("{}…", "x".repeat(ARGS_LEN)));
        command.args_len = 0;
        assert_eq!(command_line(&command).as_deref(), Some(""));
    }

    #[test]
    fn records_that_are_cut_short_or_lie_about_their_length_are_refused() {
        let whole = bytes(&unknown_victim());
        for length in [0, 3, 4, whole.len() - 1] {
            assert_eq!(decode(&whole[..length], 4096), None);
        }
        let mut charge = vec![0; size_of::<OomCharge>()];
        charge[..4].copy_from_slice(&KIND_CHARGE.to_ne_bytes());
        charge[4..8].copy_from_slice(&(MOST_LEVELS as u32 + 1).to_ne_bytes());
        assert_eq!(decode(&charge, 4096), None);
        charge[..4].copy_from_slice(&99u32.to_ne_bytes());
        assert_eq!(decode(&charge, 4096), None);
    }

    #[test]
    fn an_unlimited_counter_has_no_limit() {
        let raw = MemcgLevel {
            cgroup_id: 5,
            usage_pages: 3,
            max_pages: i64::MAX as u64 / 4096,
            swap_usage_pages: ABSENT,
            swap_max_pages: 10,
            failcnt: 0,
            oom_events: 1,
            oom_kills: 0,
        };
        let decoded = level(&raw, 4096);
        assert_eq!(decoded.limit_bytes, None);
        assert_eq!(decoded.usage_bytes, Some(3 * 4096));
        assert_eq!(decoded.swap_limit_bytes, Some(40960));
        assert_eq!(decoded.failcnt, Some(0));
    }
}
