//! Attributes of a call path: whose it is, what it holds, and its functions as text.
//!
//! Owns the bound on that text.

use opentelemetry_proto::tonic::common::v1::KeyValue;

use crate::{
    export::otlp::wire,
    incident::record::{Incident, Victim},
    stacks::told::{StackRecord, TRUNCATED},
};

/// Longest call path as text, bytes; backends cut or refuse long attributes.
const MAX_BYTES: usize = 4096;

/// `code.stacktrace` is of the semantic conventions.
pub(super) fn attributes(stack: &StackRecord) -> [KeyValue; 8] {
    [
        wire::integer("memtrace.stack.process.pid", stack.process.pid.into()),
        wire::string("memtrace.stack.process.comm", &stack.process.comm),
        wire::integer("memtrace.stack.resident_bytes", stack.resident_bytes),
        wire::integer("memtrace.stack.error_bytes", stack.error_bytes),
        wire::signed("memtrace.stack.growth_bytes", stack.growth_bytes),
        wire::integer(
            "memtrace.stack.growth_error_bytes",
            stack.growth_error_bytes,
        ),
        wire::boolean("memtrace.stack.truncated", stack.truncated),
        wire::string("code.stacktrace", &text(stack)),
    ]
}

/// The first stack of the victim itself; else the first victim has that of another process, as a
/// record without a victim has.
pub(super) fn of<'a>(incident: &'a Incident, victim: Option<&Victim>) -> Option<&'a StackRecord> {
    let stacks = &incident.evidence.stacks;
    let Some(victim) = victim else {
        return stacks.first();
    };
    let own = |stack: &&StackRecord| victim.pid == Some(stack.process.pid);
    let is_first = incident.victims.first() == Some(victim);
    let first = || stacks.first().filter(|_| is_first);
    stacks.iter().find(own).or_else(first)
}

/// A function a line, the innermost first, as long as there is room.
fn text(stack: &StackRecord) -> String {
    let end = stack.truncated.then_some(TRUNCATED);
    let frames = stack.frames.iter().map(String::as_str).chain(end);
    let mut text = String::new();
    for frame in frames {
        // With room for the mark.
        if text.len() + 1 + frame.len() > MAX_BYTES - 4 {
            text.push_str("\n…");
            break;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(frame);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stacks::told::tests::record;

    #[test]
    fn the_call_path_is_a_function_a_line() {
        let mut stack = record(&["malloc (libc.so.6)", "leak (app)"]);
        assert_eq!(text(&stack), "malloc (libc.so.6)\nleak (app)");
        stack.truncated = true;
        assert!(text(&stack).ends_with("leak (app)\n[truncated]"));
    }

    #[test]
    fn a_long_call_path_is_cut_between_two_functions() {
        let name = "f".repeat(300);
        let text = text(&record(&[name.as_str(); 64]));
        assert!(text.len() <= MAX_BYTES, "{}", text.len());
        let (frames, end) = text.rsplit_once('\n').unwrap_or_default();
        assert_eq!(end, "…");
        assert!(frames.lines().all(|line| line == name));
    }
}
