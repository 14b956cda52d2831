use super::*;
use crate::config::definition;

fn parsed(text: &str) -> Settings {
    parse(text, &definition::keys()).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn problems(text: &str) -> Vec<(usize, String)> {
    let problems = parse(text, &definition::keys()).unwrap_err();
    let told = problems.into_iter();
    told.map(|problem| (problem.line, problem.text)).collect()
}

fn values(text: &str, key: &str) -> Vec<String> {
    let settings = parsed(text);
    let entry = settings.entries.iter().find(|entry| entry.key == key);
    entry.unwrap().values.clone()
}

#[test]
fn values_of_otlp_are_checked_also_where_nothing_is_sent() {
    for (line, part) in [
        ("otlp_timeout_ms = \"MS\"", "milliseconds"),
        ("otlp_interval_ms = 0", "milliseconds"),
        ("otlp_protocol = \"PROTOCOL\"", "http/protobuf"),
        ("otlp_compression = \"NAME\"", "zstd"),
    ] {
        let (at, text) = problems(line)[0].clone();
        assert!(at == 1 && text.contains(part), "{line}: {text}");
    }
}

#[test]
fn values_are_taken_as_the_flags_take_them() {
    assert_eq!(values("interval = \"2s\"", "interval"), ["2s"]);
    assert_eq!(values("stack_samples = 1_000", "stack_samples"), ["1000"]);
    assert_eq!(values("fault_sample = 0x40", "fault_sample"), ["64"]);
    assert_eq!(values("exit_min_rss = 4096", "exit_min_rss"), ["4096"]);
    assert_eq!(values("heap = false", "heap"), ["off"]);
    assert_eq!(values("heap = \"on\"", "heap"), ["on"]);
    assert_eq!(
        values("no_command_lines = true", "no_command_lines"),
        ["true"]
    );
    assert!(values("no_command_lines = false", "no_command_lines").is_empty());
    assert_eq!(
        values("oom_killer = [\"a\", \"b\"]", "oom_killer"),
        ["a", "b"]
    );
    let pairs = "threshold = { young = 5, growth_mib = 2.5 }";
    assert_eq!(values(pairs, "threshold"), ["growth_mib=2.5", "young=5"]);
    assert_eq!(values("[threshold]\nyoung = 5", "threshold"), ["young=5"]);
    assert_eq!(
        values("threshold = [\"young=5\"]", "threshold"),
        ["young=5"]
    );
    assert_eq!(values("state_dir = \"--x\"", "state_dir"), ["--x"]);
}

#[test]
fn everything_that_is_wrong_is_told_at_once_by_line() {
    let found = problems(
        "intervall = \"2s\"\n\
         stall_after = 5\n\
         \n\
         heap = \"maybe\"\n\
         no-command-lines = true\n\
         threshold = { yuong = 1 }\n\
         oom_killer = []\n\
         cgroup = [\"/a\"]\n",
    );
    let lines: Vec<usize> = found.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [1, 2, 4, 5, 6, 7, 8], "{found:#?}");
    let expected = [
        "unknown key `intervall`; did you mean `interval`?",
        "stall_after: write a number and a unit",
        "heap: write one of on, off",
        "unknown key `no-command-lines`; did you mean `no_command_lines`?",
        "threshold: no threshold is called \"yuong\"",
        "oom_killer: an empty list",
        "cgroup: write one value",
    ];
    for ((_, text), expected) in found.iter().zip(expected) {
        assert!(text.starts_with(expected), "{text} / {expected}");
    }
}

#[test]
fn a_key_of_no_flag_gets_a_remedy() {
    assert!(
        problems("[tracing]\nheap = true")[0]
            .1
            .contains("not grouped in tables")
    );
    assert!(
        problems("qqqqq = 1")[0]
            .1
            .contains("memtrace config example")
    );
    assert!(problems("config = \"x\"")[0].1.starts_with("unknown key"));
}

#[test]
fn syntax_is_told_by_line_and_twice_the_same_key_is_wrong() {
    assert_eq!(problems("interval = \"1s\"\n\n= 3\n")[0].0, 3);
    assert_eq!(problems("interval = \"1s\"\ninterval = \"2s\"\n")[0].0, 2);
    assert_eq!(problems("state_dir = \"a\\u0000b\"")[0].0, 1);
}

#[test]
fn a_secret_is_not_in_a_problem() {
    let found = problems("otlp_headers = [\"authorization=hunter2\"]");
    assert!(!found[0].1.contains("hunter2"), "{found:?}");
}

#[test]
fn rules_are_read_whole() {
    let settings = parsed(
        "[[on_event]]\n\
         name = \"dump\"\n\
         on = [\"leak_confirmed\", \"incident\"]\n\
         kinds = [\"cgroup_oom\"]\n\
         cgroup = \"/kubepods*\"\n\
         command = [\"/usr/bin/jcmd\", \"{pid}\"]\n\
         timeout = \"1m\"\n\
         [[on_event]]\n\
         on = [\"limit_near\"]\n\
         shell = \"true\"\n",
    );
    let [dump, other] = &settings.rules[..] else {
        panic!("{settings:?}");
    };
    assert_eq!((dump.name.as_str(), dump.timeout.as_secs()), ("dump", 60));
    assert_eq!(
        (other.name.as_str(), other.timeout.as_secs()),
        ("on_event 2", 30)
    );
    assert_eq!(other.min_interval.as_secs(), 600);
}

