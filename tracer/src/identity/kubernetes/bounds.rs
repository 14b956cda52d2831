//! What is taken of texts and lists that come from the API: each has an upper bound.

use std::collections::BTreeMap;

/// Longest name, value of a label and UID. Source: Kubernetes, "Object Names and IDs": 253.
const MOST_NAME_BYTES: usize = 253;
/// A prefix, `/` and a name. Source: Kubernetes, "Labels and Selectors": 253 + 1 + 63.
const MOST_KEY_BYTES: usize = 317;
/// References to images: a registry's name, a path and a digest.
const MOST_IMAGE_BYTES: usize = 1024;
/// The longest annotation that is taken; they may have 256 KiB.
const MOST_ANNOTATION_BYTES: usize = 4096;
const MOST_LABELS: usize = 256;
const MOST_ANNOTATIONS: usize = 64;
/// Containers of one pod.
pub(super) const MOST_CONTAINERS: usize = 256;

/// Empty and overlong ones are no names: half a name would be another's.
pub(super) fn name(text: &str) -> Option<String> {
    within(text, MOST_NAME_BYTES)
}

pub(super) fn image(text: &str) -> Option<String> {
    within(text, MOST_IMAGE_BYTES)
}

fn within(text: &str, most: usize) -> Option<String> {
    (!text.is_empty() && text.len() <= most).then(|| text.to_owned())
}

/// The first ones by key; what is too long is left out.
pub(super) fn labels(all: Option<&BTreeMap<String, String>>) -> BTreeMap<String, String> {
    let fits = |(key, value): &(&String, &String)| {
        key.len() <= MOST_KEY_BYTES && value.len() <= MOST_NAME_BYTES
    };
    all.into_iter()
        .flatten()
        .filter(fits)
        .take(MOST_LABELS)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// The first ones by key that are `wanted`; what is too long is left out.
pub(super) fn annotations(
    all: Option<&BTreeMap<String, String>>,
    wanted: impl Fn(&str) -> bool,
) -> BTreeMap<String, String> {
    let fits = |(key, value): &(&String, &String)| {
        key.len() <= MOST_KEY_BYTES && value.len() <= MOST_ANNOTATION_BYTES && wanted(key)
    };
    all.into_iter()
        .flatten()
        .filter(fits)
        .take(MOST_ANNOTATIONS)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}
