use globset::Glob;

use super::*;

fn row(values: &[(Column, u64)]) -> Row {
    let mut row = Row::default();
    for (column, value) in values {
        row[*column as usize] = Some(*value);
    }
    row
}

/// Name, time and values.
type Given<'a> = (&'a str, i64, &'a [(Column, u64)]);

fn history(rows: &[Given]) -> Settled {
    let mut history = History::default();
    for (name, time, values) in rows {
        let place = history.place(name.as_bytes()).unwrap();
        history.add(place, *time, &row(values)).unwrap();
    }
    history.settle()
}

#[test]
fn time_that_goes_back_is_put_into_order() {
    let settled = history(&[
        ("a", 3000, &[(Column::Anon, 3)]),
        ("a", 1000, &[(Column::Anon, 1)]),
        ("a", 2000, &[(Column::Anon, 2)]),
    ]);
    let samples: Vec<_> = settled.series[0]
        .samples(None)
        .map(|s| (s.time_ms, s.anon_bytes))
        .collect();
    assert_eq!(samples, [(1000, Some(1)), (2000, Some(2)), (3000, Some(3))]);
    assert_eq!((settled.back, settled.joined), (1, 0));
}

#[test]
fn samples_of_one_time_are_joined_and_the_later_row_counts() {
    let settled = history(&[
        ("a", 1000, &[(Column::Anon, 1), (Column::File, 9)]),
        ("a", 1000, &[(Column::Anon, 2)]),
    ]);
    let series = &settled.series[0];
    assert_eq!(series.times_ms(), [1000]);
    assert_eq!(series.get(Column::Anon, 0), Some(2));
    assert_eq!(series.get(Column::File, 0), Some(9));
    assert_eq!(settled.joined, 1);
}

#[test]
fn columns_of_several_metrics_meet_at_their_times() {
    let mut history = History::default();
    let place = history.place(b"a").unwrap();
    history
        .join(
            place,
            Column::Anon,
            &[(1, Some(10)), (2, Some(20)), (4, Some(40))],
        )
        .unwrap();
    history
        .join(
            place,
            Column::Limit,
            &[(1, Some(100)), (3, Some(100)), (4, None)],
        )
        .unwrap();
    let settled = history.settle();
    let samples: Vec<_> = settled.series[0]
        .samples(None)
        .map(|s| (s.time_ms, s.anon_bytes, s.limit_bytes))
        .collect();
    let limit = Some(100);
    let expected = [
        (1, Some(10), limit),
        (2, Some(20), limit),
        (3, None, limit),
        (4, Some(40), limit),
    ];
    assert_eq!(samples, expected);
}

#[test]
fn a_limit_holds_until_it_is_lifted_and_the_least_of_several_counts() {
    let settled = history(&[
        ("a", 1, &[]),
        ("a", 2, &[(Column::Limit, 100)]),
        ("a", 2, &[(Column::Limit, 200)]),
        ("a", 3, &[]),
        ("a", 4, &[(Column::Limit, 0)]),
        ("a", 5, &[]),
        ("a", 6, &[(Column::Limit, i64::MAX as u64)]),
    ]);
    let limits: Vec<_> = settled.series[0]
        .samples(Some(7))
        .map(|s| s.limit_bytes)
        .collect();
    assert_eq!(
        limits,
        [Some(7), Some(100), Some(100), Some(0), Some(0), Some(0)]
    );
}

#[test]
fn cores_in_use_add_up_to_cpu_time() {
    let core = Column::CpuRate.value(0.5);
    let settled = history(&[
        ("a", 0, &[(Column::CpuRate, core.unwrap())]),
        ("a", 10_000, &[(Column::CpuRate, core.unwrap())]),
        ("a", 20_000, &[]),
        ("a", 30_000, &[(Column::CpuRate, u64::MAX - 1)]),
        ("a", i64::MAX, &[(Column::CpuRate, u64::MAX - 1)]),
    ]);
    let cpu: Vec<_> = settled.series[0].samples(None).map(|s| s.cpu_ns).collect();
    assert_eq!(&cpu[..3], [Some(0), Some(5_000_000_000), None]);
    assert_eq!(cpu[4], Some(u64::MAX));
}

#[test]
fn a_number_that_is_no_such_quantity_is_refused() {
    assert_eq!(Column::Anon.value(1.6), Some(2));
    assert_eq!(Column::Anon.value(-1.0), None);
    assert_eq!(Column::Anon.value(1e300), None);
    assert_eq!(Column::Anon.value(2f64.powi(64)), Some(u64::MAX - 1));
    assert_eq!(Column::CpuRate.value(1e18), None);
    assert_eq!(Column::Epoch.value(1.5), None);
    assert_eq!(Column::Epoch.value(5e9), None);
    assert_eq!(Column::Epoch.value(7.0), Some(7));
}

#[test]
fn only_series_that_match_are_kept() {
    let glob = Glob::new("*app*").unwrap();
    let mut history = History::new(Some(glob.compile_matcher()));
    let wanted = history.place(b"my app").unwrap();
    let other = history.place(b"db").unwrap();
    assert_eq!(other, None);
    history.add(wanted, 1, &Row::default()).unwrap();
    history.add(other, 1, &Row::default()).unwrap();
    let settled = history.settle();
    assert_eq!(settled.series.len(), 1);
    assert_eq!(settled.left_out, 1);
}

#[test]
fn names_are_bounded_and_safe() {
    let mut history = History::default();
    assert_eq!(
        history.place(&[b'a'; MOST_NAME_BYTES + 1]),
        Err(TooMuch::Name)
    );
    history.place(b"\x1b[31m\xff").unwrap();
    assert_eq!(history.settle().series[0].name(), r"\x1b[31m\xff");
}

#[test]
fn more_series_than_anyone_has_are_refused() {
    let mut history = History::default();
    for number in 0..MOST_SERIES {
        history.place(number.to_string().as_bytes()).unwrap();
    }
    assert_eq!(history.place(b"one more"), Err(TooMuch::Series));
}
