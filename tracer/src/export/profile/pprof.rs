//! pprof: `profile.proto`, compressed, as `go tool pprof`, speedscope, Pyroscope and others read it.
//!
//! Owns the conversion: a sample a stack with the values resident, growth, touched and samples, and
//! mapped if there is any; labels `pid` and `comm`. Addresses are offsets in files.

use std::io::{self, Write};
use std::time::SystemTime;

use flate2::{Compression, write::GzEncoder};
use prost::Message;

use super::dictionary::Dictionary;
use super::places::{self, Named, NamedLine, Place};
use super::proto::{Function, Label, Line, Location, Mapping, Profile as Pprof, Sample, ValueType};
use super::{View, names, ordered, summary};
use crate::stacks::profile::{Estimate, Frame, Kind, Profile, ProfileStack};

/// `profile` as a `.pb.gz` file.
pub fn write(profile: &Profile, out: impl Write) -> io::Result<()> {
    let mut out = GzEncoder::new(out, Compression::default());
    out.write_all(&message(profile).encode_to_vec())?;
    out.finish()?.flush()
}

fn message(profile: &Profile) -> Pprof {
    let mut tables = Tables::new();
    let any_mapped = profile.stacks.iter().any(|s| s.kind == Kind::Mapped);
    let mut types = vec![
        ("resident", "bytes"),
        ("growth", "bytes"),
        ("touched", "bytes"),
        ("samples", "count"),
    ];
    types.extend(any_mapped.then_some(("mapped", "bytes")));
    let sample_type = types
        .into_iter()
        .map(|(name, unit)| tables.value_type(name, unit))
        .collect();
    let stacks = ordered(profile);
    // Readers take the first mapping for the program.
    let mut frames = stacks.iter().flat_map(|stack| stack.frames.iter());
    if let Some(frame) = frames.find(|frame| is_program(&frame.module)) {
        tables.mapping(frame, false);
    }
    let samples = stacks.into_iter();
    let sample = samples
        .map(|stack| tables.sample(stack, any_mapped))
        .collect();
    let comment = comments(profile);
    let comment = comment.iter().map(|text| tables.text(text)).collect();
    let default_sample_type = tables.text("resident");
    let period_type = tables.value_type("pages", "count");
    Pprof {
        sample_type,
        sample,
        mapping: tables.mappings.into_values(),
        location: tables.locations.into_values(),
        function: tables.functions.into_values(),
        string_table: tables.strings.into_values(),
        time_nanos: nanoseconds(profile.from, SystemTime::UNIX_EPOCH),
        duration_nanos: nanoseconds(profile.until, profile.from),
        period_type: Some(period_type),
        period: i64::try_from(profile.pages_per_sample).unwrap_or(i64::MAX),
        comment,
        default_sample_type,
    }
}

/// What the numbers do not say: whose, how exact, what is missing.
fn comments(profile: &Profile) -> Vec<String> {
    let mut comments = vec![
        format!("scope: {}", summary::scope(profile)),
        format!("growth since: {}", summary::second(profile.base)),
    ];
    comments.extend(
        [View::Resident, View::Growth, View::Touched].map(|view| summary::amount(profile, view)),
    );
    comments.push(summary::explained(profile));
    comments.push(summary::sampling(profile));
    comments.push(summary::lost(profile));
    comments
}

/// Neither a library nor what stands for a file.
fn is_program(module: &str) -> bool {
    !module.is_empty() && !module.starts_with('[') && !module.contains(".so")
}

fn nanoseconds(time: SystemTime, since: SystemTime) -> i64 {
    let passed = time.duration_since(since).unwrap_or_default();
    i64::try_from(passed.as_nanos()).unwrap_or(i64::MAX)
}

struct Tables<'a> {
    strings: Dictionary<String, String>,
    mappings: Dictionary<&'a str, Mapping>,
    functions: Dictionary<Named<'a>, Function>,
    locations: Dictionary<Place<'a>, Location>,
}

