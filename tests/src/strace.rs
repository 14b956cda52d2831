//! strace as oracle of what a program asked of its address space.
//!
//! Reads `strace -f -X raw -o FILE` and adds up by the rules of memtrace's `heap` probe.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};

use crate::calls::{Sums, advice_frees, pages};

/// What to trace so that [`sums_after_joining`] understands it.
pub const TRACE: &str = "trace=mmap,munmap,mremap,brk,madvise,write,clone,clone3,fork,vfork";

const CLONE_VM: u64 = 0x100;
const DONTUNMAP: u64 = 4;

/// Sums of everything that happened after the process wrote itself into `cgroup.procs`.
pub fn sums_after_joining(text: &str) -> Result<Sums> {
    let mut state = State::default();
    for call in calls(text) {
        state.take(&call).with_context(|| format!("{call:?}"))?;
    }
    ensure!(state.joined, "strace saw no write into cgroup.procs");
    Ok(state.sums)
}

#[derive(Debug)]
struct Call {
    tid: u32,
    name: String,
    arguments: Vec<String>,
    result: Option<u64>,
}

#[derive(Debug, Default)]
struct State {
    joined: bool,
    sums: Sums,
    /// Thread to address space, named by its first thread.
    spaces: HashMap<u32, u32>,
    breaks: HashMap<u32, u64>,
}

impl State {
    fn take(&mut self, call: &Call) -> Result<()> {
        let space = *self.spaces.entry(call.tid).or_insert(call.tid);
        let Some(result) = call.result else {
            return Ok(());
        };
        let number = |index: usize| -> Result<u64> {
            value(call.arguments.get(index).context("argument missing")?).context("not a number")
        };
        let counts = self.joined;
        let sums = &mut self.sums;
        match call.name.as_str() {
            "write" if call.arguments.get(1).is_some_and(|text| text == "\"0\"") => {
                self.joined = true;
            }
            "clone" | "clone3" | "fork" | "vfork" => {
                let child = u32::try_from(result)?;
                if clone_flags(&call.arguments) & CLONE_VM != 0 {
                    self.spaces.insert(child, space);
                } else if let Some(brk) = self.breaks.get(&space).copied() {
                    self.breaks.insert(child, brk);
                }
            }
            "brk" => {
                let before = self.breaks.insert(space, result);
                if let Some(before) = before.filter(|_| counts && number(0).ok() == Some(result)) {
                    sums.brk_grow_bytes += result.saturating_sub(before);
                    sums.brk_shrink_bytes += before.saturating_sub(result);
                }
            }
            "mmap" if counts => sums.mmap_bytes += pages(number(1)?),
            "munmap" if counts => sums.munmap_bytes += pages(number(1)?),
            "madvise" if counts && advice_frees(number(2)? as i32) => {
                sums.madvise_free_bytes += pages(number(1)?);
            }
            "mremap" if counts => {
                let (old, new) = (pages(number(1)?), pages(number(2)?));
                if number(3)? & DONTUNMAP != 0 {
                    sums.mmap_bytes += new;
                } else {
                    sums.mmap_bytes += new.saturating_sub(old);
                    sums.munmap_bytes += old.saturating_sub(new);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The calls in the order in which they ended.
fn calls(text: &str) -> Vec<Call> {
    let mut begun: HashMap<u32, String> = HashMap::new();
    let mut calls = Vec::new();
    for line in text.lines() {
        let Some((tid, rest)) = line.split_once(char::is_whitespace) else {
            continue;
        };
        let (Ok(tid), rest) = (tid.parse(), rest.trim_start()) else {
            continue;
        };
        if let Some(start) = rest.strip_suffix("<unfinished ...>") {
            begun.insert(tid, start.trim_end().to_owned());
            continue;
        }
        let whole = match rest.split_once(" resumed>") {
            Some((_, end)) if rest.starts_with("<... ") => {
                begun.remove(&tid).unwrap_or_default() + end
            }
            _ => rest.to_owned(),
        };
        calls.extend(parse(tid, &whole));
    }
    calls
}

fn parse(tid: u32, line: &str) -> Option<Call> {
    let (call, result) = line.rsplit_once(" = ")?;
    let (name, arguments) = call.trim_end().strip_suffix(')')?.split_once('(')?;
    Some(Call {
        tid,
        name: name.to_owned(),
        arguments: arguments
            .split(',')
            .map(|text| text.trim().to_owned())
            .collect(),
        // `-1 EINVAL (Invalid argument)` is no number.
        result: value(result.split(' ').next()?),
    })
}

fn clone_flags(arguments: &[String]) -> u64 {
    arguments
        .iter()
        .find_map(|argument| argument.trim_start_matches('{').strip_prefix("flags="))
        .and_then(value)
        .unwrap_or(0)
}

fn value(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None if text == "NULL" => Some(0),
        None => text.parse().ok(),
    }
}
