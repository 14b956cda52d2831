//! What holds of any output, whatever was read.

use memtrace::host::escape::assured;

/// It may be written to a terminal: lines of characters that neither control nor deceive.
///
/// # Panics
/// It may not.
#[track_caller]
pub fn printable(text: &str) {
    for line in text.split('\n') {
        assert_eq!(assured(line, usize::MAX), line, "may not be shown");
    }
}

/// One line that may be written to a terminal, of at most so many characters.
///
/// # Panics
/// It is not.
#[track_caller]
pub fn line(text: &str, most_chars: usize) {
    printable(text);
    assert!(!text.contains('\n'), "more than a line: {text:?}");
    chars(text, most_chars);
}

/// Of at most so many characters.
///
/// # Panics
/// It is longer.
#[track_caller]
pub fn chars(text: &str, most: usize) {
    let chars = text.chars().count();
    assert!(
        chars <= most,
        "{chars} characters, at most {most}: {text:?}"
    );
}
