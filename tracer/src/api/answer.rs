//! Answers: from what was asked to bytes. Errors are `{"error": "…"}`.
//!
//! Lists are written while they are read, piece by piece, so that an answer of any length takes little
//! memory.

use std::{io, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::oneshot;

use crate::{
    export::profile::{View, flamegraph, folded, pprof},
    export::prometheus::turns::{PIECE_BYTES, Turn, Turns, pieces},
    incident::Incident,
    stacks::profile::Profile,
    store::{StoreError, index::Index},
};

use super::{
    query::{CgroupQuery, IncidentQuery},
    route::{BadRequest, ProfileForm, Route, shown},
    server::{Ask, Shared},
};

/// The agent answers between two readings.
const ANSWER: Duration = Duration::from_secs(8);
/// A turn among those who are answered comes within this time.
const TURN: Duration = Duration::from_secs(8);
/// Incidents named when the beginning of an id fits several.
const MOST_CANDIDATES: usize = 10;
const LATEST: &str = "latest";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Request(#[from] BadRequest),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Ambiguous(String),
    #[error("{0}: try again")]
    Busy(&'static str),
    #[error("{error}; {}", error.remedy())]
    Store {
        #[from]
        error: StoreError,
    },
    #[error("the answer cannot be written: {0}")]
    Unwritten(String),
}

impl Failure {
    fn status(&self) -> StatusCode {
        match self {
            Failure::Request(request) => request.status(),
            Failure::NotFound(_) => StatusCode::NOT_FOUND,
            Failure::Ambiguous(_) => StatusCode::CONFLICT,
            Failure::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
            Failure::Store { .. } | Failure::Unwritten(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let error = serde_json::json!({ "error": self.to_string() });
        let mut response = (self.status(), axum::Json(error)).into_response();
        let headers = response.headers_mut();
        match self {
            Failure::Request(BadRequest::Method) => {
                headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            }
            Failure::Busy(_) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}

/// Answers a request.
pub async fn answer(State(shared): State<Arc<Shared>>, method: Method, uri: Uri) -> Response {
    match Route::of(&method, &uri) {
        Ok(route) => match answered(&shared, route).await {
            Ok(response) => response,
            Err(failure) => failure.into_response(),
        },
        Err(error) => Failure::from(error).into_response(),
    }
}

async fn answered(shared: &Arc<Shared>, route: Route) -> Result<Response, Failure> {
    match route {
        Route::Agent => one(&ask(shared, Ask::Agent).await?),
        Route::Cgroup(id) => match ask(shared, |answer| Ask::Cgroup(id, answer)).await? {
            Some(details) => one(&details),
            None => Err(no_cgroup(id)),
        },
        Route::Incident(id) => incident(shared, id).await,
        Route::Cgroups(query) => cgroups(shared, query).await,
        Route::Profile(id, form) => {
            let turn = turn(shared).await?;
            let profile = ask(shared, |answer| Ask::Profile(id, answer)).await?;
            let profile = profile.map_err(|reason| Failure::NotFound(reason.to_string()))?;
            let drawn = work(move || drawn(&profile, form)).await?;
            let bytes = drawn.map_err(|error| Failure::Unwritten(error.to_string()))?;
            let headers = [
                (
                    header::CONTENT_TYPE,
                    HeaderValue::from_static(form.content_type()),
                ),
                (header::CONTENT_LENGTH, bytes.len().into()),
            ];
            Ok((headers, turn.body(pieces(bytes.into()))).into_response())
        }
        Route::Leaks(query) => {
            let turn = turn(shared).await?;
            let listed = ask(shared, |answer| Ask::Leaks(query, answer)).await?;
            Ok(list(
                listed.time,
                listed.left_out,
                listed.items.into_iter(),
                turn,
            ))
        }
        Route::Timelines(query) => {
            let turn = turn(shared).await?;
            let listed = ask(shared, |answer| Ask::Timelines(query, answer)).await?;
            Ok(list(
                listed.time,
                listed.left_out,
                listed.items.into_iter(),
                turn,
            ))
        }
        Route::Incidents(query) => incidents(shared, query).await,
    }
}

/// For an answer that may be long.
async fn turn(shared: &Shared) -> Result<Turn, Failure> {
    let turn = Turns::take(&shared.turns, TURN).await;
    turn.ok_or(Failure::Busy("other answers are under way"))
}

fn no_cgroup(id: u64) -> Failure {
    Failure::NotFound(format!(
        "no memory cgroup {id} is known: it is gone, or not tracked; /v1/cgroups lists those that are"
    ))
}

async fn cgroups(shared: &Shared, query: CgroupQuery) -> Result<Response, Failure> {
    let turn = turn(shared).await?;
    let histories = query.recent > 0;
    let asked = |answer| Ask::Cgroups { histories, answer };
    let mut sources = ask(shared, asked).await?;
    let time = Timestamp::try_from(sources.time).unwrap_or(Timestamp::UNIX_EPOCH);
    let left_out = sources.select(&query);
    let recent = query.recent;
    let rows = sources
        .sources
        .into_iter()
        .map(move |source| source.row(recent));
    Ok(list(time, left_out, rows, turn))
}

async fn incidents(shared: &Shared, query: IncidentQuery) -> Result<Response, Failure> {
    let turn = turn(shared).await?;
    let limit = query.limit;
    let index = index(shared, move |incident| query.has(incident)).await?;
    let left_out = index.entries.len().saturating_sub(limit);
    let entries: Vec<_> = index.entries.iter().take(limit).cloned().collect();
    let read = entries.into_iter().filter_map(move |entry| {
        let incident = index.incident(&entry);
        incident
            .inspect_err(|error| log::debug!("an incident is not told: {error}"))
            .ok()?
    });
    Ok(list(Timestamp::now(), left_out as u64, read, turn))
}

async fn incident(shared: &Shared, id: String) -> Result<Response, Failure> {
    let wanted = id.clone();
    let index = index(shared, move |incident| {
        wanted == LATEST || incident.id.starts_with(&wanted)
    })
    .await?;
    let exact = index.entries.iter().find(|entry| entry.id == id);
    let newest = || index.entries.first();
    let entry = match (exact, index.entries.len()) {
        (Some(exact), _) => Some(exact),
        (None, 2..) if id != LATEST => {
            let candidates = index.entries.iter().take(MOST_CANDIDATES);
            let candidates: Vec<String> = candidates.map(|entry| shown(&entry.id)).collect();
            let count = index.entries.len();
            return Err(Failure::Ambiguous(format!(
                "{} is the beginning of {count} incidents: {}",
                shown(&id),
                candidates.join(", ")
            )));
        }
        (None, _) => newest(),
    };
    let incident = match entry {
        Some(entry) => index.incident(entry)?,
        None => None,
    };
    match incident {
        Some(incident) => one(&incident),
        None if id == LATEST => Err(Failure::NotFound("no incident is stored".to_owned())),
        None => Err(Failure::NotFound(format!(
            "no incident {} is stored",
            shown(&id)
        ))),
    }
}

/// The incidents that `wanted` takes, newest first.
async fn index(
    shared: &Shared,
    wanted: impl Fn(&Incident) -> bool + Send + 'static,
) -> Result<Index, Failure> {
    let Some(state_dir) = shared.state_dir.clone() else {
        let reason = "this agent stores no incidents: it runs without a state directory";
        return Err(Failure::NotFound(reason.to_owned()));
    };
    Ok(work(move || Index::read(&state_dir, wanted)).await??)
}

fn drawn(profile: &Profile, form: ProfileForm) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match form {
        ProfileForm::FlameGraph => flamegraph::write(profile, View::Resident, &mut bytes)?,
        ProfileForm::Folded => folded::write(profile, View::Resident, &mut bytes)?,
        ProfileForm::Pprof => pprof::write(profile, &mut bytes)?,
    }
    Ok(bytes)
}

async fn ask<T>(
    shared: &Shared,
    ask: impl FnOnce(oneshot::Sender<T>) -> Ask,
) -> Result<T, Failure> {
    let (sender, answer) = oneshot::channel();
    let busy = Failure::Busy("the agent does not answer");
    let asked = async {
        shared.asks.send(ask(sender)).await.ok()?;
        answer.await.ok()
    };
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(Some(answer)) => Ok(answer),
        _ => Err(busy),
    }
}

/// Does what takes long, or waits for a disk, on another thread.
async fn work<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::Unwritten(error.to_string()))
}

const JSON: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "application/json")];

