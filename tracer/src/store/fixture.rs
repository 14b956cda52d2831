//! Incidents for the tests of the store.

use jiff::{SignedDuration, Timestamp};

use crate::incident::Incident;

const CGROUP_OOM: &str = include_str!("../incident/fixtures/cgroup_oom.json");

/// The `n`th of a row of incidents of an hour ago, a second apart.
pub fn incident(n: u64) -> Incident {
    let mut incident: Incident = serde_json::from_str(CGROUP_OOM).unwrap();
    incident.id = format!("incident-{n:08}");
    incident.time =
        Timestamp::now() - SignedDuration::from_secs(3600) + SignedDuration::from_secs(n as i64);
    incident.evidence.usage.truncate(3);
    incident
}
