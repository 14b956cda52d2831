use super::super::{history::Settled, read};
use super::*;

fn parse(text: impl AsRef<[u8]>) -> Result<Settled, String> {
    let mut history = History::default();
    let source = Source::named("web.csv");
    read::read(text.as_ref(), &source, None, &mut history, &mut Vec::new())
        .map_err(|error| error.to_string())?;
    Ok(history.settle())
}

fn error(text: impl AsRef<[u8]>) -> String {
    parse(text).expect_err("it is taken")
}

#[test]
fn columns_come_in_any_order() {
    let settled = parse(
        "epoch, limit_bytes ,anon_bytes,series,time_s\n1,max,7,a,0\n1,,8,b,0.5\n2,100,NaN,a,1\n",
    );
    let settled = settled.unwrap();
    let names: Vec<_> = settled.series.iter().map(|series| series.name()).collect();
    assert_eq!(names, ["a", "b"]);
    let samples: Vec<_> = settled.series[0].samples(None).collect();
    assert_eq!(samples.len(), 2);
    assert_eq!(
        (samples[0].time_ms, samples[0].anon_bytes, samples[0].epoch),
        (0, Some(7), Some(1))
    );
    assert_eq!(
        (samples[1].anon_bytes, samples[1].limit_bytes),
        (None, Some(100))
    );
}

#[test]
fn without_a_series_column_the_file_is_the_series() {
    let settled = parse("time_s,usage_bytes\r\n1,2\r\n\r\n3,4\r\n").unwrap();
    assert_eq!(settled.series[0].name(), "web.csv");
    assert_eq!(settled.series[0].times_ms(), [1000, 3000]);
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_header() {
    assert!(parse("\u{feff}time_s,usage_bytes\n1,2\n").is_ok());
}

#[test]
fn quoted_names_may_hold_anything() {
    let settled = parse("time_s,series,anon_bytes\n1,\"{a=\"\"b,c\"\"}\n\0\x1b\",2\n").unwrap();
    assert_eq!(settled.series[0].name(), "{a=\"b,c\"}\\n\\x00\\x1b");
}

#[test]
fn bad_rows_are_told_with_file_line_column_and_text() {
    let head = "time_s,anon_bytes,cpu\n1,2,0.1\n";
    for (row, told) in [
        ("x,2,0", "web.csv:3: time_s: \"x\" is not a number"),
        (",2,0", "web.csv:3: time_s: \"\" is no time"),
        ("NaN,2,0", "web.csv:3: time_s: \"NaN\" is no time"),
        (
            "1700000000000,2,0",
            "web.csv:3: time_s: \"1700000000000\" is beyond the year 9999",
        ),
        (
            "2,1e400,0",
            "web.csv:3: anon_bytes: \"1e400\" is not a number",
        ),
        (
            "2,-5,0",
            "web.csv:3: anon_bytes: \"-5\" is no size in bytes",
        ),
        ("2,\0,0", "web.csv:3: anon_bytes: \"\\x00\" is not a number"),
        ("2,3,fast", "web.csv:3: cpu: \"fast\" is not a number"),
        ("2,3", "web.csv:3: 2 cells where the header has 3"),
        ("2,3,4,5", "web.csv:3: 4 cells where the header has 3"),
    ] {
        let error = error(format!("{head}{row}\n"));
        assert!(error.starts_with(told), "{row}: {error}");
    }
    let long = error(format!("{head}2,{},0\n", "9".repeat(100_000)));
    assert!(long.len() < 300, "{long}");
}

#[test]
fn an_unknown_column_is_answered_with_the_known_ones() {
    let error = error("time_s,anon_bytes,rss\n");
    assert!(
        error.starts_with("web.csv:1: the column \"rss\" is not known\n"),
        "{error}"
    );
    for (name, _) in COLUMNS {
        assert!(error.contains(name), "{name}: {error}");
    }
}

#[test]
fn what_the_header_lacks_is_named() {
    for (header, told) in [
        ("anon_bytes\n1\n", "the column time_s is missing"),
        ("time_s,cpu,limit_bytes\n1,2,3\n", "no column with memory"),
        (
            "time_s,anon_bytes,anon_bytes\n",
            "the column \"anon_bytes\" is there twice",
        ),
        (
            "time_s,time_s,anon_bytes\n",
            "the column \"time_s\" is there twice",
        ),
        ("1,2,3\n4,5,6\n", "no header"),
        (
            "time_s;anon_bytes\n1;2\n",
            "the column \"time_s;anon_bytes\" is not known",
        ),
        ("", "is empty"),
    ] {
        let error = error(header);
        assert!(error.contains(told), "{header:?}: {error}");
    }
}

#[test]
fn garbage_is_refused_without_a_panic() {
    assert!(error(b"\x7fELF\x02\x01\0\0\0\0").contains("binary"));
    assert!(error(b"\x1f\x8b\x08\0").contains("compressed"));
    let mut state = 1u64;
    for _ in 0..2000 {
        let bytes: Vec<u8> = (0..200)
            .map(|_| {
                state = state
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                let any = (state >> 33) as u8;
                if state >> 62 == 0 {
                    any
                } else {
                    b"0,\n\"te_1."[usize::from(any) % 9]
                }
            })
            .collect();
        let _ = parse(&bytes);
        let _ = parse([b"time_s,series,anon_bytes,cpu,epoch\n".as_slice(), &bytes].concat());
    }
}

#[test]
fn a_line_without_an_end_is_refused() {
    let text = format!("time_s,anon_bytes\n{}", "1".repeat(3 << 20));
    assert!(error(text).contains("longer than"));
}
