//! Files that are corrupt, change while they are read, or are made to harm.

use std::os::unix::fs::FileExt as _;

use super::*;

const ALL: &[&str] = &["-g", "-O2"];

/// What a place may be called, whatever happened to the file.
fn checked(symbols: &mut Symbols, module: &Module, offsets: &[u64]) {
    for frames in resolve(symbols, module, offsets) {
        for frame in frames {
            let texts = frame
                .function
                .iter()
                .chain(frame.source.iter().map(|(file, _)| file));
            for text in texts {
                assert!(text.chars().count() <= 512);
                assert!(!text.chars().any(char::is_control), "{text:?}");
            }
        }
    }
}

/// A function that only its own file names.
fn assert_named(symbols: &mut Symbols, module: &Module, offsets: &[u64]) {
    let frames = resolve(symbols, module, offsets).pop().unwrap();
    assert_eq!(
        frames.last().unwrap().function.as_deref(),
        Some("hidden_grow")
    );
}

/// A module whose file is `data`, another one than all before.
fn variant(directory: &Path, id: u32, data: &[u8]) -> Module {
    let path = directory.join(format!("variant-{id}"));
    fs::write(&path, data).unwrap();
    let file = File::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    Module {
        id: ModuleId(id),
        path: path.to_str().unwrap().to_owned(),
        build_id: None,
        file: Some(Arc::new(file)),
        pid: std::process::id(),
    }
}

fn program(directory: &Path) -> (Vec<u8>, Vec<u64>) {
    let path = compile(directory, "grow", C, ALL);
    let mut offsets: Vec<_> = bytes_of(&path, "shown_grow").collect();
    offsets.push(bytes_of(&path, "hidden_grow").start);
    (fs::read(path).unwrap(), offsets)
}

/// Numbers that look random and are the same each time.
fn numbers() -> impl FnMut(usize) -> usize {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 20).unwrap() % below
    }
}

#[test]
fn truncated_files_harm_nobody() {
    let directory = temporary();
    let (data, offsets) = program(directory.path());
    let mut symbols = symbols();
    for step in 0..50 {
        let length = data.len() * step / 50;
        let module = variant(
            directory.path(),
            10 + u32::try_from(step).unwrap(),
            &data[..length],
        );
        checked(&mut symbols, &module, &offsets);
    }
    assert_named(&mut symbols, &variant(directory.path(), 1, &data), &offsets);
}

#[test]
fn corrupt_files_harm_nobody() {
    let directory = temporary();
    let (data, offsets) = program(directory.path());
    let mut symbols = symbols();
    let mut below = numbers();
    for id in 10..70 {
        let mut data = data.clone();
        for _ in 0..1 + below(200) {
            let (at, bit) = (below(data.len()), below(8));
            data[at] ^= 1 << bit;
        }
        checked(
            &mut symbols,
            &variant(directory.path(), id, &data),
            &offsets,
        );
    }
    assert_named(&mut symbols, &variant(directory.path(), 1, &data), &offsets);
}

#[test]
fn headers_that_claim_enormous_sizes_harm_nobody() {
    let directory = temporary();
    let (data, offsets) = program(directory.path());
    let at = |place: usize| {
        usize::try_from(u64::from_le_bytes(
            data[place..place + 8].try_into().unwrap(),
        ))
        .unwrap()
    };
    let (segments, sections) = (at(32), at(40));
    let mut places = vec![
        (32, 8),
        (40, 8),
        (54, 2),
        (56, 2),
        (58, 2),
        (60, 2),
        (62, 2),
    ];
    for index in 0..13 {
        // p_offset, p_vaddr, p_filesz
        places.extend([8, 16, 32].map(|field| (segments + 56 * index + field, 8)));
    }
    for index in 0..40 {
        // sh_flags (compressed), sh_offset, sh_size, sh_entsize
        places.extend([8, 24, 32, 56].map(|field| (sections + 64 * index + field, 8)));
    }
    let mut symbols = symbols();
    let mut id = 10;
    for (place, length) in places {
        for value in [u64::MAX, 1 << 40, 0x800] {
            let mut data = data.clone();
            if let Some(field) = data.get_mut(place..place + length) {
                field.copy_from_slice(&value.to_le_bytes()[..length]);
            }
            id += 1;
            checked(
                &mut symbols,
                &variant(directory.path(), id, &data),
                &offsets,
            );
        }
    }
    assert_eq!(symbols.losses().worker_timeouts, 0);
}

