//! Programs that execute others, die, take ten thousand call paths, and whose files are replaced or damaged
//! while `memtrace record` looks at them: it ends well and names no function wrongly.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memtrace_tests::compiled::Compiled;
use memtrace_tests::machine::{self, MIB, PAGE};
use memtrace_tests::recording::{Recorder, Recording};
use memtrace_tests::workload::Workload;

/// All functions of hostile.c, and those that gcc adds.
const FUNCTIONS: [&str; 17] = [
    "map",
    "keep",
    "live",
    "work",
    "left",
    "right",
    "serve",
    "leak_own_page",
    "main",
    "_start",
    "_init",
    "_fini",
    "frame_dummy",
    "register_tm_clones",
    "deregister_tm_clones",
    "__do_global_dtors_aux",
    "__libc_csu_init",
];
/// And those of library.c that are called.
const LIBRARY_FUNCTIONS: [&str; 1] = ["leak_page"];
const SECTIONS_OF_UNWINDING: [&str; 2] = [".eh_frame", ".eh_frame_hdr"];
/// What `serve` keeps.
const SERVED: f64 = 80.0 * MIB as f64;
/// A few figures only: chance has one in 16,000.
const STANDARD_ERRORS: f64 = 4.0;

fn make() -> Result<Option<Compiled>> {
    let sources = [
        ("hostile.c", include_str!("../programs/stacks/hostile.c")),
        ("library.c", include_str!("../programs/stacks/library.c")),
    ];
    let compiler = [
        "gcc",
        "-O2",
        "-Wall",
        "-Werror",
        "-pthread",
        "-o",
        "hostile",
        "hostile.c",
        "-ldl",
    ];
    let made = Compiled::make(&compiler, &sources)?;
    if let Some(made) = &made {
        made.run(
            "gcc",
            &[
                "-O2",
                "-shared",
                "-fPIC",
                "-nostdlib",
                "-o",
                "library.so",
                "library.c",
            ],
        )?;
    }
    Ok(made)
}

fn start(made: &Compiled, arguments: &[&str]) -> Result<Workload> {
    let mut command = made.command("hostile");
    command.args(arguments);
    Workload::spawn(command)
}

fn record(program: &Workload, seconds: u64) -> Result<Recorder> {
    let pid = program.pid().to_string();
    Recorder::start(&["--pid", &pid], Duration::from_secs(seconds))
}

/// Every function told of the program and its library is one of theirs, and called from where it can be.
fn assert_names(recording: &Recording) -> Result<()> {
    let told = recording.summary();
    for stack in &recording.stacks {
        for frame in &stack.frames {
            let Some((function, module)) = frame.rsplit_once(" (") else {
                // Nothing names it: `module+0x1234`.
                ensure!(frame.contains("+0x") || frame.contains('…'), "{told}");
                continue;
            };
            let known = match module.trim_end_matches(')') {
                "hostile" | "hostile (deleted)" => FUNCTIONS.contains(&function),
                "library.so" => LIBRARY_FUNCTIONS.contains(&function),
                _ => true,
            };
            ensure!(
                known,
                "{frame} is not in {}:\n{told}",
                stack.functions.join(" < ")
            );
        }
        let outermost = ["main", "work", "live"];
        let inner = [
            "keep",
            "left",
            "right",
            "serve",
            "leak_own_page",
            "leak_page",
        ];
        for pair in stack.functions.windows(2) {
            let backwards =
                outermost.contains(&pair[0].as_str()) && inner.contains(&pair[1].as_str());
            ensure!(!backwards, "{} called {}:\n{told}", pair[1], pair[0]);
        }
    }
    Ok(())
}

#[test]
fn a_program_that_executes_itself_again_and_again() -> Result<()> {
    let Some(made) = make()? else {
        return Ok(());
    };
    let mut program = start(&made, &["exec"])?;
    let recorder = record(&program, 5)?;
    program.resume()?;
    let recording = recorder.finish()?;
    println!("{}{}", recording.summary(), recording.tree);
    assert_names(&recording)?;
    // One life at a time: whatever earlier ones had is gone.
    let kept = recording.of_leaf("keep").resident;
    ensure!(
        kept.bytes - STANDARD_ERRORS * kept.error <= 2.0 * MIB as f64,
        "more than one life has:\n{}",
        recording.summary()
    );
    Ok(())
}

#[test]
fn threads_that_die_leave_their_memory_with_their_names() -> Result<()> {
    let Some(made) = make()? else {
        return Ok(());
    };
    let mut program = start(&made, &["threads"])?;
    let recorder = record(&program, 6)?;
    program.resume()?;
    ensure!(program.line()? == "done");
    let recording = recorder.finish()?;
    println!("{}{}", recording.summary(), recording.tree);
    assert_names(&recording)?;
    let kept = recording.of_function("work").resident;
    let off = kept.off(100.0 * MIB as f64, 2.0 * MIB as f64);
    ensure!(off.abs() <= STANDARD_ERRORS, "{}", recording.summary());
    Ok(())
}

