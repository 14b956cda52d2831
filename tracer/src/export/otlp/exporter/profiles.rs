//! Sends the last profile of each watched cgroup, as often as they are handed over.
//!
//! What fails is not sent again: the next profile shows the same memory. A profile that no backend
//! would take in one request is sent without its smallest stacks. Must not hold up metrics or events.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use prost::Message;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::deadline;
use super::report::Report;
use crate::export::otlp::client::{self, Client, Signal};
use crate::export::otlp::resource::ResourceContext;
use crate::export::profile::otlp::otlp_profiles;
use crate::identity::names::Names;
use crate::stacks::profile::{Profile, ProfileStack};

/// Encoded size that a request stays under: gRPC servers refuse more than 4 MiB by default.
const MAX_REQUEST_BYTES: usize = 3_500_000;
/// Stacks of one profile: what they are made of takes several times their encoded size.
const MAX_STACKS: usize = 4096;

/// Cgroups whose profiles wait for the export thread.
const MAX_HELD: usize = 64;

/// What code holds the memory of a cgroup.
#[derive(Debug, Clone)]
pub struct CgroupProfile {
    /// Path from the root of the memory hierarchy, escaped for display.
    pub cgroup: String,
    pub cgroup_id: u64,
    pub names: Arc<Names>,
    pub profile: Arc<Profile>,
}

/// Profiles as OTLP counts them, one a value, and stacks; cumulative.
#[derive(Default)]
pub(super) struct ProfileCounters {
    pub(super) exported: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) rejected: AtomicU64,
    pub(super) stacks_left_out: AtomicU64,
}

/// Between the main loop and the export thread: the latest of each cgroup wins.
#[derive(Default)]
pub(super) struct ProfileSlot {
    held: Mutex<Vec<CgroupProfile>>,
    notify: Notify,
    /// Cgroups whose profile waited too long.
    dropped: AtomicU64,
}

