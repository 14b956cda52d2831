//! Which format goes where.

use std::{
    io::{self, IsTerminal as _, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::{
    export::{
        console::duration,
        profile::{View, flamegraph, folded, json, pprof, total, tree},
    },
    stacks::profile::Profile,
};

use super::RecordError;

/// Formats by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// Flame graph
    Svg,
    /// profile.proto, compressed: `go tool pprof`, speedscope
    Pprof,
    /// A line a call path, for flamegraph.pl and others
    Folded,
    /// The first suspects as JSON
    Json,
}

/// What to write.
pub type Format = FormatArg;

/// Suspects in JSON.
const MOST_SUSPECTS: usize = 20;

/// Whether the directory of a file is there: told before a minute is spent on it.
pub(super) fn has_a_directory(path: &Path) -> Result<(), RecordError> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let directory = parent.unwrap_or(Path::new("."));
    let failed = |cause| RecordError::Write {
        path: path.to_owned(),
        cause,
    };
    match std::fs::metadata(directory) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(failed(io::ErrorKind::NotADirectory.into())),
        Err(cause) => Err(failed(cause)),
    }
}

impl FormatArg {
    /// What was written, in words.
    pub(super) fn what(self, view: View) -> String {
        let view = view.name();
        match self {
            FormatArg::Svg => format!("a flame graph for a browser, --view {view}"),
            FormatArg::Pprof => "a profile for `go tool pprof` and speedscope".to_owned(),
            FormatArg::Folded => {
                format!("folded text, a line a call path with its bytes, --view {view}")
            }
            FormatArg::Json => "the first suspects as JSON".to_owned(),
        }
    }

    /// What a file is to be.
    pub(super) fn of(path: &Path, given: Option<FormatArg>) -> Result<Self, RecordError> {
        if let Some(format) = given {
            return Ok(format);
        }
        let name = path.to_string_lossy();
        let known = [
            (".svg", FormatArg::Svg),
            (".pb.gz", FormatArg::Pprof),
            (".pprof", FormatArg::Pprof),
            (".folded", FormatArg::Folded),
            (".json", FormatArg::Json),
        ];
        known
            .into_iter()
            .find(|(end, _)| name.ends_with(end))
            .map(|(_, format)| format)
            .ok_or_else(|| RecordError::UnknownFormat(PathBuf::from(path)))
    }
}

/// Of `--view`, whose help names them all.
pub(super) fn view() -> impl TypedValueParser<Value = View> {
    PossibleValuesParser::new(View::ALL.map(View::name)).try_map(|text| {
        let mut views = View::ALL.into_iter();
        views.find(|view| view.name() == text).ok_or("no such view")
    })
}

pub(super) fn write(
    profile: &Profile,
    format: Format,
    view: View,
    mut out: impl Write,
) -> io::Result<()> {
    match (format, view) {
        (FormatArg::Svg, View::Growth) => flamegraph::write_growth(profile, &mut out)?,
        (FormatArg::Svg, view) => flamegraph::write(profile, view, &mut out)?,
        (FormatArg::Pprof, _) => pprof::write(profile, &mut out)?,
        (FormatArg::Folded, view) => folded::write(profile, view, &mut out)?,
        (FormatArg::Json, _) => {
            let suspects = json::top(profile, MOST_SUSPECTS);
            serde_json::to_writer_pretty(&mut out, &suspects)?;
            writeln!(out)?;
        }
    }
    out.flush()
}

/// Why a profile is empty, and what to do about it; `None` if it is not.
///
/// `one_in`: pages of which one was sampled.
pub(super) fn nothing(
    profile: &Profile,
    view: View,
    recorded: Duration,
    one_in: u64,
) -> Option<String> {
    if total(profile, view).bytes > 0.0 {
        return None;
    }
    let touched = total(profile, View::Touched).bytes > 0.0;
    let resident = total(profile, View::Resident).bytes > 0.0;
    let after = duration::rough(recorded.as_secs_f64());
    Some(match view {
        View::Growth if resident => format!(
            "nothing grew in the second half of {after}; record longer with -d, or see --view resident"
        ),
        View::Resident | View::Growth if touched => format!(
            "all memory that was touched in {after} was given back again; --view touched shows which code it was"
        ),
        View::Mapped => format!(
            "no mmap and no brk was seen in {after}; record longer with -d, or see --view resident"
        ),
        View::Resident | View::Growth | View::Touched => {
            let (share, denser) = match one_in {
                1 => (String::new(), ""),
                _ => (
                    format!(", and one in {one_in} of them is sampled"),
                    ", or with --sample 1",
                ),
            };
            format!(
                "no page was sampled in {after}: memory that was there before is not seen, only new pages \
                 are{share}; record longer with -d, under load{denser}"
            )
        }
    })
}

