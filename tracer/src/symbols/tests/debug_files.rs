//! Stripped files, with and without their debug files.

use std::os::unix::{fs::symlink, process::CommandExt as _};

use super::*;

/// `grow` stripped, `grow.full` as it was, and `grow.debug`.
fn stripped(directory: &Path, flags: &[&str], source: &str) -> (PathBuf, PathBuf) {
    let full = compile(directory, "grow.full", source, flags);
    run(
        "objcopy",
        &["--only-keep-debug", "grow.full", "grow.debug"],
        directory,
    );
    run("strip", &["-o", "grow", "grow.full"], directory);
    (directory.join("grow"), full)
}

fn link(directory: &Path) {
    run(
        "objcopy",
        &["--add-gnu-debuglink=grow.debug", "grow"],
        directory,
    );
}

const DEBUG: &[&str] = &["-g", "-O2", "-rdynamic"];

#[test]
fn without_debug_file_only_what_is_exported_has_a_name() {
    let directory = temporary();
    let (path, full) = stripped(directory.path(), DEBUG, C);
    let (module, mut symbols) = (module(&path), symbols());
    let mut name = |function| name(&mut symbols, &module, &full, function);
    assert_eq!(name("shown_grow").as_deref(), Some("shown_grow"));
    assert_eq!(name("hidden_grow"), None);
    for function in ["hidden_grow", "_start", "main"] {
        let bytes: Vec<_> = bytes_of(&full, function).collect();
        for frames in resolve(&mut symbols, &module, &bytes) {
            let found = frames[0].function.as_deref();
            assert!(found.is_none() || found == Some(function), "{found:?}");
        }
    }
}

#[test]
fn a_debug_link_leads_to_the_debug_file() {
    for place in ["", ".debug"] {
        let directory = temporary();
        let (path, full) = stripped(directory.path(), DEBUG, C);
        link(directory.path());
        fs::create_dir_all(directory.path().join(place)).unwrap();
        let found = directory.path().join(place).join("grow.debug");
        fs::rename(directory.path().join("grow.debug"), found).unwrap();
        let (module, mut symbols) = (module(&path), symbols());
        let bytes: Vec<_> = bytes_of(&full, "shown_grow").collect();
        let named = resolve(&mut symbols, &module, &bytes);
        assert!(named.iter().any(|frames| frames.len() == 2), "inlined");
        let hidden = name(&mut symbols, &module, &full, "hidden_grow");
        assert_eq!(hidden.as_deref(), Some("hidden_grow"));
        assert_eq!(symbols.losses(), Losses::default());
    }
}

#[test]
fn without_build_id_the_checksum_decides() {
    let directory = temporary();
    let flags = [DEBUG, &["-Wl,--build-id=none"]].concat();
    let (path, full) = stripped(directory.path(), &flags, C);
    link(directory.path());
    let unidentified = module(&path);
    assert_eq!(unidentified.build_id, None);
    let mut found = symbols();
    let hidden = name(&mut found, &unidentified, &full, "hidden_grow");
    assert_eq!(hidden.as_deref(), Some("hidden_grow"));

    // The last byte belongs to no section that matters.
    let debug = directory.path().join("grow.debug");
    let mut data = fs::read(&debug).unwrap();
    data.push(0);
    fs::write(&debug, data).unwrap();
    let mut rejecting = symbols();
    assert_eq!(
        name(&mut rejecting, &unidentified, &full, "hidden_grow"),
        None
    );
    assert!(rejecting.losses().rejected_debug_files >= 1);
}

#[test]
fn a_debug_file_of_another_build_is_not_used() {
    let directory = temporary();
    let (path, full) = stripped(directory.path(), DEBUG, C);
    link(directory.path());
    let other = temporary();
    let moved = C.replace(
        "volatile int sink;",
        "volatile int sink; int early(void) { return 1; }",
    );
    let moved = moved.replace("hidden_grow", "wrong_grow");
    stripped(other.path(), DEBUG, &moved);
    let wrong = fs::read(other.path().join("grow.debug")).unwrap();
    fs::write(directory.path().join("grow.debug"), wrong).unwrap();
    let (module, mut symbols) = (module(&path), symbols());
    assert_eq!(name(&mut symbols, &module, &full, "hidden_grow"), None);
    let shown = name(&mut symbols, &module, &full, "shown_grow");
    assert_eq!(shown.as_deref(), Some("shown_grow"));
    assert!(symbols.losses().rejected_debug_files >= 1);
}