impl ProfileSlot {
    /// A profile that was not sent yet gives way to a later one of its cgroup, which has all that it had.
    pub(super) fn put(&self, profiles: Vec<CgroupProfile>) {
        {
            let mut held = self.lock();
            held.retain(|old| profiles.iter().all(|new| new.cgroup_id != old.cgroup_id));
            held.extend(profiles);
            let excess = held.len().saturating_sub(MAX_HELD);
            held.drain(..excess);
            self.dropped.fetch_add(excess as u64, Ordering::Relaxed);
        }
        self.notify.notify_one();
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    async fn take(&self) -> Vec<CgroupProfile> {
        loop {
            let offered = self.notify.notified();
            let held = std::mem::take(&mut *self.lock());
            if !held.is_empty() {
                return held;
            }
            offered.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<CgroupProfile>> {
        // Every write leaves a whole list.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Profiles {
    pub(super) client: Client<client::Profiles>,
    pub(super) context: ResourceContext,
    pub(super) slot: Arc<ProfileSlot>,
    pub(super) counters: Arc<ProfileCounters>,
    pub(super) report: Report,
}

impl Profiles {
    pub(super) async fn run(mut self, mut stopped: watch::Receiver<Option<Instant>>) {
        loop {
            let profiles = tokio::select! {
                biased;
                _ = stopped.wait_for(Option::is_some) => break,
                profiles = self.slot.take() => profiles,
            };
            self.export(&profiles, &mut stopped).await;
        }
        self.report.ends();
    }

    /// Sends one round; once a stop is asked for, only until its deadline.
    async fn export(
        &mut self,
        profiles: &[CgroupProfile],
        stopped: &mut watch::Receiver<Option<Instant>>,
    ) {
        let counters = &self.counters;
        let requests = || profiles.iter().map(|one| request(one, &self.context));
        let counted = requests().map(|(request, left_out)| {
            let left_out = left_out as u64;
            let all = &counters.stacks_left_out;
            all.fetch_add(left_out, Ordering::Relaxed);
            request
        });
        let delivery = tokio::select! {
            biased;
            delivery = self.client.export_requests(counted) => delivery,
            () = deadline(stopped) => {
                let unsent = requests().map(|(request, _)| client::Profiles::items(&request));
                let unsent = unsent.sum();
                counters.failed.fetch_add(unsent, Ordering::Relaxed);
                self.report.out_of_time(unsent, self.client.last_failure());
                return;
            }
        };
        for (counter, items) in [
            (&counters.exported, delivery.exported),
            (&counters.failed, delivery.failed),
            (&counters.rejected, delivery.rejected),
        ] {
            counter.fetch_add(items, Ordering::Relaxed);
        }
        self.report.works(&delivery);
        if let Some(error) = &delivery.error {
            self.report.fails(error, "lost profiles are counted");
        }
    }
}

/// The request, and how many stacks it had no room for.
fn request(
    one: &CgroupProfile,
    context: &ResourceContext,
) -> (ExportProfilesServiceRequest, usize) {
    let resource = || context.cgroup_resource(&one.cgroup, Some(one.cgroup_id), &one.names);
    let all = one.profile.stacks.len();
    if all <= MAX_STACKS {
        let request = otlp_profiles(&one.profile, resource());
        if request.encoded_len() <= MAX_REQUEST_BYTES {
            return (request, 0);
        }
    }
    let mut part = Profile::clone(&one.profile);
    let weight = |stack: &ProfileStack| stack.resident.bytes.max(stack.growth.bytes.abs());
    part.stacks.sort_by(|a, b| weight(b).total_cmp(&weight(a)));
    let mut most = MAX_STACKS.min(all);
    loop {
        part.stacks.truncate(most);
        let request = otlp_profiles(&part, resource());
        if request.encoded_len() <= MAX_REQUEST_BYTES || most <= 1 {
            return (request, all - part.stacks.len());
        }
        most /= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::profile::fixture;

    fn of(cgroup_id: u64, profile: Profile) -> CgroupProfile {
        CgroupProfile {
            cgroup: format!("/{cgroup_id}"),
            cgroup_id,
            names: Arc::default(),
            profile: Arc::new(profile),
        }
    }

    #[tokio::test]
    async fn the_latest_profile_of_each_cgroup_wins() {
        let slot = ProfileSlot::default();
        let named = |name: &str| {
            let mut profile = fixture::profile(Vec::new());
            profile.scope = name.to_owned();
            profile
        };
        slot.put(vec![of(1, named("a")), of(2, named("b"))]);
        slot.put(vec![of(2, named("c"))]);
        let mut held = slot.take().await;
        held.sort_by_key(|one| one.cgroup_id);
        let scopes: Vec<&str> = held.iter().map(|one| one.profile.scope.as_str()).collect();
        assert_eq!(scopes, ["a", "c"]);
        assert_eq!(slot.dropped(), 0);
    }

    #[test]
    fn profiles_that_wait_too_long_are_counted() {
        let slot = ProfileSlot::default();
        for id in 0..=MAX_HELD as u64 {
            slot.put(vec![of(id, fixture::profile(Vec::new()))]);
        }
        assert_eq!(slot.dropped(), 1);
        assert_eq!(slot.lock().first().map(|one| one.cgroup_id), Some(1));
    }

    #[test]
    fn a_profile_is_on_the_resource_of_its_cgroup() {
        let one = of(70, fixture::leak_and_cache());
        let (request, left_out) = request(&one, &ResourceContext::default());
        assert_eq!(left_out, 0);
        assert_eq!(client::Profiles::items(&request), 3);
        let resource = request.resource_profiles[0].resource.as_ref().unwrap();
        let keys = resource.attributes.iter().map(|one| one.key.as_str());
        let keys: Vec<&str> = keys.collect();
        assert!(keys.contains(&"memtrace.cgroup.path"), "{keys:?}");
        assert!(keys.contains(&"service.instance.id"), "{keys:?}");
    }

    #[test]
    fn what_no_backend_would_take_loses_its_smallest_stacks() {
        let name = "f".repeat(380);
        let stacks = (0..6000).map(|at| {
            let own = format!("{at}{name}");
            let names: Vec<String> = (0..4).map(|frame| format!("{frame}{own}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            fixture::stack(1, &names, f64::from(at + 1))
        });
        let one = of(1, fixture::profile(stacks.collect()));
        let (request, left_out) = request(&one, &ResourceContext::default());
        assert!(request.encoded_len() <= MAX_REQUEST_BYTES);
        assert!((1..6000).contains(&left_out), "{left_out}");
        let strings = request.dictionary.unwrap().string_table;
        assert!(strings.iter().any(|text| text.starts_with("05999f")));
        assert!(!strings.iter().any(|text| text.starts_with("00f")));
    }
}
