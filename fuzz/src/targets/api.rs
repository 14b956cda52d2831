//! The API: what is asked of an agent, and what commands make of its answers.
//!
//! The first byte says which.

use http::{Method, Uri};
use jiff::Timestamp;
use memtrace::{
    api::{
        parameters::target,
        query::{CgroupQuery, IncidentQuery, LeakQuery, TimelineQuery},
        records::{CgroupDetails, LeakRecord},
        route::{MOST_URI_BYTES, Route},
    },
    incident::Incident,
    leaks::block::block,
    moment::Zone,
    report::{facts::Facts, html, markdown, story},
};

use crate::promise;

/// Of an error: what it quotes is short.
const MOST_ERROR_CHARS: usize = 2000;

pub fn run(data: &[u8]) {
    match data.split_first() {
        Some((0, uri)) => asked(uri),
        Some((1, json)) => leak(json),
        Some((2, json)) => report(json),
        _ => {}
    }
}

fn asked(uri: &[u8]) {
    let Ok(uri) = Uri::try_from(uri) else { return };
    match Route::of(&Method::GET, &uri) {
        Ok(route) => {
            let length = uri.path().len() + uri.query().map_or(0, str::len);
            assert!(length <= MOST_URI_BYTES);
            written_again(&route);
        }
        Err(error) => promise::line(&error.to_string(), MOST_ERROR_CHARS),
    }
}

/// A question that was understood is the same when a client asks it.
fn written_again(route: &Route) {
    let query = |pairs: &[(&'static str, String)]| {
        let target = target("/", pairs);
        target
            .split_once('?')
            .map_or(String::new(), |(_, query)| query.to_owned())
    };
    match route {
        Route::Cgroups(asked) => {
            let again = CgroupQuery::parse(&query(&asked.pairs())).expect("it was understood");
            assert_eq!(again.pairs(), asked.pairs());
        }
        Route::Leaks(asked) => {
            let again = LeakQuery::parse(&query(&asked.pairs())).expect("it was understood");
            assert_eq!(again.pairs(), asked.pairs());
        }
        Route::Timelines(asked) => {
            let again = TimelineQuery::parse(&query(&asked.pairs())).expect("it was understood");
            assert_eq!(again.pairs(), asked.pairs());
        }
        Route::Incidents(asked) => {
            let again = IncidentQuery::parse(&query(&asked.pairs())).expect("it was understood");
            assert_eq!(again.pairs(), asked.pairs());
        }
        _ => {}
    }
}

fn leak(json: &[u8]) {
    if let Ok(leak) = serde_json::from_slice::<LeakRecord>(json) {
        promise::printable(&block(&leak, &Zone::utc(), false, Some(80)));
    }
}

/// Of a cgroup and of the incidents behind a line break.
fn report(json: &[u8]) {
    let mut parts = json.splitn(2, |byte| *byte == b'\n');
    let mut part = || parts.next().unwrap_or_default();
    let details: Option<CgroupDetails> = serde_json::from_slice(part()).ok();
    let incidents: Vec<Incident> = serde_json::from_slice(part()).unwrap_or_default();
    if details.is_none() && incidents.is_empty() {
        return;
    }
    let facts = Facts {
        made: Timestamp::UNIX_EPOCH,
        since: None,
        agent: None,
        details,
        victims_timeline: None,
        incidents,
        asked: None,
        flamegraph: None,
        missing: Vec::new(),
    };
    let report = story::report(facts, &Zone::utc());
    promise::printable(&html::page(&report, &Zone::utc()));
    promise::printable(&markdown::text(&report, &Zone::utc()));
    serde_json::to_string(&report).expect("a report is JSON");
}
