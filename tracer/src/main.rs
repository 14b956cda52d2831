//! Wires the command line to the library, and errors to exit codes.

use std::{
    io::{IsTerminal as _, Write as _},
    path::Path,
    process::ExitCode,
};

use clap::Parser as _;
use memtrace::{
    agent::{self, Config, Output, RunError},
    cli::{Cli, Command, DoctorArgs, OutputArg, RunArgs},
    doctor,
    export::otlp::OtlpConfig,
    kernel::capability::Effective,
    logger,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// `EX_NOPERM` of sysexits.h.
const NOT_PERMITTED: u8 = 77;
const WRONG_USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    logger::install();
    match cli.command {
        Command::Run(args) => run(*args),
        Command::Doctor(args) => examine(&args),
    }
}

fn examine(args: &DoctorArgs) -> ExitCode {
    let findings = doctor::examine(&args.kernel.options(), args.kernel.cgroup_root.as_deref());
    let text = if args.json {
        serde_json::to_string_pretty(&findings).unwrap_or_default()
    } else {
        findings.text()
    };
    // A reader that went away wants no more.
    let _ = writeln!(std::io::stdout(), "{text}");
    ExitCode::from(findings.verdict.exit_code())
}

fn run(args: RunArgs) -> ExitCode {
    if let Some(missing) = missing_capabilities() {
        return fail(NOT_PERMITTED, &missing);
    }
    let env = |name: &str| std::env::var(name).ok();
    let otlp = match OtlpConfig::resolve(&args.otlp, &env) {
        Ok(otlp) => otlp,
        Err(error) => return fail(WRONG_USAGE, &error.to_string()),
    };
    raise_open_files();
    let kernel = args.kernel.options();
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
        kernel,
        otlp,
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &format!("no event loop: {error}")),
    };
    match runtime.block_on(agent::run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(RunError::Load(error)) => fail(1, &doctor::load_problem(&error)),
        Err(error) => fail(1, &error.to_string()),
    }
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
            "not permitted: {} missing\nrun it as root (sudo memtrace run), or grant these capabilities",
            missing.join(" and ")
        )
    })
}

fn fail(code: u8, message: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "memtrace: {message}");
    ExitCode::from(code)
}
