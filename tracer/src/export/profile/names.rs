//! Names of processes, functions and marks as text that no format chokes on.
//!
//! Owns what stands for a frame without a function, and for a stack that was cut.

use std::sync::Arc;

use crate::host::escape::display;
use crate::stacks::code::Root;
use crate::stacks::profile::{Frame, ProfileStack};

/// Most characters of a name; templates make longer ones.
const MOST_CHARS: usize = 400;
/// Frames that are exported of a stack, from the innermost.
const MOST_FRAMES: usize = 512;

/// The copied piece of the stack ended, or it had too many frames.
const CUT: &str = "[truncated]";
/// There was nothing to unwind by.
const LOST: &str = "[unwound by frame pointer: truncated]";

/// What an untrusted name shows as: one line, without control characters, valid in XML.
pub(super) fn plain(name: &str) -> String {
    let mut plain = String::with_capacity(name.len());
    for character in display(name.as_bytes(), MOST_CHARS).trim().chars() {
        plain.push(match character {
            '\u{fffe}' | '\u{ffff}' => '\u{fffd}',
            _ if character.is_whitespace() => ' ',
            _ => character,
        });
    }
    plain
}

/// The function, or where there is none the place: `module+0x1234`.
pub(super) fn function(frame: &Frame) -> String {
    let name = frame.function.as_deref().map(plain);
    match name.filter(|name| !name.is_empty()) {
        Some(name) => name,
        None => format!("{}+{:#x}", module(frame), frame.offset),
    }
}

pub(super) fn module(frame: &Frame) -> String {
    let module = plain(&frame.module);
    if module.is_empty() {
        "[unknown]".to_owned()
    } else {
        module
    }
}

/// The frames that are exported, the innermost first, and what stands for the missing ones at the root.
pub(super) fn bounded(stack: &ProfileStack) -> (&[Arc<Frame>], Option<&'static str>) {
    let frames = stack.frames.get(..MOST_FRAMES);
    let mark = match stack.root {
        Root::Lost => Some(LOST),
        Root::Cut => Some(CUT),
        Root::Reached if stack.frames.len() > MOST_FRAMES => Some(CUT),
        Root::Reached => None,
    };
    (frames.unwrap_or(&stack.frames), mark)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::profile::fixture;

    #[test]
    fn a_frame_without_a_function_is_its_place() {
        let frame = Frame {
            function: None,
            offset: 0x1234,
            ..fixture::frame("")
        };
        assert_eq!(function(&frame), "app+0x1234");
        assert_eq!(function(&fixture::frame(" \n")), r"\n");
        assert_eq!(function(&fixture::frame("  ")), "app+0x10");
    }

    #[test]
    fn names_are_one_bounded_line() {
        assert_eq!(plain("a\x1b[31m\u{ffff}\u{2003}b"), "a\\x1b[31m\u{fffd} b");
        assert_eq!(plain(&"x".repeat(10_000)).chars().count(), MOST_CHARS);
    }

    #[test]
    fn a_stack_of_too_many_frames_is_marked() {
        let names = vec!["f"; MOST_FRAMES + 1];
        let stack = fixture::stack(1, &names, 1.0);
        let (frames, mark) = bounded(&stack);
        assert_eq!((frames.len(), mark), (MOST_FRAMES, Some(CUT)));
    }
}
