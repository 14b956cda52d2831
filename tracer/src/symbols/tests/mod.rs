//! Real files of real compilers, named by a real worker process: this test program, which serves as
//! one when it is told to.

mod debug_files;
mod generated;
mod hostile;
mod native;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use object::{Object as _, ObjectSegment as _, ObjectSymbol as _};
use tempfile::TempDir;

use super::*;
use crate::stacks::{
    code::{Module, ModuleId, Place},
    profile::Frame,
};

const SERVE: &str = "memtrace-serves-as-worker";

#[test]
fn serves_as_worker() {
    if std::env::args().any(|argument| argument == SERVE) {
        serve().unwrap();
    }
}

fn limits() -> Limits {
    let this = concat!(module_path!(), "::serves_as_worker");
    let this = this.split_once("::").unwrap().1;
    let arguments = ["--exact", this, SERVE, "--test-threads=1"];
    Limits {
        program: Program {
            path: "/proc/self/exe".into(),
            arguments: arguments.map(Into::into).into(),
        },
        worker_timeout: Duration::from_secs(60),
        ..Limits::default()
    }
}

fn symbols() -> Symbols {
    Symbols::new(limits())
}

/// C with a function that is exported, one that is not, and one that is inlined.
const C: &str = r#"
#include <stdlib.h>
volatile int sink;
__attribute__((noinline)) static void *hidden_grow(int n) {
    sink += n;
    return malloc(n);
}
static inline __attribute__((always_inline)) void *inlined_grow(int n) {
    sink += 3 * n;
    void *p = hidden_grow(n);
    sink += 5 * n;
    return p;
}
__attribute__((noinline, visibility("default"))) void *shown_grow(int n) {
    sink -= n;
    void *p = inlined_grow(n + 1);
    sink -= 7;
    return p;
}
int main(void) { return shown_grow(17) == 0; }
"#;

fn run(program: &str, arguments: &[&str], directory: &Path) {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
}

/// Compiles `source` to `name` in `directory`.
fn compile(directory: &Path, name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let text = format!("{name}.c");
    fs::write(directory.join(&text), source).unwrap();
    let mut arguments = vec!["-o", name, &text];
    arguments.extend(flags);
    run("gcc", &arguments, directory);
    directory.join(name)
}

fn module(path: &Path) -> Module {
    module_of(path, std::process::id())
}

fn module_of(path: &Path, pid: u32) -> Module {
    let build_id = fs::read(path).ok().and_then(|data| {
        let file = object::File::parse(&*data).ok()?;
        file.build_id().ok()?.map(<[u8]>::to_vec)
    });
    Module {
        id: ModuleId(1),
        path: path.to_str().unwrap().to_owned(),
        build_id,
        file: Some(Arc::new(File::open(path).unwrap())),
        pid,
    }
}

/// Offsets in the file of the bytes of a function.
fn bytes_of(path: &Path, function: &str) -> std::ops::Range<u64> {
    let data = fs::read(path).unwrap();
    let file = object::File::parse(&*data).unwrap();
    let symbol = file
        .symbols()
        .find(|symbol| symbol.name() == Ok(function))
        .unwrap_or_else(|| panic!("{function}"));
    assert!(symbol.size() > 0);
    let start = offset_of(&file, symbol.address()).unwrap();
    start..start + symbol.size()
}

fn offset_of(file: &object::File<'_>, address: u64) -> Option<u64> {
    file.segments().find_map(|segment| {
        let (offset, length) = segment.file_range();
        let within = address.checked_sub(segment.address())?;
        (within < length).then_some(offset + within)
    })
}

fn resolve(symbols: &mut Symbols, module: &Module, offsets: &[u64]) -> Vec<Vec<Frame>> {
    let place = |&offset| Place::File {
        module: module.id,
        offset,
    };
    let places: Vec<_> = offsets.iter().map(place).collect();
    let frames = symbols.resolve(&places, &|id| (id == module.id).then(|| module.clone()));
    assert_eq!(frames.len(), places.len());
    for (frames, offset) in frames.iter().zip(offsets) {
        assert!(frames.iter().all(|frame| frame.offset == *offset));
        let (outermost, inlined) = frames.split_last().unwrap();
        assert!(!outermost.inlined);
        assert!(inlined.iter().all(|frame| frame.inlined));
    }
    frames
}

/// The name of the function that has the byte in the middle of what `function` is in `truth`.
fn name(symbols: &mut Symbols, module: &Module, truth: &Path, function: &str) -> Option<String> {
    let bytes = bytes_of(truth, function);
    let middle = bytes.start + (bytes.end - bytes.start) / 2;
    let frames = resolve(symbols, module, &[middle]).pop().unwrap();
    frames.last().unwrap().function.clone()
}

fn temporary() -> TempDir {
    tempfile::Builder::new()
        .prefix("memtrace-symbols-")
        .tempdir()
        .unwrap()
}

/// A process that is ended with the test.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Process {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null());
        Process(command.spawn().unwrap())
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
