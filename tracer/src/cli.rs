//! The command line: what can be asked of memtrace, checked before anything runs.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, sync::LazyLock, time::Duration};

use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{PossibleValue, PossibleValuesParser},
};
use globset::GlobMatcher;

use crate::{
    agent::ApiAt,
    analysis::{ThresholdError, Thresholds},
    analyze::{self, AnalyzeArgs},
    api::records::DEFAULT_SOCKET,
    config::ConfigArgs,
    export::otlp::OtlpFlags,
    host::pattern::cgroup_glob,
    identity::options::NamingArgs,
    incidents::{self, IncidentsArgs},
    leaks::{self, LeaksArgs},
    record::{self, RecordArgs},
    report::{self, ReportArgs},
    top::{self, TopArgs},
};

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
`doctor`: 0 all that is essential works, 1 degraded, 2 cannot run.
`analyze`, `leaks`: 3 something reached what --fail-on names.";

/// Where the agent keeps incidents.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/memtrace";

/// Kinds of hooks that probes have.
const HOOK_KINDS: [&str; 7] = [
    "tp_btf",
    "fentry",
    "fexit",
    "kprobe",
    "kretprobe",
    "tracepoint",
    "perf_event",
];

/// User-space OOM killers that are known by the names of their processes.
const OOM_KILLERS: [&str; 4] = ["systemd-oomd", "earlyoom", "oomd", "nohang"];

#[derive(Subcommand)]
pub enum Command {
    /// Trace this host: a live table on a terminal, JSON lines into a pipe.
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<RunArgs>),
    /// Follow OOM kills and stalls as they happen, one line each; keeps nothing, `run` does.
    #[command(after_help = OOM_EXAMPLES)]
    Oom(Box<OomArgs>),
    /// List stored incidents and show one of them, also while no agent runs.
    #[command(after_help = incidents::EXAMPLES)]
    Incidents(IncidentsArgs),
    /// Say what leaks now, how fast, who it is, and when it reaches which limit; asks the running agent.
    #[command(after_help = leaks::EXAMPLES)]
    Leaks(LeaksArgs),
    /// Tell the story of one container: what happened, who grew, what to do; HTML, Markdown or JSON.
    #[command(after_help = report::EXAMPLES)]
    Report(ReportArgs),
    /// Record which code holds the memory of processes: flame graph, pprof, or a tree in the terminal.
    #[command(after_help = record::EXAMPLES)]
    Record(Box<RecordArgs>),
    /// Judge recorded history: what leaks, since when, how fast, and when it hits the limit.
    #[command(after_help = analyze::EXAMPLES)]
    Analyze(Box<AnalyzeArgs>),
    /// Watch cgroups live, full screen: who holds memory, who grows, what leaks and which code.
    #[command(after_help = top::EXAMPLES)]
    Top(TopArgs),
    /// Say what works on this host, what does not, and how to get it.
    #[command(after_help = "Exit codes: 0 all that is essential works, 1 degraded, 2 cannot run.")]
    Doctor(DoctorArgs),
    /// Check, show or make the configuration file of `run`.
    Config(ConfigArgs),
    /// Print completions for a shell: `source <(memtrace completions bash)`
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages
    #[command(hide = true)]
    Manual {
        /// Where to
        directory: PathBuf,
    },
    /// Name places in code for the agent that started it, over the socket that is its standard input
    #[command(hide = true)]
    Symbolize,
}

const RUN_EXAMPLES: &str = "\
Examples:
  sudo memtrace run                                  watch what grows
  sudo memtrace run --cgroup '/kubepods*' -i 1s      only pods, every second
  sudo memtrace run --output json --duration 60s     a minute of JSON lines
  sudo memtrace run --output none --otlp-endpoint http://localhost:4317
                                                     feed an OpenTelemetry collector
  sudo memtrace run --config ./memtrace.toml         with options and commands at events from a file";

#[derive(Args)]
pub struct RunArgs {
    /// File with these options: flags and variables beat it; `none`: no file
    /// [default: /etc/memtrace/memtrace.toml, if it is there]
    #[arg(long, value_name = "FILE|none", env = "MEMTRACE_CONFIG")]
    pub config: Option<PathBuf>,

    /// What to write to standard output [default: table on a terminal, else json]
    #[arg(short, long, value_enum)]
    pub output: Option<OutputArg>,

    /// Time between readings: 500ms, 5s, 1m
    #[arg(short, long, default_value = "5s", value_parser = interval)]
    pub interval: Duration,

    /// Stop after this long: 60s, 10m, 2h
    #[arg(short, long, value_parser = duration)]
    pub duration: Option<Duration>,

