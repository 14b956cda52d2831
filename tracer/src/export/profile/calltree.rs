//! The heaviest part of the tree that call paths make.
//!
//! Owns what is shown when not everything can be. A node is a run of frames without a branch.

use std::{cmp::Ordering, collections::BinaryHeap, ops::Range};

use super::paths::Paths;

/// What is too small or too much to show.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Least share of the total, 0 to 1.
    pub least_share: f64,
    /// Most that the nodes cost together.
    pub most_cost: usize,
    /// What a run of frames costs.
    pub cost: fn(usize) -> usize,
    /// Frames from the root below which nothing branches any more.
    pub most_depth: usize,
}

/// Frames that follow each other without a branch; the root may have none.
#[derive(Debug)]
pub(super) struct Node {
    /// Frames above it.
    pub depth: usize,
    /// Frames from the root to its last, in each of its paths.
    pub end: usize,
    /// Its paths, in the order of [`Paths::all`].
    pub paths: Range<usize>,
    pub weight: f64,
    /// Places in the tree, in the order of names.
    pub children: Vec<usize>,
    /// Branches that are not shown.
    pub hidden: Hidden,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hidden {
    pub branches: usize,
    pub weight: f64,
}

struct Candidate {
    weight: f64,
    parent: Option<usize>,
    depth: usize,
    paths: Range<usize>,
}

impl Candidate {
    /// Heaviest first, and of equals the first by name.
    fn rank(&self, other: &Self) -> Ordering {
        let by_weight = self.weight.total_cmp(&other.weight);
        by_weight
            .then(other.paths.start.cmp(&self.paths.start))
            .then(other.depth.cmp(&self.depth))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.rank(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank(other)
    }
}

/// Nodes by weight, the root first; `weights` are of the paths and not negative.
pub(super) fn heaviest(paths: &Paths, weights: &[f64], bounds: Bounds) -> Vec<Node> {
    let sums = running_sums(weights);
    let weigh = |range: &Range<usize>| {
        let at = |index: usize| sums.get(index).copied().unwrap_or_default();
        at(range.end) - at(range.start)
    };
    let all = 0..paths.all().len();
    let total = weigh(&all);
    let mut nodes: Vec<Node> = Vec::new();
    let mut spent = 0;
    let mut waiting = BinaryHeap::from([Candidate {
        weight: total,
        parent: None,
        depth: 0,
        paths: all,
    }]);
    while let Some(next) = waiting.pop() {
        let end = next.depth + run(paths, &next);
        let cost = (bounds.cost)(end - next.depth);
        // The root stands for everything, also for what is not shown of it.
        if spent + cost > bounds.most_cost && next.parent.is_some() {
            hide(&mut nodes, &next);
            continue;
        }
        spent += cost;
        let place = nodes.len();
        if let Some(parent) = next.parent.and_then(|parent| nodes.get_mut(parent)) {
            parent.children.push(place);
        }
        nodes.push(Node {
            depth: next.depth,
            end,
            paths: next.paths.clone(),
            weight: next.weight,
            children: Vec::new(),
            hidden: Hidden::default(),
        });
        for branch in branches(paths, &next.paths, end) {
            let candidate = Candidate {
                weight: weigh(&branch),
                parent: Some(place),
                depth: end,
                paths: branch,
            };
            let large = candidate.weight > 0.0 && candidate.weight >= total * bounds.least_share;
            if large && end < bounds.most_depth {
                waiting.push(candidate);
            } else {
                hide(&mut nodes, &candidate);
            }
        }
    }
    let starts: Vec<usize> = nodes.iter().map(|node| node.paths.start).collect();
    for node in &mut nodes {
        node.children
            .sort_by_key(|child| starts.get(*child).copied());
    }
    nodes
}

fn running_sums(weights: &[f64]) -> Vec<f64> {
    let mut sum = 0.0;
    let mut sums = vec![0.0];
    sums.extend(weights.iter().map(|weight| {
        sum += weight.max(0.0);
        sum
    }));
    sums
}

fn hide(nodes: &mut [Node], candidate: &Candidate) {
    if let Some(parent) = candidate.parent.and_then(|parent| nodes.get_mut(parent)) {
        parent.hidden.branches += 1;
        parent.hidden.weight += candidate.weight;
    }
}

/// Frames that all of the candidate's paths go on with.
fn run(paths: &Paths, candidate: &Candidate) -> usize {
    let within = paths.all().get(candidate.paths.clone()).unwrap_or_default();
    // They are sorted: what the first and the last share, all do.
    let (Some(first), Some(last)) = (within.first(), within.last()) else {
        return 0;
    };
    let first = first.steps.iter().skip(candidate.depth);
    let last = last.steps.iter().skip(candidate.depth);
    first.zip(last).take_while(|(a, b)| a == b).count()
}

/// The paths of `within` that go on below `depth`, by their next frame.
fn branches(paths: &Paths, within: &Range<usize>, depth: usize) -> Vec<Range<usize>> {
    let steps = |index: usize| paths.all().get(index)?.steps.get(depth).copied();
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut last = None;
    for index in within.clone() {
        let step = steps(index);
        match found.last_mut() {
            Some(branch) if step == last => branch.end = index + 1,
            _ if step.is_some() => found.push(index..index + 1),
            _ => {}
        }
        last = step;
    }
    found
}
