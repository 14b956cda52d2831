//! Which format goes where.

use std::{
    io::{self, IsTerminal as _, Write},
    path::{Path, PathBuf},
};

use clap::ValueEnum;

use crate::{
    export::profile::{View, flamegraph, folded, json, pprof, tree},
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
            (".txt", FormatArg::Folded),
            (".json", FormatArg::Json),
        ];
        known
            .into_iter()
            .find(|(end, _)| name.ends_with(end))
            .map(|(_, format)| format)
            .ok_or_else(|| RecordError::UnknownFormat(PathBuf::from(path)))
    }
}

pub(super) fn view(text: &str) -> Result<View, String> {
    View::ALL
        .into_iter()
        .find(|view| view.name() == text)
        .ok_or_else(|| {
            let names: Vec<&str> = View::ALL.iter().map(|view| view.name()).collect();
            format!("write one of {}", names.join(", "))
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
        let error = of("heap").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(".svg"), "{error}");
        let given = FormatArg::of(Path::new("heap"), Some(FormatArg::Json));
        assert_eq!(given.unwrap(), FormatArg::Json);
    }

    #[test]
    fn views_are_named() {
        assert_eq!(view("growth").unwrap(), View::Growth);
        assert!(view("grow").unwrap_err().contains("growth"));
    }
}
