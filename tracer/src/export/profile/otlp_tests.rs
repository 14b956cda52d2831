use std::collections::HashSet;

use super::*;
use crate::export::profile::fixture::{self, profile, stack};
use crate::stacks::code::Root;
use crate::stacks::profile::Kind;

fn request(profile: &Profile) -> (Vec<OtlpProfile>, ProfilesDictionary) {
    let mut request = otlp_profiles(profile, Resource::default());
    let mut resource = request.resource_profiles.remove(0);
    let profiles = resource.scope_profiles.remove(0).profiles;
    (profiles, request.dictionary.unwrap())
}

fn text(dictionary: &ProfilesDictionary, index: i32) -> &str {
    &dictionary.string_table[index as usize]
}

/// Functions of a sample, the innermost first.
fn functions<'d>(dictionary: &'d ProfilesDictionary, sample: &Sample) -> Vec<&'d str> {
    let stack = &dictionary.stack_table[sample.stack_index as usize];
    let locations = stack.location_indices.iter();
    let lines = locations.flat_map(|at| &dictionary.location_table[*at as usize].lines);
    let function = |line: &Line| &dictionary.function_table[line.function_index as usize];
    lines
        .map(|line| text(dictionary, function(line).name_strindex))
        .collect()
}

fn distinct<T: prost::Message>(table: &[T]) -> usize {
    let encoded: HashSet<Vec<u8>> = table.iter().map(|entry| entry.encode_to_vec()).collect();
    encoded.len()
}

#[test]
fn the_first_of_each_table_is_empty_and_no_entry_is_there_twice() {
    for profile in [fixture::leak_and_cache(), profile(Vec::new())] {
        let (_, dictionary) = request(&profile);
        assert_eq!(dictionary.string_table[0], "");
        assert_eq!(dictionary.mapping_table[0], Mapping::default());
        assert_eq!(dictionary.location_table[0], Location::default());
        assert_eq!(dictionary.function_table[0], Function::default());
        assert_eq!(dictionary.link_table, [Link::default()]);
        assert_eq!(dictionary.attribute_table[0], KeyValueAndUnit::default());
        assert_eq!(dictionary.stack_table[0], Stack::default());
        let strings: HashSet<&String> = dictionary.string_table.iter().collect();
        assert_eq!(strings.len(), dictionary.string_table.len());
        let tables = [
            (
                distinct(&dictionary.mapping_table),
                dictionary.mapping_table.len(),
            ),
            (
                distinct(&dictionary.location_table),
                dictionary.location_table.len(),
            ),
            (
                distinct(&dictionary.function_table),
                dictionary.function_table.len(),
            ),
            (
                distinct(&dictionary.attribute_table),
                dictionary.attribute_table.len(),
            ),
            (
                distinct(&dictionary.stack_table),
                dictionary.stack_table.len(),
            ),
        ];
        for (distinct, length) in tables {
            assert_eq!(distinct, length);
        }
    }
}

#[test]
fn every_entry_is_referred_to_and_every_reference_has_an_entry() {
    for profile in [fixture::leak_and_cache(), fixture::hostile()] {
        let (profiles, dictionary) = request(&profile);
        let samples = || profiles.iter().flat_map(|profile| &profile.samples);
        let stacks: HashSet<i32> = samples().map(|sample| sample.stack_index).collect();
        let table = |length: usize| (1..length as i32).collect::<HashSet<i32>>();
        assert_eq!(stacks, table(dictionary.stack_table.len()));
        let locations = dictionary.stack_table.iter();
        let locations = locations.flat_map(|stack| stack.location_indices.clone());
        let locations: HashSet<i32> = locations.collect();
        assert_eq!(locations, table(dictionary.location_table.len()));
        let lines = dictionary.location_table.iter().flat_map(|l| &l.lines);
        let functions: HashSet<i32> = lines.map(|line| line.function_index).collect();
        assert_eq!(functions, table(dictionary.function_table.len()));
        let of_samples = samples().flat_map(|sample| sample.attribute_indices.clone());
        let of_profiles = profiles.iter().flat_map(|p| p.attribute_indices.clone());
        let of_locations = dictionary.location_table.iter();
        let of_locations = of_locations.flat_map(|l| l.attribute_indices.clone());
        let attributes: HashSet<i32> = of_samples.chain(of_profiles).chain(of_locations).collect();
        assert_eq!(attributes, table(dictionary.attribute_table.len()));
    }
}

