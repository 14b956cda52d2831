//! What tells functions and places in code apart where they are referred to by number.

use std::sync::Arc;

use super::names;
use crate::stacks::profile::{Frame, ProfileStack};

/// A place in code, or what stands for those that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Place<'a> {
    /// A function, last, and all that is inlined there, the innermost first. Never empty.
    Code(&'a [Arc<Frame>]),
    Mark(&'static str),
}

/// A function by what it shows as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Named<'a> {
    Function {
        name: &'a str,
        file: Option<&'a str>,
    },
    /// Code that nothing names.
    Unknown {
        module: &'a str,
        offset: u64,
    },
    Mark(&'static str),
}

/// A function at a line.
#[derive(Debug)]
pub(super) struct NamedLine<'a> {
    pub named: Named<'a>,
    pub name: String,
    /// Source file, as given.
    pub file: Option<&'a str>,
    /// 0 if unknown.
    pub line: i64,
}

/// The places of a stack, the innermost first.
pub(super) fn of(stack: &ProfileStack) -> impl Iterator<Item = Place<'_>> {
    let (frames, mark) = names::bounded(stack);
    let code = frames.chunk_by(|inner, _| inner.inlined).map(Place::Code);
    code.chain(mark.map(Place::Mark))
}

impl<'a> Place<'a> {
    /// The frame that has an address of its own.
    pub(super) fn frame(self) -> Option<&'a Frame> {
        match self {
            Place::Code(frames) => frames.last().map(Arc::as_ref),
            Place::Mark(_) => None,
        }
    }

    /// The frame, if it is in a file or in what stands for one.
    pub(super) fn mapped(self) -> Option<&'a Frame> {
        let known = |module: &str| !module.is_empty() && module != "[unknown]";
        self.frame().filter(|frame| known(&frame.module))
    }

    /// Its functions, the innermost first.
    pub(super) fn lines(self) -> Vec<NamedLine<'a>> {
        match self {
            Place::Code(frames) => frames.iter().map(|frame| line(frame)).collect(),
            Place::Mark(mark) => vec![NamedLine {
                named: Named::Mark(mark),
                name: mark.to_owned(),
                file: None,
                line: 0,
            }],
        }
    }
}

fn line(frame: &Frame) -> NamedLine<'_> {
    let file = frame.source.as_ref().map(|(file, _)| file.as_str());
    let named = match frame.function.as_deref() {
        Some(name) if !name.trim().is_empty() => Named::Function { name, file },
        _ => Named::Unknown {
            module: &frame.module,
            offset: frame.offset,
        },
    };
    NamedLine {
        named,
        name: names::function(frame),
        file,
        line: frame
            .source
            .as_ref()
            .map_or(0, |(_, line)| i64::from(*line)),
    }
}
