//! Where the memory controller lives: which cgroup version, mounted at which path.
//!
//! Owns the reading of the mount table. Never guesses a path: a mount that is not there, hidden or
//! only a part of the hierarchy is an error that names the remedy.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::process::ProcRoot;
use super::{HostError, path_from_bytes};

/// Which cgroup version carries the memory controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupMode {
    /// Memory on v1, no cgroup2 mount.
    V1,
    /// Memory on v1 beside a cgroup2 mount.
    Hybrid,
    /// Memory on cgroup2.
    V2,
}

impl CgroupMode {
    /// `v1`, `hybrid` or `v2`.
    pub fn name(self) -> &'static str {
        match self {
            CgroupMode::V1 => "v1",
            CgroupMode::Hybrid => "hybrid",
            CgroupMode::V2 => "v2",
        }
    }
}

/// The mounted hierarchy that holds the memory controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupHierarchy {
    pub mode: CgroupMode,
    /// Directory of the root memory cgroup.
    pub memory_root: PathBuf,
    /// Mount point of cgroup2, where there is one.
    pub unified_root: Option<PathBuf>,
}

impl CgroupHierarchy {
    /// Finds the hierarchy in the mount table of this process (`self/mountinfo` of `proc`).
    ///
    /// `explicit` (`--cgroup-root`) limits the search to mounts at or below that path and accepts
    /// what is mounted there even where a cgroup namespace shows only a part. Without it such a
    /// part is an error, since most cgroups would silently be missing.
    /// Source: Documentation/filesystems/proc.rst, section 3.5 (mountinfo).
    pub fn detect(proc: &ProcRoot, explicit: Option<&Path>) -> Result<Self, HostError> {
        let table = proc.path("self/mountinfo");
        let text = std::fs::read(&table).map_err(|source| HostError::read(&table, source))?;
        Self::from_mounts(&text, explicit)
    }

    /// As [`CgroupHierarchy::detect`], from the text of a mountinfo file.
    pub fn from_mounts(mountinfo: &[u8], explicit: Option<&Path>) -> Result<Self, HostError> {
        let explicit = explicit.map(|path| path.canonicalize().unwrap_or_else(|_| path.to_owned()));
        let under = explicit.as_deref();
        let mounts: Vec<Mount> = mountinfo
            .split(|byte| *byte == b'\n')
            .filter_map(Mount::parse)
            .filter(|mount| under.is_none_or(|root| mount.point.starts_with(root)))
            .collect();
        if mounts.is_empty() {
            return Err(HostError::NotMounted { under: explicit });
        }
        let strict = explicit.is_none();
        let unified = usable(
            mounts.iter().filter(|mount| mount.version == Version::V2),
            strict,
        );
        let memory_v1 = mounts
            .iter()
            .filter(|mount| mount.version == Version::V1Memory);
        if let Some(memory) = usable(memory_v1, strict) {
            let unified_root = unified.and_then(Result::ok);
            let mode = if unified_root.is_some() {
                CgroupMode::Hybrid
            } else {
                CgroupMode::V1
            };
            return Ok(CgroupHierarchy {
                mode,
                memory_root: memory?,
                unified_root,
            });
        }
        let Some(root) = unified.transpose()? else {
            return Err(HostError::NoMemoryController { under: explicit });
        };
        let list = root.join("cgroup.controllers");
        let controllers = std::fs::read(&list).map_err(|source| HostError::read(&list, source))?;
        if !controllers
            .trim_ascii()
            .split(|byte| *byte == b' ')
            .any(|name| name == b"memory")
        {
            return Err(HostError::NoMemoryController { under: explicit });
        }
        Ok(CgroupHierarchy {
            mode: CgroupMode::V2,
            memory_root: root.clone(),
            unified_root: Some(root),
        })
    }