#[test]
fn a_file_that_is_not_what_was_mapped_names_nothing() {
    let directory = temporary();
    let path = compile(directory.path(), "grow", C, DEBUG);
    let mut symbols = symbols();
    let mut module = module(&path);
    module.build_id = Some(vec![7; 20]);
    assert_eq!(name(&mut symbols, &module, &path, "shown_grow"), None);
    assert_eq!(name(&mut symbols, &module, &path, "hidden_grow"), None);
    assert_eq!(symbols.losses().changed_modules, 1);
}

#[test]
fn a_file_without_name_and_process_is_named_all_the_same() {
    let directory = temporary();
    let path = compile(directory.path(), "grow", C, DEBUG);
    let truth = directory.path().join("truth");
    fs::copy(&path, &truth).unwrap();
    let mut gone = module_of(&path, u32::MAX - 1);
    gone.path.push_str(" (deleted)");
    fs::remove_file(&path).unwrap();
    fs::write(&path, "#!/bin/sh\n").unwrap();
    let named = resolve(
        &mut symbols(),
        &gone,
        &[bytes_of(&truth, "hidden_grow").start],
    );
    let frame = named[0].last().unwrap();
    assert_eq!(frame.function.as_deref(), Some("hidden_grow"));
    assert_eq!(frame.module, "grow");
}

/// Debug files are those of the container, found from its own root, also over links that would lead
/// elsewhere from the host's.
#[test]
fn debug_files_are_looked_for_in_the_root_of_the_process() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let directory = temporary();
    let root = temporary();
    let (path, full) = stripped(directory.path(), DEBUG, C);
    let waiting = "#include <unistd.h>\nint main(void) { for (;;) pause(); }";
    compile(root.path(), "wait", waiting, &["-static"]);
    let inside = root.path().to_owned();
    let mut command = Command::new("/wait");
    // SAFETY: chroot is one system call.
    let command = unsafe {
        command.pre_exec(move || {
            nix::unistd::chroot(&inside)?;
            std::env::set_current_dir("/")
        })
    };
    let process = Process::start(command);
    let module = module_of(&path, process.pid());
    assert_eq!(name(&mut symbols(), &module, &full, "hidden_grow"), None);

    let id: String = module
        .build_id
        .iter()
        .flatten()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let (first, rest) = id.split_at(2);
    let by_id = root.path().join("usr/lib/debug/.build-id").join(first);
    fs::create_dir_all(&by_id).unwrap();
    fs::create_dir(root.path().join("opt")).unwrap();
    fs::copy(
        directory.path().join("grow.debug"),
        root.path().join("opt/grow.debug"),
    )
    .unwrap();
    symlink("/opt/grow.debug", by_id.join(format!("{rest}.debug"))).unwrap();
    let mut symbols = symbols();
    let hidden = name(&mut symbols, &module, &full, "hidden_grow");
    assert_eq!(hidden.as_deref(), Some("hidden_grow"));
    assert_eq!(symbols.losses(), Losses::default());
}

#[test]
fn symbols_that_distributions_leave_compressed_are_read() {
    let directory = temporary();
    let (path, full) = stripped(directory.path(), &["-O2"], C);
    run(
        "strip",
        &[
            "--strip-debug",
            "--keep-symbol=hidden_grow",
            "-o",
            "mini",
            "grow.full",
        ],
        directory.path(),
    );
    let data = fs::read(directory.path().join("mini")).unwrap();
    let mut compressed = Vec::new();
    lzma_rs::xz_compress(&mut &*data, &mut compressed).unwrap();
    fs::write(directory.path().join("mini.xz"), compressed).unwrap();
    run(
        "objcopy",
        &["--add-section", ".gnu_debugdata=mini.xz", "grow"],
        directory.path(),
    );
    let hidden = name(&mut symbols(), &module(&path), &full, "hidden_grow");
    assert_eq!(hidden.as_deref(), Some("hidden_grow"));
}
