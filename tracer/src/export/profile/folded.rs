//! Folded stacks, a line a call path: `comm-PID;root;…;leaf BYTES`, as flamegraph.pl, inferno and
//! speedscope read them.

use std::io::{self, Write};

use super::paths::{Paths, Style};
use super::summary::whole;
use super::{View, sum};
use crate::stacks::profile::Profile;

/// The call paths of `profile` that have at least a byte, sorted. An empty profile has no lines.
pub fn write(profile: &Profile, view: View, mut out: impl Write) -> io::Result<()> {
    let paths = Paths::new(profile, view.kind(), Style::Folded);
    for path in paths.all() {
        let bytes = sum(path.stacks.iter().map(|stack| view.of(stack))).bytes;
        let bytes = whole(bytes);
        if bytes > 0 {
            writeln!(out, "{} {bytes}", paths.joined(&path.steps))?;
        }
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::profile::fixture::{self, profile, stack};
    use crate::stacks::code::Root;

    fn folded(profile: &Profile, view: View) -> String {
        let mut out = Vec::new();
        write(profile, view, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_lines_of_a_process_sum_up_to_its_resident_memory() {
        let profile = fixture::leak_and_cache();
        let text = folded(&profile, View::Resident);
        for pid in [7, 8] {
            let shown: u64 = text
                .lines()
                .filter(|line| line.starts_with(&format!("app-{pid};")))
                .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok())
                .sum();
            let stacks = profile.stacks.iter().filter(|stack| stack.pid == pid);
            let truth: f64 = stacks.map(|stack| stack.resident.bytes).sum();
            assert_eq!(shown, truth as u64, "{text}");
        }
        assert_eq!(text.lines().next(), Some("app-7;_start;main;cache 100000"));
    }

    #[test]
    fn the_order_of_stacks_does_not_matter() {
        let mut profile = fixture::leak_and_cache();
        let before = folded(&profile, View::Resident);
        profile.stacks.reverse();
        assert_eq!(folded(&profile, View::Resident), before);
    }

    #[test]
    fn growth_has_no_line_for_what_shrank() {
        let mut shrank = stack(1, &["freed", "main"], 4096.0);
        shrank.growth.bytes = -8192.0;
        let mut grew = stack(1, &["kept", "main"], 8192.0);
        grew.growth.bytes = 4096.0;
        let text = folded(&profile(vec![shrank, grew]), View::Growth);
        assert_eq!(text, "app-1;main;kept 4096\n");
    }

    #[test]
    fn a_cut_stack_and_an_inlined_frame_say_so() {
        let mut cut = stack(1, &["small", "big"], 1.0);
        fixture::frame_mut(&mut cut, 0).inlined = true;
        cut.root = Root::Cut;
        let mut lost = stack(1, &["f"], 1.0);
        lost.root = Root::Lost;
        assert_eq!(
            folded(&profile(vec![cut, lost]), View::Resident),
            "app-1;[truncated];big;small_[i] 1\n\
             app-1;[unwound by frame pointer: truncated];f 1\n"
        );
    }

    #[test]
    fn hostile_names_stay_one_frame_of_one_line() {
        let mut hostile = stack(1, &["a;b\nc 5", "x 12", "y\u{2028}\x1b[2J"], 9.0);
        hostile.comm = "# ;\n".into();
        let text = folded(&profile(vec![hostile]), View::Resident);
        assert_eq!(
            text,
            "\\x23 :\\n-1;y\\xe2\\x80\\xa8\\x1b[2J;x_12;a:b\\nc_5 9\n"
        );
    }

    #[test]
    fn address_space_is_apart_from_resident_memory() {
        let mut mapped = stack(1, &["mmap"], 5.0);
        mapped.kind = crate::stacks::profile::Kind::Mapped;
        let both = profile(vec![mapped, stack(1, &["f"], 3.0)]);
        assert_eq!(folded(&both, View::Mapped), "app-1;mmap 5\n");
        assert_eq!(folded(&both, View::Resident), "app-1;f 3\n");
    }

    #[test]
    fn an_empty_profile_has_no_lines() {
        assert_eq!(folded(&profile(Vec::new()), View::Resident), "");
    }
}
