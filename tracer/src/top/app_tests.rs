use super::*;
use crate::top::fixture::{MIB, agent, details, leaking, listed, sized, time};

fn app() -> App {
    let mut app = App::new(View::default(), false, None);
    app.rows.set_page(10);
    app.hear(Told::Agent(Box::new(agent(0))));
    app.hear(Told::Cgroups(listed(
        0,
        vec![leaking(1, "/pods/leaky"), sized(2, "/pods/calm", MIB)],
    )));
    app
}

fn press(app: &mut App, code: KeyCode) -> Then {
    app.press(KeyEvent::new(code, KeyModifiers::NONE))
}

fn type_text(app: &mut App, text: &str) {
    for letter in text.chars() {
        press(app, KeyCode::Char(letter));
    }
}

#[test]
fn escape_goes_back_first_and_ends_at_the_list() {
    let mut app = app();
    press(&mut app, KeyCode::Enter);
    press(&mut app, KeyCode::Char('i'));
    press(&mut app, KeyCode::Char('?'));
    assert!(app.help);
    press(&mut app, KeyCode::Esc);
    assert_eq!((app.help, app.pane()), (false, Pane::Incidents));
    press(&mut app, KeyCode::Esc);
    assert_eq!(app.pane(), Pane::Details);
    press(&mut app, KeyCode::Esc);
    assert_eq!(app.pane(), Pane::List);
    assert_eq!(press(&mut app, KeyCode::Esc), Then::Quit);
}

#[test]
fn q_and_control_c_quit_from_anywhere() {
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    for opened in ["", "\n", "i", "?", "/"] {
        let mut app = app();
        for letter in opened.chars() {
            let code = if letter == '\n' {
                KeyCode::Enter
            } else {
                KeyCode::Char(letter)
            };
            press(&mut app, code);
        }
        if opened != "/" {
            assert_eq!(
                press(&mut app, KeyCode::Char('q')),
                Then::Quit,
                "{opened:?}"
            );
        }
        assert_eq!(app.press(control_c), Then::Quit, "{opened:?}");
    }
}

#[test]
fn only_what_is_shown_is_asked_for() {
    let mut app = app();
    assert_eq!(app.wants(), Wants::default());
    press(&mut app, KeyCode::Enter);
    assert_eq!(app.wants().details, Some(1));
    press(&mut app, KeyCode::Char('i'));
    let wants = app.wants();
    assert!(wants.incidents && wants.details.is_none());
    press(&mut app, KeyCode::Char(' '));
    assert!(app.wants().paused);
}

#[test]
fn a_held_screen_does_not_change() {
    let mut app = app();
    press(&mut app, KeyCode::Char(' '));
    assert!(!app.hear(Told::Cgroups(listed(1, Vec::new()))));
    assert_eq!(app.rows.told(), 2);
    press(&mut app, KeyCode::Char(' '));
    assert!(app.hear(Told::Cgroups(listed(1, Vec::new()))));
}

#[test]
fn an_answer_about_another_cgroup_than_the_open_one_is_dropped() {
    let mut app = app();
    press(&mut app, KeyCode::Enter);
    let answer = |id| Told::Details(id, Ok(Box::new(details(leaking(id, "/x"), 1))));
    assert!(!app.hear(answer(2)));
    assert!(app.hear(answer(1)));
    press(&mut app, KeyCode::Esc);
    assert!(!app.hear(answer(1)));
}

#[test]
fn an_agent_that_is_gone_keeps_its_last_numbers_and_the_time_of_the_first_failure() {
    let mut app = app();
    let lost = |at| Told::Lost {
        time: time(at),
        why: "gone".into(),
    };
    assert!(app.hear(lost(1)));
    assert!(!app.hear(lost(2)));
    assert!(matches!(&app.link, Link::Lost { since, .. } if *since == time(1)));
    assert_eq!(app.rows.told(), 2);
    assert!(app.hear(Told::Agent(Box::new(agent(3)))));
    assert_eq!(app.link, Link::Live);
    let newest = app.rows.history(1).and_then(|it| it.newest_first().next());
    assert_eq!(newest, Some(None));
}

#[test]
fn a_filter_works_as_it_is_typed_and_escape_brings_the_former_back() {
    let mut app = app();
    let lines = |app: &App| app.rows.lines();
    press(&mut app, KeyCode::Char('/'));
    type_text(&mut app, "calmq");
    assert_eq!(lines(&app), 0);
    press(&mut app, KeyCode::Backspace);
    assert_eq!(lines(&app), 1);
    press(&mut app, KeyCode::Enter);
    press(&mut app, KeyCode::Char('/'));
    type_text(&mut app, "x");
    assert_eq!(lines(&app), 0);
    press(&mut app, KeyCode::Esc);
    assert_eq!(lines(&app), 1);
    assert_eq!(press(&mut app, KeyCode::Esc), Then::Draw);
    assert_eq!(lines(&app), 2);
}

#[test]
fn keys_change_the_view() {
    let mut app = app();
    type_text(&mut app, "ts");
    assert!(app.rows.view.flat);
    assert_eq!(app.rows.view.sort, crate::top::sort::Sort::Share);
    type_text(&mut app, "Srlz");
    let view = &app.rows.view;
    assert_eq!(view.sort, crate::top::sort::Sort::Usage);
    assert!(view.reversed && view.leaks_only && view.empty);
    assert_eq!(app.rows.lines(), 1);
    assert_eq!(press(&mut app, KeyCode::Char('y')), Then::Nothing);
}

#[test]
fn the_history_of_the_open_cgroup_goes_on_though_the_list_is_not_asked_for() {
    let mut app = app();
    press(&mut app, KeyCode::Enter);
    for at in [5, 5, 6] {
        let record = details(leaking(1, "/pods/leaky"), at);
        app.hear(Told::Details(1, Ok(Box::new(record))));
    }
    let readings = app.rows.history(1).map(|it| it.newest_first().count());
    assert_eq!(readings, Some(3));
}
