//! The heaviest call paths as a tree in a terminal.
//!
//! Owns columns and lines. Frames that follow each other without a branch stand below each other at the
//! same depth, with numbers at the first only.

use std::io::{self, Write};
use std::time::Duration;

use super::calltree::{self, Bounds, Hidden, Node};
use super::paths::{Path, Paths, Style};
use super::summary::{self, margin, signed, whole};
use super::{View, sum, total};
use crate::export::console::duration;
use crate::size;
use crate::stacks::profile::{Estimate, Kind, Profile, ProfileStack};
use crate::stacks::suspects::{SURE, sure_growth, weighted_median};

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[31m";
const RESET: &str = "\x1b[0m";
/// Lines that a run of frames takes; of a longer one the middle is left out.
const MOST_RUN: usize = 7;
/// Narrower terminals do without `±`.
const WIDE: usize = 80;
/// Narrower ones do without AGE.
const NARROW: usize = 60;
/// Least room for names.
const LEAST_NAME: usize = 12;

/// What is shown, and how.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TreeOptions {
    pub kind: Kind,
    /// Of the terminal.
    pub columns: usize,
    /// Most lines of the tree, without heading and summary.
    pub lines: usize,
    /// Least share of the total, 0 to 1.
    pub least_share: f64,
    /// Frames from the root below which nothing branches any more.
    pub depth: usize,
    pub colour: bool,
}

impl Default for TreeOptions {
    fn default() -> Self {
        TreeOptions {
            kind: Kind::Resident,
            columns: 100,
            lines: 60,
            least_share: 0.01,
            depth: 64,
            colour: false,
        }
    }
}

/// The tree, with a heading and what it does not show. No line is wider than the terminal.
pub fn write(profile: &Profile, options: &TreeOptions, mut out: impl Write) -> io::Result<()> {
    let mut processes = profile.stacks.iter().filter(|s| s.kind == options.kind);
    let first = processes.next();
    let several =
        first.is_some_and(|first| processes.any(|s| (s.pid, &s.comm) != (first.pid, &first.comm)));
    let style = if several {
        Style::Processes
    } else {
        Style::OneProcess
    };
    let paths = Paths::new(profile, options.kind, style);
    let weigh = |path: &Path| figures(path).resident.bytes;
    let weights: Vec<f64> = paths.all().iter().map(weigh).collect();
    let bounds = Bounds {
        least_share: options.least_share,
        most_cost: options.lines,
        // A branch may need a line for what is left out of it.
        cost: |frames| frames.min(MOST_RUN) + 1,
        most_depth: options.depth,
    };
    let nodes = calltree::heaviest(&paths, &weights, bounds);
    let mut tree = Tree {
        paths: &paths,
        nodes: &nodes,
        options,
        total: total(profile, view(options.kind)).bytes,
        lines: Vec::new(),
    };
    tree.heading(profile, first.filter(|_| !several));
    if tree.has_memory() {
        tree.header();
        tree.draw();
        tree.summary(profile);
    } else {
        tree.nothing(profile);
    }
    for line in &tree.lines {
        writeln!(out, "{line}")?;
    }
    out.flush()
}

fn view(kind: Kind) -> View {
    match kind {
        Kind::Resident => View::Resident,
        Kind::Mapped => View::Mapped,
    }
}

/// Sums of a path.
struct Figures {
    resident: Estimate,
    growth: Estimate,
}

fn figures(path: &Path) -> Figures {
    let stacks = || path.stacks.iter();
    Figures {
        resident: sum(stacks().map(|stack| stack.resident)),
        growth: sum(stacks().map(|stack| stack.growth)),
    }
}

/// What is still to be drawn.
enum Waiting<'t> {
    /// With what stands before its first line, and before those below it.
    Node(&'t Node, String, String),
    More(Hidden, String),
}

struct Tree<'t> {
    paths: &'t Paths<'t>,
    nodes: &'t [Node],
    options: &'t TreeOptions,
    total: f64,
    lines: Vec<String>,
}

