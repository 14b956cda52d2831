//! What Kubernetes has of a container, beside what the kernel measures.
//!
//! Source: semantic conventions 1.44.0, `k8s.container.*`: desired is the specification, current the
//! status, which follows a resize in place.

use super::point::{Descriptor, Metrics, Span, metric};
use crate::identity::facts::Container;

const LIMIT_DESIRED: Descriptor = metric(
    "k8s.container.memory.limit.desired",
    "By",
    "Memory limit in the pod's specification",
);
const LIMIT_CURRENT: Descriptor = metric(
    "k8s.container.memory.limit.current",
    "By",
    "Memory limit in the pod's status",
);
const REQUEST_DESIRED: Descriptor = metric(
    "k8s.container.memory.request.desired",
    "By",
    "Memory request in the pod's specification",
);
const REQUEST_CURRENT: Descriptor = metric(
    "k8s.container.memory.request.current",
    "By",
    "Memory request in the pod's status",
);
const RESTARTS: Descriptor = metric(
    "k8s.container.restart.count",
    "{restart}",
    "Restarts of the container, as far as the kubelet counts",
);

pub(super) fn metrics(metrics: &mut Metrics, container: &Container, span: Span) {
    let memory = &container.memory;
    for (descriptor, bytes) in [
        (&LIMIT_DESIRED, memory.limit_desired_bytes),
        (&LIMIT_CURRENT, memory.limit_current_bytes),
        (&REQUEST_DESIRED, memory.request_desired_bytes),
        (&REQUEST_CURRENT, memory.request_current_bytes),
        (&RESTARTS, container.restart_count.map(u64::from)),
    ] {
        metrics.up_down(descriptor, span, bytes);
    }
}
