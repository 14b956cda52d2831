//! The configuration file, as `memtrace run` and a reload load it.

use std::fs;

use memtrace::config::CommandLine;

use crate::promise;

/// Of all problems together: 50 are told.
const MOST_CHARS: usize = 1 << 20;

thread_local! {
    static FILE: tempfile::TempDir =
        tempfile::tempdir().expect("TMPDIR is a directory to write to");
}

pub fn run(data: &[u8]) {
    FILE.with(|directory| {
        let path = directory.path().join("memtrace.toml");
        fs::write(&path, data).expect("TMPDIR has room");
        match CommandLine::asking_for(Some(path)).load() {
            Ok(layers) => {
                for effective in &layers.effective {
                    for value in &effective.values {
                        assert!(!value.contains(char::is_control), "{value:?}");
                    }
                }
            }
            Err(error) => {
                let text = error.to_string();
                promise::printable(&text);
                promise::chars(&text, MOST_CHARS);
            }
        }
    });
}
