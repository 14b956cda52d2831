use ratatui::{Terminal, backend::TestBackend, style::Color};

use super::*;
use crate::top::{
    app::Told,
    fixture::{MIB, agent, details, leaking, listed, row, sized, time},
    rows::View,
    text,
};

const PLAIN: Look = Look { colour: false };

fn app() -> App {
    let mut app = App::new(View::default(), false, None);
    let mut parent = sized(3, "/pods", 300 * MIB);
    parent.has_children = true;
    app.hear(Told::Agent(Box::new(agent(720))));
    app.hear(Told::Cgroups(listed(
        0,
        vec![
            parent,
            leaking(1, "/pods/leaky"),
            sized(2, "/pods/calm", 5 * MIB),
        ],
    )));
    app
}

fn terminal(app: &mut App, width: u16, height: u16, look: Look) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, app, look)).unwrap();
    terminal
}

fn screen(app: &mut App, width: u16, height: u16) -> Vec<String> {
    let terminal = terminal(app, width, height, PLAIN);
    let buffer = terminal.backend().buffer();
    let line = |y| {
        let mut line = String::new();
        let mut skip = 0;
        for x in 0..width {
            let symbol = buffer[(x, y)].symbol();
            if skip == 0 {
                line += symbol;
                skip = text::width(symbol).saturating_sub(1);
            } else {
                skip -= 1;
            }
        }
        line.trim_end().to_owned()
    };
    (0..height).map(line).collect()
}

fn whole(app: &mut App, width: u16, height: u16) -> String {
    screen(app, width, height).join("\n")
}

#[test]
fn a_terminal_of_80_columns_shows_what_matters() {
    let screen = screen(&mut app(), 80, 24);
    let expected = [
        "memtrace top  node-1  agent 0.1.0  up 1h00m  every 5s  6.1.0-18-amd64  live",
        "2.0G available of 8.0G  ███████▌    75%  swap 24.0M of 1.0G  OOM kills 3",
        "3 of 3 cgroups  tree by usage",
        " CGROUP                   USAGE▼ OF LIMIT      LIMIT     GROWTH LEAK      FULL IN",
    ];
    for (line, expected) in screen.iter().zip(expected) {
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(
            squeezed(line).replace('░', ""),
            squeezed(expected).replace('░', "")
        );
    }
    assert!(screen[4].starts_with(">/pods "), "{screen:#?}");
    assert!(screen[5].starts_with("   leaky "), "{screen:#?}");
    for part in ["240M", "! 94%", "256M", "+1.0M/s", "confirmed", "16s"] {
        assert!(screen[5].contains(part), "{part}: {}", screen[5]);
    }
    assert!(screen[23].contains("? help") && screen[23].contains("q quit"));
}

#[test]
fn a_wide_terminal_has_every_column_and_a_narrow_one_the_most_important() {
    let wide = whole(&mut app(), 120, 40);
    for title in ["HISTORY", "PSI", "STALL", "FAULTS/s"] {
        assert!(wide.contains(title), "{wide}");
    }
    assert!(wide.contains("12%") && wide.contains("2.0%") && wide.contains("256"));
    let narrow = whole(&mut app(), 60, 15);
    for part in [
        "CGROUP",
        "USAGE",
        "OF LIMIT",
        "GROWTH",
        "confirmed",
        "q quit",
        "live",
    ] {
        assert!(narrow.contains(part), "{part}: {narrow}");
    }
    assert!(whole(&mut app(), 39, 5).contains("too small"));
}

#[test]
fn every_size_and_pane_is_drawn() {
    for pane in 0..4 {
        for (width, height) in [
            (1, 1),
            (40, 8),
            (41, 9),
            (60, 15),
            (200, 60),
            (500, 3),
            (3, 200),
        ] {
            let mut app = app();
            press(&mut app, ["", "\n", "i", "?"][pane]);
            app.hear(Told::Details(
                1,
                Ok(Box::new(details(leaking(1, "/pods/leaky"), 720))),
            ));
            whole(&mut app, width, height);
            press(&mut app, "+jjj-");
            whole(&mut app, width, height);
        }
    }
}

fn press(app: &mut App, keys: &str) {
    use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
    for key in keys.chars() {
        let code = if key == '\n' {
            KeyCode::Enter
        } else {
            KeyCode::Char(key)
        };
        app.press(KeyEvent::new(code, KeyModifiers::NONE));
    }
}

#[test]
fn details_tell_the_limit_the_process_the_code_and_what_happened() {
    let mut app = app();
    press(&mut app, "j\n");
    assert!(whole(&mut app, 80, 24).contains("asking the agent"));
    app.hear(Told::Details(
        1,
        Ok(Box::new(details(leaking(1, "/pods/leaky"), 720))),
    ));
    let first = whole(&mut app, 80, 24);
    for part in [
        "/pods/leaky",
        "94% of 256M, its own limit",
        "anon -",
        "file 3.0M",
        "-1 h",
        "↓ more",
    ] {
        assert!(first.contains(part), "{part}: {first}");
    }
    let braille = first
        .chars()
        .filter(|c| ('\u{2801}'..='\u{28ff}').contains(c));
    assert!(braille.count() > 10, "{first}");
    assert!(first.contains('•') && first.contains('V'), "{first}");
    let all = whole(&mut app, 100, 60);
    for part in [
        "leaky",
        "leak_step < main",
        "200M ±6.0M",
        "leak suspected: anon grows",
    ] {
        assert!(all.contains(part), "{part}: {all}");
    }
}

