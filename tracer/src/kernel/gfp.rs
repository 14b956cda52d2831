//! Names of the gfp bits of the running kernel, from the format file of an event that prints them.
//!
//! The values differ between kernels, so none is written down here: tracefs shows the kernel's own
//! table as C expressions, which are evaluated. Must not load or attach anything. Whatever the file
//! holds costs bounded work and never a panic.
//! Sources: include/trace/events/mmflags.h (`show_gfp_flags`), `format_flags` in lib/vsprintf.c.

use std::{fmt::Write as _, fs::File, io::Read as _, path::Path};

/// Events that print gfp flags; the first that can be read serves.
const FORMATS: [&str; 2] = [
    "events/vmscan/mm_vmscan_direct_reclaim_begin/format",
    "events/kmem/mm_page_alloc/format",
];
/// Largest format file that is read; real ones have 8 KiB.
const LARGEST_FORMAT: u64 = 256 * 1024;
const MOST_ENTRIES: usize = 256;
const LONGEST_NAME: usize = 64;
/// Parentheses, casts and `~` within each other; real ones have 14.
const DEEPEST: u32 = 64;

/// The gfp bits and combinations that the running kernel has names for, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GfpNames {
    entries: Vec<(u32, String)>,
}

impl GfpNames {
    /// Reads the table of the running kernel below `tracefs`; see [`GfpNames::parse`].
    pub fn read(tracefs: &Path, enumerator: &dyn Fn(&str) -> Option<u32>) -> Option<Self> {
        FORMATS.iter().find_map(|format| {
            let mut text = Vec::new();
            File::open(tracefs.join(format))
                .and_then(|file| file.take(LARGEST_FORMAT).read_to_end(&mut text))
                .ok()?;
            Self::parse(std::str::from_utf8(&text).ok()?, enumerator)
        })
    }

    /// Takes the table from the text of a format file. `enumerator` gives the value of a kernel
    /// enumerator such as `___GFP_DMA_BIT`, which kernels that do not resolve them leave in.
    ///
    /// An entry whose value cannot be told is left out: its bits are then shown by the names of
    /// other entries or as a number. `None` when no entry remains.
    pub fn parse(format: &str, enumerator: &dyn Fn(&str) -> Option<u32>) -> Option<Self> {
        let entries = format
            .split("__print_flags(")
            .skip(1)
            .filter_map(|call| call.split_once(','))
            .find(|(argument, _)| argument.contains("gfp_flags"))
            .map(|(_, list)| parse_list(list, enumerator))?;
        (!entries.is_empty()).then_some(GfpNames { entries })
    }

    /// `mask` as the kernel log shows it, such as `GFP_KERNEL|__GFP_ZERO`; bits without a name as
    /// one hexadecimal number at the end. `none` for 0, as tracepoints have it.
    pub fn names(&self, mask: u32) -> String {
        if mask == 0 {
            return "none".into();
        }
        let mut rest = mask;
        let mut text = String::new();
        for (bits, name) in &self.entries {
            if rest == 0 {
                break;
            }
            if rest & bits == *bits {
                rest &= !bits;
                separate(&mut text);
                text.push_str(name);
            }
        }
        if rest != 0 {
            separate(&mut text);
            // Writing into a string does not fail.
            let _ = write!(text, "{rest:#x}");
        }
        text
    }
}

fn separate(text: &mut String) {
    if !text.is_empty() {
        text.push('|');
    }
}

