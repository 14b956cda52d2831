//! Recordings as Prometheus answers to a range query: a matrix in JSON.
//!
//! Owns which metric is which quantity. Metrics with the same labels are one series, so that one
//! query for several metrics, or a file for each, gives limits and CPU beside memory.

use std::{collections::BTreeMap, fmt, io::Read};

use serde::{
    Deserialize, Deserializer,
    de::{self, SeqAccess, Visitor},
};

use super::{
    history::{Column, History},
    number::{number, time_ms, value},
    read::{ReadError, Source},
};

/// Names with `.` as `_` and without `_bytes`, so that the names of OpenTelemetry and what
/// Prometheus makes of them are one.
const METRICS: [(&str, Column); 26] = [
    ("container_memory_rss", Column::Anon),
    ("k8s_pod_memory_rss", Column::Anon),
    ("k8s_node_memory_rss", Column::Anon),
    ("container_memory_working_set", Column::WorkingSet),
    ("k8s_pod_memory_working_set", Column::WorkingSet),
    ("k8s_node_memory_working_set", Column::WorkingSet),
    ("container_memory_usage", Column::Usage),
    ("k8s_pod_memory_usage", Column::Usage),
    ("k8s_node_memory_usage", Column::Usage),
    ("process_resident_memory", Column::Usage),
    ("process_memory_usage", Column::Usage),
    ("container_memory_cache", Column::File),
    ("memtrace_memory_file", Column::File),
    ("memtrace_memory_shmem", Column::Shmem),
    ("container_memory_kernel_usage", Column::Kernel),
    ("memtrace_memory_kernel", Column::Kernel),
    ("container_memory_swap", Column::Swap),
    ("memtrace_swap_usage", Column::Swap),
    ("container_spec_memory_limit", Column::Limit),
    ("memtrace_memory_limit", Column::Limit),
    ("memtrace_memory_effective_limit", Column::Limit),
    ("k8s_container_memory_limit_current", Column::Limit),
    ("container_cpu_usage_seconds_total", Column::CpuTotal),
    ("container_cpu_time_seconds_total", Column::CpuTotal),
    ("container_cpu_usage", Column::CpuRate),
    ("container_start_time_seconds", Column::Epoch),
];
const NAME: &str = "__name__";
/// Names of metrics told in one remark, and their characters.
const MOST_TOLD: usize = 5;

#[derive(Deserialize)]
struct Answer {
    status: Option<String>,
    #[serde(rename = "errorType")]
    error_type: Option<String>,
    error: Option<String>,
    data: Option<Data>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: Option<String>,
    #[serde(default)]
    result: Vec<Stream>,
}

#[derive(Deserialize)]
struct Stream {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    #[serde(default)]
    values: Vec<Point>,
}

#[derive(Clone, Copy)]
struct Point {
    time_ms: i64,
    /// `None` is a gap.
    value: Option<f64>,
}

/// Reads an answer into `history`; `signal` is what metrics are that are not known by name.
///
/// # Errors
/// What cannot be read or is no such answer, values that are no numbers, and an answer without any
/// metric whose meaning is known.
pub fn read(
    input: impl Read,
    source: &Source,
    signal: Option<Column>,
    history: &mut History,
    remarks: &mut Vec<String>,
) -> Result<(), ReadError> {
    let mut json = serde_json::Deserializer::from_reader(input);
    let answer = Answer::deserialize(&mut json).and_then(|answer| json.end().map(|()| answer));
    let answer = answer.map_err(|error| broken(source, error))?;
    if answer.status.as_deref() == Some("error") || answer.error.is_some() {
        let kind = source.shown(answer.error_type.unwrap_or_default().as_bytes());
        let error = source.shown(answer.error.unwrap_or_default().as_bytes());
        return Err(source.refused(format!(
            "Prometheus answered with an error, {kind}: {error}"
        )));
    }
    let Some(data) = answer.data else {
        return Err(source.refused("is no answer of Prometheus: `data` is missing"));
    };
    if data.result_type.as_deref() != Some("matrix") {
        let kind = source.shown(data.result_type.unwrap_or_default().as_bytes());
        return Err(source.refused(format!(
            "its resultType is {kind}, not \"matrix\": ask for a range, /api/v1/query_range"
        )));
    }
    let results = data.result.len();
    let mut unknown: BTreeMap<String, usize> = BTreeMap::new();
    for Stream { mut metric, values } in data.result {
        let name = metric.remove(NAME);
        let known = name.as_deref().and_then(column);
        let Some(column) = known.or(signal) else {
            *unknown.entry(name.unwrap_or_default()).or_default() += 1;
            continue;
        };
        if column == Column::CpuTotal && metric.get("cpu").is_some_and(|cpu| cpu == "total") {
            metric.remove("cpu");
        }
        let series = match (known, &name) {
            (None, Some(name)) => format!("{name}{}", labels(&metric)),
            _ => labels(&metric),
        };
        let name = name.unwrap_or_default();
        let place = history
            .place(series.as_bytes())
            .map_err(|error| source.refused(error))?;
        let values = values.into_iter().map(|point| {
            let number = match column {
                Column::Epoch => point.value.map(f64::round),
                _ => point.value,
            };
            match number.map(|number| value(column, number)).transpose() {
                Ok(value) => Ok((point.time_ms, value)),
                Err(wrong) => Err(source.refused(format!(
                    "{}{}, at {} s: \"{}\" {wrong}",
                    source.plain(name.as_bytes()),
                    source.plain(labels(&metric).as_bytes()),
                    point.time_ms as f64 / 1000.0,
                    number.unwrap_or_default(),
                ))),
            }
        });
        let values: Vec<(i64, Option<u64>)> = values.collect::<Result<_, _>>()?;
        history
            .join(place, column, &values)
            .map_err(|error| source.refused(error))?;
    }
    match unknown.values().sum::<usize>() {
        0 => Ok(()),
        left_out if left_out == results => Err(source.refused(meaningless(&unknown, source))),
        left_out => {
            remarks.push(format!(
                "{}: {left_out} results were left out, {}",
                source.name,
                meaningless(&unknown, source)
            ));
            Ok(())
        }
    }
}