fn one(record: &impl Serialize) -> Result<Response, Failure> {
    let json = serde_json::to_vec(record).map_err(|error| Failure::Unwritten(error.to_string()))?;
    Ok((JSON, json).into_response())
}

/// A [`super::records::Listed`] that is written as it is read.
fn list<T: Serialize>(
    time: Timestamp,
    left_out: u64,
    items: impl Iterator<Item = T> + Send + 'static,
    turn: Turn,
) -> Response {
    let pieces = Pieces {
        items,
        head: Some(format!(
            "{{\"time\":\"{time}\",\"left_out\":{left_out},\"items\":["
        )),
        is_first: true,
        has_ended: false,
    };
    (JSON, turn.body(pieces)).into_response()
}

struct Pieces<I> {
    items: I,
    head: Option<String>,
    is_first: bool,
    has_ended: bool,
}

impl<T: Serialize, I: Iterator<Item = T>> Iterator for Pieces<I> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.has_ended {
            return None;
        }
        let mut piece = self.head.take().map(String::into_bytes).unwrap_or_default();
        while piece.len() < PIECE_BYTES {
            let Some(item) = self.items.next() else {
                piece.extend_from_slice(b"]}");
                self.has_ended = true;
                break;
            };
            let before = piece.len();
            if !self.is_first {
                piece.push(b',');
            }
            match serde_json::to_writer(&mut piece, &item) {
                Ok(()) => self.is_first = false,
                Err(error) => {
                    log::warn!("an item of an answer cannot be written: {error}");
                    piece.truncate(before);
                }
            }
        }
        Some(piece.into())
    }
}
