//! Code that a runtime generates, named by its perf map.

use super::*;

/// A perf map that is removed with the test.
struct Map(PathBuf);

impl Map {
    fn write(pid: u32, text: &str) -> Map {
        let path = PathBuf::from(format!("/tmp/perf-{pid}.map"));
        fs::write(&path, text).unwrap();
        Map(path)
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn resolve_generated(symbols: &mut Symbols, pid: u32, addresses: &[u64]) -> Vec<Frame> {
    let place = |&address| Place::Anonymous { pid, address };
    let places: Vec<_> = addresses.iter().map(place).collect();
    let frames = symbols.resolve(&places, &|_| None);
    frames
        .into_iter()
        .map(|mut frames| {
            assert_eq!(frames.len(), 1);
            frames.remove(0)
        })
        .collect()
}

fn named(symbols: &mut Symbols, pid: u32, address: u64) -> Option<String> {
    resolve_generated(symbols, pid, &[address])
        .remove(0)
        .function
}

fn sleeper() -> Process {
    Process::start(Command::new("sleep").arg("1000"))
}

#[test]
fn code_of_a_perf_map_has_its_name() {
    let process = sleeper();
    let pid = process.pid();
    let _map = Map::write(
        pid,
        "3000 10 LazyCompile:~foo /path/file.js:12\n1000 10 py::bar:/x.py\n",
    );
    let frames = resolve_generated(&mut symbols(), pid, &[0x3005, 0x1000, 0x2000, 0x1010]);
    let wanted = [
        (Some("LazyCompile:~foo /path/file.js:12"), "[jit]", 0x3005),
        (Some("py::bar:/x.py"), "[jit]", 0x1000),
        (None, "[unknown]", 0x2000),
        (None, "[unknown]", 0x1010),
    ];
    for (frame, wanted) in frames.iter().zip(wanted) {
        let found = (frame.function.as_deref(), &*frame.module, frame.offset);
        assert_eq!(found, wanted);
    }
}

#[test]
fn names_follow_the_map_and_stay_when_the_process_has_ended() {
    let process = sleeper();
    let pid = process.pid();
    let mut symbols = symbols();
    assert_eq!(named(&mut symbols, pid, 0x1000), None);
    let map = Map::write(pid, "1000 10 old\n");
    assert_eq!(named(&mut symbols, pid, 0x1000).as_deref(), Some("old"));
    drop(map);
    let map = Map::write(pid, "1000 10 old\n1000 10 newer\n");
    assert_eq!(named(&mut symbols, pid, 0x1000).as_deref(), Some("newer"));
    drop(process);
    drop(map);
    assert_eq!(named(&mut symbols, pid, 0x1000).as_deref(), Some("newer"));
    assert_eq!(named(&mut symbols, pid, 0x2000), None);
    assert_eq!(symbols.losses(), Losses::default());
}

#[test]
fn executable_memory_is_told_from_other_memory() {
    let mut code = memmap2::MmapMut::map_anon(4096).unwrap();
    code[0] = 0xc3;
    let data = code[..].as_ptr().addr() as u64;
    let pid = std::process::id();
    let mut symbols = symbols();
    let frame = resolve_generated(&mut symbols, pid, &[data]).remove(0);
    assert_eq!((frame.function, &*frame.module), (None, "[unknown]"));
    let code = code.make_exec().unwrap();
    let frame = resolve_generated(&mut Symbols::new(limits()), pid, &[data]).remove(0);
    assert_eq!((frame.function, &*frame.module), (None, "[jit]"));
    drop(code);
    let frame = resolve_generated(&mut symbols, u32::MAX - 1, &[data]).remove(0);
    assert_eq!((frame.function, &*frame.module), (None, "[unknown]"));
}
