//! What memtrace says of itself: memory, CPU, losses, probe cost.

use crate::{
    host::process::ProcRoot,
    loader::Loader,
    model::snapshot::{Loss, ProbeRun, SelfReading},
};

/// Reads memtrace's own cost. Losses of 0 stay: the first one is no rise where there was no series before.
pub fn read(
    loader: &Loader,
    losses: Vec<(&'static str, u64)>,
    cgroups_tracked: u64,
    buffer: &mut Vec<u8>,
) -> SelfReading {
    let usage = ProcRoot::default().self_usage(buffer).ok();
    SelfReading {
        rss_bytes: usage.as_ref().and_then(|usage| usage.rss_bytes),
        cpu_ns: usage.as_ref().and_then(|usage| usage.cpu_ns),
        losses: losses
            .into_iter()
            .map(|(cause, count)| Loss { cause, count })
            .collect(),
        probes: loader
            .runs()
            .into_iter()
            .map(|(probe, run_time_ns, run_count)| ProbeRun {
                probe: probe.to_owned(),
                run_time_ns,
                run_count,
            })
            .collect(),
        cgroups_tracked,
    }
}
