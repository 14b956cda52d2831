//! `cargo xtask ebpf`: builds the BPF object that memtrace embeds, and proves that the committed
//! one comes from the committed sources. Must not load or attach anything.

mod build;
mod lock;
mod toolchain;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::process::progress;
use crate::workspace::Workspace;
use lock::Lock;
use toolchain::Toolchain;

const OBJECT: &str = "tracer-ebpf/prebuilt/memtrace.bpfel.o";
const LOCK: &str = "tracer-ebpf/prebuilt/memtrace.lock";
const REMEDY: &str = "run `cargo xtask ebpf` and commit the result";

/// Arguments of `cargo xtask ebpf`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Args {
    /// Rebuild elsewhere and fail unless the committed object and lock are exactly the result
    #[arg(long)]
    pub check: bool,
}

/// Rebuilds or checks the object.
pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    if args.check {
        check(workspace)
    } else {
        rebuild(workspace)
    }
}

fn rebuild(workspace: &Workspace) -> Result<()> {
    let toolchain = Toolchain::pinned(workspace).or_else(|reason| {
        progress(format!("the pinned toolchain is not usable: {reason:#}"));
        Toolchain::nightly(workspace)
    })?;
    let (object, lock) = build(workspace, &toolchain)?;
    write(&workspace.root().join(OBJECT), &object)?;
    write(&workspace.root().join(LOCK), lock.to_string().as_bytes())?;
    progress(format!(
        "wrote {OBJECT} ({} bytes) and {LOCK}",
        object.len()
    ));
    if !toolchain.is_pinned() {
        progress(
            "warning: built by another toolchain than the pinned one (Debian's rustc-web); \
             its bytes may differ, and then `cargo xtask ebpf --check` rejects them",
        );
    }
    Ok(())
}

/// SHA-256 of the committed object.
pub fn committed_hash(root: &Path) -> Result<String> {
    Ok(lock::sha256(&read(&root.join(OBJECT))?))
}

fn check(workspace: &Workspace) -> Result<()> {
    let committed_object = read(&workspace.root().join(OBJECT))?;
    let text = String::from_utf8(read(&workspace.root().join(LOCK))?)
        .with_context(|| format!("{LOCK} is not text; {REMEDY}"))?;
    let committed: Lock = text
        .parse()
        .with_context(|| format!("{LOCK} is damaged; {REMEDY}"))?;

    if committed.sources != lock::sources_hash(workspace.root())? {
        bail!("the sources of tracer-ebpf changed after {OBJECT} was built; {REMEDY}");
    }
    let actual = lock::sha256(&committed_object);
    if committed.object != actual {
        bail!(
            "{OBJECT} is not the object that {LOCK} describes \
             (sha256 {actual}, the lock says {}); {REMEDY}",
            committed.object
        );
    }
    let toolchain = Toolchain::pinned(workspace)?;
    let (object, lock) = build(workspace, &toolchain)?;
    let differences = committed.differences(&lock);
    if object != committed_object {
        let rebuilt = workspace.target().join("ebpf/memtrace.bpfel.o.rebuilt");
        write(&rebuilt, &object)?;
        bail!(
            "rebuilding tracer-ebpf does not give the committed object: {} \
             (rebuilt one: {})\n  {}\n  remedy: {REMEDY}",
            first_difference(&committed_object, &object),
            rebuilt.display(),
            differences.join("\n  ")
        );
    }
    if !differences.is_empty() {
        bail!(
            "{LOCK} does not describe this build\n  {}\n  remedy: {REMEDY}",
            differences.join("\n  ")
        );
    }
    progress(format!(
        "{OBJECT} is what its sources build ({} bytes)",
        object.len()
    ));
    Ok(())
}

fn build(workspace: &Workspace, toolchain: &Toolchain) -> Result<(Vec<u8>, Lock)> {
    let sources = lock::sources_hash(workspace.root())?;
    let object = build::object(workspace, toolchain)?;
    let lock = Lock {
        sources,
        rustc: toolchain.rustc_version.clone(),
        llvm: toolchain.llvm_version.clone(),
        linker: toolchain.linker_version.clone(),
        object: lock::sha256(&object),
    };
    Ok((object, lock))
}

fn first_difference(committed: &[u8], rebuilt: &[u8]) -> String {
    let same = committed
        .iter()
        .zip(rebuilt)
        .take_while(|(a, b)| a == b)
        .count();
    format!(
        "{} bytes committed, {} bytes rebuilt, first difference at byte {same}",
        committed.len(),
        rebuilt.len()
    )
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}; {REMEDY}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    // A reader, such as a cargo build in another terminal, must never see half a file.
    let mut unfinished = PathBuf::from(path).into_os_string();
    unfinished.push(format!(".{}", std::process::id()));
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
    }
    fs::write(&unfinished, bytes)
        .and_then(|()| fs::rename(&unfinished, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::first_difference;

    #[test]
    fn names_the_first_differing_byte() {
        assert_eq!(
            first_difference(b"abcd", b"abXde"),
            "4 bytes committed, 5 bytes rebuilt, first difference at byte 2"
        );
    }
}