    /// Whether the memory files are those of cgroup v2.
    pub fn is_v2(&self) -> bool {
        self.mode == CgroupMode::V2
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1Memory,
    V1Other,
    V2,
}

#[derive(Debug)]
struct Mount {
    version: Version,
    /// The part of the hierarchy that is mounted; `/` is all of it.
    root: PathBuf,
    point: PathBuf,
}

impl Mount {
    /// A cgroup mount; `None` for other file systems and for malformed lines.
    fn parse(line: &[u8]) -> Option<Mount> {
        let mut words = line.split(|byte| *byte == b' ');
        // id, parent and device come first; optional fields end with a lone dash.
        let (root, point) = (words.nth(3)?, words.next()?);
        words.find(|word| *word == b"-")?;
        let (kind, options) = (words.next()?, words.nth(1)?);
        let version = match kind {
            b"cgroup2" => Version::V2,
            b"cgroup"
                if options
                    .split(|byte| *byte == b',')
                    .any(|option| option == b"memory") =>
            {
                Version::V1Memory
            }
            b"cgroup" => Version::V1Other,
            _ => return None,
        };
        let point = path_from_bytes(&unescape(point));
        Some(Mount {
            version,
            root: path_from_bytes(&unescape(root)),
            point,
        })
    }

    fn check(&self, strict: bool) -> Result<PathBuf, HostError> {
        let path = || self.point.clone();
        let holds = |file: &str| self.point.join(file).exists();
        if !holds("cgroup.procs") {
            return Err(HostError::Hidden { path: path() });
        }
        // Inside a cgroup namespace the mount's root reads `/` too, but only the true root lacks
        // `cgroup.type` (v2) and only the true root has `release_agent` (v1).
        let is_true_root = match self.version {
            Version::V2 => !holds("cgroup.type"),
            Version::V1Memory | Version::V1Other => holds("release_agent"),
        };
        let is_whole = self.root.as_os_str().as_bytes() == b"/" && is_true_root;
        if strict && !is_whole {
            return Err(HostError::PartOfHierarchy { path: path() });
        }
        Ok(path())
    }
}

/// The first mount that can be used, else why the first of them cannot; `None` without mounts. All
/// whole mounts of a hierarchy show the same, so which of them it is does not matter.
fn usable<'m>(
    mounts: impl Iterator<Item = &'m Mount>,
    strict: bool,
) -> Option<Result<PathBuf, HostError>> {
    let mut failure = None;
    for mount in mounts {
        match mount.check(strict) {
            Ok(path) => return Some(Ok(path)),
            Err(error) => failure = failure.or(Some(Err(error))),
        }
    }
    failure
}

