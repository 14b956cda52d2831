//! Victim marks of the OOM killer.

use std::time::SystemTime;

use memtrace_ebpf::event::{ABSENT, OomMark};

use crate::model::snapshot::OomKill;

use super::{record, text};

/// A mark as the model's [`OomKill`], cgroup paths left open; `None` if the record is cut short.
pub fn decode(
    bytes: &[u8],
    page_size: u64,
    wall_clock: impl Fn(u64) -> SystemTime,
) -> Option<OomKill> {
    let mark: OomMark = record(bytes)?;
    let known = |value: u64| (value != ABSENT).then_some(value);
    let pages = |value: u64| known(value).map(|pages| pages.saturating_mul(page_size));
    Some(OomKill {
        time: wall_clock(mark.time_ns),
        victim_tgid: (mark.victim_tgid != 0).then_some(mark.victim_tgid),
        victim_tid: mark.victim_tid,
        victim_comm: (mark.victim_comm[0] != 0).then(|| text(&mark.victim_comm, 64)),
        victim_uid: (mark.victim_uid != u32::MAX).then_some(mark.victim_uid),
        cgroup_id: known(mark.victim_cgroup_id),
        cgroup: None,
        total_vm_bytes: pages(mark.total_vm_pages),
        anon_bytes: pages(mark.anon_pages),
        file_bytes: pages(mark.file_pages),
        shmem_bytes: pages(mark.shmem_pages),
        swap_bytes: pages(mark.swap_pages),
        page_table_bytes: known(mark.page_table_bytes),
        oom_score_adj: i16::try_from(mark.oom_score_adj).ok(),
        trigger_tgid: mark.trigger_tgid,
        trigger_comm: text(&mark.trigger_comm, 64),
        trigger_cgroup_id: known(mark.trigger_cgroup_id),
        trigger_cgroup: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_could_not_give_is_none() {
        let mut bytes = vec![0xff; size_of::<OomMark>()];
        // victim_tgid 0: only the thread id is known.
        bytes[76..80].fill(0);
        bytes[92..96].copy_from_slice(&i32::MAX.to_ne_bytes());
        let kill = decode(&bytes, 4096, |_| SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(kill.victim_tgid, None);
        assert_eq!(kill.anon_bytes, None);
        assert_eq!(kill.page_table_bytes, None);
        assert_eq!(kill.oom_score_adj, None);
        assert_eq!(kill.cgroup_id, None);
        assert_eq!(decode(&bytes[1..], 4096, |_| SystemTime::UNIX_EPOCH), None);
    }
}
