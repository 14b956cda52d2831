use super::super::{history::Settled, read};
use super::*;

fn parse(text: &str, signal: Option<Column>) -> Result<(Settled, Vec<String>), String> {
    let mut history = History::default();
    let mut remarks = Vec::new();
    read::read(
        text.as_bytes(),
        &Source::named("p.json"),
        signal,
        &mut history,
        &mut remarks,
    )
    .map_err(|error| error.to_string())?;
    Ok((history.settle(), remarks))
}

fn answer(results: &str) -> String {
    format!(r#"{{"status":"success","data":{{"resultType":"matrix","result":[{results}]}}}}"#)
}

#[test]
fn metrics_with_the_same_labels_are_one_series() {
    let (settled, remarks) = parse(
        &answer(
            r#"{"metric":{"__name__":"container_memory_rss","pod":"a\"b"},"values":[[1700000000,"10"],[1700000060.5,"NaN"]]},
               {"metric":{"__name__":"container_spec_memory_limit_bytes","pod":"a\"b"},"values":[[1700000000,"100"]]},
               {"metric":{"__name__":"container_cpu_usage_seconds_total","pod":"a\"b","cpu":"total"},"values":[[1700000000,"1.5"]]},
               {"metric":{"__name__":"container_start_time_seconds","pod":"a\"b"},"values":[[1700000000,"1699999999.5"]]}"#,
        ),
        None,
    )
    .unwrap();
    assert!(remarks.is_empty());
    assert_eq!(settled.series.len(), 1);
    assert_eq!(settled.series[0].name(), r#"{pod="a\\"b"}"#);
    let samples: Vec<_> = settled.series[0].samples(None).collect();
    assert_eq!(samples.len(), 2);
    assert_eq!(samples[0].anon_bytes, Some(10));
    assert_eq!(samples[0].limit_bytes, Some(100));
    assert_eq!(samples[0].cpu_ns, Some(1_500_000_000));
    assert_eq!(samples[0].epoch, Some(1_700_000_000));
    assert_eq!(
        (samples[1].time_ms, samples[1].anon_bytes),
        (1_700_000_060_500, None)
    );
}

#[test]
fn metrics_of_cadvisor_and_opentelemetry_are_known_by_name() {
    for (metric, expected) in [
        ("container_memory_working_set_bytes", Column::WorkingSet),
        ("container.memory.working_set", Column::WorkingSet),
        ("container_memory_rss", Column::Anon),
        ("container_memory_rss_bytes", Column::Anon),
        ("container_memory_usage_bytes", Column::Usage),
        ("container_memory_cache", Column::File),
        ("memtrace_memory_shmem_bytes", Column::Shmem),
        ("memtrace.memory.effective_limit", Column::Limit),
        ("container_cpu_usage", Column::CpuRate),
    ] {
        assert_eq!(column(metric), Some(expected), "{metric}");
    }
    assert_eq!(column("container_memory_failcnt"), None);
    assert_eq!(column(""), None);
}

#[test]
fn a_metric_that_is_not_known_needs_a_signal() {
    let text = answer(
        r#"{"metric":{"__name__":"jvm_memory_used_bytes","area":"heap"},"values":[[1,"10"]]},
           {"metric":{},"values":[[1,"10"]]}"#,
    );
    let error = parse(&text, None).unwrap_err();
    assert!(
        error.contains("jvm_memory_used_bytes") && error.contains("--signal"),
        "{error}"
    );
    assert!(error.contains("an expression without a name"), "{error}");
    let (settled, _) = parse(&text, Some(Column::Anon)).unwrap();
    let names: Vec<_> = settled.series.iter().map(|series| series.name()).collect();
    assert_eq!(names, [r#"jvm_memory_used_bytes{area="heap"}"#, "{}"]);
    assert!(settled.series.iter().all(|series| series.has(Column::Anon)));
}

#[test]
fn unknown_metrics_beside_known_ones_are_told() {
    let text = answer(
        r#"{"metric":{"__name__":"container_memory_rss"},"values":[[1,"10"]]},
           {"metric":{"__name__":"container_memory_failcnt"},"values":[[1,"10"]]}"#,
    );
    let (settled, remarks) = parse(&text, None).unwrap();
    assert_eq!(settled.series.len(), 1);
    assert!(
        remarks[0].contains("1 results") && remarks[0].contains("failcnt"),
        "{remarks:?}"
    );
}

#[test]
fn answers_that_are_no_matrix_say_what_to_do() {
    for (text, told) in [
        (
            r#"{"status":"error","errorType":"bad_data","error":"parse\u001b error"}"#,
            "bad_data",
        ),
        (
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"2"]}]}}"#,
            "query_range",
        ),
        (r#"{"status":"success"}"#, "`data` is missing"),
        ("{}", "`data` is missing"),
        ("[1]", "p.json:1: "),
        ("{\"a\":\n\n", "p.json:3: EOF"),
        ("{} x", "p.json:1: trailing"),
        (
            r#"{"data":{"resultType":"scalar","result":[1,"2"]}}"#,
            "p.json:1: ",
        ),
    ] {
        let error = parse(text, Some(Column::Anon)).unwrap_err();
        assert!(error.contains(told), "{text}: {error}");
        assert!(!error.contains('\x1b'), "{error:?}");
    }
}

#[test]
fn bad_values_are_told_with_their_line() {
    for (values, told) in [
        (
            r#"[1,"ten"]"#,
            "p.json:2: value \\\"ten\\\" is not a number",
        ),
        (r#"[1,"1e999"]"#, "p.json:2: value"),
        (r#"["1","2"]"#, "p.json:2: "),
        (r#"[1e300,"2"]"#, "p.json:2: time"),
        (r#"[1e999,"2"]"#, "p.json:2: "),
        (r#"[1]"#, "p.json:2: "),
        (r#"[1,"2",3]"#, "p.json:2: "),
        (
            r#"[1,"-2"]"#,
            "container_memory_rss{}, at 1 s: \"-2\" is no size in bytes",
        ),
    ] {
        let text = answer(&format!(
            "{{\"metric\":{{\"__name__\":\"container_memory_rss\"}},\n\"values\":[{values}]}}"
        ));
        let error = parse(&text, None).unwrap_err();
        assert!(
            error.contains(&told.replace("\\\"", "\"")),
            "{values}: {error}"
        );
    }
}

#[test]
fn deep_and_random_text_is_refused_without_a_panic() {
    assert!(parse(&format!("{{\"a\":{}", "[".repeat(100_000)), None).is_err());
    let text = answer(r#"{"metric":{"__name__":"container_memory_rss"},"values":[[1,"10"]]}"#);
    for cut in 0..text.len() {
        assert!(parse(&text[..cut], None).is_err(), "{cut}");
        for other in ["\0", "\"", "}", "9", "-"] {
            let _ = parse(
                &format!("{}{other}{}", &text[..cut], &text[cut + 1..]),
                None,
            );
        }
    }
}