#[test]
fn a_process_that_is_killed_while_it_is_recorded() -> Result<()> {
    let Some(made) = make()? else {
        return Ok(());
    };
    let mut program = start(&made, &["serve"])?;
    let recorder = record(&program, 30)?;
    program.resume()?;
    ensure!(program.line()? == "loaded");
    program.resume()?;
    thread::sleep(Duration::from_millis(1500));
    // Killed, and reaped: nothing of it is left in /proc.
    drop(program);
    let recording = recorder.finish()?;
    println!("{}{}", recording.summary(), recording.tree);
    assert_names(&recording)?;
    let kept = recording.of_function("serve").resident.bytes;
    ensure!(
        kept > 4.0 * MIB as f64 && kept < 1.5 * SERVED,
        "what it had when it was seen last is lost:\n{}",
        recording.summary()
    );
    Ok(())
}

/// Path of calls by the bits of a number, as hostile.c takes it.
fn number_of(path: &str) -> Option<usize> {
    let turns = path.split(';').filter_map(|function| match function {
        "left" => Some(0),
        "right" => Some(1),
        _ => None,
    });
    let turns: Vec<usize> = turns.collect();
    (turns.len() == 15).then(|| turns.iter().fold(0, |number, turn| number << 1 | turn))
}

/// With those of its start as many as it remembers.
#[test]
fn ten_thousand_call_paths_are_told_apart() -> Result<()> {
    const PATHS: usize = 9_900;
    let Some((told, lost, _)) = record_paths(PATHS)? else {
        return Ok(());
    };
    let mut numbers = BTreeSet::new();
    let mut bytes = 0;
    for (path, count) in &told {
        if let Some(number) = number_of(path) {
            ensure!(number < PATHS, "there is no path {number}: {path}");
            ensure!(numbers.insert(number), "path {number} is told twice");
            assert_eq!(
                *count, PAGE,
                "each has one page, and all are sampled: {path}"
            );
        }
        if path.contains("hostile") {
            bytes += count;
        }
    }
    println!(
        "{} of {PATHS} named, {bytes} bytes, {lost} lost",
        numbers.len()
    );
    ensure!(numbers.len() >= 4000, "only {} have names", numbers.len());
    let all = PATHS as u64 * PAGE;
    let missing = all.saturating_sub(bytes);
    ensure!(
        missing <= lost * PAGE && bytes < all + MIB,
        "{bytes} of {all} bytes, and {lost} samples lost"
    );
    Ok(())
}

/// More than it remembers: what it forgets, it says.
#[test]
fn twenty_thousand_call_paths_are_too_many_and_that_is_told() -> Result<()> {
    const PATHS: usize = 20_000;
    let Some((told, lost, peak_rss)) = record_paths(PATHS)? else {
        return Ok(());
    };
    for path in told.keys() {
        let number = number_of(path).unwrap_or(0);
        ensure!(number < PATHS, "there is no path {number}: {path}");
    }
    let bytes: u64 = told.values().sum();
    println!("{bytes} bytes, {lost} lost, at most {} MiB", peak_rss / MIB);
    let missing = (PATHS as u64 * PAGE).saturating_sub(bytes);
    ensure!(
        missing <= lost * PAGE,
        "{missing} bytes are missing, and only {lost} samples are said to be lost"
    );
    ensure!(peak_rss < 300 * MIB, "memtrace took {peak_rss} bytes");
    Ok(())
}

type Folded = BTreeMap<String, u64>;

/// Folded text of a program with so many call paths; samples lost and peak memory.
fn record_paths(paths: usize) -> Result<Option<(Folded, u64, u64)>> {
    let Some(made) = make()? else {
        return Ok(None);
    };
    let mut program = start(&made, &["paths", &paths.to_string()])?;
    let pid = program.pid().to_string();
    let arguments = ["--pid", &pid, "--sample", "1", "--format", "folded"];
    let recorder = Recorder::start(&arguments, Duration::from_secs(8))?;
    program.resume()?;
    ensure!(program.line()? == "done");
    let written = recorder.finish_text()?;
    let mut folded = Folded::new();
    for line in written.output.lines() {
        let (path, bytes) = line.rsplit_once(' ').context("no count")?;
        *folded.entry(path.to_owned()).or_default() += bytes.parse::<u64>()?;
    }
    Ok(Some((folded, written.lost_samples, written.peak_rss_bytes)))
}

