//! The smallest memory limit that binds a cgroup.
//!
//! Owns the choice among the cgroup, its ancestors and the machine. Pure: must not read files.

use crate::model::snapshot::{EffectiveLimit, Limit};

/// The smallest limit over `leaf_to_root` (the cgroup first, then its ancestors) and the machine's
/// memory in bytes.
///
/// The nearest to the leaf wins a tie; the machine wins only when it is smaller than every limit.
/// Limits that could not be read (`None`) are passed over. `None` when nothing at all is known.
pub fn effective_limit<'a>(
    leaf_to_root: impl IntoIterator<Item = (&'a str, Option<Limit>)>,
    machine_bytes: Option<u64>,
) -> Option<EffectiveLimit> {
    let smallest = leaf_to_root
        .into_iter()
        .filter_map(|(cgroup, limit)| Some((limit?.bytes()?, cgroup)))
        // `min_by_key` keeps the first of equals: the nearest to the leaf.
        .min_by_key(|(bytes, _)| *bytes);
    match (smallest, machine_bytes) {
        (Some((bytes, cgroup)), machine) if machine.is_none_or(|machine| bytes <= machine) => {
            Some(EffectiveLimit {
                bytes,
                cgroup: Some(cgroup.to_owned()),
            })
        }
        (_, machine) => machine.map(|bytes| EffectiveLimit {
            bytes,
            cgroup: None,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Limit::{Bytes, Unlimited};

    fn limit_of(
        chain: &[(&str, Option<Limit>)],
        machine: Option<u64>,
    ) -> Option<(u64, Option<String>)> {
        effective_limit(chain.iter().copied(), machine).map(|limit| (limit.bytes, limit.cgroup))
    }

    #[test]
    fn smallest_wins_and_ties_go_to_the_leaf() {
        let chain = [
            ("/a/b/c", Some(Unlimited)),
            ("/a/b", Some(Bytes(5))),
            ("/a", Some(Bytes(5))),
        ];
        assert_eq!(limit_of(&chain, Some(100)), Some((5, Some("/a/b".into()))));
        let chain = [
            ("/a/b", Some(Bytes(7))),
            ("/a", Some(Bytes(5))),
            ("/", Some(Unlimited)),
        ];
        assert_eq!(limit_of(&chain, Some(100)), Some((5, Some("/a".into()))));
    }

    #[test]
    fn machine_only_when_smaller_than_all() {
        assert_eq!(
            limit_of(&[("/a", Some(Bytes(9)))], Some(8)),
            Some((8, None))
        );
        assert_eq!(
            limit_of(&[("/a", Some(Bytes(8)))], Some(8)),
            Some((8, Some("/a".into())))
        );
        assert_eq!(
            limit_of(&[("/a", Some(Unlimited))], Some(8)),
            Some((8, None))
        );
    }

    #[test]
    fn unknown_limits_are_passed_over() {
        assert_eq!(
            limit_of(&[("/a/b", None), ("/a", Some(Bytes(3)))], None),
            Some((3, Some("/a".into())))
        );
        assert_eq!(limit_of(&[("/a", None)], None), None);
        assert_eq!(limit_of(&[("/a", Some(Unlimited))], None), None);
        assert_eq!(limit_of(&[], None), None);
        assert_eq!(
            limit_of(&[("/a", Some(Bytes(0)))], Some(8)),
            Some((0, Some("/a".into())))
        );
    }
}