    /// Tell only cgroups whose path matches: '*' matches any characters, '/' included; a
    /// name without '/' is found at any depth
    #[arg(short, long, value_name = "GLOB", value_parser = cgroup_glob)]
    pub cgroup: Option<GlobMatcher>,

    #[command(flatten)]
    pub kernel: KernelArgs,

    /// Where incidents are kept for `memtrace incidents`, and what the growth analysis knows
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STATE_DIR)]
    pub state_dir: PathBuf,

    #[command(flatten)]
    pub incidents: IncidentArgs,

    #[command(flatten)]
    pub growth: GrowthArgs,

    #[command(flatten)]
    pub names: NamingArgs,

    #[command(flatten, next_help_heading = "OTLP")]
    pub otlp: OtlpFlags,

    /// Answer /metrics (Prometheus), /healthz, /readyz and /status on this address: 127.0.0.1:9464
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "MEMTRACE_LISTEN",
        value_parser = address,
        help_heading = "HTTP"
    )]
    pub listen: Option<SocketAddr>,

    /// Answer other programs of this host on a Unix socket there, root's alone; `none`: nowhere
    /// [default: /run/memtrace/agent.sock]
    #[arg(
        long,
        value_name = "PATH|none",
        env = "MEMTRACE_API_SOCKET",
        value_parser = api_socket,
        help_heading = "HTTP"
    )]
    pub api_socket: Option<ApiAt>,
}

const OOM_EXAMPLES: &str = "\
Examples:
  sudo memtrace oom                                  one line for each incident
  sudo memtrace oom --json | jq .meaning             all that is known of each
  sudo memtrace oom --cgroup '/kubepods*' -d 1h      only pods, for an hour

Stalls are looked at every 5s: one is told at the first look at which it has lasted --stall-after, so after
5s at the soonest.";

#[derive(Debug, Args)]
pub struct OomArgs {
    /// Print each incident as a JSON line, as `run --output json` does
    #[arg(long)]
    pub json: bool,

    /// Stop after this long: 60s, 10m, 2h
    #[arg(short, long, value_parser = duration)]
    pub duration: Option<Duration>,

    /// Only incidents that have to do with a cgroup whose path matches
    #[arg(short, long, value_name = "GLOB", value_parser = cgroup_glob)]
    pub cgroup: Option<GlobMatcher>,

    /// Where cgroups are mounted, if not where /proc/self/mountinfo says
    #[arg(long, value_name = "DIR")]
    pub cgroup_root: Option<PathBuf>,

    #[command(flatten)]
    pub incidents: IncidentArgs,
}

/// What counts as an incident, and what is kept of it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Incidents")]
pub struct IncidentArgs {
    /// Keep no command lines of processes: they may hold secrets
    #[arg(long)]
    pub no_command_lines: bool,

    /// A cgroup pinned at its limit for this long without an OOM is an incident too
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub stall_after: Duration,

    /// Process name of a user-space OOM killer, whose signals are incidents where it has CAP_KILL and the
    /// PIDs of the host; may be repeated
    #[arg(
        long,
        value_name = "NAME",
        default_values_t = OOM_KILLERS.map(String::from),
        value_parser = oom_killer
    )]
    pub oom_killer: Vec<String>,
}

/// Whether growth is judged, and by which thresholds.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Leaks")]
pub struct GrowthArgs {
    /// Judge the growth of every cgroup; off saves about 14 KiB for each that holds 1 MiB or more
    #[arg(long, value_enum, default_value_t = Switch::On, value_name = "on|off")]
    pub leaks: Switch,

    #[command(flatten)]
    pub thresholds: ThresholdArgs,
}

/// Thresholds of the growth analysis.
#[derive(Debug, Clone, Default, Args)]
pub struct ThresholdArgs {
    /// Minutes of analysis to a minute of the clock: 60 judges minutes as if they were hours
    /// [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub time_scale: Option<f64>,

    /// Set a threshold of the analysis, as `memtrace analyze --list-thresholds` names it; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    pub threshold: Vec<Setting>,
}

/// A threshold as given: name and value.
pub type Setting = (String, f64);

impl ThresholdArgs {
    /// The thresholds as set.
    ///
    /// # Errors
    /// A value that the threshold cannot have.
    pub fn thresholds(&self) -> Result<Thresholds, ThresholdError> {
        let mut thresholds = Thresholds::default();
        let scale = self.time_scale.map(|scale| ("time_scale", scale));
        let given = self
            .threshold
            .iter()
            .map(|(name, value)| (name.as_str(), *value));
        for (name, value) in given.chain(scale) {
            thresholds.set(name, value)?;
        }
        Ok(thresholds)
    }
}

