//! `memtrace record`: samples some processes for a while and writes whose code holds the memory.
//!
//! Loads programs of its own, so that it works beside a running agent. Must not format profiles.

mod output;
mod progress;
mod targets;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use clap::Args;
use globset::GlobMatcher;
use thiserror::Error;

use crate::{
    agent::signals::Signals,
    cli,
    export::profile::View,
    host::{CgroupHierarchy, HostError, ProcRoot, pattern::cgroup_glob},
    identity::{
        options::{NamingArgs, NamingError, Process},
        pod_name::{self, NamespacedPod},
        sources::SourcesError,
    },
    loader::{LoadError, Loader, Options},
    size,
    stacks::{
        limits::{CollectorLimits, Only},
        losses::StackLosses,
        profile::Profile,
        service::StackService,
    },
    symbols::{Limits, Symbols},
};

use output::Format;
pub use output::FormatArg;
use progress::Progress;
use targets::Targets;

/// Shown below the help.
pub const EXAMPLES: &str = "\
Examples:
  sudo memtrace record --pid 4711                    the heaviest call paths of a process, after a minute
  sudo memtrace record --cgroup '/kubepods*/podab*' -d 10m -o pod.svg
                                                     a flame graph of what a pod holds
  sudo memtrace record --pod shop/cart-7d4f -d 5m    the same of a pod of this node
  sudo memtrace record --pid 4711 --view growth -o growth.svg
                                                     what grew (red) and shrank (blue) in the second half
  sudo memtrace record --pid 4711 -o heap.pb.gz      for `go tool pprof` and speedscope

Only memory that is touched while it records is seen; of that, what is still resident at the end.
Programs that were compiled without frame pointers are unwound by their .eh_frame.";

/// Time between two looks for new cgroups, and between two lines of progress.
const TICK: Duration = Duration::from_secs(1);
/// Call paths that get names; the rest is far below any sampling error.
const MOST_PATHS: usize = 4096;

/// Arguments of `memtrace record`.
#[derive(Debug, Clone, Args)]
#[command(group = clap::ArgGroup::new("whose").required(true).multiple(true).args(["pid", "cgroup", "pod"]))]
pub struct RecordArgs {
    /// Cgroups whose path matches, also those made meanwhile: '*' matches any characters, '/' included; a
    /// name without '/' is found at any depth
    #[arg(short, long, value_name = "GLOB", value_parser = cgroup_glob)]
    pub cgroup: Option<GlobMatcher>,

    /// A process; may be repeated
    #[arg(short, long, value_name = "PID", conflicts_with_all = ["cgroup", "pod"])]
    pub pid: Vec<u32>,

    /// A pod of this node, by namespace and name
    #[arg(long, value_name = "NAMESPACE/NAME", conflicts_with = "cgroup", value_parser = pod_name::parse_namespaced)]
    pub pod: Option<NamespacedPod>,

    /// Record this long, or until Ctrl-C: 60s, 10m, 2h
    #[arg(short, long, default_value = "60s", value_parser = cli::duration)]
    pub duration: Duration,

    /// Write to this file, as its name says: .svg (flame graph), .pb.gz (pprof), .folded (text: a line a
    /// call path), .json (the first suspects)
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// What to write, where the name of the file does not say
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<FormatArg>,

    /// What a flame graph or folded text shows: memory that is resident, its growth in the second half,
    /// all that was touched, or address space from mmap and brk
    #[arg(long, default_value = "resident", value_name = "VIEW", value_parser = output::view())]
    pub view: View,

    /// Print the heaviest call paths as a tree, also if a file is written; it is printed where there is none
    #[arg(long)]
    pub top: bool,

    /// Sample one page in N, a power of two up to 65536: fewer cost less and tell less
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = sample)]
    pub sample: u64,

    /// Where cgroups are mounted, if not where /proc/self/mountinfo says
    #[arg(long, value_name = "DIR")]
    pub cgroup_root: Option<PathBuf>,

    #[command(flatten)]
    pub names: NamingArgs,
}

fn sample(text: &str) -> Result<u64, String> {
    match text.parse::<u64>() {
        Ok(n) if n.is_power_of_two() && n <= 1 << 16 => Ok(n),
        _ => Err("write a power of two up to 65536".to_owned()),
    }
}

/// Why nothing was recorded.
#[derive(Debug, Error)]
pub enum RecordError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error("no process {0}: it has ended, or is of another PID namespace")]
    NoProcess(u32),
    #[error(
        "{name} is a thread of the kernel: it has no user memory whose pages could be sampled; \
         name a process, as `ps -e` lists them without brackets"
    )]
    KernelThread {
        /// With its PID.
        name: String,
    },
    #[error("{0}")]
    NoCgroup(String),
    #[error(transparent)]
    Naming(#[from] NamingError),
    #[error(transparent)]
    Sources(#[from] SourcesError),
    #[error(
        "no cgroup of pod {0} on this node, as far as names are known; `memtrace doctor` says who names containers"
    )]
    NoPod(NamespacedPod),
    #[error("page faults come without the address that was touched: {0}")]
    NoFaultHook(String),
    #[error("nothing says what to write to {}: name it .svg (flame graph), .pb.gz (pprof), .folded (text) or .json, or give --format", .0.display())]
    UnknownFormat(PathBuf),
    #[error("cannot write {}: {cause}", path.display())]
    Write { path: PathBuf, cause: io::Error },
    #[error("cannot start: {0}")]
    Start(io::Error),
}

