//! Names that anybody may choose: paths of cgroups, and their way to a terminal.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::Path};

use memtrace::{
    host::escape,
    identity::{names::Names, path, pod_name},
};

use crate::promise;

const MOST_CHARS: usize = 40;

pub fn run(data: &[u8]) {
    escaped(data);
    let text = String::from_utf8_lossy(data);
    if let Ok(pod) = pod_name::parse(&text) {
        assert_eq!(pod_name::parse(&pod.to_string()).as_ref(), Ok(&pod));
    }
    of_path(Path::new(OsStr::from_bytes(data)));
}

fn escaped(data: &[u8]) {
    let whole = escape::display(data, usize::MAX);
    promise::line(&whole, usize::MAX);
    assert_eq!(escape::again(&whole, usize::MAX), whole);
    assert_eq!(escape::assured(&whole, usize::MAX), whole);
    assert_eq!(unescaped(&whole), data, "another input reads the same");
    for most in [0, 1, 7, MOST_CHARS] {
        promise::line(&escape::display(data, most), most);
        let text = String::from_utf8_lossy(data);
        promise::line(&escape::again(&text, most), most + 1);
        promise::line(&escape::assured(&text, most), most);
    }
}

/// What `display` was given.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let (byte, length) = match (first, after) {
            (b'\\', [b'n', ..]) => (b'\n', 1),
            (b'\\', [b't', ..]) => (b'\t', 1),
            (b'\\', [b'r', ..]) => (b'\r', 1),
            (b'\\', [b'\\', ..]) => (b'\\', 1),
            (b'\\', [b'x', digits @ ..]) => {
                let digits = std::str::from_utf8(&digits[..2]).expect("two digits");
                (u8::from_str_radix(digits, 16).expect("a byte"), 3)
            }
            _ => (first, 0),
        };
        bytes.push(byte);
        rest = &after[length..];
    }
    bytes
}

fn of_path(path: &Path) {
    let identity = path::parse(path);
    if let Some(uid) = &identity.pod_uid {
        assert!(matches!(uid.len(), 32 | 36), "{uid}");
        let is_of_uid = |c: char| c.is_ascii_hexdigit() || c == '-';
        assert!(uid.chars().all(is_of_uid), "{uid}");
    }
    if let Some(below) = &identity.below_container {
        assert!(identity.container_id.is_some() && below.starts_with('/'));
    }
    let names = Names::of_path(path);
    let texts = [&names.container_id, &names.systemd_unit, &names.pod_uid];
    for text in texts.into_iter().flatten() {
        promise::line(text, 1024);
    }
}