#[test]
fn no_elf_files_have_no_names() {
    let directory = temporary();
    let mut symbols = symbols();
    for (id, data) in [
        (10, &b""[..]),
        (11, b"\x7fELF"),
        (12, b"#!/bin/sh\n"),
        (13, &[0xff; 100_000]),
    ] {
        let module = variant(directory.path(), id, data);
        let frames = resolve(&mut symbols, &module, &[0, 64, 1 << 40]);
        assert!(frames.iter().all(|frames| frames[0].function.is_none()));
    }
    let directory_itself = Module {
        file: Some(Arc::new(File::open(directory.path()).unwrap())),
        ..variant(directory.path(), 14, b"")
    };
    let frames = resolve(&mut symbols, &directory_itself, &[0]);
    assert_eq!(frames[0][0].function, None);
    assert_eq!(symbols.losses(), Losses::default());
}

#[test]
fn a_file_that_is_truncated_while_it_is_read_costs_only_its_module() {
    let directory = temporary();
    let (data, offsets) = program(directory.path());
    let (victim, other) = (
        variant(directory.path(), 10, &data),
        variant(directory.path(), 11, &data),
    );
    let mut symbols = symbols();
    // Mapped now; more of it is read for the next places.
    resolve(&mut symbols, &victim, &[0]);
    let descriptor = victim.file.as_ref().unwrap();
    use std::os::fd::AsRawFd as _;
    let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(0)
        .unwrap();
    checked(&mut symbols, &victim, &offsets);
    assert!(
        symbols.losses().worker_deaths >= 1,
        "{:?}",
        symbols.losses()
    );
    let frames = resolve(&mut symbols, &other, &offsets).pop().unwrap();
    assert_eq!(
        frames.last().unwrap().function.as_deref(),
        Some("hidden_grow")
    );
}

/// A mapping of a huge file of holes is more than the worker may have.
#[test]
fn a_file_that_is_too_large_has_no_names() {
    let directory = temporary();
    let (data, offsets) = program(directory.path());
    let path = directory.path().join("large");
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    file.write_all_at(&data, 0).unwrap();
    file.set_len(1 << 40).unwrap();
    let module = Module {
        file: Some(Arc::new(file)),
        ..variant(directory.path(), 10, b"")
    };
    let mut symbols = symbols();
    let frames = resolve(&mut symbols, &module, &offsets);
    assert!(frames.iter().all(|frames| frames[0].function.is_none()));
}

/// Debug information that needs more memory than allowed leaves the symbol table.
#[test]
fn what_kills_the_worker_is_read_with_less_detail() {
    let directory = temporary();
    let filler = directory.path().join("filler");
    fs::write(&filler, vec![0; 64 << 20]).unwrap();
    let path = compile(directory.path(), "grow", C, &["-O2"]);
    let arguments = [
        "--add-section=.debug_info=filler",
        "--compress-debug-sections=zlib",
        "grow",
    ];
    run("objcopy", &arguments, directory.path());
    let mut symbols = Symbols::new(Limits {
        worker_heap_bytes: 32 << 20,
        ..limits()
    });
    let module = module(&path);
    let hidden = name(&mut symbols, &module, &path, "hidden_grow");
    assert_eq!(
        hidden.as_deref(),
        Some("hidden_grow"),
        "{:?}",
        symbols.losses()
    );
}

#[test]
fn hostile_names_are_shown_harmlessly() {
    let directory = temporary();
    let path = compile(directory.path(), "grow", C, &["-O2"]);
    let offset = bytes_of(&path, "hidden_grow").start;
    let mut data = fs::read(&path).unwrap();
    let at = memchr::memmem::find(&data, b"\0hidden_grow\0").unwrap();
    data[at + 1..at + 12].copy_from_slice(b"\x1b[31m\x07\n\xe2\x80\xae_");
    let module = variant(directory.path(), 10, &data);
    let frames = resolve(&mut symbols(), &module, &[offset]);
    assert_eq!(
        frames[0][0].function.as_deref(),
        Some(r"\x1b[31m\x07\n\xe2\x80\xae_")
    );

    let long = format!(
        "int {}(void) {{ return 1; }} int main(void) {{ return 0; }}",
        "a".repeat(5000)
    );
    let path = compile(directory.path(), "long", &long, &["-O0"]);
    let offset = bytes_of(&path, &"a".repeat(5000)).start;
    let frames = resolve(&mut symbols(), &module_of(&path, 1), &[offset]);
    let name = frames[0][0].function.clone().unwrap();
    assert_eq!(name.chars().count(), 512);
}