#[test]
fn losses_never_take_the_room_of_oom_kills() {
    let mut app = app();
    let mut lossy = agent(720);
    lossy
        .losses
        .insert("stack_process_unreadable".into(), 123_456);
    lossy.losses.insert("stack_ring_full".into(), 898);
    app.hear(Told::Agent(Box::new(lossy)));
    for width in [60, 80] {
        let line = screen(&mut app, width, 24)[1].clone();
        assert!(
            line.contains("OOM kills 3") && line.contains("lost 124k"),
            "{line}"
        );
    }
    let wide = screen(&mut app, 160, 24)[1].clone();
    let causes = "by stack_process_unreadable and 1 more";
    assert!(
        wide.contains(causes) && wide.contains("swap 24.0M"),
        "{wide}"
    );
}

#[test]
fn kills_that_only_the_kernel_counted_are_not_called_lost() {
    let mut app = app();
    let mut started_late = agent(720);
    started_late.losses.insert("oom_kills_missed".into(), 7);
    app.hear(Told::Agent(Box::new(started_late)));
    let line = screen(&mut app, 120, 24)[1].clone();
    assert!(line.contains("OOM kills 3  7 not seen"), "{line}");
    assert!(!line.contains("lost"), "{line}");
}

#[test]
fn incidents_stand_in_columns_below_their_titles() {
    let text = include_str!("../../incident/fixtures/cgroup_oom.json");
    let first: crate::api::records::IncidentRecord = serde_json::from_str(text).unwrap();
    let mut second = first.clone();
    second.id = "20261121T074227-0".into();
    second.charged.as_mut().unwrap().cgroup = Some("/a".into());
    second.charged.as_mut().unwrap().names = None;
    let mut app = app();
    press(&mut app, "i");
    app.hear(Told::Incidents(Ok(listed(0, vec![first, second]))));
    for (width, height) in [(80, 24), (120, 40)] {
        let lines = screen(&mut app, width, height);
        let titles = lines
            .iter()
            .position(|line| line.starts_with(" TIME "))
            .unwrap();
        let kind = lines[titles].find("KIND").unwrap();
        let rows = &lines[titles + 1..titles + 3];
        assert!(rows[0].starts_with(">20"), "{lines:#?}");
        assert!(
            rows.iter().all(|row| row[kind..].starts_with("cgroup_oom")),
            "{lines:#?}"
        );
        let bytes = |row: &String| text::width(row.split("512M").next().unwrap());
        assert_eq!(bytes(&rows[0]), bytes(&rows[1]), "{lines:#?}");
    }
}

#[test]
fn an_incident_is_listed_and_its_report_read() {
    let text = include_str!("../../incident/fixtures/cgroup_oom.json");
    let incident: crate::api::records::IncidentRecord = serde_json::from_str(text).unwrap();
    let mut app = app();
    press(&mut app, "i");
    assert!(whole(&mut app, 80, 24).contains("asking the agent"));
    app.hear(Told::Incidents(Ok(listed(0, vec![incident.clone()]))));
    assert!(whole(&mut app, 80, 24).contains("cgroup_oom"));
    press(&mut app, "\n");
    let report = whole(&mut app, 80, 24);
    let id = report.lines().find(|line| line.contains("incident "));
    assert!(
        id.is_some_and(|line| line.contains(&incident.id)),
        "{report}"
    );
    app.hear(Told::Incidents(Err("no state directory".into())));
    assert!(whole(&mut app, 80, 24).contains("no state directory"));
}

#[test]
fn an_agent_that_is_gone_is_said_so_and_its_numbers_stay() {
    let mut app = app();
    app.hear(Told::Lost {
        time: time(0),
        why: "no agent listens".into(),
    });
    let screen = screen(&mut app, 80, 24);
    assert!(screen[0].contains("LOST"));
    let since = time(0).strftime("%H:%M:%SZ").to_string();
    assert!(screen[2].contains(&since) && screen[2].contains("no agent listens"));
    assert!(screen[5].contains("leaky"));
    let terminal = terminal(&mut app, 80, 24, PLAIN);
    let cell = &terminal.backend().buffer()[(5, 5)];
    assert!(cell.modifier.contains(Modifier::DIM));
}

