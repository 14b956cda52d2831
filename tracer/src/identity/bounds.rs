//! How much of what a runtime says is taken. Pure.
//!
//! Must not escape: whoever tells names does that.

/// Hexadecimal digits of an OCI container id.
pub const ID_DIGITS: usize = 64;
/// Source: names of Kubernetes objects (DNS subdomain names).
pub const MOST_NAME_CHARS: usize = 253;
const MOST_IMAGE_CHARS: usize = 512;

/// A name, or its beginning.
pub fn name(text: &str) -> String {
    capped(text, MOST_NAME_CHARS)
}

/// The first reference that names an image; none is an id of one.
pub fn image<'a>(references: impl IntoIterator<Item = &'a str>) -> Option<String> {
    references
        .into_iter()
        .find(|reference| !reference.is_empty() && !is_image_id(reference))
        .map(|reference| capped(reference, MOST_IMAGE_CHARS))
}

/// Digest or id of an image; `None` where there is none.
pub fn image_id(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| capped(text, MOST_IMAGE_CHARS))
}

/// Whether a text can be an OCI container's id, and thus part of a path.
pub fn is_container_id(text: &str) -> bool {
    text.len() == ID_DIGITS
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// `sha256:…`, or the bare digits.
fn is_image_id(reference: &str) -> bool {
    let digits = reference.strip_prefix("sha256:").unwrap_or(reference);
    digits.len() == ID_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn capped(text: &str, most_chars: usize) -> String {
    text.chars().take(most_chars).collect()
}
