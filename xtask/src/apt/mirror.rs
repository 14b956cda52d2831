//! Finds the Debian mirror that this host already uses. Must not contact it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

const FALLBACK: &str = "http://deb.debian.org/debian";

/// The address of the Debian archive in apt's sources, or Debian's own.
pub fn debian() -> Result<String> {
    in_sources(Path::new("/etc/apt")).map(|found| found.unwrap_or_else(|| FALLBACK.to_owned()))
}

fn in_sources(apt: &Path) -> Result<Option<String>> {
    let mut files = vec![apt.join("sources.list")];
    if let Ok(entries) = fs::read_dir(apt.join("sources.list.d")) {
        let mut parts: Vec<_> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        parts.sort();
        files.extend(parts);
    }
    for file in files.iter().filter(|file| file.is_file()) {
        let text =
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let found = match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => in_list(&text),
            Some("sources") => in_deb822(&text),
            _ => None,
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Reads `deb [options] URI suite component…` lines.
fn in_list(text: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => rest,
        };
        let mut words = rest.split_whitespace();
        let uri = words.next()?;
        let components: Vec<_> = words.skip(1).collect();
        archive(uri, &components)
    })
}

/// Reads stanzas of `Field: value` lines; a value continues on lines that begin with a space.
fn in_deb822(text: &str) -> Option<String> {
    let uncommented: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    uncommented
        .split(|line| line.trim().is_empty())
        .find_map(|stanza| {
            if field(stanza, "Enabled").first() == Some(&"no")
                || !field(stanza, "Types").contains(&"deb")
            {
                return None;
            }
            let components = field(stanza, "Components");
            field(stanza, "URIs")
                .into_iter()
                .find_map(|uri| archive(uri, &components))
        })
}

fn field<'a>(stanza: &[&'a str], name: &str) -> Vec<&'a str> {
    let mut words = Vec::new();
    let mut inside = false;
    for line in stanza {
        let value = if line.starts_with([' ', '\t']) {
            line
        } else {
            let Some((key, value)) = line.split_once(':') else {
                continue;
            };
            inside = key.eq_ignore_ascii_case(name);
            value
        };
        if inside {
            words.extend(value.split_whitespace());
        }
    }
    words
}

/// Accepts the main Debian archive: others end in "/debian" too, but have no component "main".
fn archive(uri: &str, components: &[&str]) -> Option<String> {
    let uri = uri.trim_end_matches('/');
    let web = uri.starts_with("http://") || uri.starts_with("https://");
    (web && uri.ends_with("/debian") && components.contains(&"main")).then(|| uri.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_one_line_sources() {
        let text = "# deb http://old.example/debian bookworm main\n\
                    deb-src http://src.example/debian bookworm main\n\
                    deb https://docker.example/linux/debian bookworm stable\n\
                    deb http://mirror.example/debian-security bookworm-security main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian/ bookworm main\n";
        assert_eq!(
            in_list(text).as_deref(),
            Some("http://mirror.example/debian")
        );
        assert_eq!(
            in_list("deb http://mirror.example/debian bookworm contrib\n"),
            None
        );
    }

    #[test]
    fn reads_deb822_sources() {
        let text = "Types: deb\nURIs: http://off.example/debian\nSuites: bookworm\n\
                    Components: main\nEnabled: no\n\n\
                    Types: deb\n# a comment\nURIs: http://x.example/other\n  \
                    http://mirror.example/debian\nSuites: bookworm bookworm-updates\n\
                    Components: contrib main\n";
        assert_eq!(
            in_deb822(text).as_deref(),
            Some("http://mirror.example/debian")
        );
        assert_eq!(
            in_deb822("Types: deb-src\nURIs: http://m.example/debian\nComponents: main"),
            None
        );
    }

    #[test]
    fn the_fallback_is_an_archive_itself() {
        assert_eq!(archive(FALLBACK, &["main"]).as_deref(), Some(FALLBACK));
    }
}
