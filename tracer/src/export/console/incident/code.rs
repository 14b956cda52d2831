//! The code that held the memory: of each stack what it held, then its call path over lines.

use crate::{
    incident::record::Victim,
    size,
    stacks::told::{StackRecord, TRUNCATED},
};

use super::shown;

/// Functions of a call path.
const MOST_FRAMES: usize = 10;

/// A smaller part of what the victims had is told as such.
const WHOLE: f64 = 0.95;
/// Of more victims not all are looked at.
const MOST_VICTIMS: usize = 8;

/// How much of what the victims had is behind the stacks, where that is not nearly all.
pub fn part_sampled(stacks: &[StackRecord], victims: &[Victim]) -> Option<String> {
    let share = |stack: &&StackRecord| stack.share.unwrap_or(0.0);
    let largest = stacks.iter().max_by(|a, b| share(a).total_cmp(&share(b)))?;
    let sampled = largest.resident_bytes as f64 / largest.share.filter(|share| *share > 0.0)?;
    let anon: Option<u64> = victims.iter().map(|victim| victim.anon_bytes).sum();
    let anon = anon.filter(|_| victims.len() <= MOST_VICTIMS)?;
    (sampled < WHOLE * anon as f64).then(|| {
        format!(
            "About {} of {} anonymous was sampled: what a process touches in its first second is not, and what it \
             had may have been looked at up to half a minute before.",
            size::bytes(sampled as u64),
            size::bytes(anon)
        )
    })
}

/// Lines of one stack, the innermost function that is not the allocator's first.
pub fn lines(stack: &StackRecord) -> Vec<String> {
    let mut head = format!(
        "{} ±{}  {}({})",
        size::bytes(stack.resident_bytes),
        size::bytes(stack.error_bytes),
        shown(&stack.process.comm),
        stack.process.pid
    );
    if let Some(share) = stack.share {
        head += &format!("  {:.0} % of what was sampled", share * 100.0);
    }
    if stack.surely_grew() {
        let grown = size::bytes(stack.growth_bytes.unsigned_abs());
        let error = size::bytes(stack.growth_error_bytes);
        head += &format!(", grew {grown} ±{error}");
    }
    let frames = stack.code();
    let shown_frames = frames.iter().take(MOST_FRAMES);
    let mut lines = vec![head];
    lines.extend(shown_frames.map(|frame| format!("  {}", shown(frame))));
    let more = frames.len().saturating_sub(MOST_FRAMES);
    if more > 0 {
        lines.push(format!("  … {more} more callers"));
    }
    if stack.truncated {
        lines.push(format!("  {TRUNCATED}: the callers above are not known"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stacks::told::tests::record;

    #[test]
    fn a_stack_tells_what_it_held_and_its_callers() {
        let frames = [
            "malloc (libc.so.6)",
            "leak (app)",
            "serve (app)",
            "app+0x1234",
        ];
        let expected = [
            "61.0M ±6.0M  app(7)  80 % of what was sampled, grew 20.0M ±2.0M",
            "  leak (app)",
            "  serve (app)",
            "  app+0x1234",
        ];
        assert_eq!(lines(&record(&frames)), expected);
    }

    #[test]
    fn a_part_of_what_the_victims_had_is_told_as_a_part() {
        let victim = |anon_mib: u64| Victim {
            anon_bytes: Some(anon_mib << 20),
            ..Victim::default()
        };
        let stacks = [record(&["leak (app)"])];
        let told = part_sampled(&stacks, &[victim(100), victim(20)]).unwrap();
        assert!(told.starts_with("About 76.2M of 120M anonymous"), "{told}");
        assert_eq!(part_sampled(&stacks, &[victim(78)]), None);
        assert_eq!(part_sampled(&stacks, &[Victim::default()]), None);
    }

    #[test]
    fn what_is_unknown_or_left_out_is_said() {
        let names: Vec<String> = (0..64).map(|at| format!("f{at} (app)")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut deep = record(&names);
        deep.truncated = true;
        deep.share = None;
        deep.growth_bytes = 0;
        let lines = lines(&deep);
        assert_eq!(lines[0], "61.0M ±6.0M  app(7)");
        assert_eq!(lines.len(), 1 + MOST_FRAMES + 2);
        assert_eq!(lines[11], "  … 54 more callers");
        assert!(lines[12].contains(TRUNCATED));
    }

    #[test]
    fn a_tampered_name_does_nothing_to_the_terminal() {
        let mut tampered = record(&["a\x1b[2Jb (app)"]);
        tampered.process.comm = "x\ny".to_owned();
        let text = lines(&tampered).concat();
        assert!(!text.chars().any(char::is_control), "{text}");
    }
}
