//! `memtrace config`: checks, shows and makes a configuration file. Needs no privileges and no agent.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::{ArgMatches, Args, Subcommand};
use thiserror::Error;

use crate::cli::RunArgs;

use super::{
    example,
    file::DEFAULT_PATH,
    layers::CommandLine,
    problem::{self, ConfigError},
    show,
};

const EXAMPLES: &str = "\
Examples:
  memtrace config example | sudo tee /etc/memtrace/memtrace.toml
                                              a file with every key, commented out
  memtrace config check                       what is wrong with the file, by line
  memtrace config show                        what holds, and where each value came from
  memtrace config show --config ./new.toml --interval 1s
                                              what would hold with this file and flag
  sudo systemctl reload memtrace              take over what can be taken over

Exit codes: 0 done, 1 the file has problems, 2 wrong usage.";

/// `memtrace config`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct ConfigArgs {
    #[command(subcommand)]
    pub command: ConfigCommand,
}

#[derive(Subcommand)]
pub enum ConfigCommand {
    /// Say everything that is wrong with a file, by line
    #[command(after_help = "Exit codes: 0 it can be used, 1 it cannot, 2 wrong usage.")]
    Check {
        /// Which file [default: what `memtrace run` would take]
        file: Option<PathBuf>,
    },
    /// Print what holds of every option and where it came from; takes the flags of `memtrace run`
    #[command(after_help = "Values that are secret are not shown.")]
    Show {
        /// Print one JSON object
        #[arg(long)]
        json: bool,

        #[command(flatten)]
        run: Box<RunArgs>,
    },
    /// Print a file with every key, its meaning and its default
    Example,
}

/// `memtrace config` could not do it.
#[derive(Debug, Error)]
pub enum CommandError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("there is no {DEFAULT_PATH}; name a file, or make one: memtrace config example")]
    NoFile,
    #[error("cannot write the output: {0}")]
    Output(io::Error),
}

/// Runs it. `matches` are those of `memtrace config`.
///
/// # Errors
/// What is wrong with the file.
pub fn run(
    args: &ConfigArgs,
    matches: &ArgMatches,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let result = match &args.command {
        ConfigCommand::Check { file } => {
            let line = CommandLine::asking_for(file.clone());
            let path = line.path().ok_or(CommandError::NoFile)?;
            line.load()?;
            writeln!(out, "{}: good", problem::shown(&path))
        }
        ConfigCommand::Show { json, .. } => {
            let matches = matches.subcommand_matches("show").unwrap_or(matches);
            let layers = CommandLine::of(matches).load()?;
            match json {
                true => show::json(&layers, out),
                false => show::text(&layers, out),
            }
        }
        ConfigCommand::Example => out.write_all(example::text().as_bytes()),
    };
    match result.and_then(|()| out.flush()) {
        // A reader that went away wants no more.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CommandError::Output(error)),
        _ => Ok(()),
    }
}