/// Undoes the kernel's `\ooo` for space, tab, newline and backslash (`mangle` in fs/proc_namespace.c).
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let octal = match (first, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        plain.push(octal.unwrap_or(first));
        rest = if octal.is_some() { &after[3..] } else { after };
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A directory with `sub/…` cgroup mounts, and mountinfo lines naming them.
    struct Host {
        directory: tempfile::TempDir,
        table: Vec<u8>,
    }

    impl Host {
        fn new() -> Self {
            let mut host = Host {
                directory: tempfile::tempdir().unwrap(),
                table: Vec::new(),
            };
            host.line("/", "tmp", "tmpfs", "rw");
            host.table
                .extend(b"garbage\n\n1 2 3\n22 1 0:5 / /proc rw shared:2 - proc proc rw\n");
            host
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().canonicalize().unwrap().join(name)
        }

        fn line(&mut self, root: &str, name: &str, kind: &str, options: &str) {
            let point = self.path(name).to_str().unwrap().replace(' ', "\\040");
            let line = format!(
                "35 31 0:32 {root} {point} rw,relatime shared:1 master:2 - {kind} none {options}\n"
            );
            self.table.extend(line.into_bytes());
        }

        fn mount(
            &mut self,
            root: &str,
            name: &str,
            kind: &str,
            options: &str,
            files: &[(&str, &str)],
        ) {
            fs::create_dir_all(self.path(name)).unwrap();
            for (file, content) in files {
                fs::write(self.path(name).join(file), content).unwrap();
            }
            self.line(root, name, kind, options);
        }

        fn memory_v1(&mut self, root: &str, name: &str) {
            let files = [("cgroup.procs", ""), ("release_agent", "")];
            self.mount(root, name, "cgroup", "rw,cpu,memory", &files);
        }

        fn unified(&mut self, name: &str, controllers: &str) {
            let files = [("cgroup.procs", ""), ("cgroup.controllers", controllers)];
            self.mount("/", name, "cgroup2", "rw,nsdelegate", &files);
        }

        fn detect(&self, explicit: Option<&str>) -> Result<CgroupHierarchy, HostError> {
            let explicit = explicit.map(|name| self.path(name));
            CgroupHierarchy::from_mounts(&self.table, explicit.as_deref())
        }
    }

    #[test]
    fn each_mode() {
        let mut host = Host::new();
        host.mount("/", "cpu", "cgroup", "rw,cpuset", &[("cgroup.procs", "")]);
        host.memory_v1("/", "mem ory");
        let found = host.detect(None).unwrap();
        assert_eq!(
            (found.mode, found.memory_root),
            (CgroupMode::V1, host.path("mem ory"))
        );

        host.unified("unified", "");
        let found = host.detect(None).unwrap();
        assert_eq!(found.mode, CgroupMode::Hybrid);
        assert_eq!(found.unified_root, Some(host.path("unified")));

        let mut host = Host::new();
        host.unified("cgroup", "cpuset cpu memory pids\n");
        let found = host.detect(None).unwrap();
        assert_eq!(
            (found.mode, found.memory_root),
            (CgroupMode::V2, host.path("cgroup"))
        );
        assert!(host.detect(None).unwrap().is_v2());
    }

    #[test]
    fn absences_name_the_remedy() {
        let host = Host::new();
        let error = host.detect(None).unwrap_err();
        assert!(matches!(error, HostError::NotMounted { .. }));
        assert!(error.to_string().contains("--cgroup-root"), "{error}");

        let mut host = Host::new();
        host.unified("cgroup", "cpu memory_x\n");
        let error = host.detect(None).unwrap_err();
        assert!(
            error.to_string().contains("cgroup_disable=memory"),
            "{error}"
        );

        let mut host = Host::new();
        host.mount("/", "cpu", "cgroup", "rw,cpu", &[("cgroup.procs", "")]);
        assert!(matches!(
            host.detect(None),
            Err(HostError::NoMemoryController { .. })
        ));

        let mut host = Host::new();
        host.line("/", "hidden", "cgroup", "rw,memory");
        assert!(matches!(host.detect(None), Err(HostError::Hidden { .. })));
    }

    #[test]
    fn a_part_of_the_hierarchy_needs_to_be_named() {
        let mut host = Host::new();
        host.memory_v1("/docker/abc", "bind");
        assert!(matches!(
            host.detect(None),
            Err(HostError::PartOfHierarchy { .. })
        ));
        assert_eq!(
            host.detect(Some("bind")).unwrap().memory_root,
            host.path("bind")
        );

        let mut host = Host::new();
        host.unified("namespaced", "memory");
        fs::write(host.path("namespaced/cgroup.type"), "domain\n").unwrap();
        assert!(matches!(
            host.detect(None),
            Err(HostError::PartOfHierarchy { .. })
        ));
        assert!(host.detect(Some("")).unwrap().is_v2());
    }

    #[test]
    fn a_whole_mount_is_preferred_and_an_explicit_path_limits_the_search() {
        let mut host = Host::new();
        host.memory_v1("/docker/abc", "own/memory");
        host.memory_v1("/", "host/memory");
        assert_eq!(
            host.detect(None).unwrap().memory_root,
            host.path("host/memory")
        );
        assert_eq!(
            host.detect(Some("own")).unwrap().memory_root,
            host.path("own/memory")
        );
        assert!(matches!(
            host.detect(Some("none")),
            Err(HostError::NotMounted { .. })
        ));
    }

    #[test]
    fn octal_escapes() {
        assert_eq!(unescape(br"/a\040b\011\012\134x"), b"/a b\t\n\\x");
        assert_eq!(unescape(br"\04\9\"), br"\04\9\");
    }

    #[test]
    fn this_machine() {
        // Any host gives a hierarchy or a typed reason; never a panic.
        if let Ok(found) = CgroupHierarchy::detect(&ProcRoot::default(), None) {
            assert!(found.memory_root.join("cgroup.procs").exists());
        }
    }
}
