//! The tree of cgroups, made from their paths. Pure.

use std::collections::HashMap;

use super::rows::Shown;
use crate::api::records::CgroupRow;

/// Deeper cgroups are shown as deep as this.
const DEEPEST: u16 = 64;

/// For each row the nearest above it that there is; the root is above none.
pub fn parents(rows: &[CgroupRow]) -> Vec<Option<usize>> {
    let by_path: HashMap<&str, usize> = rows
        .iter()
        .enumerate()
        .map(|(at, row)| (row.cgroup.as_str(), at))
        .collect();
    let parent = |row: &CgroupRow| {
        let mut path = row.cgroup.as_str();
        while let Some((above, _)) = path.rsplit_once('/') {
            if let Some(parent) = by_path.get(above).filter(|_| !above.is_empty()) {
                return Some(*parent);
            }
            path = above;
        }
        None
    };
    rows.iter().map(parent).collect()
}

/// Rows that match and all above them. Gives each above the largest key of what is kept below it, so that the
/// worst comes up with the branch that it is on.
pub fn with_ancestors(
    parents: &[Option<usize>],
    matches: &[bool],
    keys: &mut [Option<f64>],
) -> Vec<bool> {
    let own = keys.to_vec();
    for (key, matches) in keys.iter_mut().zip(matches) {
        if !matches {
            *key = None;
        }
    }
    let mut kept = matches.to_vec();
    for (row, _) in matches.iter().enumerate().filter(|(_, matches)| **matches) {
        let key = own.get(row).copied().flatten();
        let mut above = parents.get(row).copied().flatten();
        while let Some(at) = above {
            let (Some(kept), Some(largest)) = (kept.get_mut(at), keys.get_mut(at)) else {
                break;
            };
            // What is further up knows already.
            if *kept && (key.is_none() || *largest >= key) {
                break;
            }
            *kept = true;
            *largest = largest.max_of(key);
            above = parents.get(at).copied().flatten();
        }
    }
    kept
}

trait MaxOf {
    fn max_of(self, other: Self) -> Self;
}

impl MaxOf for Option<f64> {
    fn max_of(self, other: Self) -> Self {
        match (self, other) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (one, None) | (None, one) => one,
        }
    }
}

/// The lines of the tree: siblings as in `order`, which holds each row's parent too.
pub fn lines(
    parents: &[Option<usize>],
    order: &[usize],
    is_collapsed: impl Fn(usize) -> bool,
) -> Vec<Shown> {
    let mut below: HashMap<usize, Vec<usize>> = HashMap::new();
    // The next to be shown is last.
    let mut next: Vec<(usize, u16)> = Vec::new();
    for &row in order.iter().rev() {
        match parents.get(row).copied().flatten() {
            Some(parent) => below.entry(parent).or_default().push(row),
            None => next.push((row, 0)),
        }
    }
    let mut lines = Vec::with_capacity(order.len());
    while let Some((row, depth)) = next.pop() {
        let children = below.remove(&row).unwrap_or_default();
        let collapsed = !children.is_empty() && is_collapsed(row);
        lines.push(Shown {
            row,
            depth,
            collapsed,
            context: false,
        });
        if !collapsed {
            let depth = (depth + 1).min(DEEPEST);
            next.extend(children.into_iter().map(|child| (child, depth)));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::fixture::row;

    #[test]
    fn a_parent_that_is_not_told_is_skipped_and_the_root_is_above_none() {
        let rows = [row(1, "/"), row(2, "/a"), row(3, "/a/b/c"), row(4, "/ab")];
        assert_eq!(parents(&rows), [None, None, Some(1), None]);
    }

    #[test]
    fn the_worst_comes_up_with_its_branch_also_behind_a_parent_that_matches() {
        let parents = [None, Some(0), Some(1), None];
        let mut keys = [Some(1.0), Some(2.0), Some(9.0), Some(5.0)];
        let kept = with_ancestors(&parents, &[true; 4], &mut keys);
        assert_eq!(kept, [true; 4]);
        assert_eq!(keys, [Some(9.0), Some(9.0), Some(9.0), Some(5.0)]);
        let mut keys = [Some(100.0), Some(2.0), Some(9.0), Some(5.0)];
        let kept = with_ancestors(&parents, &[false, false, true, false], &mut keys);
        assert_eq!(kept, [true, true, true, false]);
        assert_eq!(keys, [Some(9.0), Some(9.0), Some(9.0), None]);
    }
}
