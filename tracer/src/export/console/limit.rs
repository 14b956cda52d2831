//! A limit that changed, in one line for people.

use crate::{
    model::snapshot::{Limit, LimitChange},
    size,
};

pub fn line(change: &LimitChange) -> String {
    let shown = |limit: Limit| limit.bytes().map_or("no limit".to_owned(), size::bytes);
    let place = change
        .names
        .short()
        .unwrap_or_else(|| change.cgroup.clone());
    let (from, to) = (shown(change.from), shown(change.to));
    format!("the memory limit of {place} changed from {from} to {to}")
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::SystemTime};

    use super::*;

    #[test]
    fn a_limit_that_was_not_there_is_called_that() {
        let change = LimitChange {
            time: SystemTime::UNIX_EPOCH,
            cgroup_id: 1,
            cgroup: "/a".into(),
            names: Arc::default(),
            from: Limit::Unlimited,
            to: Limit::Bytes(64 << 20),
            usage_bytes: None,
        };
        assert_eq!(
            line(&change),
            "the memory limit of /a changed from no limit to 64.0M"
        );
    }
}