impl Tree<'_> {
    fn heading(&mut self, profile: &Profile, process: Option<&ProfileStack>) {
        let of = process.map_or(String::new(), |stack| {
            format!("  {} (pid {})", super::names::plain(&stack.comm), stack.pid)
        });
        let heading = format!(
            "{}{of}  {}",
            summary::scope(profile),
            summary::span(profile)
        );
        self.wrapped(&heading);
    }

    fn has_memory(&self) -> bool {
        let root = self.nodes.first();
        self.total > 0.0 && root.is_some_and(|root| !root.paths.is_empty())
    }

    /// Figures of no sample would say nothing, and that exactly.
    fn nothing(&mut self, profile: &Profile) {
        let what = match self.options.kind {
            Kind::Resident => "No memory that is still resident was sampled",
            Kind::Mapped => "No address space was mapped",
        };
        let text = format!("{what} in this time, {}.", summary::lost(profile));
        self.wrapped(&text);
    }

    fn header(&mut self) {
        let name = match self.options.kind {
            Kind::Resident => "RESIDENT",
            Kind::Mapped => "MAPPED",
        };
        let cells = self.cells([name, "±", "SHARE", "GROWTH", "AGE"]);
        let header = format!("{cells}CALL PATH");
        self.coloured(BOLD, &header);
    }

    fn draw(&mut self) {
        let Some(root) = self.nodes.first() else {
            return;
        };
        let mut waiting = vec![Waiting::Node(root, String::new(), String::new())];
        while let Some(next) = waiting.pop() {
            let (node, below) = match next {
                Waiting::More(hidden, lead) => {
                    self.more(hidden, &lead);
                    continue;
                }
                Waiting::Node(node, before, below) => {
                    self.node(node, &before, &below);
                    (node, below)
                }
            };
            // Processes, if there are several, stand beside each other.
            let branched = node.end > node.depth;
            let last = |at: usize, of: usize| at + 1 == of && node.hidden.branches == 0;
            if node.hidden.branches > 0 {
                let lead = if branched { "└ " } else { "" };
                waiting.push(Waiting::More(node.hidden, format!("{below}{lead}")));
            }
            let children = node.children.iter();
            let mut children: Vec<&Node> = children.filter_map(|c| self.nodes.get(*c)).collect();
            children.sort_by(|a, b| {
                let by_weight = b.weight.total_cmp(&a.weight);
                by_weight.then(a.paths.start.cmp(&b.paths.start))
            });
            for (at, child) in children.iter().enumerate().rev() {
                let (before, after) = match (branched, last(at, children.len())) {
                    (false, _) => ("", ""),
                    (true, true) => ("└ ", "  "),
                    (true, false) => ("├ ", "│ "),
                };
                let (before, after) = (format!("{below}{before}"), format!("{below}{after}"));
                waiting.push(Waiting::Node(child, before, after));
            }
        }
    }

    /// The lines of a run of frames.
    fn node(&mut self, node: &Node, before: &str, below: &str) {
        let path = self.paths.all().get(node.paths.start);
        let steps = path.and_then(|path| path.steps.get(node.depth..node.end));
        let steps = steps.unwrap_or_default().iter();
        let names: Vec<&str> = steps.map(|step| self.paths.name(*step)).collect();
        let numbers = self.numbers(node);
        let none = self.cells([""; 5]);
        for (at, name) in shortened_run(&names).into_iter().enumerate() {
            match at {
                0 if numbers.grows => self.row(&numbers.cells, before, &name, RED),
                0 => self.row(&numbers.cells, before, &name, ""),
                _ => self.row(&none, below, &name, ""),
            }
        }
    }

    /// What is not shown of a node.
    fn more(&mut self, hidden: Hidden, lead: &str) {
        let resident = size::bytes(whole(hidden.weight));
        let share = percent(hidden.weight / self.total);
        let cells = self.cells([&resident, "", &share, "", ""]);
        self.row(&cells, lead, &format!("… {} more", hidden.branches), DIM);
    }

    fn numbers(&self, node: &Node) -> Numbers {
        let paths = self.paths.all().get(node.paths.clone()).unwrap_or_default();
        let resident = sum(paths.iter().map(|path| figures(path).resident));
        let growth = sum(paths.iter().map(|path| figures(path).growth));
        let stacks = paths.iter().flat_map(|path| &path.stacks);
        let age = weighted_median(stacks.map(|stack| (stack.median_age, stack.resident.bytes)));
        // What may be chance is marked.
        let doubt = growth.bytes.abs() <= SURE * growth.error_bytes && growth.bytes.abs() >= 0.5;
        let growth_text = signed(growth.bytes) + if doubt { "?" } else { "" };
        Numbers {
            cells: self.cells([
                &size::bytes(whole(resident.bytes)),
                &margin(resident),
                &percent(resident.bytes / self.total),
                &growth_text,
                &rough(age),
            ]),
            grows: sure_growth(growth) > 0.0,
        }
    }

    fn summary(&mut self, profile: &Profile) {
        let figures = format!(
            "{}; {}, error {}, {}",
            match self.options.kind {
                Kind::Resident => summary::explained(profile),
                Kind::Mapped => summary::amount(profile, View::Mapped),
            },
            summary::sampling(profile),
            margin(total(profile, view(self.options.kind))),
            summary::lost(profile)
        );
        let legend = format!(
            "± is one standard error; growth since {}, ? where it may be chance",
            summary::second(profile.base)
        );
        self.wrapped(&figures);
        self.wrapped(&legend);
    }

    fn wrapped(&mut self, text: &str) {
        for line in wrapped(text, self.options.columns) {
            self.plain(&line);
        }
    }

    /// Numbers in their columns, with the space before the name.
    fn cells(&self, [resident, error, share, growth, age]: [&str; 5]) -> String {
        let error = match self.options.columns >= WIDE {
            true => format!(" {error:>7}"),
            false => String::new(),
        };
        let age = match self.options.columns >= NARROW {
            true => format!(" {age:>7}"),
            false => String::new(),
        };
        format!("{resident:>8}{error} {share:>6} {growth:>8}{age}  ")
    }

    fn row(&mut self, cells: &str, lead: &str, name: &str, colour: &str) {
        let room = self.options.columns.saturating_sub(cells.chars().count());
        let room = room.max(LEAST_NAME);
        let lead = shortened_lead(lead, room / 2);
        let name = elided(name, room.saturating_sub(lead.chars().count()));
        let line = format!("{cells}{lead}{name}");
        if self.options.colour && !colour.is_empty() {
            self.coloured(colour, &line);
        } else {
            self.plain(&line);
        }
    }

    fn plain(&mut self, line: &str) {
        self.lines.push(self.cut(line));
    }

    fn coloured(&mut self, colour: &str, line: &str) {
        let line = self.cut(line);
        let line = match self.options.colour {
            true => format!("{colour}{line}{RESET}"),
            false => line,
        };
        self.lines.push(line);
    }

    fn cut(&self, line: &str) -> String {
        let line = line.trim_end().chars();
        line.take(self.options.columns).collect()
    }
}

