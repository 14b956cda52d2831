use super::*;
use crate::api::parameters::target;

fn error(query: &str) -> String {
    CgroupQuery::parse(query).unwrap_err().to_string()
}

#[test]
fn an_unknown_parameter_is_named_with_those_that_are_known() {
    let told = error("limit=5&colour=red");
    assert!(
        told.contains("colour") && told.contains("namespace"),
        "{told}"
    );
    let told = LeakQuery::parse("glob=*").unwrap_err().to_string();
    assert!(told.contains("all, limit"), "{told}");
    let hidden = error("%1b[31m=1");
    assert!(!hidden.contains('\u{1b}'), "{hidden:?}");
}

#[test]
fn a_value_that_cannot_be_used_is_named_with_what_can() {
    for (query, wanted) in [
        ("limit=0", "from 1 to 100000"),
        ("limit=100001", "from 1 to 100000"),
        ("limit=-1", "from 1 to 100000"),
        ("recent=61", "from 0 to 60"),
        ("sort=size", "time_to_limit"),
        ("leaks=yes", "true or false"),
        ("glob=", "'*' for all"),
        ("glob=[", "unclosed"),
        ("pod=", "empty"),
        ("limit=1&limit=2", "more than once"),
    ] {
        let told = error(query);
        assert!(told.contains(wanted), "{query}: {told}");
    }
    let told = IncidentQuery::parse("kind=oom").unwrap_err().to_string();
    assert!(told.contains("cgroup_oom"), "{told}");
    for query in ["pod=web", "pod=/web", "pod=shop/", "since=yesterday"] {
        assert!(IncidentQuery::parse(query).is_err(), "{query}");
    }
}

#[test]
fn what_the_client_writes_the_server_reads() {
    let query = CgroupQuery {
        selection: Selection {
            glob: Some(crate::host::pattern::glob("/a b/*&%?=+#").unwrap()),
            namespace: Some("shop".to_owned()),
            pod: Some("web/1&2".to_owned()),
            container: Some("\u{e9}".to_owned()),
        },
        leaks: true,
        sort: Sort::TimeToLimit,
        limit: 7,
        recent: 60,
        removed: true,
    };
    let target = target("/v1/cgroups", &query.pairs());
    assert!(target.is_ascii() && !target.contains(' '), "{target}");
    let (_, parameters) = target.split_once('?').unwrap();
    let read = CgroupQuery::parse(parameters).unwrap();
    assert_eq!(format!("{read:?}"), format!("{query:?}"));

    let query = IncidentQuery {
        since: Some(Timestamp::UNIX_EPOCH),
        kinds: vec![Kind::Stall, Kind::CgroupOom],
        pod: Some(("shop".to_owned(), "web".to_owned())),
        glob: Some(crate::host::pattern::glob("/kubepods*").unwrap()),
        limit: 1000,
    };
    let target = crate::api::parameters::target("", &query.pairs());
    let read = IncidentQuery::parse(target.trim_start_matches('?')).unwrap();
    assert_eq!(format!("{read:?}"), format!("{query:?}"));
}

#[test]
fn nothing_asked_is_everything_within_bounds() {
    let query = CgroupQuery::parse("").unwrap();
    assert_eq!(
        (query.limit, query.recent, query.removed),
        (10_000, 0, false)
    );
    assert!(query.selection.has("/any", &Names::default()));
    assert_eq!(CgroupQuery::parse("&&").unwrap().limit, 10_000);
}

#[test]
fn an_incident_is_chosen_by_the_cgroup_and_pod_of_any_victim() {
    let text = include_str!("../incident/fixtures/cgroup_oom.json");
    let mut incident: Incident = serde_json::from_str(text).unwrap();
    let victim = incident.victims.first_mut().unwrap();
    victim.cgroup = Some("/kubepods/victim".to_owned());
    victim.names = Some(Box::new(Names {
        namespace: Some("shop".to_owned()),
        pod: Some("web".to_owned()),
        ..Names::default()
    }));
    let has = |query: &str| IncidentQuery::parse(query).unwrap().has(&incident);
    assert!(has("pod=shop/web&glob=/kubepods/v*&kind=cgroup_oom,stall"));
    assert!(!has("pod=shop/other"));
    assert!(!has("pod=web/shop"));
    assert!(!has("kind=stall"));
    assert!(!has("glob=/elsewhere"));
    assert!(!has("since=2999-01-01T00:00:00Z"));
}
