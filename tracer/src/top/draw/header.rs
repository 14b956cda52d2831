//! The lines above and below every pane: machine and agent, what is shown, keys.

use ratatui::text::{Line, Span};

use super::{
    cells,
    look::{Look, Role},
    parts::{self, Part},
};
use crate::{
    api::records::AgentRecord,
    export::console::duration,
    size,
    top::{
        app::{App, Link, Pane},
        text,
    },
};

const VERSION: &str = env!("CARGO_PKG_VERSION");
const UNKNOWN: &str = "-";
/// Columns of the bar of the machine's memory.
const BAR: usize = 15;
/// Kills by the kernel's count alone, also of the time before the agent: nothing that it had was lost.
const MISSED: &str = "oom_kills_missed";

/// Who tells it, of which machine.
pub fn agent(app: &App, look: Look, width: usize) -> Line<'static> {
    let title = look.style(Role::Title);
    let dim = look.style(Role::Dim);
    let mut told = vec![Part::new(9, "memtrace top", title)];
    if let Some(agent) = &app.agent {
        if let Some(host) = &agent.hostname {
            told.push(Part::new(8, host.clone(), look.style(Role::Plain)));
        }
        let who = if app.own {
            "own tracing, no agent runs".to_owned()
        } else {
            format!("agent {}", agent.version)
        };
        let up = agent.time.duration_since(agent.started).as_secs_f64();
        told.push(Part::new(6, who, look.style(Role::Plain)));
        told.push(Part::new(4, format!("up {}", duration::rough(up)), dim));
        if !app.own && agent.version != VERSION {
            let note = format!("this is {VERSION}");
            told.push(Part::new(3, note, look.style(Role::Warning)));
        }
        let every = format!("every {}s", agent.interval_seconds);
        told.push(Part::new(5, every, dim));
        told.push(Part::new(2, agent.kernel.clone(), dim));
    }
    let (state, role) = match &app.link {
        _ if app.paused => ("HELD", Role::Warning),
        Link::Connecting => ("connecting…", Role::Dim),
        Link::Live => ("live", Role::Good),
        Link::Lost { .. } => ("LOST", Role::Bad),
    };
    told.push(Part::new(7, state, look.style(role)));
    parts::line(told, width)
}

/// The machine's memory.
pub fn machine(app: &App, look: Look, width: usize) -> Line<'static> {
    let Some(agent) = &app.agent else {
        return Line::default();
    };
    let plain = look.style(Role::Plain);
    let shown = |bytes: Option<u64>| bytes.map_or(UNKNOWN.to_owned(), size::bytes);
    let used = used_share(agent);
    let memory = format!(
        "{} available of {}",
        shown(agent.mem_available_bytes),
        shown(agent.mem_total_bytes)
    );
    let mut told = vec![
        Part::new(10, memory, plain),
        Part::new(
            6,
            cells::bar(used, BAR),
            look.style(cells::share_role(used)),
        ),
    ];
    let swap = match (agent.swap_total_bytes, agent.swap_free_bytes) {
        (Some(0), _) => "no swap".to_owned(),
        (Some(total), Some(free)) => format!(
            "swap {} of {}",
            size::bytes(total.saturating_sub(free)),
            size::bytes(total)
        ),
        _ => "swap -".to_owned(),
    };
    told.push(Part::new(5, swap, plain));
    let kills = agent.oom_kills.map_or(UNKNOWN.into(), |n| n.to_string());
    told.push(Part::new(9, format!("OOM kills {kills}"), plain));
    if let Some(missed) = agent.losses.get(MISSED).filter(|count| **count > 0) {
        told.push(Part::new(7, format!("{missed} not seen"), plain));
    }
    if let Some((count, causes)) = losses(agent) {
        let warning = look.style(Role::Warning);
        told.push(Part::new(8, format!("lost {count}"), warning));
        told.push(Part::new(4, causes, warning));
    }
    parts::line(told, width)
}

fn used_share(agent: &AgentRecord) -> Option<f64> {
    let total = agent.mem_total_bytes.filter(|total| *total > 0)?;
    let used = total.saturating_sub(agent.mem_available_bytes?);
    Some(used as f64 / total as f64)
}

