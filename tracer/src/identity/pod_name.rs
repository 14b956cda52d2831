//! A pod as an operator names it: `namespace/name`, or the name alone in any namespace.

use std::fmt;

use super::names::Names;

/// Which pod is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodName {
    /// `None`: any.
    pub namespace: Option<String>,
    pub name: String,
}

impl PodName {
    /// Whether these are the names of it, or of a container in it.
    pub fn is_of(&self, names: &Names) -> bool {
        names.pod.as_deref() == Some(&self.name)
            && self
                .namespace
                .as_ref()
                .is_none_or(|namespace| names.namespace.as_ref() == Some(namespace))
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)
    }
}

/// `shop/cart-7c9d`, `cart-7c9d`.
///
/// # Errors
/// What to write instead.
pub fn parse(text: &str) -> Result<PodName, String> {
    let (namespace, name) = match text.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, text),
    };
    if name.is_empty() || name.contains('/') || namespace.is_some_and(str::is_empty) {
        return Err("write a pod as NAMESPACE/NAME, or only its NAME".into());
    }
    Ok(PodName {
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
    })
}

/// A pod with its namespace, which makes it one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespacedPod {
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for NamespacedPod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// `shop/cart-7c9d`.
///
/// # Errors
/// What to write instead.
pub fn parse_namespaced(text: &str) -> Result<NamespacedPod, String> {
    match parse(text) {
        Ok(PodName {
            namespace: Some(namespace),
            name,
        }) => Ok(NamespacedPod { namespace, name }),
        _ => Err("write NAMESPACE/NAME, as `kubectl get pods -A` names them".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_one_pod_is_meant_its_namespace_is_asked_for() {
        let pod = parse_namespaced("shop/cart").unwrap();
        assert_eq!(pod.to_string(), "shop/cart");
        for wrong in ["cart", "/cart", "shop/", "a/b/c", ""] {
            assert!(parse_namespaced(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_alone_is_of_any_namespace() {
        let names = Names {
            namespace: Some("shop".into()),
            pod: Some("cart".into()),
            container: Some("app".into()),
            ..Names::default()
        };
        for (text, is_of) in [
            ("cart", true),
            ("shop/cart", true),
            ("other/cart", false),
            ("shop", false),
            ("shop/app", false),
        ] {
            let pod = parse(text).unwrap();
            assert_eq!(pod.is_of(&names), is_of, "{text}");
            assert_eq!(pod.to_string(), text);
        }
        assert!(!parse("cart").unwrap().is_of(&Names::default()));
        for wrong in ["", "/cart", "shop/", "a/b/c"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
