//! JSON lines of verdicts: `leak` for a change, as the agent has it, and `leak_verdict`. Owns the schema; units are in the names.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use serde::Serialize;

use super::{
    clock::{Clock, seconds},
    history::Series,
    judge::{Judged, Told},
};
use crate::analysis::{Considered, Estimate, Evidence, NearLimit, State, Verdict};

#[derive(Serialize)]
struct Line<'a> {
    r#type: &'static str,
    /// RFC 3339, null where the times are not of the wall.
    time: Option<String>,
    time_s: f64,
    series: &'a str,
    #[serde(flatten)]
    change: Option<ChangeFields>,
    #[serde(flatten)]
    verdict: VerdictFields<'a>,
    #[serde(flatten)]
    whole: Option<WholeFields>,
}

#[derive(Serialize)]
struct ChangeFields {
    /// The state before, null where only nearness to the limit changed.
    from: Option<State>,
    /// Null where it did not change.
    near_limit_changed_to: Option<bool>,
}

#[derive(Serialize)]
struct VerdictFields<'a> {
    state: State,
    state_since: Option<String>,
    state_since_s: f64,
    signal: Option<&'static str>,
    rate_bytes_per_hour: Option<Estimate>,
    since: Option<String>,
    since_s: Option<f64>,
    since_uncertainty_s: Option<f64>,
    time_to_limit_s: Option<Estimate>,
    limit_bytes: Option<u64>,
    near_limit: Option<NearLimit>,
    evidence: Option<Evidence>,
    considered: &'a [Considered],
}

#[derive(Serialize)]
struct WholeFields {
    worst_state: State,
    signals: BTreeMap<&'static str, State>,
    samples: usize,
    first_s: Option<f64>,
}

/// Writes the line of a change.
///
/// # Errors
/// Of `out`.
pub fn change(out: &mut impl Write, clock: Clock, series: &Series, told: &Told) -> io::Result<()> {
    write(
        out,
        &Line {
            r#type: "leak",
            time: clock.rfc3339(told.change.time_ms),
            time_s: seconds(told.change.time_ms),
            series: series.name(),
            change: Some(ChangeFields {
                from: told.change.state.map(|change| change.from),
                near_limit_changed_to: told.change.near_limit,
            }),
            verdict: fields(&told.verdict, clock),
            whole: None,
        },
    )
}

/// Writes the line of the final verdict on a series.
///
/// # Errors
/// Of `out`.
pub fn last(
    out: &mut impl Write,
    clock: Clock,
    series: &Series,
    judged: &Judged,
) -> io::Result<()> {
    let time = series.times_ms().last().copied().unwrap_or_default();
    write(
        out,
        &Line {
            r#type: "leak_verdict",
            time: clock.rfc3339(time),
            time_s: seconds(time),
            series: series.name(),
            change: None,
            verdict: fields(&judged.verdict, clock),
            whole: Some(WholeFields {
                worst_state: judged.worst(),
                signals: judged
                    .signals
                    .iter()
                    .map(|(signal, state)| (signal.name(), *state))
                    .collect(),
                samples: series.times_ms().len(),
                first_s: series.times_ms().first().copied().map(seconds),
            }),
        },
    )
}

fn fields(verdict: &Verdict, clock: Clock) -> VerdictFields<'_> {
    let since = verdict.since;
    VerdictFields {
        state: verdict.state,
        state_since: clock.rfc3339(verdict.state_since_ms),
        state_since_s: seconds(verdict.state_since_ms),
        signal: verdict.signal.map(|signal| signal.name()),
        rate_bytes_per_hour: verdict.rate_bytes_per_hour,
        since: since.and_then(|since| clock.rfc3339(since.time_ms)),
        since_s: since.map(|since| seconds(since.time_ms)),
        since_uncertainty_s: since.map(|since| seconds(since.uncertainty_ms)),
        time_to_limit_s: verdict.time_to_limit.map(|limit| limit.seconds),
        limit_bytes: verdict.time_to_limit.map(|limit| limit.limit_bytes),
        near_limit: verdict.near_limit,
        evidence: verdict.evidence,
        considered: &verdict.considered,
    }
}

fn write(out: &mut impl Write, line: &Line<'_>) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}
