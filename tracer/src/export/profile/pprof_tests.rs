use std::io::Read;
use std::time::{Duration, Instant};

use super::*;
use crate::export::profile::fixture::{self, profile, stack};
use crate::stacks::code::Root;

fn read(profile: &Profile) -> Pprof {
    let mut out = Vec::new();
    write(profile, &mut out).unwrap();
    let mut message = Vec::new();
    flate2::read::GzDecoder::new(out.as_slice())
        .read_to_end(&mut message)
        .unwrap();
    Pprof::decode(message.as_slice()).unwrap()
}

impl Pprof {
    fn text_of(&self, place: i64) -> &str {
        &self.string_table[place as usize]
    }

    /// Functions of each location of a sample, the innermost first.
    fn functions_of(&self, sample: &Sample) -> Vec<Vec<&str>> {
        let locations = sample.location_id.iter();
        let locations = locations.map(|id| &self.location[*id as usize - 1]);
        let name = |line: &Line| {
            let function = &self.function[line.function_id as usize - 1];
            self.text_of(function.name)
        };
        locations
            .map(|location| location.line.iter().map(name).collect())
            .collect()
    }
}

#[test]
fn values_sum_up_and_resident_is_what_opens() {
    let truth = fixture::leak_and_cache();
    let pprof = read(&truth);
    let types: Vec<(&str, &str)> = pprof
        .sample_type
        .iter()
        .map(|t| (pprof.text_of(t.r#type), pprof.text_of(t.unit)))
        .collect();
    assert_eq!(
        types,
        [
            ("resident", "bytes"),
            ("growth", "bytes"),
            ("touched", "bytes"),
            ("samples", "count")
        ]
    );
    let sum = |at: usize| pprof.sample.iter().map(|s| s.value[at]).sum::<i64>();
    assert_eq!((sum(0), sum(1), sum(3)), (270_000, 60_000, 16));
    assert_eq!(pprof.text_of(pprof.default_sample_type), "resident");
    assert_eq!(pprof.time_nanos, 1_767_323_045_000_000_000);
    assert_eq!(pprof.duration_nanos, 60_000_000_000);
    assert_eq!(pprof.period, 64);
}

#[test]
fn numbers_refer_to_what_is_there() {
    for profile in [fixture::leak_and_cache(), fixture::hostile()] {
        let pprof = read(&profile);
        assert_eq!(pprof.string_table[0], "");
        let texts: std::collections::HashSet<&String> = pprof.string_table.iter().collect();
        assert_eq!(texts.len(), pprof.string_table.len());
        for (at, location) in pprof.location.iter().enumerate() {
            assert_eq!(location.id, at as u64 + 1);
            assert!(location.mapping_id as usize <= pprof.mapping.len());
            if location.mapping_id > 0 {
                let mapping = &pprof.mapping[location.mapping_id as usize - 1];
                assert!(location.address < mapping.memory_limit);
            }
        }
        for sample in &pprof.sample {
            assert_eq!(sample.value.len(), pprof.sample_type.len());
            assert!(!pprof.functions_of(sample).is_empty());
        }
    }
}

#[test]
fn comments_say_how_exact_and_how_complete_it_is() {
    let pprof = read(&fixture::leak_and_cache());
    let comments: Vec<&str> = pprof.comment.iter().map(|c| pprof.text_of(*c)).collect();
    assert_eq!(
        comments,
        [
            "scope: /kubepods/app",
            "growth since: 2026-01-02 03:04:05Z",
            "264K ±14.3K resident",
            "+58.6K ±4.1K growth",
            "264K ±14.3K touched",
            "explained 264K of 391K anon (68%)",
            "1 in 64 pages sampled",
            "3 samples lost",
        ]
    );
}

#[test]
fn inlined_functions_are_lines_of_one_location() {
    let mut inlined = stack(1, &["push", "grow", "serve", "main"], 1.0);
    fixture::frame_mut(&mut inlined, 0).inlined = true;
    fixture::frame_mut(&mut inlined, 1).inlined = true;
    fixture::frame_mut(&mut inlined, 0).source = Some(("vec.rs".into(), 12));
    inlined.root = Root::Lost;
    let pprof = read(&profile(vec![inlined]));
    assert_eq!(
        pprof.functions_of(&pprof.sample[0]),
        [
            vec!["push", "grow", "serve"],
            vec!["main"],
            vec!["[unwound by frame pointer: truncated]"],
        ]
    );
    assert_eq!(pprof.location[0].line[0].line, 12);
    assert!(pprof.mapping[0].has_inline_frames);
    let push = &pprof.function[0];
    assert_eq!(pprof.text_of(push.filename), "vec.rs");
}

#[test]
fn a_frame_that_is_inlined_into_nothing_is_a_location_of_its_own() {
    let mut broken = stack(1, &["f", "g"], 1.0);
    fixture::frame_mut(&mut broken, 1).inlined = true;
    let pprof = read(&profile(vec![broken]));
    assert_eq!(pprof.functions_of(&pprof.sample[0]), [vec!["f"], vec!["g"]]);
}

#[test]
fn the_program_is_the_first_mapping() {
    let mut one = stack(1, &["malloc", "main"], 1.0);
    fixture::frame_mut(&mut one, 0).module = "libc.so.6".into();
    let pprof = read(&profile(vec![one]));
    let files = pprof.mapping.iter().map(|m| pprof.text_of(m.filename));
    assert_eq!(files.collect::<Vec<&str>>(), ["app", "libc.so.6"]);
}

#[test]
fn processes_are_labels() {
    let pprof = read(&fixture::leak_and_cache());
    let label = |at: usize| &pprof.sample[0].label[at];
    assert_eq!(pprof.text_of(label(0).key), "pid");
    assert_eq!(label(0).num, 7);
    assert_eq!(pprof.text_of(label(1).key), "comm");
    assert_eq!(pprof.text_of(label(1).str), "app");
}

#[test]
fn address_space_has_a_value_of_its_own() {
    let mut mapped = stack(1, &["mmap"], 5.0);
    mapped.kind = Kind::Mapped;
    let pprof = read(&profile(vec![stack(1, &["f"], 3.0), mapped]));
    let values: Vec<&[i64]> = pprof.sample.iter().map(|s| s.value.as_slice()).collect();
    assert_eq!(values, [&[3, 0, 3, 4, 0], &[0, 0, 0, 4, 5]]);
}

#[test]
fn hostile_names_are_escaped() {
    let pprof = read(&fixture::hostile());
    for text in &pprof.string_table {
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
}

#[test]
fn an_empty_profile_is_readable_and_the_order_of_stacks_does_not_matter() {
    let pprof = read(&profile(Vec::new()));
    assert!(pprof.sample.is_empty());
    assert_eq!(pprof.sample_type.len(), 4);
    let mut reversed = fixture::leak_and_cache();
    reversed.stacks.reverse();
    assert_eq!(read(&reversed), read(&fixture::leak_and_cache()));
}

#[test]
fn ten_thousand_deep_stacks_take_seconds() {
    let profile = fixture::many(10_000, 100);
    let begun = Instant::now();
    assert_eq!(read(&profile).sample.len(), profile.stacks.len());
    assert!(begun.elapsed() < Duration::from_secs(60));
}