/// The heaviest call paths, for the terminal that there is.
pub(super) fn tree(profile: &Profile, view: View, mut out: impl Write) -> io::Result<()> {
    let stdout = io::stdout();
    let options = tree::TreeOptions {
        kind: view.kind(),
        columns: terminal_size::terminal_size().map_or(120, |(width, _)| usize::from(width.0)),
        colour: stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        ..tree::TreeOptions::default()
    };
    tree::write(profile, &options, &mut out)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stacks::{
        code::Root,
        profile::{Estimate, Kind, ProfileStack},
    };

    #[test]
    fn a_file_without_a_directory_is_refused_before_anything_is_recorded() {
        assert!(has_a_directory(Path::new("a.svg")).is_ok());
        assert!(has_a_directory(Path::new("/a.svg")).is_ok());
        let missing = has_a_directory(Path::new("/no/such/directory/a.svg")).unwrap_err();
        assert_eq!(missing.exit_code(), 1);
        assert!(has_a_directory(Path::new("/dev/null/a.svg")).is_err());
    }

    #[test]
    fn the_name_of_a_file_says_what_it_is_to_be() {
        let of = |path: &str| FormatArg::of(Path::new(path), None);
        assert_eq!(of("a.svg").unwrap(), FormatArg::Svg);
        assert_eq!(of("x/heap.pb.gz").unwrap(), FormatArg::Pprof);
        assert_eq!(of("a.b.folded").unwrap(), FormatArg::Folded);
        for unknown in ["heap", "heap.txt"] {
            let error = of(unknown).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(".folded (text)"), "{error}");
        }
        let given = FormatArg::of(Path::new("heap"), Some(FormatArg::Json));
        assert_eq!(given.unwrap(), FormatArg::Json);
    }

    fn profile(kind: Kind, touched: f64, resident: f64, growth: f64) -> Profile {
        let estimate = |bytes| Estimate {
            bytes,
            error_bytes: 0.0,
        };
        let now = std::time::SystemTime::UNIX_EPOCH;
        Profile {
            scope: "a".into(),
            programs: Vec::new(),
            from: now,
            until: now,
            base: now,
            pages_per_sample: 64,
            anon_bytes: None,
            lost_samples: 0,
            stacks: vec![ProfileStack {
                pid: 1,
                comm: "a".into(),
                kind,
                frames: [].into(),
                root: Root::Reached,
                resident: estimate(resident),
                growth: estimate(growth),
                touched: estimate(touched),
                samples: 1,
                oldest: Duration::ZERO,
                median_age: Duration::ZERO,
            }],
        }
    }

    #[test]
    fn what_was_written_is_said_in_words() {
        let folded = FormatArg::of(Path::new("a.folded"), None).unwrap();
        assert_eq!(
            folded.what(View::Growth),
            "folded text, a line a call path with its bytes, --view growth"
        );
    }

    #[test]
    fn an_empty_profile_says_why_and_another_nothing() {
        let minute = Duration::from_secs(60);
        let of = |touched, resident, growth, view| {
            nothing(
                &profile(Kind::Resident, touched, resident, growth),
                view,
                minute,
                64,
            )
        };
        assert_eq!(of(9.0, 5.0, 1.0, View::Growth), None);
        for (told, part) in [
            (of(9.0, 5.0, 0.0, View::Growth), "nothing grew"),
            (of(9.0, 0.0, 0.0, View::Growth), "given back"),
            (of(9.0, 0.0, 0.0, View::Resident), "--view touched"),
            (of(0.0, 0.0, 0.0, View::Resident), "one in 64"),
            (of(0.0, 0.0, 0.0, View::Touched), "--sample 1"),
            (of(9.0, 9.0, 9.0, View::Mapped), "no mmap"),
        ] {
            assert!(
                told.as_ref().is_some_and(|told| told.contains(part)),
                "{told:?}"
            );
        }
        let nobody = profile(Kind::Resident, 0.0, 0.0, 0.0);
        let every = nothing(&nobody, View::Resident, minute, 1).unwrap();
        assert!(
            every.ends_with("; record longer with -d, under load"),
            "{every}"
        );
        assert!(!every.contains("one in"), "{every}");
        let mapped = profile(Kind::Mapped, 0.0, 9.0, 0.0);
        assert_eq!(nothing(&mapped, View::Mapped, minute, 64), None);
        let told = nothing(&mapped, View::Resident, minute, 64).unwrap();
        assert!(told.contains("no page was sampled in 1m00s"), "{told}");
    }

    #[test]
    fn views_are_named() {
        let command =
            || clap::Command::new("test").arg(clap::Arg::new("view").value_parser(view()));
        let matches = command().try_get_matches_from(["test", "growth"]).unwrap();
        assert_eq!(matches.get_one("view"), Some(&View::Growth));
        let refused = command()
            .try_get_matches_from(["test", "grow"])
            .unwrap_err();
        assert!(
            refused
                .to_string()
                .contains("resident, growth, touched, mapped"),
            "{refused}"
        );
    }
}
