//! Which code leaks, in programs of many languages: `memtrace record` names the leaking function first,
//! though a cache holds more and requests touch far more, and by as much as the program says itself.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use memtrace_tests::agent::number;
use memtrace_tests::compiled::Compiled;
use memtrace_tests::machine::{self, MIB};
use memtrace_tests::recording::{Figure, Recorder, Recording};
use memtrace_tests::workload::Workload;

/// The programs are done with their leak after eight seconds and what they need to start.
const RECORDED: Duration = Duration::from_secs(12);
/// Of the truth may be off once in 16,000 times: there are many figures in these tests.
const STANDARD_ERRORS: f64 = 4.0;
/// Of what a program counts, for the headers and the growth of what it keeps its blocks in.
const BESIDE: f64 = 0.02;

/// Where the machine is busy.
const MOST_LOST: u64 = 20;

const GCC: [&str; 6] = ["gcc", "-O2", "-Wall", "-Werror", "-o", "leaky"];

/// What holds which memory: words in names of functions.
struct Names {
    leak: &'static str,
    cache: &'static str,
}

/// By functions that the sources of these tests name.
const OWN: Names = Names {
    leak: "leak",
    cache: "warm_cache",
};

/// Runs the program under `memtrace record` with the usual sampling.
fn record(command: Command) -> Result<(Recording, Account, u32)> {
    let mut program = Workload::spawn(command)?;
    let pid = program.pid();
    let _map = PerfMap(pid);
    let mut recorder = Recorder::start(&["--pid", &pid.to_string()], RECORDED)?;
    program.resume()?;
    let report = program.report()?;
    ensure!(recorder.is_running()?, "the program was too slow: {report}");
    let recording = recorder.finish()?;
    let account = Account {
        leaked: number(&report, "leaked")? as f64,
        cached: number(&report, "cached")? as f64,
        touched: number(&report, "touched")? as f64,
    };
    Ok((recording, account, pid))
}

/// What a runtime tells of the functions that it compiles; removed when dropped.
struct PerfMap(u32);

impl Drop for PerfMap {
    fn drop(&mut self) {
        let _ = fs::remove_file(format!("/tmp/perf-{}.map", self.0));
    }
}

/// What the program says of itself, bytes.
#[derive(Debug)]
struct Account {
    leaked: f64,
    cached: f64,
    touched: f64,
}

fn assert_named(command: Command, names: &Names) -> Result<Recording> {
    let (recording, account, pid) = record(command)?;
    let told = recording.summary();
    println!("{account:?}\n{told}{}", recording.tree);
    ensure!(
        account.touched >= 10.0 * account.leaked && account.cached > account.leaked,
        "too easy a test: {account:?}"
    );
    ensure!(recording.lost_samples <= MOST_LOST, "{}", recording.tree);
    let others = recording.stacks.iter().find(|s| s.pid != u64::from(pid));
    ensure!(others.is_none(), "of another process: {others:?}");
    let first = &recording.stacks[0];
    ensure!(
        is_in(names.leak)(&first.functions.join("\n")),
        "{} is not the first suspect:\n{told}",
        names.leak
    );
    let leak = recording.sum(is_in(names.leak));
    assert_is("leaked", leak.resident, account.leaked, &told)?;
    let cache = recording.sum(is_in(names.cache));
    assert_is("cached", cache.resident, account.cached, &told)?;
    // The cache was full before the second half.
    ensure!(
        leak.growth.bytes > STANDARD_ERRORS * leak.growth.error,
        "the leak did not grow surely:\n{told}"
    );
    ensure!(
        cache.growth.off(0.0, 0.1 * account.cached).abs() <= STANDARD_ERRORS,
        "the cache grew:\n{told}"
    );
    Ok(recording)
}

fn is_in(word: &str) -> impl Fn(&str) -> bool + use<'_> {
    move |function| function.contains(word)
}

fn assert_is(what: &str, figure: Figure, truth: f64, told: &str) -> Result<()> {
    let off = figure.off(truth, BESIDE * truth);
    println!(
        "{what}: {:.1} of {:.1} MiB, {off:.2} standard errors off",
        figure.bytes / MIB as f64,
        truth / MIB as f64
    );
    ensure!(
        off.abs() <= STANDARD_ERRORS,
        "{what}: {figure:?}, and {truth} in truth:\n{told}"
    );
    Ok(())
}

fn c_with(flags: &[&str]) -> Result<()> {
    let source = ("leaky.c", include_str!("../programs/stacks/leaky.c"));
    let compiler = [&GCC[..], flags, &["leaky.c"]].concat();
    let Some(made) = Compiled::make(&compiler, &[source])? else {
        return Ok(());
    };
    let recording = assert_named(made.command("leaky"), &OWN)?;
    // All the way to the first function, through libc, which has no frame pointers.
    let first = &recording.stacks[0];
    ensure!(
        first.has("main") && !first.truncated,
        "{}",
        recording.summary()
    );
    Ok(())
}

#[test]
fn a_c_program_with_frame_pointers() -> Result<()> {
    c_with(&["-fno-omit-frame-pointer"])
}

#[test]
fn a_c_program_without_frame_pointers() -> Result<()> {
    c_with(&["-fomit-frame-pointer"])
}