/// `"|", {value, "name"}, …`, up to the end of the list or an entry without a name.
fn parse_list(list: &str, enumerator: &dyn Fn(&str) -> Option<u32>) -> Vec<(u32, String)> {
    let mut entries = Vec::new();
    let Some((_, mut rest)) = list.split_once('{') else {
        return entries;
    };
    // Neither names nor values have braces.
    while let Some((entry, after)) = rest.split_once('}')
        && entries.len() < MOST_ENTRIES
    {
        let Some((value, name)) = entry.rsplit_once(',') else {
            break;
        };
        let Some(name) = name
            .trim()
            .strip_prefix('"')
            .and_then(|name| name.strip_suffix('"'))
        else {
            break;
        };
        if is_name(name)
            && let Some(value) = evaluate(value, enumerator)
        {
            entries.push((value, name.to_owned()));
        }
        let next = after.trim_start().strip_prefix(',').map(str::trim_start);
        match next.and_then(|next| next.strip_prefix('{')) {
            Some(next) => rest = next,
            None => break,
        }
    }
    entries
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= LONGEST_NAME
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The value of a whole C expression, if it fits into a gfp mask.
fn evaluate(text: &str, enumerator: &dyn Fn(&str) -> Option<u32>) -> Option<u32> {
    let mut expression = Expression {
        rest: text,
        enumerator,
    };
    let value = expression.binary(0, 0)?;
    let is_whole = expression.rest.trim_start().is_empty();
    u32::try_from(value).ok().filter(|_| is_whole)
}

/// What is left to evaluate.
struct Expression<'a> {
    rest: &'a str,
    enumerator: &'a dyn Fn(&str) -> Option<u32>,
}

/// Binary operators, the loosest first.
const OPERATORS: [&str; 4] = ["|", "^", "&", "<<"];

impl<'a> Expression<'a> {
    /// Operands joined by the operators from `level` on, which bind ever tighter.
    fn binary(&mut self, level: usize, depth: u32) -> Option<u64> {
        let Some(operator) = OPERATORS.get(level) else {
            return self.unary(depth);
        };
        let mut value = self.binary(level + 1, depth)?;
        while self.take(operator) {
            let operand = self.binary(level + 1, depth)?;
            value = match *operator {
                "|" => value | operand,
                "^" => value ^ operand,
                "&" => value & operand,
                _ if operand < 64 => value << operand,
                _ => return None,
            };
        }
        Some(value)
    }

    fn unary(&mut self, depth: u32) -> Option<u64> {
        if depth >= DEEPEST {
            return None;
        }
        if self.take("~") {
            // Of a gfp_t, which has 32 bits.
            return Some(u64::from(!(self.unary(depth + 1)? as u32)));
        }
        if self.take("(") {
            if self.take_type() {
                return self.take(")").then(|| self.unary(depth + 1)).flatten();
            }
            let value = self.binary(0, depth + 1)?;
            return self.take(")").then_some(value);
        }
        let word = self.word();
        if word.starts_with(|first: char| first.is_ascii_digit()) {
            literal(word)
        } else if word.is_empty() || word.len() > LONGEST_NAME {
            None
        } else {
            (self.enumerator)(word).map(u64::from)
        }
    }

    /// Takes the words of a type name such as `unsigned long`, if the next word is one.
    fn take_type(&mut self) -> bool {
        let mut found = false;
        loop {
            let before = self.rest;
            if !matches!(
                self.word(),
                "gfp_t" | "unsigned" | "long" | "int" | "__force" | "u32" | "u64"
            ) {
                self.rest = before;
                return found;
            }
            found = true;
        }
    }

    fn take(&mut self, token: &str) -> bool {
        let rest = self.rest.trim_start().strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// The next identifier or number, empty if there is none.
    fn word(&mut self) -> &'a str {
        let rest = self.rest.trim_start();
        let end = rest
            .find(|next: char| !next.is_ascii_alphanumeric() && next != '_')
            .unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end);
        self.rest = rest;
        word
    }
}

/// A C integer: decimal, hexadecimal or octal, with or without `u`, `l` and `ll`.
fn literal(word: &str) -> Option<u64> {
    let digits = word.trim_end_matches(['u', 'U', 'l', 'L']);
    if word.len() - digits.len() > 3 {
        return None;
    }
    match digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None if digits.len() > 1 && digits.starts_with('0') => u64::from_str_radix(digits, 8).ok(),
        None => digits.parse().ok(),
    }
}

#[cfg(test)]
#[path = "gfp_tests.rs"]
mod tests;
