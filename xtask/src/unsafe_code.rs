//! `docs/security.md` lists the unsafe code of user space. Must not judge it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const BEGINNINGS: [&str; 4] = ["unsafe {", "unsafe impl", "unsafe fn", "unsafe extern"];

/// Unsafe blocks by file below `directory`, tests in files of their own left out.
fn found(directory: &Path, root: &Path, blocks: &mut BTreeMap<String, usize>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if name != "tests" {
                found(&path, root, blocks);
            }
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            let text = fs::read_to_string(&path).unwrap();
            let count = |beginning: &&str| text.matches(*beginning).count();
            let count = BEGINNINGS.iter().map(count).sum();
            if count > 0 {
                let file = path.strip_prefix(root).unwrap().to_str().unwrap();
                blocks.insert(file.to_owned(), count);
            }
        }
    }
}

/// The rows of the page's table: `` | `file` | blocks | why | ``.
fn listed(page: &str) -> BTreeMap<String, usize> {
    page.lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split(" | ");
            let file = cells.next()?.trim_end_matches('`');
            let blocks = cells.next()?.parse().ok()?;
            let reason = cells.next()?.trim_end_matches(" |");
            (file.ends_with(".rs") && !reason.is_empty()).then(|| (file.to_owned(), blocks))
        })
        .collect()
}

#[test]
fn the_page_lists_the_unsafe_code_that_there_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let sources = root.join("tracer/src");
    let mut blocks = BTreeMap::new();
    found(&sources, &sources, &mut blocks);
    let page = fs::read_to_string(root.join("docs/security.md")).unwrap();
    assert_eq!(listed(&page), blocks, "docs/security.md is out of date");
}