/// How much was lost, and for which causes, the most frequent named.
fn losses(agent: &AgentRecord) -> Option<(String, String)> {
    let losses = agent.losses.iter();
    let lost = losses.filter(|(cause, count)| **count > 0 && cause.as_str() != MISSED);
    let (cause, _) = lost.clone().max_by_key(|(_, count)| **count)?;
    let all = lost
        .clone()
        .fold(0u64, |all, (_, count)| all.saturating_add(*count));
    let more = match lost.count() {
        1 => String::new(),
        causes => format!(" and {} more", causes - 1),
    };
    Some((size::count(Some(all as f64)), format!("by {cause}{more}")))
}

/// What is shown; or that the agent is gone.
pub fn view(app: &App, look: Look, width: usize) -> Line<'static> {
    if let Link::Lost { since, why } = &app.link {
        let since = since.strftime("%H:%M:%SZ");
        let told = format!("no answer since {since}, trying again: {why}");
        let style = look.style(Role::Bad);
        return Line::styled(text::left(&told, width), style.patch(look.selected()));
    }
    let dim = look.style(Role::Dim);
    let plain = look.style(Role::Plain);
    let warning = look.style(Role::Warning);
    match app.pane() {
        Pane::List => {
            let rows = &app.rows;
            let view = &rows.view;
            let count = format!("{} of {} cgroups", rows.lines(), rows.told());
            let kind = if view.flat { "list" } else { "tree" };
            let turned = if view.reversed { ", reversed" } else { "" };
            let order = format!("{kind} by {}{turned}", view.sort.name());
            let mut told = vec![Part::new(7, count, dim), Part::new(6, order, plain)];
            if let Some(chosen) = &app.chosen {
                told.push(Part::new(5, chosen.clone(), plain));
            }
            if !view.filter.is_empty() {
                let filter = format!("filter {}", view.filter.text());
                told.push(Part::new(9, filter, warning));
            }
            if view.leaks_only {
                told.push(Part::new(8, "leaks only", warning));
            }
            if rows.left_out() > 0 {
                let more = format!("{} more are not told", rows.left_out());
                told.push(Part::new(8, more, warning));
            }
            parts::line(told, width)
        }
        Pane::Details => {
            let name = app.details.as_ref().map(|details| details.name.as_str());
            let name = text::fit(name.unwrap_or_default(), width);
            Line::styled(name, look.style(Role::Title))
        }
        Pane::Incidents => Line::styled("incidents, newest first", look.style(Role::Title)),
    }
}

/// Keys of the pane, or the filter that is typed.
pub fn keys(app: &App, look: Look, width: usize) -> Line<'static> {
    if let Some((typed, _)) = &app.typing {
        let room = width.saturating_sub(9);
        return Line::from(vec![
            Span::styled("filter: ", look.style(Role::Key)),
            Span::raw(text::fit(typed, room)),
            Span::styled(" ", look.selected()),
        ]);
    }
    let keys: &[(u8, &str, &str)] = match app.pane() {
        Pane::List => &[
            (9, "?", "help"),
            (10, "q", "quit"),
            (8, "Enter", "details"),
            (6, "i", "incidents"),
            (7, "/", "filter"),
            (5, "s", "sort"),
            (4, "t", "tree"),
            (3, "l", "leaks"),
            (2, "Space", "hold"),
        ],
        Pane::Details => &[
            (9, "?", "help"),
            (10, "Esc", "back"),
            (8, "+ -", "span"),
            (7, "↑ ↓", "scroll"),
            (6, "i", "incidents"),
            (5, "Space", "hold"),
            (4, "q", "quit"),
        ],
        Pane::Incidents => &[
            (9, "?", "help"),
            (10, "Esc", "back"),
            (8, "Enter", "report"),
            (7, "↑ ↓", "select, scroll"),
            (4, "q", "quit"),
        ],
    };
    let style = look.style(Role::Plain);
    let told = keys
        .iter()
        .map(|(importance, key, what)| Part::new(*importance, format!("{key} {what}"), style));
    parts::line(told.collect(), width)
}