#[test]
fn without_colours_there_are_none_and_with_them_nothing_else_changes() {
    let mut app = app();
    let plain = terminal(&mut app, 120, 40, PLAIN);
    let coloured = terminal(&mut app, 120, 40, Look { colour: true });
    let cells = |terminal: &Terminal<TestBackend>| terminal.backend().buffer().content.clone();
    assert!(
        cells(&plain)
            .iter()
            .all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset)
    );
    assert!(cells(&coloured).iter().any(|cell| cell.fg == Color::Red));
    let symbols = |terminal| -> String {
        cells(terminal)
            .iter()
            .map(|cell| cell.symbol().to_owned())
            .collect()
    };
    assert_eq!(symbols(&plain), symbols(&coloured));
}

#[test]
fn no_name_gets_at_the_terminal_or_moves_a_column() {
    let names = [
        "/日本語/コンテナ/日本語/コンテナ/日本語/コンテナ",
        "/\u{202e}evil/\u{2066}x",
        "/e\u{301}e\u{301}e\u{301}\u{200b}\u{200d}zero",
        "/esc\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31m",
        "/עברית/مرحبا",
        "/👩‍👩‍👧/🇩🇪",
        "/new\nline\ttab\u{0}nul",
        "",
    ];
    let mut app = App::new(
        View {
            flat: true,
            ..View::default()
        },
        false,
        None,
    );
    let rows = names
        .iter()
        .enumerate()
        .map(|(id, name)| leaking(id as u64, name));
    app.hear(Told::Cgroups(listed(0, rows.collect())));
    for width in [60, 80, 120] {
        let lines = screen(&mut app, width, 20);
        let text = lines.concat();
        assert!(
            !text
                .chars()
                .any(|c| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c))
        );
        let columns: Vec<usize> = lines[4..4 + names.len()]
            .iter()
            .map(|line| text::width(line.split("240M").next().unwrap()))
            .collect();
        assert!(
            columns.iter().all(|column| *column == columns[0]),
            "{columns:?} {lines:#?}"
        );
    }
    press(&mut app, "\n");
    let mut evil = details(row(0, "/a"), 1);
    evil.processes[0].comm = Some("\u{1b}[31mevil\n".into());
    let timeline = evil.timeline.as_mut().unwrap();
    timeline.marks[0].text = "\u{1b}]52;c;\u{7}".into();
    app.details.as_mut().unwrap().apply(Ok(Box::new(evil)));
    let text = screen(&mut app, 100, 60).concat();
    assert!(!text.contains(char::is_control), "{text:?}");
}

#[test]
fn of_thousands_only_those_on_the_screen_are_drawn_and_the_last_can_be_reached() {
    let mut app = App::new(View::default(), false, None);
    let rows = (0..5000).map(|id| sized(id, &format!("/pods/{}/{id}", id % 100), MIB + id));
    app.hear(Told::Cgroups(listed(0, rows.collect())));
    let first = whole(&mut app, 80, 24);
    assert!(first.contains("5000 of 5000 cgroups") && first.contains("/pods/99/4999"));
    press(&mut app, "G");
    let last = whole(&mut app, 80, 24);
    assert!(last.contains(">/pods/0/0"), "{last}");
}

#[test]
fn chosen_cgroups_that_hold_nothing_are_not_said_to_be_missing() {
    let mut app = App::new(View::default(), false, Some("--cgroup idle".into()));
    app.hear(Told::Cgroups(listed(0, vec![sized(1, "/idle", 0)])));
    let hidden = whole(&mut app, 80, 24);
    let note = "1 cgroup matches, and holds nothing now; z shows it";
    assert!(hidden.contains(note), "{hidden}");
    press(&mut app, "z");
    let all = whole(&mut app, 80, 24);
    assert!(all.contains("/idle") && !all.contains(note), "{all}");
    app.hear(Told::Cgroups(listed(1, Vec::new())));
    let none = whole(&mut app, 80, 24);
    assert!(none.contains("no cgroup matches --cgroup idle"), "{none}");
}

#[test]
fn help_names_every_key_also_on_a_small_terminal() {
    let mut app = app();
    press(&mut app, "?");
    for (width, height) in [(80, 24), (120, 40)] {
        let help = whole(&mut app, width, height);
        let columns = super::help::COLUMNS.iter();
        for (key, what) in crate::top::keys::HELP.iter().chain(columns) {
            assert!(help.contains(key) && help.contains(what), "{key}: {help}");
        }
    }
    let ends = |line: &&String| line.contains('…') && !line.contains("more on a taller");
    for (width, height) in [(60, 12), (60, 40), (40, 8)] {
        let lines = screen(&mut app, width, height);
        assert!(!lines.iter().skip(1).any(|line| ends(&line)), "{lines:#?}");
    }
    let whole_texts = whole(&mut app, 60, 40);
    let columns = super::help::COLUMNS.iter();
    for (_, what) in crate::top::keys::HELP.iter().chain(columns) {
        assert!(whole_texts.contains(what), "{what}: {whole_texts}");
    }
    let small = whole(&mut app, 60, 12);
    assert!(small.contains("more on a taller terminal"), "{small}");
}
