//! Every input of the corpora, once, without the fuzzer: what was found stays fixed.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use memtrace_fuzz::TARGETS;

/// Of one corpus; what fuzzing found is minimized before it is committed.
const MOST_FILES: usize = 650;
const MOST_BYTES: u64 = 1100 << 10;

fn corpora() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{directory:?}: {error}"));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_target_has_a_small_corpus_and_every_corpus_a_target() {
    let named: BTreeSet<String> = files(&corpora())
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    let targets: BTreeSet<String> = TARGETS.iter().map(|it| it.name.to_owned()).collect();
    assert_eq!(named, targets);
    for name in named {
        let inputs = files(&corpora().join(&name));
        let bytes: u64 = inputs
            .iter()
            .map(|it| fs::metadata(it).unwrap().len())
            .sum();
        assert!(
            (1..=MOST_FILES).contains(&inputs.len()),
            "{name}: {}",
            inputs.len()
        );
        assert!(bytes <= MOST_BYTES, "{name}: {bytes} bytes");
    }
}

#[test]
fn every_input_of_the_corpora_keeps_every_promise() {
    for target in TARGETS {
        for path in files(&corpora().join(target.name)) {
            let data = fs::read(&path).unwrap();
            if std::panic::catch_unwind(|| (target.run)(&data)).is_err() {
                panic!("{} breaks a promise: see above", path.display());
            }
        }
    }
}