#[test]
fn what_is_wrong_with_a_rule_is_told_with_its_line() {
    let rule = |text: &str| {
        let text = format!("[[on_event]]\n{text}\n");
        problems(&text)[0].clone()
    };
    for (text, line, expected) in [
        ("on = [\"incident\"]", 1, "command: missing"),
        (
            "shell = \"true\"",
            1,
            "on: missing: which of leak_suspected",
        ),
        ("on = []\nshell = \"x\"", 2, "on: write a list"),
        (
            "on = [\"leek_confirmed\"]\nshell = \"x\"",
            2,
            "did you mean \"leak_confirmed\"?",
        ),
        (
            "on = [\"incident\"]\nkinds = [\"stal\"]\nshell = \"x\"",
            3,
            "did you mean \"stall\"?",
        ),
        (
            "on = [\"limit_near\"]\nkinds = [\"stall\"]\nshell = \"x\"",
            3,
            "only incidents",
        ),
        (
            "on = [\"incident\"]\nshell = \"x\"\ncommand = [\"/x\"]",
            3,
            "not both",
        ),
        ("on = [\"incident\"]\ncommand = [\"jcmd\"]", 3, "full path"),
        (
            "on = [\"incident\"]\ncommand = \"/bin/x\"",
            3,
            "write a list",
        ),
        (
            "on = [\"incident\"]\ncommand = [\"/{pid}\"]",
            3,
            "cannot depend",
        ),
        (
            "on = [\"incident\"]\ncommand = [\"/x\", \"{pdi}\"]",
            3,
            "did you mean \"pid\"?",
        ),
        (
            "on = [\"incident\"]\nshell = \"x\"\ntimeout = \"2h\"",
            4,
            "longer than 1h",
        ),
        (
            "on = [\"incident\"]\nshell = \"x\"\ntimeout = 30",
            4,
            "write a string",
        ),
        (
            "on = [\"incident\"]\nshell = \"x\"\ncgroup = \"[a\"",
            4,
            "on_event: cgroup:",
        ),
        (
            "on = [\"incident\"]\nshel = \"x\"",
            3,
            "did you mean `shell`?",
        ),
    ] {
        let (at, told) = rule(text);
        let all = problems(&format!("[[on_event]]\n{text}\n"));
        let found = all.iter().find(|(_, told)| told.contains(expected));
        let (at, told) = found.cloned().unwrap_or((at, told));
        assert!(told.contains(expected), "{text}: {told}");
        assert_eq!(at, line, "{text}: {told}");
    }
    let twice = "[[on_event]]\nname = \"a\"\non = [\"incident\"]\nshell = \"x\"\n".repeat(2);
    assert!(problems(&twice)[0].1.contains("same name"));
    assert!(problems("on_event = 3")[0].1.contains("[[on_event]]"));
}

/// A generator that needs no seed from outside.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}

#[test]
fn whatever_is_written_gives_settings_or_problems_with_lines() {
    let keys = definition::keys();
    let seeds = [
        include_str!("../../../deploy/memtrace.toml").replace("\n#", "\n"),
        "interval = \"1s\"\nheap = true\nthreshold = { young = 5 }\noom_killer = [\"a\"]\n\
         [[on_event]]\non = [\"incident\"]\ncommand = [\"/x\", \"{pid}\"]\ntimeout = \"1s\"\n"
            .to_owned(),
    ];
    let pieces = [
        "\"",
        "'''",
        "\"\"\"",
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        "=",
        ".",
        "\n",
        "#",
        "\\u0000",
        "\0",
        "\u{202e}",
        "é",
        "1e400",
        "-",
        "nan",
        "1979-05-27",
        "true",
        "on_event",
        "interval",
        ",",
        "0x",
    ];
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut good, mut bad) = (0, 0);
    for round in 0..3000 {
        let mut text: Vec<char> = seeds[round % 2].chars().collect();
        if round % 2 == 0 {
            // A stretch of the long one.
            let from = random.below(text.len());
            let most = text.len().min(from + 400);
            text = text[from..most].to_vec();
        }
        for _ in 0..random.below(6) {
            let at = random.below(text.len());
            match random.below(3) {
                0 => drop(text.drain(at..text.len().min(at + 3))),
                1 => {
                    let piece = pieces[random.below(pieces.len())];
                    text.splice(at..at, piece.chars());
                }
                _ => text.truncate(at.max(8)),
            }
        }
        let text: String = text.into_iter().collect();
        match parse(&text, &keys) {
            Ok(_) => good += 1,
            Err(problems) => {
                bad += 1;
                assert!(!problems.is_empty());
                let last = 1 + text.matches('\n').count();
                for problem in problems {
                    assert!(
                        (1..=last).contains(&problem.line),
                        "{problem:?} in {text:?}"
                    );
                    assert!(!problem.text.is_empty());
                }
            }
        }
    }
    assert!(good > 50 && bad > 500, "{good} {bad}");
    let deep = format!("x = {}", "[".repeat(100_000));
    assert!(parse(&deep, &keys).is_err());
}

#[test]
fn names_with_newlines_and_control_characters_are_told_in_one_line() {
    let name = r#""a\n/etc/x.toml:1: good\u001b[2J""#;
    for text in [
        format!("{name} = 1"),
        format!("[[on_event]]\n{name} = 1\non = [\"incident\"]\nshell = \"x\""),
        format!("threshold = {{ {name} = 1 }}"),
        format!("[[on_event]]\non = [{name}]\nshell = \"x\""),
        format!("[[on_event]]\non = [\"incident\"]\nshell = \"x\"\ncgroup = {name}"),
        format!("[[on_event]]\non = [\"incident\"]\nshell = \"x\"\ntimeout = {name}"),
    ] {
        for (_, told) in problems(&text) {
            assert!(!told.contains(char::is_control), "{text}: {told:?}");
        }
    }
    let (line, told) = problems(&format!("{name} = 1")).remove(0);
    assert_eq!(line, 1);
    assert!(told.contains(r"`a\n/etc/x.toml:1: good\x1b[2J`"), "{told}");
}
