//! Makes untrusted bytes (cgroup names, `comm`) safe to show and to log.
//!
//! Owns the escaping rules; anyone who can start a process chooses such names. Must not be used to
//! make paths for opening files.

use std::borrow::Cow;

/// `bytes` as at most `most_chars` characters, `…` last when something was cut.
///
/// Control characters, characters that hide or reorder text, and invalid UTF-8 become `\n`, `\t`,
/// `\r` or `\xNN` for each byte; a backslash becomes `\\`, so the systemd name `a\x2db` reads
/// `a\\x2db` and every result stands for one input only. An escape is never cut in two.
pub fn display(bytes: &[u8], most_chars: usize) -> String {
    let mut shown = Shown {
        text: String::new(),
        chars: 0,
        fits: 0,
        most: most_chars,
    };
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            let more = match character {
                '\\' => shown.push("\\\\", 2),
                '\n' => shown.push("\\n", 2),
                '\t' => shown.push("\\t", 2),
                '\r' => shown.push("\\r", 2),
                _ if character.is_control() || deceives(character) => {
                    shown.push_escaped(character.encode_utf8(&mut [0; 4]).as_bytes())
                }
                _ => shown.push(character.encode_utf8(&mut [0; 4]), 1),
            };
            if !more {
                return shown.cut();
            }
        }
        if !shown.push_escaped(chunk.invalid()) {
            return shown.cut();
        }
    }
    shown.text
}

/// Text that was escaped once, or that another process says is, safe again: control and deceiving characters
/// become `\n`, `\t`, `\r` or `\xNN`, backslashes stay as they are. At most `most_chars` characters, and `…` where
/// something was cut.
pub fn again(text: &str, most_chars: usize) -> String {
    let parts: Vec<String> = text
        .split('\\')
        .map(|part| display(part.as_bytes(), most_chars))
        .collect();
    let joined = parts.join("\\");
    match joined.char_indices().nth(most_chars) {
        Some((at, _)) => joined.get(..at).unwrap_or_default().to_owned() + "…",
        None => joined,
    }
}

/// JSON without control and deceiving characters of its own, the same to a parser: they can only stand in strings,
/// where they become `\uXXXX`. Those below a space are escaped already, or lay it out.
pub fn json(text: &str) -> Cow<'_, str> {
    let hides = |character: char| matches!(character, '\u{7f}'..='\u{9f}') || deceives(character);
    if !text.contains(hides) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if hides(character) {
            for unit in character.encode_utf16(&mut [0; 2]).iter() {
                shown.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

struct Shown {
    text: String,
    chars: usize,
    /// Length in bytes of the longest part that leaves room for `…`.
    fits: usize,
    most: usize,
}

impl Shown {
    /// Adds `piece` of `chars` characters; `false` when there is no room.
    fn push(&mut self, piece: &str, chars: usize) -> bool {
        if self.chars + chars > self.most {
            return false;
        }
        self.text.push_str(piece);
        self.chars += chars;
        if self.chars < self.most {
            self.fits = self.text.len();
        }
        true
    }

    fn push_escaped(&mut self, bytes: &[u8]) -> bool {
        bytes
            .iter()
            .all(|byte| self.push(&format!("\\x{byte:02x}"), 4))
    }

    fn cut(mut self) -> String {
        self.text.truncate(self.fits);
        if self.most > 0 {
            self.text.push('…');
        }
        self.text
    }
}

/// Characters without a shape of their own that hide, break or reorder the text around them.
fn deceives(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_stay() {
        assert_eq!(
            display(b"/kubepods.slice/pod 1", 100),
            "/kubepods.slice/pod 1"
        );
        assert_eq!(display("/größe/日本".as_bytes(), 100), "/größe/日本");
        assert_eq!(display(b"", 100), "");
    }

    #[test]
    fn backslashes_are_unambiguous() {
        assert_eq!(display(br"a\x2db", 100), r"a\\x2db");
        assert_eq!(display(b"a\x0bb", 100), r"a\x0bb");
        assert_ne!(display(br"\n", 100), display(b"\n", 100));
    }

    #[test]
    fn hidden_characters_show() {
        assert_eq!(
            display(b"\x1b[31m\x07\x7f\0\n\t\r", 100),
            r"\x1b[31m\x07\x7f\x00\n\t\r"
        );
        assert_eq!(display("\u{85}\u{9b}".as_bytes(), 100), r"\xc2\x85\xc2\x9b");
        assert_eq!(
            display("a\u{202e}b\u{200b}".as_bytes(), 100),
            r"a\xe2\x80\xaeb\xe2\x80\x8b"
        );
        for hidden in ["\u{2066}", "\u{feff}", "\u{e0041}", "\u{2028}", "\u{61c}"] {
            assert!(display(hidden.as_bytes(), 100).is_ascii(), "{hidden:?}");
        }
    }

    #[test]
    fn invalid_utf8_shows_each_byte() {
        assert_eq!(display(b"a\xffb\xe2\x82", 100), r"a\xffb\xe2\x82");
    }

    #[test]
    fn what_was_not_escaped_after_all_is_and_what_was_stays() {
        assert_eq!(again(r"/größe/日本\\x2d", 100), r"/größe/日本\\x2d");
        assert_eq!(
            again("a\x1b[31m\u{202e}b\n", 100),
            r"a\x1b[31m\xe2\x80\xaeb\n"
        );
        assert_eq!(again("日本語", 2), "日…");
    }

    #[test]
    fn json_hides_nothing_and_says_the_same() {
        let hidden = "\u{7f}\u{80}\u{9b}31m\u{9f}\u{61c}\u{200e}\u{200f}\u{202a}\u{202e}\u{2066}\u{2069}\u{e0041}\n\\";
        let text = serde_json::to_string_pretty(&[hidden]).unwrap();
        let shown = json(&text);
        assert!(shown.is_ascii(), "{shown}");
        assert!(shown.contains(r"\u007f\u0080\u009b31m"), "{shown}");
        assert!(shown.contains(r"\u202e"), "{shown}");
        let read: Vec<String> = serde_json::from_str(&shown).unwrap();
        assert_eq!(read, [hidden]);
        let plain = "{\n  \"größe\": \"日本 \\\\ \\u001b\"\n}";
        assert_eq!(json(plain), plain);
    }

    #[test]
    fn length_is_capped_between_escapes() {
        assert_eq!(display(b"abcdef", 6), "abcdef");
        assert_eq!(display(b"abcdefg", 6), "abcde…");
        assert_eq!(display(b"abcd\x01", 6), "abcd…");
        assert_eq!(display(b"ab\x01\x01", 6), "ab…");
        assert_eq!(display("日本語".as_bytes(), 2), "日…");
        assert_eq!(display(b"abc", 1), "…");
        assert_eq!(display(b"abc", 0), "");
        let long = vec![0xffu8; 10_000];
        assert!(display(&long, 64).chars().count() <= 64);
    }
}
