//! URLs without what may be a secret in them. Pure.

/// What stands for a secret.
pub const MASK: &str = "***";

/// A URL, with or without a scheme, as it may be shown: no user, password, query or fragment.
pub fn url(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let authority = match authority.rsplit_once('@') {
        Some((_, host)) => format!("{MASK}@{host}"),
        None => authority.to_owned(),
    };
    let rest = match rest.find(['?', '#']) {
        Some(at) => {
            let (path, secret) = rest.split_at(at);
            let separator = secret.get(..1).unwrap_or_default();
            format!("{path}{separator}{MASK}")
        }
        None => rest.to_owned(),
    };
    format!("{scheme}{authority}{rest}")
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
            ("https://host/@me?@", "https://host/@me?***"),
            ("", ""),
        ] {
            assert_eq!(url(given), shown);
        }
    }
}