fn meaningless(unknown: &BTreeMap<String, usize>, source: &Source) -> String {
    let names: Vec<String> = unknown
        .keys()
        .take(MOST_TOLD)
        .map(|name| match name.as_str() {
            "" => "an expression without a name".to_owned(),
            name => source.plain(name.as_bytes()),
        })
        .collect();
    let more = if unknown.len() > MOST_TOLD {
        ", …"
    } else {
        ""
    };
    format!(
        "metrics whose meaning is not known: {}{more}; --signal tells it",
        names.join(", ")
    )
}

fn column(metric: &str) -> Option<Column> {
    let name = metric.replace('.', "_");
    let name = name.strip_suffix("_bytes").unwrap_or(&name);
    METRICS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, column)| *column)
}

/// As Prometheus writes them.
fn labels(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = labels
        .iter()
        .map(|(key, value)| {
            let value = value
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            format!("{key}=\"{value}\"")
        })
        .collect();
    format!("{{{}}}", pairs.join(","))
}

fn broken(source: &Source, error: serde_json::Error) -> ReadError {
    let (line, column) = (error.line(), error.column());
    if error.is_io() {
        return source.io(error.into());
    }
    let text = error.to_string();
    let text = text
        .strip_suffix(&format!(" at line {line} column {column}"))
        .unwrap_or(&text);
    // serde quotes what it found, of any length and content.
    source.at(
        line as u64,
        format!("{} (column {column})", source.plain(text.as_bytes())),
    )
}

impl<'de> Deserialize<'de> for Point {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pair;

        impl<'de> Visitor<'de> for Pair {
            type Value = Point;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("a time and a value")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<Point, A::Error> {
                let seconds: f64 = pair
                    .next_element()?
                    .ok_or_else(|| de::Error::invalid_length(0, &self))?;
                let Value(value) = pair
                    .next_element()?
                    .ok_or_else(|| de::Error::invalid_length(1, &self))?;
                let time_ms = time_ms(seconds).map_err(|wrong| {
                    de::Error::custom(format_args!("time \"{seconds}\" {wrong}"))
                })?;
                if pair.next_element::<de::IgnoredAny>()?.is_some() {
                    return Err(de::Error::invalid_length(3, &self));
                }
                Ok(Point { time_ms, value })
            }
        }

        deserializer.deserialize_seq(Pair)
    }
}

/// A number, as text or bare.
struct Value(Option<f64>);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Value;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("a number as a string")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
                number(text.as_bytes())
                    .map(Value)
                    .map_err(|wrong| E::custom(format_args!("value \"{text}\" {wrong}")))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Value, E> {
                Ok(Value(number.is_finite().then_some(number)))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Value, E> {
                self.visit_f64(number as f64)
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Value, E> {
                self.visit_f64(number as f64)
            }

            fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
                Ok(Value(None))
            }
        }

        deserializer.deserialize_any(Text)
    }
}

#[cfg(test)]
#[path = "prometheus_tests.rs"]
mod tests;
