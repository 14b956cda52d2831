//! Who runs a pod, from the pod alone.
//!
//! Owns the rules by which a Deployment and a CronJob are known without asking the API for ReplicaSets and
//! Jobs, which would need more RBAC.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::bounds;
use crate::identity::facts::{Owner, OwnerKind};

/// Label that the Deployment controller puts on ReplicaSets and pods, and at the end of their names.
const TEMPLATE_HASH: &str = "pod-template-hash";
/// Digits of the minutes since 1970, from 1989 until 2160.
const MINUTES_DIGITS: usize = 8;
/// A Job may make pods for a while after its time; a date such as `20260131` is decades away.
const MOST_MINUTES_APART: i64 = 30 * 24 * 60;

/// The controller of the pod, and what made that.
///
/// A Deployment is known by its ReplicaSet's name, which is the Deployment's, `-` and the pod's label
/// `pod-template-hash`. A CronJob is known by its Job's name, which is the CronJob's, `-` and the minutes
/// since 1970 for which it was scheduled; a Job that merely ends in digits is none, so those minutes
/// must be near the pod's creation. Both as OpenTelemetry's k8sattributes processor does without access to
/// ReplicaSets and Jobs. Kinds that the semantic conventions do not name (a Node, a custom resource)
/// are left out.
pub(super) fn owners(metadata: &ObjectMeta) -> Vec<Owner> {
    let mut references = metadata.owner_references.iter().flatten();
    let Some(controller) = references.find(|reference| reference.controller == Some(true)) else {
        return Vec::new();
    };
    let (Some(kind), Some(name)) = (kind(&controller.kind), bounds::name(&controller.name)) else {
        return Vec::new();
    };
    let above = match kind {
        OwnerKind::ReplicaSet => deployment(&name, metadata).map(|it| (OwnerKind::Deployment, it)),
        OwnerKind::Job => cron_job(&name, metadata).map(|it| (OwnerKind::CronJob, it)),
        _ => None,
    };
    let mut owners = vec![Owner {
        kind,
        name: name.clone(),
        uid: bounds::name(&controller.uid),
    }];
    owners.extend(above.map(|(kind, name)| Owner {
        kind,
        name: name.to_owned(),
        uid: None,
    }));
    owners
}

fn kind(kind: &str) -> Option<OwnerKind> {
    Some(match kind {
        "ReplicaSet" => OwnerKind::ReplicaSet,
        "StatefulSet" => OwnerKind::StatefulSet,
        "DaemonSet" => OwnerKind::DaemonSet,
        "Job" => OwnerKind::Job,
        "Deployment" => OwnerKind::Deployment,
        "CronJob" => OwnerKind::CronJob,
        _ => return None,
    })
}

fn deployment<'a>(replica_set: &'a str, metadata: &ObjectMeta) -> Option<&'a str> {
    let hash = metadata.labels.as_ref()?.get(TEMPLATE_HASH)?;
    let name = replica_set.strip_suffix(hash.as_str())?.strip_suffix('-')?;
    (!hash.is_empty() && !name.is_empty()).then_some(name)
}

fn cron_job<'a>(job: &'a str, metadata: &ObjectMeta) -> Option<&'a str> {
    let (name, digits) = job.rsplit_once('-')?;
    if name.is_empty()
        || digits.len() != MINUTES_DIGITS
        || !digits.bytes().all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    let scheduled: i64 = digits.parse().ok()?;
    let created: Timestamp = metadata.creation_timestamp.as_ref()?.0;
    let apart = (created.as_second() / 60).saturating_sub(scheduled);
    (apart.unsigned_abs() <= MOST_MINUTES_APART.unsigned_abs()).then_some(name)
}