impl RecordError {
    /// 2 for wrong usage, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            RecordError::UnknownFormat(_) | RecordError::Naming(_) => 2,
            _ => 1,
        }
    }
}

/// Records, and writes what was asked for.
///
/// # Errors
/// See [`RecordError`]. A closed standard output is none.
pub async fn run(args: RecordArgs) -> Result<(), RecordError> {
    let file = match &args.output {
        Some(path) => {
            output::has_a_directory(path)?;
            Some((path.clone(), Format::of(path, args.format)?))
        }
        None => None,
    };
    let stdout_format = match (&file, args.format) {
        (None, Some(format)) => Some(Format::from(format)),
        (None, None) => None,
        (Some(_), _) => None,
    };
    let mut signals = Signals::new().map_err(RecordError::Start)?;
    let hierarchy = CgroupHierarchy::detect(&ProcRoot::default(), args.cgroup_root.as_deref())?;
    let mut targets = match &args.pod {
        Some(pod) => {
            let naming = args.names.resolve(&Process)?;
            Targets::of_pod(&hierarchy, naming, pod.clone()).await?
        }
        None => Targets::new(&hierarchy, args.cgroup.clone(), args.pid.clone())?,
    };
    let mut loader = Loader::load(&Options {
        stacks: true,
        only: Some(&["fault.", "heap.mmap", "heap.brk", "heap.break"]),
        ..Options::default()
    })?;
    if let Some(refusal) = loader.lacks_fault_addresses() {
        return Err(RecordError::NoFaultHook(refusal));
    }
    let counts = loader.counts()?;
    let mut limits = CollectorLimits::default();
    limits.density.usual_shift = args.sample.ilog2();
    limits.only = Some(Only {
        cgroups: targets.cgroups().clone(),
        pids: targets.pids(),
    });
    let began = SystemTime::now();
    let service =
        StackService::start(loader.stack_samples()?, limits, None).map_err(RecordError::Start)?;

    let progress = Progress::new(args.duration);
    let started = Instant::now();
    let mut halved = false;
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            () = signals.any() => break,
            () = targets.heard() => continue,
            _ = tick.tick() => {}
        }
        if started.elapsed() >= args.duration {
            break;
        }
        if !halved && started.elapsed() >= args.duration / 2 {
            service.restart();
            halved = true;
        }
        for id in targets.refresh(&hierarchy) {
            service.include(id);
        }
        if targets.have_ended() {
            break;
        }
        progress.tell(started.elapsed(), service.sizes_now());
    }
    progress.end();
    let recorded = started.elapsed();
    let raw = service.profile(targets.selection()).await;
    let sizes = service.sizes_now();
    drop(service);
    let lost = lost(&counts.drops(), &sizes.losses);
    if let Some(causes) = told(&lost) {
        let _ = writeln!(io::stderr(), "memtrace: samples were lost: {causes}");
    }
    // No program runs while symbols are read.
    drop(loader);
    let Some(raw) = raw else {
        return Err(RecordError::Start(io::Error::other(
            "the sampler has ended",
        )));
    };
    let mut symbols = Symbols::new(Limits::default());
    let profile = raw.named(
        &mut symbols,
        targets.scope(),
        began,
        lost.iter().map(|(_, count)| count).sum(),
        MOST_PATHS,
    );
    write(&args, &profile, file, stdout_format)?;
    if let Some(why) = output::nothing(&profile, args.view, recorded, args.sample) {
        let _ = writeln!(io::stderr(), "memtrace: {why}");
    }
    Ok(())
}

/// Samples that were lost, by cause.
fn lost(drops: &[(&'static str, u64)], losses: &StackLosses) -> Vec<(&'static str, u64)> {
    let kernel = drops
        .iter()
        .filter(|(cause, _)| cause.starts_with("stack_"));
    let collector = [
        ("stack_not_decoded", losses.undecoded),
        ("stack_process_gone", losses.process_gone),
        ("stack_process_unreadable", losses.process_unreadable),
        ("stack_page_evicted", losses.pages_evicted),
    ];
    kernel.copied().chain(collector).collect()
}

fn told(lost: &[(&'static str, u64)]) -> Option<String> {
    let causes: Vec<String> = lost
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(cause, count)| format!("{count} {cause}"))
        .collect();
    (!causes.is_empty()).then(|| causes.join(", "))
}

fn write(
    args: &RecordArgs,
    profile: &Profile,
    file: Option<(PathBuf, Format)>,
    stdout_format: Option<Format>,
) -> Result<(), RecordError> {
    let wrote_file = file.is_some();
    if let Some((path, format)) = file {
        let failed = |cause| RecordError::Write {
            path: path.clone(),
            cause,
        };
        let mut bytes = Vec::new();
        output::write(profile, format, args.view, &mut bytes).map_err(failed)?;
        std::fs::write(&path, &bytes).map_err(failed)?;
        let written = size::bytes(bytes.len() as u64);
        let _ = writeln!(
            io::stderr(),
            "memtrace: wrote {} ({written}): {}",
            path.display(),
            format.what(args.view)
        );
    }
    let stdout = |result: io::Result<()>| match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(RecordError::Write {
            path: "standard output".into(),
            cause: error,
        }),
        _ => Ok(()),
    };
    match stdout_format {
        Some(format) => stdout(output::write(
            profile,
            format,
            args.view,
            io::stdout().lock(),
        ))?,
        None if args.top || !wrote_file => {
            stdout(output::tree(profile, args.view, io::stdout().lock()))?;
        }
        None => {}
    }
    Ok(())
}
