//! Wires the command line to the library, and errors to exit codes.

use std::{
    io::{BufWriter, IsTerminal as _, Write as _},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};
use memtrace::{
    agent::{self, ApiAt, Config, Output, RunError, signals},
    analyze::{self, AnalyzeArgs, Outcome},
    api::records::DEFAULT_SOCKET,
    cli::{Cli, Command, DoctorArgs, OomArgs, OutputArg, Switch},
    config::{self, CommandLine, ConfigArgs, reload::Reloader},
    doctor,
    host::escape,
    identity::options::NamingConfig,
    incidents::{self, IncidentsArgs, Screen},
    kernel::capability::Effective,
    leaks::{self, LeaksArgs},
    loader as kernel, logger,
    record::{self, RecordArgs, RecordError},
    report::{self, ReportArgs},
    symbols,
    top::{self, Place, TopArgs, TopError},
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// `EX_NOPERM` of sysexits.h.
const NOT_PERMITTED: u8 = 77;
const WRONG_USAGE: u8 = 2;
/// Of a line of an error.
const MOST_ERROR_CHARS: usize = 8192;
/// `analyze` or `leaks` found what it was told to fail on.
const FOUND: u8 = 3;

fn main() -> ExitCode {
    if let Err(error) = signals::reset_inherited() {
        return fail(1, &format!("signals cannot be set up: {error}"));
    }
    let matches = Cli::command().get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    logger::install();
    let of_command = matches
        .subcommand()
        .map_or(&matches, |(_, matches)| matches);
    match cli.command {
        // What was given is laid over a file first.
        Command::Run(_) => run(CommandLine::of(of_command)),
        Command::Config(args) => configure(&args, of_command),
        Command::Oom(args) => oom(*args),
        Command::Record(args) => record(*args),
        Command::Incidents(args) => incidents(&args),
        Command::Leaks(args) => leaks(&args),
        Command::Report(args) => report(&args),
        Command::Analyze(args) => analyze(&args),
        Command::Top(args) => top(&args),
        Command::Doctor(args) => examine(&args),
        Command::Symbolize => match symbols::serve() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(1, &error.to_string()),
        },
        Command::Completions { shell } => {
            let mut command = Cli::command();
            clap_complete::generate(shell, &mut command, "memtrace", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        Command::Manual { directory } => {
            match clap_mangen::generate_to(Cli::command(), &directory) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(1, &format!("{}: {error}", directory.display())),
            }
        }
    }
}

fn screen(stdout: &std::io::Stdout) -> Screen {
    let is_terminal = stdout.is_terminal();
    let size = is_terminal.then(terminal_size::terminal_size).flatten();
    Screen {
        colour: is_terminal && std::env::var_os("NO_COLOR").is_none(),
        width: size.map(|(width, _)| usize::from(width.0)),
    }
}

fn incidents(args: &IncidentsArgs) -> ExitCode {
    let stdout = std::io::stdout();
    let screen = screen(&stdout);
    let mut out = BufWriter::new(stdout.lock());
    match incidents::run(args, screen, &mut out, &mut std::io::stderr()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.exit_code(), &error.to_string()),
    }
}

fn leaks(args: &LeaksArgs) -> ExitCode {
    let stdout = std::io::stdout();
    let screen = screen(&stdout);
    let mut out = BufWriter::new(stdout.lock());
    match leaks::run(args, screen, &mut out, &mut std::io::stderr()) {
        Ok(leaks::Outcome::Done) => ExitCode::SUCCESS,
        Ok(leaks::Outcome::Reached) => ExitCode::from(FOUND),
        Err(error) => fail(error.exit_code(), &error.to_string()),
    }
}

fn report(args: &ReportArgs) -> ExitCode {
    let mut out = BufWriter::new(std::io::stdout().lock());
    match report::run(args, &mut out, &mut std::io::stderr()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.exit_code(), &error.to_string()),
    }
}

fn record(args: RecordArgs) -> ExitCode {
    if let Some(missing) = missing_capabilities() {
        return fail(NOT_PERMITTED, &missing);
    }
    raise_open_files();
    return_large_blocks();
    let runtime = match event_loop() {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &format!("no event loop: {error}")),
    };
    match runtime.block_on(record::run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(RecordError::Load(error)) => fail(1, &doctor::load_problem(&error)),
        Err(error) => fail(error.exit_code(), &error.to_string()),
    }
}

fn top(args: &TopArgs) -> ExitCode {
    let place = match top::find(args) {
        Ok(place) => place,
        Err(error) => return fail(error.exit_code(), &error.to_string()),
    };
    if let (Place::Own, Some(missing)) = (&place, missing_capabilities()) {
        let message = format!("no agent runs, and to trace without one is {missing}");
        return fail(NOT_PERMITTED, &message);
    }
    raise_open_files();
    return_large_blocks();
    match top::run(args, place) {
        Ok(()) => ExitCode::SUCCESS,
        Err(TopError::Own(RunError::Load(error))) => fail(1, &doctor::load_problem(&error)),
        Err(error) => fail(error.exit_code(), &error.to_string()),
    }
}

fn event_loop() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

fn analyze(args: &AnalyzeArgs) -> ExitCode {
    let stdout = std::io::stdout();
    let colour = stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let mut out = BufWriter::new(stdout.lock());
    match analyze::run(args, colour, &mut out, &mut std::io::stderr()) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Reached) => ExitCode::from(FOUND),
        Err(error) => fail(error.exit_code(), &error.to_string()),
    }
}