#[test]
fn a_binary_that_is_replaced_while_it_runs_keeps_its_names() -> Result<()> {
    let Some(made) = make()? else {
        return Ok(());
    };
    // The same code elsewhere, by other names.
    let other = include_str!("../programs/stacks/hostile.c")
        .replace("serve(", "wrong_serve(")
        .replace("leak_own_page", "wrong_leak")
        .replace(
            "static NOIPA void keep(",
            "NOIPA int wrong_first(int x) { return x * 7 + 3; }\nstatic NOIPA void keep(",
        );
    fs::write(made.path("other.c"), other)?;
    made.run(
        "gcc",
        &["-O2", "-w", "-pthread", "-o", "other", "other.c", "-ldl"],
    )?;
    let mut program = start(&made, &["serve"])?;
    let recorder = record(&program, 6)?;
    fs::rename(made.path("other"), made.path("hostile"))?;
    serve(&mut program)?;
    assert_served(recorder.finish()?, "leak_own_page")
}

fn serve(program: &mut Workload) -> Result<()> {
    program.resume()?;
    ensure!(program.line()? == "loaded");
    program.resume()?;
    ensure!(program.line()? == "done");
    Ok(())
}

/// The first suspect is what served, named by `leaf` or by nothing, and by as much as it has.
fn assert_served(recording: Recording, leaf: &str) -> Result<()> {
    let told = recording.summary();
    println!("{told}{}", recording.tree);
    assert_names(&recording)?;
    let first = recording.stacks.first().context("nothing recorded")?;
    let innermost = first.functions.first().context("no frames")?;
    ensure!(
        innermost == leaf || innermost.contains("+0x"),
        "named {innermost}:\n{told}"
    );
    let all = recording.sum(|_| true).resident;
    let off = all.off(SERVED, 0.03 * SERVED);
    ensure!(off.abs() <= STANDARD_ERRORS, "{told}");
    Ok(())
}

/// Flips all bits of these sections, of which none is needed to load and to run it.
fn damage(library: &Path, sections: &[&str]) -> Result<()> {
    let headers = Command::new("readelf").arg("-SW").arg(library).output()?;
    let headers = String::from_utf8(headers.stdout)?;
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(library)?;
    for section in sections {
        let fields = headers.lines().find_map(|line| {
            let (_, fields) = line.split_once(']')?;
            let fields: Vec<&str> = fields.split_whitespace().collect();
            (fields.first() == Some(section)).then_some(fields)
        });
        let fields = fields.with_context(|| format!("no {section} in {headers}"))?;
        let number = |at: usize| -> Result<u64> {
            let field = fields.get(at).context("too few fields")?;
            Ok(u64::from_str_radix(field, 16)?)
        };
        let (offset, size) = (number(3)?, number(4)?);
        let mut bytes = vec![0; size as usize];
        file.read_exact_at(&mut bytes, offset)?;
        bytes.iter_mut().for_each(|byte| *byte ^= 0xff);
        file.write_all_at(&bytes, offset)?;
    }
    Ok(())
}

fn library(made: &Compiled) -> Result<(PathBuf, String)> {
    let path = made.path("library.so");
    let text = path.to_str().context("no text")?.to_owned();
    Ok((path, text))
}

fn with_damaged(sections: &[&str]) -> Result<()> {
    let Some(made) = make()? else {
        return Ok(());
    };
    if machine::in_path("readelf").is_none() {
        machine::skip("no readelf");
        return Ok(());
    }
    let (path, text) = library(&made)?;
    damage(&path, sections)?;
    let mut program = start(&made, &["serve", &text])?;
    let recorder = record(&program, 6)?;
    serve(&mut program)?;
    assert_served(recorder.finish()?, "leak_page")
}

#[test]
fn a_library_with_damaged_unwind_tables() -> Result<()> {
    with_damaged(&SECTIONS_OF_UNWINDING)
}

#[test]
fn a_library_with_a_damaged_symbol_table() -> Result<()> {
    with_damaged(&[".symtab"])
}

#[test]
fn a_library_with_damaged_names() -> Result<()> {
    with_damaged(&[".strtab", ".shstrtab"])
}

#[test]
fn a_library_that_is_cut_short_while_it_runs() -> Result<()> {
    let Some(made) = make()? else {
        return Ok(());
    };
    let (path, text) = library(&made)?;
    let mut program = start(&made, &["serve", &text])?;
    let recorder = record(&program, 6)?;
    program.resume()?;
    ensure!(program.line()? == "loaded");
    // Its code is left, and nothing that unwinds or names it.
    let file = fs::OpenOptions::new().write(true).open(path)?;
    file.set_len(0x2000)?;
    program.resume()?;
    ensure!(program.line()? == "done");
    assert_served(recorder.finish()?, "leak_page")
}
