//! URLs without what may be a secret in them. Pure.

/// What stands for a secret.
pub const MASK: &str = "***";

/// A URL, with or without a scheme, as it may be shown: no user, password, query or fragment. All before the last
/// `@` counts as user and password: a password may have a `/`.
pub fn url(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => (format!("{scheme}://"), rest),
        _ => (String::new(), text),
    };
    let (user, rest) = match rest.rsplit_once('@') {
        // The `@` ends a password or is part of a query: either side of it may be secret.
        Some((before, _)) if before.contains(['?', '#']) => return format!("{scheme}{MASK}"),
        Some((_, rest)) => (format!("{MASK}@"), rest),
        None => (String::new(), rest),
    };
    let rest = match rest.find(['?', '#']) {
        Some(at) => {
            let (place, secret) = rest.split_at(at);
            let separator = secret.get(..1).unwrap_or_default();
            format!("{place}{separator}{MASK}")
        }
        None => rest.to_owned(),
    };
    format!("{scheme}{user}{rest}")
}

fn is_scheme(text: &str) -> bool {
    text.chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_user_password_and_query() {
        for (given, shown) in [
            ("http://c:4318/v1/metrics", "http://c:4318/v1/metrics"),
            ("https://u:p@host/?token=x", "https://***@host/?***"),
            ("https://u:p@ss@host", "https://***@host"),
            ("https://host?a=b#c", "https://host?***"),
            ("https://host/p#x", "https://host/p#***"),
            ("host:4317?token=x", "host:4317?***"),
            ("https://host/@me?@", "https://***"),
            ("http://u:a/S3CR3T@h:1", "http://***@h:1"),
            ("u:a/S3CR3T@h:1/p?q", "***@h:1/p?***"),
            ("http://u:S3CR3T?x@localhost:1", "http://***"),
            ("http://u:S3CR3T#x@localhost:1", "http://***"),
            ("https://host/?token=a@S3CR3T", "https://***"),
            ("u:S3CR3T@h://x", "***@h://x"),
            ("", ""),
        ] {
            assert_eq!(url(given), shown);
        }
    }
}
