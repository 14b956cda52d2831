//! Entry point of `cargo xtask`: parses the command line and hands over to one module per command.
//! Adding a command takes a module with an `Args` struct and a `run` function, a variant of
//! [`Command`] and an arm in [`dispatch`]. No command logic belongs here.

mod apt;
mod artifacts;
mod backends;
mod bench;
mod beside;
mod cargo_program;
mod cross;
mod deny;
mod deps;
mod dist;
mod ebpf;
mod fuzz;
mod leaks;
mod process;
mod rivals;
mod run;
mod soak;
mod test;
mod tracefs;
#[cfg(test)]
mod unsafe_code;
mod vm;
mod vmstat;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use workspace::Workspace;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Developer commands of memtrace",
    version
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Rebuild the prebuilt BPF object, or check that it matches its sources
    Ebpf(ebpf::Args),
    /// Run the end-to-end tests in virtual machines of several kernels
    Vm(vm::Args),
    /// Check that the workspace compiles for arm64, or build it
    Cross(cross::Args),
    /// Run every check and test of the project
    Test(test::Args),
    /// Check licences, sources and doubles of all dependencies by deny.toml
    Deny(deny::Args),
    /// Build memtrace and start it on this host
    Run(run::Args),
    /// Build the Debian package
    Dist(dist::Args),
    /// Fuzz every parser of untrusted bytes
    Fuzz(fuzz::Args),
    /// Measure what tracing costs, and write docs/benchmarks.md
    Bench(bench::Args),
    /// A load that `bench` measures
    #[command(hide = true)]
    BenchLoad(bench::load::Args),
    /// Run one load beside memtrace and other tools, and write docs/rivals.md
    Rivals(rivals::Args),
    /// What `rivals` runs in a virtual machine
    #[command(hide = true)]
    RivalsInside(rivals::InsideArgs),
    /// Make and destroy thousands of containers beside one agent, to see that nothing of it grows
    Soak(soak::Args),
    /// Compare the leak analysis with other rules on simulated containers, and write docs/leaks.md
    Leaks(leaks::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A backtrace of xtask, which anyhow would add, says nothing about the cause.
            eprintln!("xtask: error: {error}");
            for cause in error.chain().skip(1) {
                eprintln!("  because: {cause}");
            }
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Result<()> {
    // Where a load runs there may be no checkout, and asking cargo would disturb what is measured.
    let workspace = Workspace::locate;
    match command {
        Command::Ebpf(args) => ebpf::run(&workspace()?, &args),
        Command::Vm(args) => vm::run(&workspace()?, &args),
        Command::Cross(args) => cross::run(&workspace()?, &args),
        Command::Test(args) => test::run(&workspace()?, &args),
        Command::Deny(args) => deny::run(&workspace()?, &args),
        Command::Dist(args) => dist::run(&workspace()?, &args),
        Command::Run(args) => run::run(&workspace()?, &args),
        Command::Fuzz(args) => fuzz::run(&workspace()?, &args),
        Command::Bench(args) => bench::run(&workspace()?, &args),
        Command::BenchLoad(args) => bench::load::run(&args),
        Command::Rivals(args) => rivals::run(&workspace()?, &args),
        Command::RivalsInside(args) => rivals::inside(&args),
        Command::Soak(args) => soak::run(&workspace()?, &args),
        Command::Leaks(args) => leaks::run(&workspace()?, &args),
    }
}
