//! The profiles signal of OTLP (`v1development`, alpha).
//!
//! Owns the conversion: a profile a value (resident, growth, touched, mapped) over one dictionary. Names
//! of semantic conventions where they have one; values without bytes are left out. Must not send.

use opentelemetry_proto::tonic::{
    collector::profiles::v1development::ExportProfilesServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, any_value::Value},
    profiles::v1development::{
        Function, KeyValueAndUnit, Line, Link, Location, Mapping, Profile as OtlpProfile,
        ProfilesDictionary, ResourceProfiles, Sample, ScopeProfiles, Stack, ValueType,
    },
    resource::v1::Resource,
};

use super::dictionary::Dictionary;
use super::places::{self, Named, NamedLine, Place};
use super::summary::whole;
use super::{View, names, ordered, total};
use crate::export::otlp::resource::{SCHEMA_URL, SCOPE};
use crate::stacks::profile::{Frame, Profile, ProfileStack};

/// `profile` as a request of the profiles service; `resource` is whose memory it is.
pub fn otlp_profiles(profile: &Profile, resource: Resource) -> ExportProfilesServiceRequest {
    let mut tables = Tables::new();
    let stacks = ordered(profile);
    let profiles = View::ALL
        .into_iter()
        .filter_map(|view| one(profile, &stacks, view, &mut tables))
        .collect();
    let scope = InstrumentationScope {
        name: SCOPE.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Default::default()
    };
    ExportProfilesServiceRequest {
        resource_profiles: vec![ResourceProfiles {
            resource: Some(resource),
            scope_profiles: vec![ScopeProfiles {
                scope: Some(scope),
                profiles,
                schema_url: SCHEMA_URL.to_owned(),
            }],
            schema_url: SCHEMA_URL.to_owned(),
        }],
        dictionary: Some(tables.finish()),
    }
}

/// `None` for address space that was not sampled; other values are there when they are 0.
fn one<'a>(
    profile: &Profile,
    stacks: &[&'a ProfileStack],
    view: View,
    tables: &mut Tables<'a>,
) -> Option<OtlpProfile> {
    if view == View::Mapped && !stacks.iter().any(|stack| stack.kind == view.kind()) {
        return None;
    }
    let of_kind = stacks.iter().filter(|stack| stack.kind == view.kind());
    let samples = of_kind.filter_map(|stack| {
        let bytes = view.of(stack).bytes.round() as i64;
        (bytes != 0).then(|| tables.sample(stack, bytes))
    });
    let samples = samples.collect();
    let error = whole(total(profile, view).error_bytes);
    let attribute_indices = vec![
        tables.attribute("memtrace.sampling.error", integer(error), "By"),
        tables.attribute(
            "memtrace.sampling.lost",
            integer(profile.lost_samples),
            "{sample}",
        ),
    ];
    let span = profile.until.duration_since(profile.from);
    let since = profile.from.duration_since(std::time::UNIX_EPOCH);
    let nanoseconds = |time: std::time::Duration| u64::try_from(time.as_nanos());
    Some(OtlpProfile {
        sample_type: Some(tables.value_type(view.name(), "bytes")),
        samples,
        time_unix_nano: nanoseconds(since.unwrap_or_default()).unwrap_or(u64::MAX),
        duration_nano: nanoseconds(span.unwrap_or_default()).unwrap_or(u64::MAX),
        period_type: Some(tables.value_type("pages", "count")),
        period: i64::try_from(profile.pages_per_sample).unwrap_or(i64::MAX),
        attribute_indices,
        ..Default::default()
    })
}

fn integer(value: u64) -> Value {
    Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX))
}

#[derive(PartialEq, Eq, Hash)]
struct AttributeKey {
    key: &'static str,
    text: String,
    integer: i64,
}

/// Place 0 of each table means that there is none.
struct Tables<'a> {
    strings: Dictionary<String, String>,
    mappings: Dictionary<&'a str, Mapping>,
    functions: Dictionary<Named<'a>, Function>,
    locations: Dictionary<Place<'a>, Location>,
    stacks: Dictionary<Vec<i32>, Stack>,
    attributes: Dictionary<AttributeKey, KeyValueAndUnit>,
}

impl<'a> Tables<'a> {
    fn new() -> Self {
        Tables {
            strings: Dictionary::strings(),
            mappings: Dictionary::new(vec![Mapping::default()]),
            functions: Dictionary::new(vec![Function::default()]),
            locations: Dictionary::new(vec![Location::default()]),
            stacks: Dictionary::new(vec![Stack::default()]),
            attributes: Dictionary::new(vec![KeyValueAndUnit::default()]),
        }
    }