#[test]
fn a_c_program_without_symbols_is_named_by_its_offsets() -> Result<()> {
    let source = ("leaky.c", include_str!("../programs/stacks/leaky.c"));
    let compiler = [&GCC[..], &["-fomit-frame-pointer", "-s", "leaky.c"]].concat();
    let Some(made) = Compiled::make(&compiler, &[source])? else {
        return Ok(());
    };
    let (recording, account, _) = record(made.command("leaky"))?;
    let told = recording.summary();
    // Nothing names them, and nothing else names them wrongly.
    let first = &recording.stacks[0];
    let own = first.frames.iter().filter(|frame| frame.contains("leaky"));
    let own: Vec<&String> = own.collect();
    ensure!(
        own.len() >= 3 && own.iter().all(|frame| frame.starts_with("leaky+0x")),
        "{told}"
    );
    // The call of `allocate` in `leak`: the same whether the block or its header is written to.
    let leak = recording.of_function(own[1]);
    assert_is("leaked", leak.resident, account.leaked, &told)
}

#[test]
fn a_cpp_program_by_demangled_names() -> Result<()> {
    let compiler = ["g++", "-O2", "-std=c++17", "-o", "leaky", "leaky.cpp"];
    let source = ("leaky.cpp", include_str!("../programs/stacks/leaky.cpp"));
    let Some(made) = Compiled::make(&compiler, &[source])? else {
        return Ok(());
    };
    let names = Names {
        leak: "shop::Ledger<int>::leak(unsigned long)",
        cache: "shop::Cache::warm(unsigned long)",
    };
    assert_named(made.command("leaky"), &names).map(drop)
}

#[test]
fn a_rust_program_by_demangled_names() -> Result<()> {
    let compiler = [
        "rustc",
        "-O",
        "--edition",
        "2024",
        "-o",
        "leaky",
        "leaky.rs",
    ];
    let source = ("leaky.rs", include_str!("../programs/stacks/leaky.rs"));
    let Some(made) = Compiled::make(&compiler, &[source])? else {
        return Ok(());
    };
    let names = Names {
        leak: "leaky::ledger::Ledger<",
        cache: "leaky::warm_cache",
    };
    let recording = assert_named(made.command("leaky"), &names)?;
    let told = recording.summary();
    ensure!(!told.contains("::h") && !told.contains("_ZN"), "{told}");
    // rustc links with lld, which lets segments share pages of the file.
    let first = &recording.stacks[0];
    ensure!(first.has("leaky::main") && !first.truncated, "{told}");
    Ok(())
}

#[test]
fn a_go_program() -> Result<()> {
    let source = ("leaky.go", include_str!("../programs/stacks/leaky.go"));
    let compiler = ["go", "build", "-o", "leaky", "leaky.go"];
    let Some(made) = Compiled::make(&compiler, &[source])? else {
        return Ok(());
    };
    let mut command = made.command("leaky");
    command.env("GOTRACEBACK", "none");
    let names = Names {
        leak: "main.leak",
        cache: "main.warmCache",
    };
    assert_named(command, &names).map(drop)
}

#[test]
fn a_python_program_by_the_interpreters_functions_and_its_own_where_they_are_told() -> Result<()> {
    let source = ("leaky.py", include_str!("../programs/stacks/leaky.py"));
    let Some(made) = Compiled::make(&["python3", "--version"], &[source])? else {
        return Ok(());
    };
    let version = Command::new("python3")
        .args([
            "-c",
            "import sys; sys.exit(hasattr(sys, 'activate_stack_trampoline'))",
        ])
        .status()?;
    let tells_its_functions = version.code() == Some(1);
    let mut command = Command::new("python3");
    if tells_its_functions {
        command.args(["-X", "perf"]);
    }
    // What is freed goes back to the kernel.
    command
        .arg(made.path("leaky.py"))
        .env("MALLOC_MMAP_THRESHOLD_", "131072")
        .current_dir(made.directory());
    let names = if tells_its_functions {
        Names {
            leak: "py::leak:",
            cache: "py::warm_cache:",
        }
    } else {
        machine::skip("before Python 3.12 only the interpreter's own functions have names");
        Names {
            leak: "bytes_repeat",
            cache: "unicode_repeat",
        }
    };
    let recording = assert_named(command, &names)?;
    let first = recording.stacks[0].frames.join("\n");
    ensure!(first.contains("python"), "not in the interpreter:\n{first}");
    Ok(())
}

#[test]
fn a_node_program_by_its_perf_map() -> Result<()> {
    let source = ("leaky.js", include_str!("../programs/stacks/leaky.js"));
    let Some(made) = Compiled::make(&["node", "--version"], &[source])? else {
        return Ok(());
    };
    let mut command = Command::new("node");
    command
        .args([
            "--perf-basic-prof",
            "--interpreted-frames-native-stack",
            "--expose-gc",
        ])
        .arg(made.path("leaky.js"))
        .current_dir(made.directory())
        .env("MALLOC_MMAP_THRESHOLD_", "131072");
    let names = Names {
        leak: "leak ",
        cache: "warmCache ",
    };
    assert_named(command, &names).map(drop)
}
