//! What a cgroup is called on the screen.

use crate::api::records::CgroupRow;

/// Namespace, pod and container as far as known, else the path.
pub fn full(row: &CgroupRow) -> String {
    let parts = [&row.namespace, &row.pod, &row.container];
    let parts: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
    match row.container.is_some() || row.pod.is_some() && row.has_children {
        true => parts.join("/"),
        false => row.cgroup.clone(),
    }
}

/// The same below `parent` in the tree: only what it adds.
pub fn below(row: &CgroupRow, parent: Option<&CgroupRow>) -> String {
    if let Some(container) = &row.container {
        let same_pod = parent.is_some_and(|parent| parent.pod.is_some() && parent.pod == row.pod);
        return if same_pod {
            container.clone()
        } else {
            full(row)
        };
    }
    let is_first_of_pod = parent.is_none_or(|parent| parent.pod != row.pod);
    if let (Some(pod), true) = (&row.pod, is_first_of_pod) {
        return match &row.namespace {
            Some(namespace) => format!("{namespace}/{pod}"),
            None => pod.clone(),
        };
    }
    let above = parent.map_or("", |parent| parent.cgroup.as_str());
    let rest = row.cgroup.strip_prefix(above);
    match rest.and_then(|rest| rest.strip_prefix('/')) {
        Some(rest) if !above.is_empty() && !rest.is_empty() => rest.to_owned(),
        _ => row.cgroup.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::fixture::row;

    #[test]
    fn the_tree_tells_of_each_line_what_it_adds() {
        let mut pod = row(1, "/kubepods/pod1");
        pod.namespace = Some("shop".into());
        pod.pod = Some("cart-1".into());
        pod.has_children = true;
        let mut container = pod.clone();
        container.cgroup = "/kubepods/pod1/c1".into();
        container.container = Some("app".into());
        container.has_children = false;
        let mut inner = container.clone();
        inner.cgroup = "/kubepods/pod1/c1/init.scope".into();
        inner.container = None;
        let kubepods = row(2, "/kubepods");
        assert_eq!(below(&pod, Some(&kubepods)), "shop/cart-1");
        assert_eq!(below(&container, Some(&pod)), "app");
        assert_eq!(below(&container, None), "shop/cart-1/app");
        assert_eq!(below(&inner, Some(&container)), "init.scope");
        assert_eq!(below(&kubepods, None), "/kubepods");
        assert_eq!(full(&container), "shop/cart-1/app");
        assert_eq!(full(&inner), "/kubepods/pod1/c1/init.scope");
    }

    #[test]
    fn a_long_way_below_is_told_whole() {
        let above = row(1, "/a");
        assert_eq!(below(&row(2, "/a/b/c"), Some(&above)), "b/c");
        assert_eq!(below(&row(2, "/"), None), "/");
    }
}
