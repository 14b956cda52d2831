//! The section on what led up to it.

use std::fmt::Write as _;

use crate::{incident::record::Evidence, size};

use super::{
    super::{milliseconds, nanoseconds, shown, sparkline::sparkline},
    MOST_ROWS, Page,
};

const MOST_COLUMNS: usize = 60;

impl Page {
    pub(super) fn evidence(&mut self, evidence: &Evidence) {
        // They have a section of their own.
        let only_stacks = Evidence {
            stacks: evidence.stacks.clone(),
            ..Evidence::default()
        };
        if *evidence == only_stacks {
            return;
        }
        self.section("What led up to it");
        let usage = &evidence.usage;
        if let (Some(first), Some(last)) = (usage.first(), usage.last()) {
            let values: Vec<u64> = usage.iter().map(|sample| sample.usage_bytes).collect();
            let span = first.before_ms.saturating_sub(last.before_ms);
            let room = self.width.saturating_sub(40).clamp(10, MOST_COLUMNS);
            let value = format!(
                "{} {} {} in {}",
                size::bytes(first.usage_bytes),
                sparkline(&values, room),
                size::bytes(last.usage_bytes),
                milliseconds(span)
            );
            self.row("usage", &value);
        }
        for (index, grower) in evidence.growers.iter().take(MOST_ROWS).enumerate() {
            let sign = if grower.grown_bytes < 0 { '-' } else { '+' };
            let mut value = format!(
                "{}({}) {sign}{} in {}",
                grower.comm.as_deref().map_or("?".into(), shown),
                grower.pid,
                size::bytes(grower.grown_bytes.unsigned_abs()),
                milliseconds(grower.over_ms)
            );
            if let Some(share) = grower.share {
                let _ = write!(value, ", {:.0} % of the growth", share * 100.0);
            }
            self.row(if index == 0 { "who grew" } else { "" }, &value);
        }
        self.more(evidence.growers.len() as u64, MOST_ROWS);
        if let Some(reclaim) = &evidence.reclaim {
            let value = format!(
                "{} times, {} stalled, {} pages freed, in the last {}",
                reclaim.count,
                nanoseconds(reclaim.stall_ns),
                reclaim.reclaimed_pages,
                milliseconds(reclaim.over_ms)
            );
            self.row("reclaim", &value);
        }
        if let Some(pressure) = &evidence.pressure {
            let time = |ns: Option<u64>| ns.map_or("unknown".into(), nanoseconds);
            let value = format!(
                "some {}, full {}, in the last {}",
                time(pressure.some_ns),
                time(pressure.full_ns),
                milliseconds(pressure.over_ms)
            );
            self.row("pressure", &value);
        }
        if let Some(calls) = &evidence.allocations {
            let value = format!(
                "mmap {}, munmap {}, brk +{} -{}, madvise freed {}, in the last {}",
                size::bytes(calls.mmap_bytes),
                size::bytes(calls.munmap_bytes),
                size::bytes(calls.brk_grow_bytes),
                size::bytes(calls.brk_shrink_bytes),
                size::bytes(calls.madvise_free_bytes),
                milliseconds(calls.over_ms)
            );
            self.row("allocations", &value);
        }
        if let Some(stat) = &evidence.memory_stat {
            let parts = [
                ("usage", stat.usage_bytes),
                ("anon", stat.anon_bytes),
                ("file", stat.file_bytes),
                ("shmem", stat.shmem_bytes),
                ("kernel", stat.kernel_bytes),
                ("slab", stat.slab_bytes),
                ("sock", stat.sock_bytes),
                ("swap", stat.swap_bytes),
            ];
            let known: Vec<String> = parts
                .into_iter()
                .filter_map(|(name, bytes)| Some(format!("{name} {}", size::bytes(bytes?))))
                .collect();
            let when = if stat.read_after_ms < 0 {
                "before"
            } else {
                "after"
            };
            let value = format!(
                "{} ({} {when})",
                known.join(", "),
                milliseconds(stat.read_after_ms.unsigned_abs())
            );
            self.row("memory.stat", &value);
        }
    }
}
