//! A file that explains itself: every key with what it means, and its default. Made from clap's definitions.

use std::fmt::Write as _;

use super::{
    definition::{self, Key, Shape},
    show::literal,
};

const WIDTH: usize = 98;

const HEAD: &str = "\
# Configuration of `memtrace run`, at /etc/memtrace/memtrace.toml or where --config says.
#
# A key is the long name of a flag with _ for -. Flags and environment variables beat this file, it beats the
# defaults; a flag replaces a list. Check it with `memtrace config check`, see what holds with
# `memtrace config show`; `systemctl reload memtrace` takes over cgroup, stall_after, threshold and [[on_event]].
";

const ON_EVENT: &str = r#"
# ---- Commands at events ----------------------------------------------------------------------------

# Any number of these tables, behind all keys. Commands run with the privileges of the agent and in its sandbox;
# docs/configuration.md says what they are told and what that sandbox forbids.
#
#[[on_event]]
#name = "heap dump"                     # in the log; unique
#on = ["leak_confirmed", "limit_near"]  # also leak_suspected, leak_cleared, incident
#kinds = ["cgroup_oom"]                 # of incidents only; without it all
#cgroup = "/kubepods*"                  # globs; without them any
#namespace = "shop"
#pod = "cart-*"
#command = ["/usr/bin/jcmd", "{pid}", "GC.heap_dump", "/tmp/{pid}.hprof"]
#shell = "logger \"memtrace: $MEMTRACE_EVENT in $MEMTRACE_CGROUP\""     # instead of command
#timeout = "30s"                        # then it is ended, with all it started
#min_interval = "10m"                   # between two runs for one container
"#;

/// Values of keys that clap knows no default of.
const WITHOUT_DEFAULT: [(&str, &str); 23] = [
    ("output", "\"json\""),
    ("duration", "\"1h\""),
    ("cgroup", "\"/kubepods*\""),
    ("skip_hook", "[\"kprobe\", \"kretprobe\"]"),
    ("cgroup_root", "\"/sys/fs/cgroup\""),
    ("time_scale", "60"),
    ("threshold", "{ young = 5, growth_mib = 4 }"),
    ("node_name", "\"node-1\""),
    ("cri_socket", "\"/run/containerd/containerd.sock\""),
    ("pod_label", "[\"team\"]"),
    ("pod_annotation", "[\"team\"]"),
    ("otlp_endpoint", "\"http://localhost:4317\""),
    ("otlp_protocol", "\"grpc\""),
    ("otlp_headers", "\"authorization=Bearer%20TOKEN\""),
    ("otlp_compression", "\"gzip\""),
    ("otlp_certificate", "\"/etc/memtrace/ca.pem\""),
    ("otlp_client_certificate", "\"/etc/memtrace/client.pem\""),
    ("otlp_client_key", "\"/etc/memtrace/client.key\""),
    ("otlp_timeout_ms", "10000"),
    ("otlp_interval_ms", "60000"),
    ("otlp_service_name", "\"memtrace\""),
    ("listen", "\"127.0.0.1:9464\""),
    ("api_socket", "\"/run/memtrace/agent.sock\""),
];

/// The annotated file; every key is commented out.
pub fn text() -> String {
    let mut text = HEAD.to_owned();
    let mut heading = None;
    for key in definition::keys() {
        let of_key = key.arg.get_help_heading().map(str::to_owned);
        if heading.as_ref() != Some(&of_key) {
            let title = of_key.as_deref().unwrap_or("General");
            let dashes = "-".repeat(WIDTH.saturating_sub(title.len() + 6));
            let _ = writeln!(text, "\n# ---- {title} {dashes}");
            heading = Some(of_key);
        }
        let help = key.arg.get_help().map(ToString::to_string);
        text.push('\n');
        for line in wrapped(&help.unwrap_or_default()) {
            let _ = writeln!(text, "# {line}");
        }
        let _ = writeln!(text, "#{} = {}", key.name, example(&key));
    }
    text.push_str(ON_EVENT);
    text
}

