//! The command line: what can be asked of memtrace, checked before anything runs.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use globset::{Glob, GlobMatcher};

use crate::export::otlp::OtlpFlags;

/// Why memory grows, and why the kernel killed.
///
/// memtrace traces the memory of every container and cgroup of this host with
/// eBPF, without touching the applications.
#[derive(Parser)]
#[command(version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong usage, 77 not permitted (the missing capability is named).
`doctor`: 0 everything works, 1 degraded, 2 cannot run.";

#[derive(Subcommand)]
pub enum Command {
    /// Trace this host: a live table on a terminal, JSON lines into a pipe.
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<RunArgs>),
    /// Say what works on this host, what does not, and how to get it.
    #[command(after_help = "Exit codes: 0 everything works, 1 degraded, 2 cannot run.")]
    Doctor(DoctorArgs),
}

const RUN_EXAMPLES: &str = "\
Examples:
  sudo memtrace run                                  watch what grows
  sudo memtrace run --cgroup '/kubepods*' -i 1s      only pods, every second
  sudo memtrace run --output json --duration 60s     a minute of JSON lines
  sudo memtrace run --output none --otlp-endpoint http://localhost:4317
                                                     feed an OpenTelemetry collector";

#[derive(Args)]
pub struct RunArgs {
    /// What to write to standard output [default: table on a terminal, else json]
    #[arg(short, long, value_enum)]
    pub output: Option<OutputArg>,

    /// Time between readings: 500ms, 5s, 1m
    #[arg(short, long, default_value = "5s", value_parser = interval)]
    pub interval: Duration,

    /// Stop after this long: 60s, 10m, 2h
    #[arg(short, long, value_parser = duration)]
    pub duration: Option<Duration>,

    /// Tell only cgroups whose path matches: '*' matches any characters, '/' included
    #[arg(short, long, value_name = "GLOB", value_parser = glob)]
    pub cgroup: Option<GlobMatcher>,

    #[command(flatten)]
    pub kernel: KernelArgs,

    #[command(flatten, next_help_heading = "OTLP metrics")]
    pub otlp: OtlpFlags,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print the findings as one JSON object
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub kernel: KernelArgs,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Tracing")]
pub struct KernelArgs {
    /// Count mmap, munmap, mremap, brk and madvise; off removes their cost
    #[arg(long, value_enum, default_value_t = Switch::On, value_name = "on|off")]
    pub heap: Switch,

    /// Sample one page fault in N, a power of two; 0 turns the fault probe off
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = power_of_two)]
    pub fault_sample: u64,

    /// Most cgroups to track; each costs about 250 bytes of kernel memory
    #[arg(long, default_value_t = 8192, value_name = "N", value_parser = clap::value_parser!(u32).range(16..=1_000_000))]
    pub max_cgroups: u32,

    /// Most processes to count one by one; each costs about 250 bytes of kernel memory
    #[arg(long, default_value_t = 16384, value_name = "N", value_parser = clap::value_parser!(u32).range(16..=4_000_000))]
    pub max_processes: u32,

    /// Tell the end of a process from this peak RSS on
    #[arg(long, default_value = "16MiB", value_name = "SIZE", value_parser = size)]
    pub exit_min_rss: u64,

    /// Never use this kind of hook (tp_btf, fentry, fexit, kprobe, kretprobe, tracepoint, perf_event)
    #[arg(
        long,
        value_name = "KIND",
        value_delimiter = ',',
        hide_short_help = true
    )]
    pub skip_hook: Vec<String>,

    /// Where cgroups are mounted, if not where /proc/self/mountinfo says
    #[arg(long, value_name = "DIR")]
    pub cgroup_root: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputArg {
    Table,
    Json,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

impl KernelArgs {
    /// As the loader takes them.
    pub fn options(&self) -> crate::loader::Options {
        crate::loader::Options {
            heap: self.heap == Switch::On,
            fault_sample: self.fault_sample,
            max_cgroups: self.max_cgroups,
            max_processes: self.max_processes,
            exit_min_bytes: self.exit_min_rss,
            skipped_hooks: self.skip_hook.clone(),
        }
    }
}

/// `500ms`, `5s`, `1m`, `2h`, `1d`.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed = split(text).and_then(|(number, unit)| {
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return None,
        };
        Duration::try_from_secs_f64(number * seconds).ok()
    });
    match parsed {
        Some(duration) if !duration.is_zero() && duration <= Duration::from_secs(366 * 86400) => {
            Ok(duration)
        }
        _ => Err("write a number and a unit, up to a year: 500ms, 5s, 1m, 2h".into()),
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval < Duration::from_millis(100) {
        return Err("shorter than 100ms would measure memtrace itself".into());
    }
    Ok(interval)
}

/// `4096`, `16MiB`, `1GiB`.
fn size(text: &str) -> Result<u64, String> {
    let error = || "write a number and a unit: 4096, 512KiB, 16MiB, 1GiB".to_owned();
    let (number, unit) = split(text).ok_or_else(error)?;
    let shift = match unit {
        "" | "B" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        "T" | "TiB" => 40,
        _ => return Err(error()),
    };
    let bytes = number * (1u64 << shift) as f64;
    if bytes < 0.0 || bytes > 2f64.powi(60) {
        return Err(error());
    }
    Ok(bytes as u64)
}

fn split(text: &str) -> Option<(f64, &str)> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim()))
}

fn power_of_two(text: &str) -> Result<u64, String> {
    match text.parse::<u64>() {
        Ok(n) if n == 0 || (n.is_power_of_two() && n <= 1 << 20) => Ok(n),
        _ => Err("write 0 or a power of two up to 1048576".into()),
    }
}

fn glob(text: &str) -> Result<GlobMatcher, String> {
    Glob::new(text)
        .map(|glob| glob.compile_matcher())
        .map_err(|error| error.kind().to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_and_sizes_need_a_unit_and_sense() {
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for wrong in [
            "",
            "5",
            "s",
            "-1s",
            "1x",
            "0s",
            "9999999999h",
            "1e9s",
            "..s",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert!(interval("10ms").is_err());
        assert_eq!(size("16MiB"), Ok(16 << 20));
        assert_eq!(size("4096"), Ok(4096));
        for wrong in ["", "MiB", "16XB", "-1", "99999999T"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_fault_sample_is_a_power_of_two() {
        assert_eq!(power_of_two("64"), Ok(64));
        assert_eq!(power_of_two("0"), Ok(0));
        assert!(power_of_two("63").is_err());
    }

    #[test]
    fn a_star_matches_across_directories() {
        let glob = glob("/kubepods*").unwrap();
        assert!(glob.is_match("/kubepods/burstable/pod1"));
        assert!(!glob.is_match("/system.slice"));
    }
}
