use super::*;
use crate::config::parse;

fn line(arguments: &[&str]) -> CommandLine {
    let matches = definition::command().try_get_matches_from(arguments);
    CommandLine::of(&matches.unwrap())
}

fn laid(arguments: &[&str], file: &str, env: &[(&str, &str)]) -> Result<Layers, ConfigError> {
    let settings = parse::parse(file, &definition::keys()).unwrap();
    let env = |name: &str| {
        let found = env.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    line(arguments).over(settings, Some("/etc/x.toml".into()), &env)
}

fn layers(arguments: &[&str], file: &str, env: &[(&str, &str)]) -> Layers {
    laid(arguments, file, env).unwrap_or_else(|error| panic!("{error}"))
}

fn effective(layers: &Layers, key: &str) -> (Vec<String>, Origin) {
    let mut all = layers.effective.iter();
    let found = all.find(|effective| effective.key.name == key).unwrap();
    (found.values.clone(), found.origin.clone())
}

#[test]
fn a_flag_beats_the_file_and_the_file_the_default() {
    let file = "interval = \"2s\"\nstall_after = \"7s\"\noom_killer = [\"a\", \"b\"]\n";
    let layers = layers(&["--interval", "3s", "--oom-killer=c"], file, &[]);
    assert_eq!(layers.args.interval.as_secs(), 3);
    assert_eq!(layers.args.incidents.stall_after.as_secs(), 7);
    assert_eq!(
        layers.args.incidents.oom_killer,
        ["c"],
        "lists are replaced"
    );
    assert_eq!(layers.args.kernel.max_cgroups, 8192);
    let source = |key| effective(&layers, key).1;
    assert_eq!(source("interval"), Origin::CommandLine);
    assert_eq!(source("stall_after"), Origin::File { line: 2 });
    assert_eq!(source("max_cgroups"), Origin::Default);
    assert_eq!(source("duration"), Origin::Unset);
}

#[test]
fn every_flag_of_run_is_set_by_its_key() {
    let lines = crate::config::example::uncommented();
    assert_eq!(lines.len(), definition::keys().len());
    for line in lines {
        let line = line.replace("= false", "= true");
        // Nothing is sent without an endpoint.
        if line.starts_with("otlp_profiles") {
            continue;
        }
        let (key, value) = line.split_once(" = ").unwrap();
        let layers = layers(&[], &line, &[]);
        let (values, origin) = effective(&layers, key);
        assert_eq!(origin, Origin::File { line: 1 }, "{line}");
        assert!(!values.is_empty(), "{line}");
        let bare = |text: &str| text.replace(['"', '[', ']', ' ', '{', '}', '\n'], "");
        let told: Vec<&str> = values.iter().map(String::as_str).collect();
        let mut told: Vec<String> = told.iter().map(|value| bare(value)).collect();
        let mut written: Vec<String> = bare(value).split(',').map(str::to_owned).collect();
        told.sort();
        written.sort();
        assert_eq!(told, written, "{line}");
    }
}

#[test]
fn flags_without_a_value_and_tables_come_from_the_file() {
    let file = "no_command_lines = true\nleaks = false\nstacks = true\n[threshold]\nyoung = 5\n";
    let layers = layers(&[], file, &[]);
    assert!(layers.args.incidents.no_command_lines);
    assert!(layers.resolved.thresholds.is_none());
    assert_eq!(
        layers.args.growth.thresholds.threshold,
        [("young".to_owned(), 5.0)]
    );
    let of = layers.args.growth.thresholds.thresholds().unwrap();
    assert_eq!(of.young, 5.0);
}

#[test]
fn variables_of_otlp_beat_the_file_and_flags_beat_both() {
    const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let file = "otlp_endpoint = \"http://file:4317\"\notlp_headers = \"a=b\"\n";
    let endpoint = |arguments: &[&str], env: &[(&str, &str)]| {
        let layers = layers(arguments, file, env);
        let otlp = layers.resolved.otlp.as_ref().unwrap();
        let metrics = otlp.metrics.as_ref().unwrap();
        assert_eq!(metrics.headers.len(), 1);
        (
            metrics.endpoint.to_string(),
            effective(&layers, "otlp_endpoint").1,
        )
    };
    let (from_file, origin) = endpoint(&[], &[]);
    assert_eq!(
        (from_file.as_str(), origin),
        ("http://file:4317/", Origin::File { line: 1 })
    );
    let env = [(ENDPOINT, "http://env:4317")];
    let (from_env, origin) = endpoint(&[], &env);
    assert_eq!(from_env, "http://env:4317/");
    assert_eq!(origin, Origin::Environment(ENDPOINT.into()));
    let flag = endpoint(&["--otlp-endpoint", "http://flag:4317"], &env);
    assert_eq!(flag, ("http://flag:4317/".into(), Origin::CommandLine));
    let one = [("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://metrics:4317")];
    let layers = layers(&[], file, &one);
    let otlp = layers.resolved.otlp.unwrap();
    assert_eq!(otlp.metrics.unwrap().endpoint.host(), Some("metrics"));
    assert_eq!(otlp.logs.unwrap().endpoint.host(), Some("file"));
}

#[test]
fn what_the_export_refuses_is_told_by_file_and_line_and_without_secrets() {
    let refused = |file| laid(&[], file, &[]).err().unwrap().to_string();
    let endpoint = refused("\notlp_endpoint = \"not a url\"");
    assert!(
        endpoint.starts_with("/etc/x.toml:2: otlp_endpoint: "),
        "{endpoint}"
    );
    let headers = refused("otlp_endpoint = \"http://h:4317\"\notlp_headers = \"hunter2\"");
    assert!(
        headers.starts_with("/etc/x.toml:2: otlp_headers: "),
        "{headers}"
    );
    assert!(!headers.contains("hunter2"), "{headers}");
    let alone = refused("otlp_profiles = true");
    assert!(
        alone.starts_with("/etc/x.toml:1: otlp_profiles: "),
        "{alone}"
    );
    assert!(laid(&[], "otlp_profiles = false", &[]).is_ok());
}

#[test]
fn options_that_do_not_go_together_are_refused() {
    let refused = laid(&[], "identity = \"none\"\ncri_socket = \"/x\"", &[]);
    let refused = refused.err().unwrap().to_string();
    assert!(refused.contains("--cri-socket /x"), "{refused}");
}

#[test]
fn no_file_is_read_where_none_is_asked_for() {
    assert_eq!(line(&["--config", "none"]).path(), None);
    let asked = line(&["--config", "/nonexistent/x.toml"]);
    assert!(matches!(asked.load(), Err(ConfigError::Unreadable { .. })));
}

fn shown(layers: &Layers) -> (String, serde_json::Value) {
    let mut text = Vec::new();
    crate::config::show::text(layers, &mut text).unwrap();
    let mut json = Vec::new();
    crate::config::show::json(layers, &mut json).unwrap();
    (
        String::from_utf8(text).unwrap(),
        serde_json::from_slice(&json).unwrap(),
    )
}

#[test]
fn what_is_shown_says_where_it_came_from_and_is_a_file_itself() {
    let file = "cgroup = \"/a\\\"b*\"\nleaks = true\n[threshold]\nyoung = 5\n\
                [[on_event]]\nname = \"n\"\non = [\"incident\"]\nshell = \"echo hunter2\"\n";
    let layers = layers(&["--interval=1s"], file, &[]);
    let (text, json) = shown(&layers);
    for (line, origin) in [
        ("interval = \"1s\"", "# command line"),
        ("leaks = \"on\"", "# /etc/x.toml:2"),
        ("threshold = [\"young=5\"]", "# /etc/x.toml:3"),
        ("max_cgroups = 8192", "# default"),
        ("#duration", "# not set"),
        ("#otlp_timeout_ms", "# default: 10000"),
        ("#api_socket", "# default: /run/memtrace/agent.sock"),
        ("#time_scale", "# default: 1"),
    ] {
        let found = text.lines().find(|shown| shown.starts_with(line));
        assert!(
            found.is_some_and(|found| found.ends_with(origin)),
            "{line}: {text}"
        );
    }
    assert!(!text.contains("hunter2"), "{text}");
    let again = parse::parse(&text, &definition::keys()).unwrap();
    assert!(
        again.entries.iter().any(|entry| entry.values == ["/a\"b*"]),
        "{text}"
    );
    let options = json["options"].as_array().unwrap();
    assert_eq!(options.len(), definition::keys().len());
    let of = |key: &str| options.iter().find(|option| option["key"] == key).unwrap();
    assert_eq!(of("otlp_compression")["default"], "none");
    assert!(of("interval")["default"].is_null() && of("duration")["default"].is_null());
    let cgroup = options
        .iter()
        .find(|option| option["key"] == "cgroup")
        .unwrap();
    assert_eq!(
        (&cgroup["source"], &cgroup["line"]),
        (&"file".into(), &1.into())
    );
    assert_eq!(json["on_event"][0]["program"], "/bin/sh");
}

#[test]
fn secrets_are_not_shown_wherever_they_come_from() {
    const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
    let endpoint = "otlp_endpoint = \"http://user:hunter2@h:4317\"\n";
    let in_file = format!("{endpoint}otlp_headers = \"a=hunter2\"\n");
    for layers in [
        layers(&[], "otlp_headers = \"a=hunter2\"\n", &[]),
        layers(&[], "", &[(HEADERS, "a=hunter2")]),
        layers(&["--otlp-headers", "a=hunter2"], "", &[]),
        layers(&["--otlp-endpoint", "https://h/?token=hunter2"], "", &[]),
        layers(
            &[],
            "otlp_endpoint = \"http://h:4317/?token=hunter2\"\n",
            &[],
        ),
    ] {
        let (text, json) = shown(&layers);
        assert!(!text.contains("hunter2") && text.contains("***"), "{text}");
        assert!(!json.to_string().contains("hunter2"), "{json}");
    }
    if let Ok(layers) = laid(&[], &in_file, &[]) {
        let (text, _) = shown(&layers);
        assert!(!text.contains("hunter2"), "{text}");
    }
}