fn example(key: &Key) -> String {
    let defaults: Vec<String> = key.defaults().iter().map(|value| literal(value)).collect();
    if key.shape == Shape::Flag {
        return "false".to_owned();
    }
    if !defaults.is_empty() {
        return match key.shape {
            Shape::List | Shape::Pairs => format!("[{}]", defaults.join(", ")),
            _ => defaults.concat(),
        };
    }
    let mut rows = WITHOUT_DEFAULT.iter();
    let row = rows.find(|(name, _)| *name == key.name);
    row.map_or("\"\"", |(_, value)| value).to_owned()
}

fn wrapped(help: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in help.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// The keys of the example as somebody sets them who tries them all, a line each.
#[cfg(test)]
pub fn uncommented() -> Vec<String> {
    let keys = definition::keys();
    let is_key = |line: &&str| {
        line.split_once(" = ")
            .is_some_and(|(name, _)| keys.iter().any(|key| key.name == name))
    };
    let text = text();
    let before_events = text.split("\n#[[on_event]]").next().unwrap_or_default();
    let lines = before_events.lines();
    let set = lines
        .filter_map(|line| line.strip_prefix('#'))
        .filter(is_key);
    set.map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/memtrace.toml");

    #[test]
    fn the_example_under_deploy_is_up_to_date() {
        if std::env::var_os("MEMTRACE_WRITE_EXAMPLE").is_some() {
            std::fs::write(FILE, text()).unwrap();
        }
        let kept = std::fs::read_to_string(FILE).unwrap_or_default();
        assert!(
            kept == text(),
            "deploy/memtrace.toml is out of date: \
             MEMTRACE_WRITE_EXAMPLE=1 cargo test -p memtrace --lib example"
        );
    }

    #[test]
    fn every_flag_of_run_is_in_the_example_and_its_value_can_be_set() {
        let keys = definition::keys();
        let text = uncommented().concat();
        let problems = parse::parse(&text, &keys);
        let settings = problems.unwrap_or_else(|problems| {
            panic!("give the key a row in WITHOUT_DEFAULT: {problems:#?}\n{text}")
        });
        for key in &keys {
            let has_row = WITHOUT_DEFAULT.iter().any(|(name, _)| *name == key.name);
            let known = has_row || key.shape == Shape::Flag || !key.defaults().is_empty();
            assert!(known, "{} has no example in WITHOUT_DEFAULT", key.name);
            let entry = settings.entries.iter().find(|entry| entry.key == key.name);
            assert!(entry.is_some(), "{} is not in the example", key.name);
        }
        for (name, _) in WITHOUT_DEFAULT {
            assert!(
                keys.iter()
                    .any(|key| key.name == name && key.defaults().is_empty()),
                "{name} needs no row in WITHOUT_DEFAULT"
            );
        }
    }

    #[test]
    fn the_example_of_a_command_is_right() {
        let (_, events) = ON_EVENT.split_once("#[[on_event]]").unwrap();
        let mut table = "[[on_event]]\n".to_owned();
        for line in events.lines().filter(|line| line.contains(" = ")) {
            // Of both the first, and no filter on what is not asked for.
            if !line.starts_with("#shell") && !line.starts_with("#kinds") {
                table.push_str(&line[1..]);
                table.push('\n');
            }
        }
        let settings = parse::parse(&table, &definition::keys()).unwrap();
        assert_eq!(settings.rules[0].name, "heap dump");
        let with_shell = table.replace("command =", "#").replace("#shell", "shell");
        assert!(
            parse::parse(&with_shell, &definition::keys()).is_err(),
            "nothing to run"
        );
    }

    #[test]
    fn every_otlp_flag_has_its_variable() {
        for key in definition::keys() {
            let is_otlp = key.flag.starts_with("otlp-");
            assert_eq!(key.otlp_variable().is_some(), is_otlp, "{}", key.flag);
            if let Some(variable) = key.otlp_variable() {
                let help = key.arg.get_help().unwrap().to_string();
                assert!(help.contains(variable), "{}: {help}", key.flag);
            }
        }
    }
}
