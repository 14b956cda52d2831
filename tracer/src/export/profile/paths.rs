//! Stacks as paths from the root, merged by what their frames show.
//!
//! Owns the order of outputs: by name, component by component.

use std::collections::HashMap;

use super::names;
use crate::stacks::profile::{Kind, Profile, ProfileStack};

/// Call paths, sorted; no two are equal.
#[derive(Debug)]
pub(super) struct Paths<'a> {
    names: Vec<String>,
    paths: Vec<Path<'a>>,
}

/// One call path and the stacks that show as it.
#[derive(Debug)]
pub(super) struct Path<'a> {
    /// The root first. Ranks of names: their order is that of the names.
    pub steps: Vec<u32>,
    pub stacks: Vec<&'a ProfileStack>,
}

/// How frames show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// As in folded text, the process first.
    Folded,
    /// For a person, the process first.
    Processes,
    /// For a person, who knows the process.
    OneProcess,
}

#[derive(PartialEq, Eq, Hash)]
enum Step<'a> {
    Process(u32, &'a str),
    Mark(&'static str),
    Frame {
        function: Option<&'a str>,
        module: &'a str,
        /// Of a frame that only its place tells apart.
        offset: Option<u64>,
        inlined: bool,
    },
}

impl<'a> Paths<'a> {
    /// Paths of all stacks of `kind`.
    pub(super) fn new(profile: &'a Profile, kind: Kind, style: Style) -> Self {
        let mut texts: Vec<String> = Vec::new();
        let mut known: HashMap<Step<'a>, u32> = HashMap::new();
        let mut number = |step: Step<'a>, text: &dyn Fn() -> String| {
            *known.entry(step).or_insert_with(|| {
                texts.push(text());
                u32::try_from(texts.len() - 1).unwrap_or(u32::MAX)
            })
        };
        let mut paths: Vec<Path<'a>> = Vec::new();
        for stack in profile.stacks.iter().filter(|stack| stack.kind == kind) {
            let (frames, mark) = names::bounded(stack);
            let mut steps = Vec::with_capacity(frames.len() + 2);
            if style != Style::OneProcess {
                let step = Step::Process(stack.pid, &stack.comm);
                steps.push(number(step, &|| process(stack, style)));
            }
            steps.extend(mark.map(|mark| number(Step::Mark(mark), &|| mark.to_owned())));
            steps.extend(frames.iter().rev().map(|frame| {
                let step = Step::Frame {
                    function: frame.function.as_deref(),
                    module: &frame.module,
                    offset: frame.function.is_none().then_some(frame.offset),
                    inlined: frame.inlined && style == Style::Folded,
                };
                number(step, &|| match (style, frame.inlined) {
                    (Style::Folded, true) => foldable(&names::function(frame)) + "_[i]",
                    (Style::Folded, false) => foldable(&names::function(frame)),
                    (Style::Processes | Style::OneProcess, _) => names::function(frame),
                })
            }));
            paths.push(Path {
                steps,
                stacks: vec![stack],
            });
        }
        let (names, ranks) = ranked(texts);
        for step in paths.iter_mut().flat_map(|path| &mut path.steps) {
            *step = ranks.get(*step as usize).copied().unwrap_or_default();
        }
        paths.sort_by(|a, b| a.steps.cmp(&b.steps));
        paths.dedup_by(|next, kept| {
            let same = next.steps == kept.steps;
            if same {
                kept.stacks.append(&mut next.stacks);
            }
            same
        });
        for path in &mut paths {
            // Sums of floating point numbers depend on their order.
            path.stacks.sort_by(|a, b| {
                let size = |stack: &ProfileStack| (stack.resident.bytes, stack.growth.bytes);
                let ((a, grew_a), (b, grew_b)) = (size(a), size(b));
                a.total_cmp(&b).then(grew_a.total_cmp(&grew_b))
            });
        }
        Paths { names, paths }
    }

    pub(super) fn all(&self) -> &[Path<'a>] {
        &self.paths
    }

    pub(super) fn name(&self, step: u32) -> &str {
        self.names.get(step as usize).map_or("", String::as_str)
    }

    /// `root;…;leaf`.
    pub(super) fn joined(&self, steps: &[u32]) -> String {
        let names: Vec<&str> = steps.iter().map(|step| self.name(*step)).collect();
        names.join(";")
    }
}

/// The distinct texts in order, and the place of each given one among them.
fn ranked(texts: Vec<String>) -> (Vec<String>, Vec<u32>) {
    let mut order: Vec<(String, usize)> = texts
        .into_iter()
        .enumerate()
        .map(|(at, text)| (text, at))
        .collect();
    order.sort();
    let mut ranks = vec![0; order.len()];
    let mut names: Vec<String> = Vec::new();
    for (text, at) in order {
        if names.last() != Some(&text) {
            names.push(text);
        }
        if let Some(rank) = ranks.get_mut(at) {
            *rank = u32::try_from(names.len() - 1).unwrap_or(u32::MAX);
        }
    }
    (names, ranks)
}

fn process(stack: &ProfileStack, style: Style) -> String {
    let comm = names::plain(&stack.comm);
    match style {
        // Readers take a line that begins with `#` for a comment.
        Style::Folded => match foldable(&format!("{comm}-{}", stack.pid)).strip_prefix('#') {
            Some(rest) => format!(r"\x23{rest}"),
            None => foldable(&format!("{comm}-{}", stack.pid)),
        },
        Style::Processes | Style::OneProcess => format!("{comm} (pid {})", stack.pid),
    }
}

/// A name without what separates frames and weights.
fn foldable(name: &str) -> String {
    let name = name.replace(';', ":");
    match name.rsplit_once(' ') {
        // It would be read as a second weight.
        Some((head, tail)) if tail.bytes().all(|b| b.is_ascii_digit() || b == b'.') => {
            format!("{head}_{tail}")
        }
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_end_a_frame_or_be_a_weight() {
        assert_eq!(foldable("[u8; 8]::f"), "[u8: 8]::f");
        assert_eq!(foldable("f 12"), "f_12");
        assert_eq!(foldable("f 1 2.5"), "f 1_2.5");
        assert_eq!(foldable("operator new(int)"), "operator new(int)");
    }
}