fn setting(text: &str) -> Result<Setting, String> {
    let error =
        || "write NAME=VALUE, as `memtrace analyze --list-thresholds` names them".to_owned();
    let (name, value) = text.split_once('=').ok_or_else(error)?;
    let value: f64 = value
        .trim()
        .parse()
        .map_err(|_| format!("{value:?} is no number"))?;
    Thresholds::default()
        .set(name.trim(), value)
        .map_err(|error| error.to_string())?;
    Ok((name.trim().to_owned(), value))
}

/// Which agent a command asks.
#[derive(Debug, Clone, Args)]
pub struct SocketArgs {
    /// The socket of the running agent
    #[arg(
        long,
        value_name = "PATH",
        env = "MEMTRACE_API_SOCKET",
        default_value = DEFAULT_SOCKET
    )]
    pub socket: PathBuf,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print the findings as one JSON object
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub kernel: KernelArgs,

    #[command(flatten)]
    pub names: NamingArgs,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Tracing")]
pub struct KernelArgs {
    /// Count mmap, munmap, mremap, brk and madvise; off removes their cost
    #[arg(long, value_enum, default_value_t = Switch::On, value_name = "on|off")]
    pub heap: Switch,

    /// Sample one page fault in N, a power of two, to find who is active; 0: none, and no probe of faults with
    /// --stacks off
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = power_of_two)]
    pub fault_sample: u64,

    /// Sample pages with the stacks that touched them: which code grows
    #[arg(long, value_enum, default_value_t = Switch::On, value_name = "on|off")]
    pub stacks: Switch,

    /// Pages sampled a second on the whole host; a sample costs about 55 us of CPU
    #[arg(long, default_value_t = 400, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub stack_samples: u32,

    /// Most cgroups to track; each costs about 250 bytes of kernel memory
    #[arg(long, default_value_t = 8192, value_name = "N", value_parser = clap::value_parser!(u32).range(16..=1_000_000))]
    pub max_cgroups: u32,

    /// Most processes to count one by one; each costs about 250 bytes of kernel memory
    #[arg(long, default_value_t = 16384, value_name = "N", value_parser = clap::value_parser!(u32).range(16..=4_000_000))]
    pub max_processes: u32,

    /// Tell the end of a process from this peak RSS on
    #[arg(long, default_value = "16MiB", value_name = "SIZE", value_parser = size)]
    pub exit_min_rss: u64,

    /// Never use this kind of hook, or this one hook as `doctor` names it; may be repeated
    #[arg(
        long,
        value_name = "KIND",
        value_delimiter = ',',
        value_parser = PossibleValuesParser::new(hooks())
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
            stacks: self.stacks == Switch::On,
            only: None,
            max_cgroups: self.max_cgroups,
            max_processes: self.max_processes,
            exit_min_bytes: self.exit_min_rss,
            command_lines: true,
            oom_killers: Vec::new(),
            skipped_hooks: self.skip_hook.clone(),
        }
    }
}

/// Kinds; hidden behind them every single hook, and what makes a new kernel read like an old one.
fn hooks() -> impl Iterator<Item = PossibleValue> {
    static HOOKS: LazyLock<BTreeSet<String>> = LazyLock::new(crate::loader::hooks);
    let hooks = HOOKS.iter().map(String::as_str);
    let hidden = hooks.chain([crate::loader::DIRECT_READS]);
    let hidden = hidden.map(|name| PossibleValue::new(name).hide(true));
    HOOK_KINDS.map(PossibleValue::new).into_iter().chain(hidden)
}

/// `500ms`, `5s`, `1m`, `2h`, `1d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
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
        Some(duration) if duration.is_zero() => Err("must be above 0".into()),
        Some(duration) if duration <= Duration::from_secs(366 * 86400) => Ok(duration),
        _ => Err("write a number and a unit, up to a year: 500ms, 5s, 1m, 2h".into()),
    }
}

pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval < Duration::from_millis(100) {
        return Err("shorter than 100ms would measure memtrace itself".into());
    }
    Ok(interval)
}

/// `4096`, `16MiB`, `1GiB`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
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

fn oom_killer(text: &str) -> Result<String, String> {
    let name = text.trim();
    if name.is_empty() {
        let known = OOM_KILLERS.join(", ");
        return Err(format!(
            "write the name of its process, as in /proc/PID/comm: {known}"
        ));
    }
    Ok(name.to_owned())
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "write an IP address and a port: 127.0.0.1:9464, [::1]:9464, or 0.0.0.0:9464 for all interfaces"
            .to_owned()
    })
}

fn api_socket(text: &str) -> Result<ApiAt, String> {
    match text {
        "" => Err("write the path of a socket, or none".to_owned()),
        "none" => Ok(ApiAt::Nowhere),
        path => Ok(ApiAt::Only(path.into())),
    }
}

#[cfg(test)]
#[path = "cli_tests.rs"]
mod tests;
