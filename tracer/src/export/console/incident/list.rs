//! Many incidents as a table, one row each.

use crate::{
    export::console::columns::{Align, Column, table},
    incident::record::{Incident, Victim},
    moment::Zone,
    size,
};

use super::{milliseconds, place, process, resident, shown, victims};

const COLUMNS: [Column; 7] = [
    column("TIME", Align::Left, None),
    column("KIND", Align::Left, None),
    column("WHERE", Align::Left, Some(12)),
    column("VICTIM", Align::Left, Some(10)),
    column("BYTES", Align::Right, None),
    column("LIMIT", Align::Right, None),
    column("ID", Align::Left, None),
];

const fn column(title: &'static str, align: Align, least: Option<usize>) -> Column {
    Column {
        title,
        align,
        least,
    }
}

/// A header and a row each, in the order given. `width`: of the terminal; `None`: nothing is cut.
pub fn list<'a>(
    incidents: impl IntoIterator<Item = &'a Incident>,
    zone: &Zone,
    width: Option<usize>,
    bold: bool,
) -> String {
    let rows: Vec<[String; 7]> = incidents.into_iter().map(|one| row(one, zone)).collect();
    table(COLUMNS, &rows, width, bold)
}

fn row(incident: &Incident, zone: &Zone) -> [String; 7] {
    let charged = incident.charged.as_ref();
    let size = |bytes: Option<u64>| bytes.map_or("-".into(), size::bytes);
    let victim = incident.victims.first();
    let bytes = match victim {
        Some(victim) => resident(victim),
        None => charged.and_then(|charged| charged.usage_bytes),
    };
    [
        zone.seconds(incident.time),
        incident.kind.name().to_owned(),
        place(incident).unwrap_or_else(|| "(cgroup unknown)".into()),
        victim.map_or_else(|| unkilled(incident), |first| killed(incident, first)),
        size(bytes),
        size(charged.and_then(|charged| charged.limit_bytes)),
        shown(&incident.id),
    ]
}

fn killed(incident: &Incident, first: &Victim) -> String {
    match victims(incident) {
        0 | 1 => process(first),
        count => format!("{} ×{count}", process(first)),
    }
}

/// What stands where there is no victim.
fn unkilled(incident: &Incident) -> String {
    let missed = incident.kernel_counts.missed.filter(|missed| *missed > 0);
    match (&incident.stall, missed) {
        (Some(stall), _) if stall.ongoing => {
            format!("stalled {} so far", milliseconds(stall.duration_ms))
        }
        (Some(stall), _) => format!("stalled {}", milliseconds(stall.duration_ms)),
        (None, Some(missed)) => format!("{missed} not seen"),
        (None, None) => "-".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        export::console::incident::tests::CGROUP_OOM,
        incident::{Kind, record::Stall},
    };

    fn incident() -> Incident {
        serde_json::from_str(CGROUP_OOM).unwrap()
    }

    #[test]
    fn a_row_tells_when_what_where_who_and_how_much() {
        let mut named = incident();
        if let Some(charged) = &mut named.charged {
            charged.cgroup = Some("/pods/a".into());
        }
        let text = list(&[named], &Zone::utc(), None, false);
        let mut lines = text.lines();
        let words = |line: Option<&str>| -> Vec<String> {
            let words = line.unwrap_or_default().split_whitespace();
            words.map(str::to_owned).collect()
        };
        assert_eq!(
            words(lines.next()),
            ["TIME", "KIND", "WHERE", "VICTIM", "BYTES", "LIMIT", "ID"]
        );
        assert_eq!(
            words(lines.next()),
            [
                "2026-11-21T07:42:26Z",
                "cgroup_oom",
                "/pods/a",
                "python3(31001)",
                "×2",
                "471M",
                "512M",
                "20261121T074226-1f3a5c7e9b"
            ]
        );
    }

    #[test]
    fn what_is_unknown_or_has_no_victim_is_told_as_such() {
        let mut unknown = incident();
        unknown.charged = None;
        unknown.victims = vec![Victim {
            tid: 7,
            ..Victim::default()
        }];
        let mut stall = incident();
        stall.kind = Kind::Stall;
        stall.victims.clear();
        stall.stall = Some(Stall {
            duration_ms: 30_000,
            stalled_ns: None,
            oom_disabled: false,
            at_high: false,
            ongoing: true,
            ended_by_kill: false,
        });
        let mut missed = incident();
        missed.kind = Kind::MissedKills;
        missed.victims.clear();
        missed.kernel_counts.missed = Some(3);
        let text = list(&[unknown, stall, missed], &Zone::utc(), None, false);
        let first = text.lines().nth(1).unwrap();
        let words: Vec<&str> = first.split_whitespace().skip(2).take(6).collect();
        let unknown = ["(cgroup", "unknown)", "?(thread", "7)", "-", "-"];
        assert_eq!(words, unknown, "{text}");
        assert!(text.contains("stalled 30.0s so far"), "{text}");
        assert!(text.contains("3 not seen"), "{text}");
        assert!(!text.contains(" 0B"), "{text}");
    }

    #[test]
    fn it_fits_the_terminal_with_hostile_names() {
        let mut hostile = incident();
        if let Some(charged) = &mut hostile.charged {
            charged.cgroup = Some(format!("/a\x1b[2J\u{202e}{}", "x".repeat(4000)));
        }
        for width in [80, 120] {
            let text = list(&[hostile.clone()], &Zone::utc(), Some(width), false);
            assert!(!text.contains(['\x1b', '\u{202e}']));
            let longest = text.lines().map(|line| line.chars().count()).max();
            assert!(longest <= Some(width.max(110)), "{text}");
            // What people copy is whole, also where it takes a second line of the terminal.
            assert!(text.contains("20261121T074226-1f3a5c7e9b"), "{text}");
        }
    }
}
