//! What a person typed to narrow the list.

use globset::{GlobBuilder, GlobMatcher};

use crate::api::records::CgroupRow;

/// Longest filter, characters.
pub const MOST_CHARS: usize = 200;

/// A part of a name, or a glob.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    text: String,
    /// Small letters of it.
    lower: String,
    glob: Option<GlobMatcher>,
}

impl Filter {
    /// With any of `* ? [` a glob that a whole name or path is to match, where it is a valid one.
    pub fn new(text: &str) -> Self {
        let text: String = text.chars().take(MOST_CHARS).collect();
        let glob = text.contains(['*', '?', '[']).then(|| {
            GlobBuilder::new(&text)
                .case_insensitive(true)
                .build()
                .map(|glob| glob.compile_matcher())
        });
        Self {
            lower: text.to_lowercase(),
            glob: glob.and_then(Result::ok),
            text,
        }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Looks at the path and all names.
    pub fn matches(&self, row: &CgroupRow) -> bool {
        if self.is_empty() {
            return true;
        }
        let names = [
            &row.namespace,
            &row.pod,
            &row.container,
            &row.workload,
            &row.systemd_unit,
        ];
        let mut names = names
            .into_iter()
            .flatten()
            .map(String::as_str)
            .chain([row.cgroup.as_str()]);
        match &self.glob {
            Some(glob) => names.any(|name| glob.is_match(name)),
            None => names.any(|name| holds(name, &self.lower)),
        }
    }
}

/// `lower`: in small letters.
fn holds(name: &str, lower: &str) -> bool {
    if name.is_ascii() {
        let wanted = lower.as_bytes();
        return name
            .as_bytes()
            .windows(wanted.len().max(1))
            .any(|part| part.eq_ignore_ascii_case(wanted));
    }
    name.to_lowercase().contains(lower)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::fixture::row;

    #[test]
    fn a_part_of_any_name_matches_in_small_letters_or_large() {
        let mut shop = row(1, "/kubepods/Größe-1");
        shop.pod = Some("Shop-7".into());
        for text in ["", "shop", "PODS/gr", "größe", "-7"] {
            assert!(Filter::new(text).matches(&shop), "{text}");
        }
        for text in ["shop-8", "kubepods/größer"] {
            assert!(!Filter::new(text).matches(&shop), "{text}");
        }
    }

    #[test]
    fn a_glob_is_of_the_whole_name_and_half_a_glob_is_text() {
        let row = row(1, "/kubepods/a[b");
        assert!(Filter::new("/kube*").matches(&row));
        assert!(!Filter::new("pods*").matches(&row));
        assert!(Filter::new("a[").matches(&row));
    }
}