#[test]
fn each_value_is_a_profile_whose_samples_sum_up() {
    let (profiles, dictionary) = request(&fixture::leak_and_cache());
    let sums: Vec<(&str, i64)> = profiles
        .iter()
        .map(|profile| {
            let sample_type = profile.sample_type.unwrap();
            assert_eq!(text(&dictionary, sample_type.unit_strindex), "bytes");
            let values = profile.samples.iter().flat_map(|sample| &sample.values);
            (
                text(&dictionary, sample_type.type_strindex),
                values.sum::<i64>(),
            )
        })
        .collect();
    let expected = [
        ("resident", 270_000),
        ("growth", 60_000),
        ("touched", 270_000),
    ];
    assert_eq!(sums, expected);
    for profile in &profiles {
        assert_eq!(profile.time_unix_nano, 1_767_323_045_000_000_000);
        assert_eq!(profile.duration_nano, 60_000_000_000);
        let shapes = profile.samples.iter();
        assert!(shapes.clone().all(|sample| sample.values.len() == 1));
        assert!(shapes.clone().all(|s| s.timestamps_unix_nano.is_empty()));
    }
}

#[test]
fn a_sample_says_whose_it_is_and_a_profile_how_exact() {
    let (profiles, dictionary) = request(&fixture::leak_and_cache());
    let attributes = |indices: &[i32]| -> Vec<(String, Value)> {
        let entries = indices
            .iter()
            .map(|at| &dictionary.attribute_table[*at as usize]);
        entries
            .map(|entry| {
                let key = text(&dictionary, entry.key_strindex).to_owned();
                (key, entry.value.clone().unwrap().value.unwrap())
            })
            .collect()
    };
    assert_eq!(
        attributes(&profiles[0].samples[0].attribute_indices),
        [
            ("process.pid".to_owned(), Value::IntValue(7)),
            (
                "process.executable.name".to_owned(),
                Value::StringValue("app".into())
            ),
        ]
    );
    assert_eq!(
        attributes(&profiles[0].attribute_indices),
        [
            (
                "memtrace.sampling.error".to_owned(),
                Value::IntValue(14_595)
            ),
            ("memtrace.sampling.lost".to_owned(), Value::IntValue(3)),
        ]
    );
}

#[test]
fn inlined_functions_are_lines_of_one_location_and_marks_are_functions() {
    let mut inlined = stack(1, &["push", "serve"], 1.0);
    fixture::frame_mut(&mut inlined, 0).inlined = true;
    inlined.root = Root::Cut;
    let (profiles, dictionary) = request(&profile(vec![inlined]));
    let sample = &profiles[0].samples[0];
    let names = functions(&dictionary, sample);
    assert_eq!(names, ["push", "serve", "[truncated]"]);
    assert_eq!(dictionary.location_table[1].lines.len(), 2);
}

#[test]
fn address_space_is_a_profile_of_its_own() {
    let mut mapped = stack(1, &["mmap"], 5.0);
    mapped.kind = Kind::Mapped;
    let (profiles, dictionary) = request(&profile(vec![mapped, stack(1, &["f"], 3.0)]));
    let mapped = profiles.last().unwrap();
    let name = mapped.sample_type.unwrap().type_strindex;
    assert_eq!(text(&dictionary, name), "mapped");
    assert_eq!(mapped.samples[0].values, [5]);
    assert_eq!(profiles[0].samples[0].values, [3]);
}

#[test]
fn hostile_names_are_escaped() {
    let (_, dictionary) = request(&fixture::hostile());
    for text in &dictionary.string_table {
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
}