impl<'a> Tables<'a> {
    fn new() -> Self {
        Tables {
            strings: Dictionary::strings(),
            mappings: Dictionary::new(Vec::new()),
            functions: Dictionary::new(Vec::new()),
            locations: Dictionary::new(Vec::new()),
        }
    }

    fn text(&mut self, text: &str) -> i64 {
        self.strings.text(text) as i64
    }

    fn value_type(&mut self, name: &str, unit: &str) -> ValueType {
        ValueType {
            r#type: self.text(name),
            unit: self.text(unit),
        }
    }

    fn sample(&mut self, stack: &'a ProfileStack, with_mapped: bool) -> Sample {
        let places = places::of(stack);
        let location_id = places.map(|place| self.location(place)).collect();
        let samples = i64::try_from(stack.samples).unwrap_or(i64::MAX);
        let bytes = |estimate: Estimate| estimate.bytes.round() as i64;
        let [resident, growth, touched] = [stack.resident, stack.growth, stack.touched].map(bytes);
        let mut value = match stack.kind {
            Kind::Resident => vec![resident, growth, touched, samples],
            Kind::Mapped => vec![0, 0, 0, samples],
        };
        if with_mapped {
            value.push(match stack.kind {
                Kind::Resident => 0,
                Kind::Mapped => resident,
            });
        }
        let comm = names::plain(&stack.comm);
        let label = vec![
            Label {
                key: self.text("pid"),
                str: 0,
                num: i64::from(stack.pid),
            },
            Label {
                key: self.text("comm"),
                str: self.text(&comm),
                num: 0,
            },
        ];
        Sample {
            location_id,
            value,
            label,
        }
    }

    fn location(&mut self, place: Place<'a>) -> u64 {
        if let Some(known) = self.locations.get(&place) {
            return known as u64 + 1;
        }
        let lines = place.lines();
        let mapping_id = match place.mapped() {
            Some(frame) => self.mapping(frame, lines.len() > 1),
            None => 0,
        };
        let address = place.frame().map_or(0, |frame| frame.offset);
        let line = lines.into_iter().map(|line| self.line(line)).collect();
        let location = Location {
            id: self.locations.len() as u64 + 1,
            mapping_id,
            address,
            line,
        };
        self.locations.put(place, location) as u64 + 1
    }

    fn mapping(&mut self, frame: &'a Frame, inlined: bool) -> u64 {
        let place = match self.mappings.get(&frame.module.as_str()) {
            Some(known) => known,
            None => {
                let mapping = Mapping {
                    id: self.mappings.len() as u64 + 1,
                    filename: self.text(&names::module(frame)),
                    // All are named, by their place if need be: readers should not look for files.
                    has_functions: true,
                    ..Mapping::default()
                };
                self.mappings.put(&frame.module, mapping)
            }
        };
        if let Some(mapping) = self.mappings.value(place) {
            let limit = frame.offset.saturating_add(1);
            mapping.memory_limit = mapping.memory_limit.max(limit);
            mapping.has_filenames |= frame.source.is_some();
            mapping.has_line_numbers |= frame.source.is_some();
            mapping.has_inline_frames |= inlined;
        }
        place as u64 + 1
    }

    fn line(&mut self, line: NamedLine<'a>) -> Line {
        let place = match self.functions.get(&line.named) {
            Some(known) => known,
            None => {
                let name = self.text(&line.name);
                let file = line.file.map(names::plain);
                let function = Function {
                    id: self.functions.len() as u64 + 1,
                    name,
                    system_name: name,
                    filename: file.map_or(0, |file| self.text(&file)),
                };
                self.functions.put(line.named, function)
            }
        };
        Line {
            function_id: place as u64 + 1,
            line: line.line,
        }
    }
}

#[cfg(test)]
#[path = "pprof_tests.rs"]
mod tests;
