//! What a request asks for. Pure.

use http::{Method, StatusCode, Uri};

use crate::host::escape;

use super::{
    parameters::{BadQuery, Parameters},
    query::{CgroupQuery, IncidentQuery, LeakQuery, TimelineQuery},
};

/// Of path and parameters.
pub const MOST_URI_BYTES: usize = 4096;
/// Most characters of a foreign text in an error.
const MOST_SHOWN: usize = 128;

/// All paths there are.
pub const PATHS: [&str; 10] = [
    "/v1/agent",
    "/v1/cgroups",
    "/v1/cgroups/ID",
    "/v1/cgroups/ID/flamegraph.svg",
    "/v1/cgroups/ID/profile.folded",
    "/v1/cgroups/ID/profile.pb.gz",
    "/v1/leaks",
    "/v1/timelines",
    "/v1/incidents",
    "/v1/incidents/ID",
];

/// A form of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProfileForm {
    FlameGraph,
    Folded,
    Pprof,
}

impl ProfileForm {
    pub fn content_type(self) -> &'static str {
        match self {
            ProfileForm::FlameGraph => "image/svg+xml",
            ProfileForm::Folded => "text/plain; charset=utf-8",
            ProfileForm::Pprof => "application/octet-stream",
        }
    }
}

/// What is asked for.
#[derive(Debug)]
pub enum Route {
    Agent,
    Cgroups(CgroupQuery),
    Cgroup(u64),
    Profile(u64, ProfileForm),
    Leaks(LeakQuery),
    Timelines(TimelineQuery),
    Incidents(IncidentQuery),
    /// An id, the beginning of one, or `latest`.
    Incident(String),
}

/// Why nothing is answered.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    #[error("only GET and HEAD are answered: nothing can be changed here")]
    Method,
    #[error("path and parameters are longer than {MOST_URI_BYTES} bytes")]
    UriTooLong,
    #[error("no {path} here; there are {}", PATHS.join(", "))]
    NoSuchPath {
        /// Escaped.
        path: String,
    },
    #[error("{id} is no id of a cgroup: write its inode number, as cgroup_id in /v1/cgroups")]
    BadId {
        /// Escaped.
        id: String,
    },
    #[error(transparent)]
    Query(#[from] BadQuery),
}

impl BadRequest {
    pub fn status(&self) -> StatusCode {
        match self {
            BadRequest::Method => StatusCode::METHOD_NOT_ALLOWED,
            BadRequest::UriTooLong => StatusCode::URI_TOO_LONG,
            BadRequest::NoSuchPath { .. } => StatusCode::NOT_FOUND,
            BadRequest::BadId { .. } | BadRequest::Query(_) => StatusCode::BAD_REQUEST,
        }
    }
}

impl Route {
    /// # Errors
    /// Nothing like that is answered.
    pub fn of(method: &Method, uri: &Uri) -> Result<Self, BadRequest> {
        let query = uri.query().unwrap_or_default();
        if uri.path().len().saturating_add(query.len()) > MOST_URI_BYTES {
            return Err(BadRequest::UriTooLong);
        }
        let no_such_path = || BadRequest::NoSuchPath {
            path: shown(uri.path()),
        };
        let path = uri.path().strip_prefix("/v1/").ok_or_else(no_such_path)?;
        let segments: Vec<&str> = path.split('/').collect();
        // First the path: what is not there cannot be changed either.
        let route = match segments.as_slice() {
            ["agent"] => none(query, Route::Agent),
            ["cgroups"] => CgroupQuery::parse(query).map(Route::Cgroups),
            ["cgroups", id] => none(query, Route::Cgroup(cgroup_id(id)?)),
            ["cgroups", id, "flamegraph.svg"] => profile(query, id, ProfileForm::FlameGraph)?,
            ["cgroups", id, "profile.folded"] => profile(query, id, ProfileForm::Folded)?,
            ["cgroups", id, "profile.pb.gz"] => profile(query, id, ProfileForm::Pprof)?,
            ["leaks"] => LeakQuery::parse(query).map(Route::Leaks),
            ["timelines"] => TimelineQuery::parse(query).map(Route::Timelines),
            ["incidents"] => IncidentQuery::parse(query).map(Route::Incidents),
            ["incidents", id] if !id.is_empty() => none(query, Route::Incident((*id).to_owned())),
            _ => return Err(no_such_path()),
        };
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Err(BadRequest::Method);
        }
        Ok(route?)
    }
}

fn none(query: &str, route: Route) -> Result<Route, BadQuery> {
    Parameters::parse(query, &[]).map(|_| route)
}

fn profile(
    query: &str,
    id: &str,
    form: ProfileForm,
) -> Result<Result<Route, BadQuery>, BadRequest> {
    Ok(none(query, Route::Profile(cgroup_id(id)?, form)))
}

fn cgroup_id(id: &str) -> Result<u64, BadRequest> {
    let digits = id.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = id.parse().ok().filter(|_| digits);
    parsed.ok_or_else(|| BadRequest::BadId { id: shown(id) })
}

pub fn shown(text: &str) -> String {
    escape::display(text.as_bytes(), MOST_SHOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(method: Method, target: &str) -> Result<Route, BadRequest> {
        Route::of(&method, &target.parse().unwrap())
    }

    #[test]
    fn every_path_that_is_told_is_there() {
        for path in PATHS {
            let path = path.replace("ID", "42");
            assert!(route(Method::GET, &path).is_ok(), "{path}");
            assert!(route(Method::HEAD, &path).is_ok(), "{path}");
            assert_eq!(route(Method::POST, &path).unwrap_err(), BadRequest::Method);
        }
    }

    #[test]
    fn what_is_not_there_is_told_with_what_is() {
        for path in [
            "/",
            "/v1",
            "/v1/",
            "/v2/agent",
            "/v1/agent/",
            "/v1/incidents/",
            "/v1/cgroups/1/x",
        ] {
            let error = route(Method::POST, path).unwrap_err();
            assert_eq!(error.status(), StatusCode::NOT_FOUND, "{path}");
            assert!(error.to_string().contains("/v1/timelines"), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_an_id_or_a_parameter_is_named() {
        for (target, wanted) in [
            ("/v1/cgroups/abc", "abc"),
            ("/v1/cgroups/+1", "+1"),
            ("/v1/cgroups/99999999999999999999/flamegraph.svg", "999"),
            ("/v1/agent?a=1", "this path takes none"),
            ("/v1/cgroups/1/profile.folded?view=x", "view"),
        ] {
            let error = route(Method::GET, target).unwrap_err();
            assert_eq!(error.status(), StatusCode::BAD_REQUEST, "{target}");
            assert!(error.to_string().contains(wanted), "{error}");
        }
        let long = format!("/v1/cgroups?glob={}", "a".repeat(MOST_URI_BYTES));
        assert_eq!(
            route(Method::GET, &long).unwrap_err(),
            BadRequest::UriTooLong
        );
    }
}
