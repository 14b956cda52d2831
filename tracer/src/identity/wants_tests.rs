use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn wants() -> Wants {
    Wants::new(Arc::default())
}

#[test]
fn a_container_that_is_not_found_is_looked_for_three_times() {
    let start = Instant::now();
    let mut wants = wants();
    wants.add("a".into(), start);
    let none = HashSet::new();
    for at in [0, 100, 500] {
        assert_eq!(wants.due(), Some(start + ms(at)));
        assert_eq!(wants.due_by(start + ms(at)), ["a"]);
        wants.looked(start + ms(at), &none);
    }
    assert_eq!(wants.due(), None);
    assert!(wants.waiting.is_empty());
}

#[test]
fn what_is_found_is_not_looked_for_again() {
    let start = Instant::now();
    let mut wants = wants();
    wants.add("a".into(), start);
    wants.add("b".into(), start + ms(20));
    wants.looked(start, &HashSet::from(["a"]));
    assert_eq!(wants.due(), Some(start + ms(20)), "wanted after that look");
}

#[test]
fn a_late_look_counts_for_all_that_were_due() {
    let start = Instant::now();
    let mut wants = wants();
    wants.add("a".into(), start);
    wants.looked(start + ms(700), &HashSet::new());
    assert_eq!(wants.due(), None);
}

#[test]
fn what_there_is_no_room_for_is_counted() {
    let now = Instant::now();
    let mut wants = wants();
    for id in 0..2 * MOST {
        wants.add(id.to_string(), now);
    }
    assert_eq!(wants.waiting.len(), MOST);
    assert_eq!(wants.left_out.load(Ordering::Relaxed), MOST as u64);
}

#[test]
fn what_was_never_found_is_looked_for_less_and_less() {
    let none = HashSet::new();
    let start = Instant::now();
    let mut wants = wants();
    let mut looks = Vec::new();
    // The agent asks every second for as long as the cgroup has no name.
    for second in 0..200 {
        let now = start + ms(1000 * second);
        wants.add("a".into(), now);
        while let Some(due) = wants.due().filter(|due| *due < now + ms(1000)) {
            wants.looked(due, &none);
            looks.push((due - start).as_millis());
        }
    }
    assert_eq!(
        looks,
        [
            0, 100, 500, 3000, 7000, 15_000, 31_000, 63_000, 127_000, 191_000
        ]
    );
    wants.looked(start + ms(200_000), &HashSet::from(["a"]));
    assert!(wants.absent.is_empty());
}

#[test]
fn names_of_nobody_have_a_source_asked_once_a_second_and_one_find_makes_it_prompt_again() {
    let none = HashSet::new();
    let start = Instant::now();
    let mut wants = wants();
    let mut looks = 0;
    let mut now = start;
    // One after another, as fast as cgroups can be made.
    for number in 0.. {
        wants.add(number.to_string(), now);
        let due = wants.due().unwrap().max(now);
        if due > start + ms(60_000) {
            break;
        }
        wants.looked(due, &none);
        looks += 1;
        now = due + ms(1);
    }
    assert!((60..=70).contains(&looks), "{looks} looks in a minute");
    assert!(wants.absent.len() <= MOST_ABSENT);
    wants.add("real".into(), now);
    let late = wants.due().unwrap() - now;
    assert!(late <= COST, "{late:?}");
    wants.looked(now + late, &HashSet::from(["real"]));
    wants.add("next".into(), now + late);
    assert!(wants.due().unwrap() <= now + late);
}

#[test]
fn what_was_looked_for_in_vain_is_remembered_within_bounds() {
    let mut wants = wants();
    let mut now = Instant::now();
    for number in 0..MOST_ABSENT + 10 {
        wants.add(number.to_string(), now);
        now += ms(600);
        wants.looked(now, &HashSet::new());
    }
    assert_eq!(wants.absent.len(), MOST_ABSENT);
    assert!(!wants.absent.contains_key("0"));
}