#[test]
fn a_worker_that_does_not_answer_is_killed() {
    let directory = temporary();
    let (data, offsets) = program(directory.path());
    let mut symbols = Symbols::new(Limits {
        worker_timeout: Duration::from_millis(100),
        ..with_program("/bin/sleep", &["1000"])
    });
    let module = variant(directory.path(), 10, &data);
    checked(&mut symbols, &module, &offsets);
    let losses = symbols.losses();
    assert_eq!((losses.worker_timeouts, losses.modules_given_up), (2, 1));
    assert_eq!(symbols.worker_pid(), None);
    checked(&mut symbols, &module, &offsets);
    assert_eq!(symbols.losses(), losses, "it is not tried again");
}

#[test]
fn a_worker_that_does_not_start_loses_nothing_for_good() {
    let directory = temporary();
    let (data, offsets) = program(directory.path());
    let module = variant(directory.path(), 10, &data);
    let mut symbols = Symbols::new(with_program("/nonexistent", &[]));
    checked(&mut symbols, &module, &offsets);
    assert_eq!(symbols.losses().worker_start_failures, 1);
    checked(&mut symbols, &module, &offsets);
    assert_eq!(symbols.losses().worker_start_failures, 2);
}

#[test]
fn a_worker_that_does_not_keep_to_the_protocol_is_ended() {
    let directory = temporary();
    let (data, offsets) = program(directory.path());
    let module = variant(directory.path(), 10, &data);
    for script in [
        "exit 1",
        "exec cat >&0",
        "exec cat /dev/zero >&0",
        "printf x >&0",
    ] {
        let mut symbols = Symbols::new(with_program("/bin/sh", &["-c", script]));
        checked(&mut symbols, &module, &offsets);
        let losses = symbols.losses();
        assert_eq!(
            (losses.worker_deaths, losses.modules_given_up),
            (2, 1),
            "{script}"
        );
        assert_eq!(symbols.worker_pid(), None);
    }
}

/// As the kernel does for want of memory.
#[test]
fn a_file_is_not_to_blame_for_a_worker_that_is_killed() {
    let directory = temporary();
    let (data, offsets) = program(directory.path());
    let module = variant(directory.path(), 10, &data);
    let mut symbols = Symbols::new(with_program("/bin/sh", &["-c", "kill -9 $$"]));
    for given_up in [0, 0, 0, 0, 1, 1] {
        checked(&mut symbols, &module, &offsets);
        assert_eq!(
            symbols.losses().modules_given_up,
            given_up,
            "{:?}",
            symbols.losses()
        );
    }
}

fn with_program(path: &str, arguments: &[&str]) -> Limits {
    Limits {
        program: Program {
            path: path.into(),
            arguments: arguments.iter().map(Into::into).collect(),
        },
        worker_timeout: Duration::from_secs(20),
        ..limits()
    }
}

#[test]
fn the_worker_gains_no_privileges_dies_before_all_others_and_yields_to_them() {
    let directory = temporary();
    let (data, offsets) = program(directory.path());
    let mut symbols = symbols();
    checked(
        &mut symbols,
        &variant(directory.path(), 10, &data),
        &offsets,
    );
    let worker = symbols.worker_pid().unwrap();
    let read = |file: &str| fs::read_to_string(format!("/proc/{worker}/{file}")).unwrap();
    // Of the thread that serves, which a test program does not do on its first one.
    let mut threads = fs::read_dir(format!("/proc/{worker}/task")).unwrap();
    let gains_none = |thread: std::io::Result<fs::DirEntry>| {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        status.contains("\nNoNewPrivs:\t1\n")
    };
    assert!(threads.any(gains_none));
    assert_eq!(read("oom_score_adj").trim(), "1000");
    let limits = read("limits");
    let soft = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        line[26..].split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(soft("Max data size"), (64u64 << 20).to_string());
    assert_eq!(soft("Max address space"), (4u64 << 30).to_string());
    assert_ne!(soft("Max cpu time"), "unlimited");
    assert_eq!(
        fs::read(format!("/proc/{worker}/environ")).unwrap_or_default(),
        b""
    );
    drop(symbols);
    assert!(!Path::new(&format!("/proc/{worker}")).exists());
}
