use super::*;
use crate::top::fixture::{MIB, leaking, listed, row, sized};

fn rows(view: View, items: Vec<CgroupRow>) -> Rows {
    let mut rows = Rows::new(view);
    rows.set_page(100);
    rows.apply(listed(0, items));
    rows
}

fn flat() -> View {
    View {
        flat: true,
        ..View::default()
    }
}

fn paths(rows: &Rows) -> Vec<String> {
    rows.on_screen()
        .map(|(line, row, _)| format!("{}{}", " ".repeat(line.depth.into()), row.cgroup))
        .collect()
}

fn selected(rows: &Rows) -> Option<&str> {
    rows.selected_row().map(|row| row.cgroup.as_str())
}

fn some() -> Vec<CgroupRow> {
    vec![
        sized(1, "/a", 9 * MIB),
        sized(2, "/a/x", 2 * MIB),
        sized(3, "/a/y", 7 * MIB),
        leaking(4, "/b"),
        sized(5, "/empty", 0),
        CgroupRow {
            usage_bytes: None,
            ..row(6, "/unknown")
        },
    ]
}

#[test]
fn a_tree_sorts_siblings_and_hides_what_is_empty_but_not_what_is_unknown() {
    let mut rows = rows(View::default(), some());
    assert_eq!(paths(&rows), ["/b", "/a", " /a/y", " /a/x", "/unknown"]);
    rows.view.reversed = true;
    rows.view.empty = true;
    rows.arrange();
    assert_eq!(
        paths(&rows),
        ["/empty", "/a", " /a/x", " /a/y", "/b", "/unknown"]
    );
}

#[test]
fn the_selection_follows_the_cgroup_and_stays_in_place_when_it_is_gone() {
    let mut rows = rows(flat(), some());
    rows.step(1);
    assert_eq!(selected(&rows), Some("/a"));
    let mut grown = some();
    grown[0].usage_bytes = Some(900 * MIB);
    rows.apply(listed(1, grown.clone()));
    assert_eq!(selected(&rows), Some("/a"));
    assert_eq!(paths(&rows)[0], "/a");
    grown.remove(0);
    rows.apply(listed(2, grown));
    assert_eq!(selected(&rows), Some("/b"));
    rows.apply(listed(3, Vec::new()));
    assert_eq!(selected(&rows), None);
    rows.step(5);
    rows.select_last();
    assert_eq!(rows.on_screen().count(), 0);
}

#[test]
fn a_filter_in_the_tree_keeps_what_is_above_a_match() {
    let mut rows = rows(View::default(), some());
    rows.view.filter = Filter::new("/Y");
    rows.arrange();
    assert_eq!(paths(&rows), ["/a", " /a/y"]);
    let context: Vec<bool> = rows.on_screen().map(|(line, ..)| line.context).collect();
    assert_eq!(context, [true, false]);
    rows.view.filter = Filter::default();
    rows.view.leaks_only = true;
    rows.arrange();
    assert_eq!(paths(&rows), ["/b"]);
}

#[test]
fn a_branch_is_hidden_and_shown_and_from_a_leaf_leads_up() {
    let mut rows = rows(View::default(), some());
    rows.step(2);
    assert_eq!(selected(&rows), Some("/a/y"));
    rows.collapse();
    assert_eq!(selected(&rows), Some("/a"));
    rows.collapse();
    assert_eq!(paths(&rows), ["/b", "/a", "/unknown"]);
    rows.expand();
    assert_eq!(rows.lines(), 5);
}

#[test]
fn the_selection_is_always_on_the_screen() {
    let many: Vec<CgroupRow> = (0..500)
        .map(|id| sized(id, &format!("/{id}"), 500 - id))
        .collect();
    let mut rows = rows(flat(), many);
    for page in [0, 1, 3, 40, 1000] {
        rows.set_page(page);
        for step in [1, 7, 100, -3, 10_000, -1, -10_000, 499] {
            rows.step(step);
            let on_screen = rows.on_screen().filter(|(.., selected)| *selected).count();
            assert_eq!(on_screen, usize::from(page > 0), "{page} {step}");
            assert_eq!(rows.on_screen().count(), page.min(500));
        }
    }
}

#[test]
fn a_history_grows_with_each_interval_once_and_shows_a_gap() {
    let mut rows = rows(flat(), vec![sized(1, "/a", MIB)]);
    rows.apply(listed(0, vec![sized(1, "/a", MIB)]));
    rows.apply(listed(1, vec![sized(1, "/a", 2 * MIB)]));
    rows.mark_gap();
    rows.apply(listed(9, vec![sized(1, "/a", 3 * MIB)]));
    let told: Vec<_> = rows.history(1).unwrap().newest_first().collect();
    assert_eq!(told, [Some(3 * MIB), None, Some(2 * MIB), Some(MIB)]);
    let mut with_recent = sized(1, "/a", 5 * MIB);
    with_recent.recent_usage_bytes = vec![Some(4 * MIB), None, Some(5 * MIB)];
    rows.apply(listed(10, vec![with_recent]));
    let told: Vec<_> = rows.history(1).unwrap().newest_first().collect();
    assert_eq!(told, [Some(5 * MIB), None, Some(4 * MIB)]);
}