struct Numbers {
    cells: String,
    grows: bool,
}

fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

fn rough(age: Duration) -> String {
    duration::rough(age.as_secs_f64())
}

/// Names of a run; of a long one the first, and more of the last: those are where memory is used.
fn shortened_run(names: &[&str]) -> Vec<String> {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    if names.len() <= MOST_RUN {
        return owned(names);
    }
    let (first, last) = (MOST_RUN / 3, MOST_RUN - MOST_RUN / 3 - 1);
    let left_out = names.len() - first - last;
    let mut shown: Vec<String> = owned(names.get(..first).unwrap_or_default());
    shown.push(format!("… {left_out} frames"));
    shown.extend::<Vec<String>>(owned(names.get(first + left_out..).unwrap_or_default()));
    shown
}

/// Branches as far as they fit: the nearest ones.
fn shortened_lead(lead: &str, room: usize) -> String {
    let length = lead.chars().count();
    if length <= room {
        return lead.to_owned();
    }
    let near = lead.chars().skip(length + 1 - room.max(1));
    format!("…{}", near.collect::<String>())
}

/// Both ends of a name say more than its middle.
fn elided(name: &str, room: usize) -> String {
    let length = name.chars().count();
    if length <= room {
        return name.to_owned();
    }
    let ends = room.saturating_sub(1);
    let (first, last) = (ends - ends / 2, ends / 2);
    let start: String = name.chars().take(first).collect();
    let end: String = name.chars().skip(length - last).collect();
    format!("{start}…{end}")
}

/// Lines of whole words.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        if let Some(line) = lines.last_mut() {
            let length = line.chars().count();
            if length == 0 {
                line.push_str(word);
            } else if length + 1 + word.chars().count() <= columns {
                line.push(' ');
                line.push_str(word);
            } else {
                lines.push(word.to_owned());
            }
        }
    }
    lines
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