    fn finish(self) -> ProfilesDictionary {
        ProfilesDictionary {
            mapping_table: self.mappings.into_values(),
            location_table: self.locations.into_values(),
            function_table: self.functions.into_values(),
            link_table: vec![Link::default()],
            string_table: self.strings.into_values(),
            attribute_table: self.attributes.into_values(),
            stack_table: self.stacks.into_values(),
        }
    }

    fn text(&mut self, text: &str) -> i32 {
        index(self.strings.text(text))
    }

    fn value_type(&mut self, name: &str, unit: &str) -> ValueType {
        ValueType {
            type_strindex: self.text(name),
            unit_strindex: self.text(unit),
        }
    }

    fn attribute(&mut self, key: &'static str, value: Value, unit: &str) -> i32 {
        let (text, integer) = match &value {
            Value::StringValue(text) => (text.clone(), 0),
            Value::IntValue(integer) => (String::new(), *integer),
            _ => (String::new(), 0),
        };
        let known = AttributeKey { key, text, integer };
        if let Some(place) = self.attributes.get(&known) {
            return index(place);
        }
        let attribute = KeyValueAndUnit {
            key_strindex: self.text(key),
            value: Some(AnyValue { value: Some(value) }),
            unit_strindex: self.text(unit),
        };
        index(self.attributes.put(known, attribute))
    }

    fn sample(&mut self, stack: &'a ProfileStack, bytes: i64) -> Sample {
        let locations: Vec<i32> = places::of(stack)
            .map(|place| self.location(place))
            .collect();
        let stack_index = match self.stacks.get(&locations) {
            Some(known) => known,
            None => {
                let location_indices = locations.clone();
                self.stacks.put(locations, Stack { location_indices })
            }
        };
        let comm = Value::StringValue(names::plain(&stack.comm));
        Sample {
            stack_index: index(stack_index),
            attribute_indices: vec![
                self.attribute("process.pid", integer(u64::from(stack.pid)), ""),
                self.attribute("process.executable.name", comm, ""),
            ],
            values: vec![bytes],
            ..Default::default()
        }
    }

    fn location(&mut self, place: Place<'a>) -> i32 {
        if let Some(known) = self.locations.get(&place) {
            return index(known);
        }
        let lines = place.lines().into_iter().map(|line| self.line(line));
        let lines = lines.collect();
        let mapping_index = match place.mapped() {
            Some(frame) => self.mapping(frame),
            None => 0,
        };
        // `[jit]` is a mapping, but its code is not native.
        let in_file = place
            .mapped()
            .filter(|frame| !frame.module.starts_with('['));
        let native = Value::StringValue("native".to_owned());
        let kind = in_file.map(|_| self.attribute("profile.frame.type", native, ""));
        let location = Location {
            mapping_index,
            address: place.frame().map_or(0, |frame| frame.offset),
            lines,
            attribute_indices: kind.into_iter().collect(),
        };
        index(self.locations.put(place, location))
    }

    fn mapping(&mut self, frame: &'a Frame) -> i32 {
        let place = match self.mappings.get(&frame.module.as_str()) {
            Some(known) => known,
            None => {
                let filename_strindex = self.text(&names::module(frame));
                let mapping = Mapping {
                    filename_strindex,
                    ..Default::default()
                };
                self.mappings.put(&frame.module, mapping)
            }
        };
        if let Some(mapping) = self.mappings.value(place) {
            let limit = frame.offset.saturating_add(1);
            mapping.memory_limit = mapping.memory_limit.max(limit);
        }
        index(place)
    }

    fn line(&mut self, line: NamedLine<'a>) -> Line {
        let place = match self.functions.get(&line.named) {
            Some(known) => known,
            None => {
                let file = line.file.map(names::plain);
                let function = Function {
                    name_strindex: self.text(&line.name),
                    filename_strindex: file.map_or(0, |file| self.text(&file)),
                    ..Default::default()
                };
                self.functions.put(line.named, function)
            }
        };
        Line {
            function_index: index(place),
            line: line.line,
            column: 0,
        }
    }
}

/// A place in a table; 0, for none, if it cannot be told.
fn index(place: usize) -> i32 {
    i32::try_from(place).unwrap_or_default()
}

#[cfg(test)]
#[path = "otlp_tests.rs"]
mod tests;