fn examine(args: &DoctorArgs) -> ExitCode {
    let findings = doctor::examine(
        &args.kernel.options(),
        args.kernel.cgroup_root.as_deref(),
        &args.names,
    );
    let text = if args.json {
        serde_json::to_string_pretty(&findings).unwrap_or_default()
    } else {
        findings.text()
    };
    match writeln!(std::io::stdout(), "{text}") {
        // A reader that went away wants no more.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            fail(1, &format!("cannot write to standard output: {error}"))
        }
        _ => ExitCode::from(findings.verdict.exit_code()),
    }
}

fn configure(args: &ConfigArgs, matches: &ArgMatches) -> ExitCode {
    match config::run(args, matches, &mut BufWriter::new(std::io::stdout().lock())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &error.to_string()),
    }
}

fn run(line: CommandLine) -> ExitCode {
    if let Some(missing) = missing_capabilities() {
        return fail(NOT_PERMITTED, &missing);
    }
    let layers = match line.load() {
        Ok(layers) => layers,
        Err(error) => return fail(WRONG_USAGE, &error.to_string()),
    };
    let reloader = Reloader::new(line, &layers);
    let (args, resolved) = (layers.args, layers.resolved);
    raise_open_files();
    return_large_blocks();
    let kernel = kernel::Options {
        command_lines: !args.incidents.no_command_lines,
        oom_killers: args.incidents.oom_killer,
        ..args.kernel.options()
    };
    let config = Config {
        output: match args.output {
            Some(OutputArg::Table) => Output::Table,
            Some(OutputArg::Json) => Output::Json,
            Some(OutputArg::None) => Output::None,
            None if std::io::stdout().is_terminal() => Output::Table,
            None => Output::Json,
        },
        interval: args.interval,
        duration: args.duration,
        cgroup: args.cgroup,
        cgroup_root: args.kernel.cgroup_root,
        state_dir: Some(args.state_dir),
        stall_after: args.incidents.stall_after,
        thresholds: resolved.thresholds,
        stack_samples_per_second: (args.kernel.stacks == Switch::On)
            .then(|| f64::from(args.kernel.stack_samples)),
        kernel,
        otlp: resolved.otlp,
        naming: resolved.naming,
        listen: args.listen,
        rules: layers.rules,
        reloader: Some(reloader),
        api: args
            .api_socket
            .unwrap_or_else(|| ApiAt::Usual(DEFAULT_SOCKET.into())),
    };
    trace(config)
}

/// Only what incidents need: no heap calls, no fault samples.
fn oom(args: OomArgs) -> ExitCode {
    if let Some(missing) = missing_capabilities() {
        return fail(NOT_PERMITTED, &missing);
    }
    raise_open_files();
    if std::io::stdout().is_terminal() && !args.json {
        let _ = writeln!(
            std::io::stderr(),
            "memtrace: waiting for OOM kills; Ctrl-C ends"
        );
    }
    trace(Config {
        output: if args.json {
            Output::IncidentsJson
        } else {
            Output::Incidents
        },
        interval: Duration::from_secs(5),
        duration: args.duration,
        cgroup: args.cgroup,
        cgroup_root: args.cgroup_root,
        // The agent that runs as a service keeps them.
        state_dir: None,
        stall_after: args.incidents.stall_after,
        thresholds: None,
        stack_samples_per_second: None,
        kernel: kernel::Options {
            heap: false,
            fault_sample: 0,
            command_lines: !args.incidents.no_command_lines,
            oom_killers: args.incidents.oom_killer,
            ..kernel::Options::default()
        },
        otlp: None,
        naming: NamingConfig::default(),
        listen: None,
        rules: Vec::new(),
        reloader: None,
        // The agent that runs as a service answers.
        api: ApiAt::Nowhere,
    })
}

fn trace(config: Config) -> ExitCode {
    let runtime = match event_loop() {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &format!("no event loop: {error}")),
    };
    match runtime.block_on(agent::run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(RunError::Load(error)) => fail(1, &doctor::load_problem(&error)),
        Err(error) => fail(1, &error.to_string()),
    }
}

/// Blocks from this size on go back to the system when they are freed.
const LARGE_BLOCK: i32 = 256 << 10;

/// The allocator would keep more and more of the blocks that unwind tables and exports take for a moment.
fn return_large_blocks() {
    // SAFETY: sets a number; no other thread runs yet.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BLOCK) };
}

/// A kept descriptor per cgroup makes readings cheap: takes what the hard limit allows.
fn raise_open_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        log::debug!("the limit on open files stays at {soft}: {error}");
    }
}

/// Names what is missing to trace at all.
fn missing_capabilities() -> Option<String> {
    let effective = Effective::read(Path::new("/proc"))?;
    let missing: Vec<_> = effective
        .missing()
        .filter(|need| need.required)
        .map(|need| format!("{} (to {})", need.name, need.why))
        .collect();
    (!missing.is_empty()).then(|| {
        format!(
            "not permitted: {} missing\nrun it as root (with sudo), or grant these capabilities",
            missing.join(" and ")
        )
    })
}

fn fail(code: u8, message: &str) -> ExitCode {
    // Paths and names in it are not ours.
    let lines: Vec<_> = message
        .lines()
        .map(|line| escape::again(line, MOST_ERROR_CHARS))
        .collect();
    let shown = lines.join("\n");
    let _ = writeln!(std::io::stderr(), "memtrace: {shown}");
    ExitCode::from(code)
}
