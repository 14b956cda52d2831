//! What a machine told: results of tests from its console, findings from its second serial port.
//! Must not judge them.
//!
//! Kept in target/vm/results, a file for each kernel and layout of control groups, so that a matrix can
//! be measured in parts. Delete that directory to begin afresh.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::bench::machine::today;
use crate::ebpf;
use crate::workspace::Workspace;

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    Ok,
    Failed,
    /// It passed because it did nothing: something it needs is not in the machine.
    Skipped,
}

/// A field of an incident, held against the kernel log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub right: u32,
    pub absent: u32,
    pub wrong: u32,
}

/// A state of the checkout, and when it was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// SHA-256 of the BPF object.
    pub object: String,
    /// As [`Workspace::commit`] tells it.
    pub commit: String,
    /// Of the day, as 2026-01-31.
    pub date: String,
}

impl Build {
    /// Of the checkout as it is now.
    pub fn now(workspace: &Workspace) -> Result<Self> {
        Ok(Self {
            object: ebpf::committed_hash(workspace.root())?,
            commit: workspace.commit().unwrap_or_else(|| "unknown".to_owned()),
            date: today()?,
        })
    }
}

/// Of one kernel and one layout.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Results {
    /// `uname -r`.
    pub release: String,
    /// Oldest first, each once. All have one BPF object.
    #[serde(default)]
    pub builds: Vec<Build>,
    /// By name with its module.
    pub tests: BTreeMap<String, Verdict>,
    /// Probe, hook and way of reading, to the instructions that the verifier walked.
    pub instructions: BTreeMap<String, u64>,
    /// Scenario to field.
    pub fields: BTreeMap<String, BTreeMap<String, Held>>,
}

impl Results {
    /// From the texts of both serial ports.
    pub fn parse(release: &str, console: &str, findings: &str) -> Self {
        let mut results = Self {
            release: release.to_owned(),
            tests: tests(console),
            ..Self::default()
        };
        for line in findings.lines() {
            let fields: Vec<&str> = line.trim_end().split('\t').collect();
            match fields[..] {
                ["instructions", probe, hook, reads, count] => {
                    if let Ok(count) = count.parse() {
                        let key = [probe, hook, reads].join("\t");
                        results.instructions.insert(key, count);
                    }
                }
                ["field", scenario, field, verdict] => {
                    let fields = results.fields.entry(scenario.to_owned()).or_default();
                    let held = fields.entry(field.to_owned()).or_default();
                    match verdict {
                        "right" => held.right += 1,
                        "absent" => held.absent += 1,
                        _ => held.wrong += 1,
                    }
                }
                _ => {}
            }
        }
        results
    }

    /// Passed, failed and skipped tests of each family, which is the first word of the module.
    pub fn families(&self) -> BTreeMap<&str, [u32; 3]> {
        let mut families = BTreeMap::new();
        for (name, verdict) in &self.tests {
            let counts: &mut [u32; 3] = families.entry(family(name)).or_default();
            match verdict {
                Verdict::Ok => counts[0] += 1,
                Verdict::Failed => counts[1] += 1,
                Verdict::Skipped => counts[2] += 1,
            }
        }
        families
    }

    /// Adds to what was kept of the same kernel and BPF object, and gives all of it.
    pub fn keep(self, build: &Build, path: &Path) -> Result<Self> {
        let mut all = match fs::read(path) {
            Ok(text) => serde_json::from_slice(&text)
                .with_context(|| format!("cannot read {}; delete it", path.display()))?,
            Err(_) => Self::default(),
        };
        let same = all.builds.iter().all(|old| old.object == build.object);
        if all.release != self.release || all.builds.is_empty() || !same {
            all = Self::default();
        }
        all.release = self.release;
        if all.builds.last() != Some(build) {
            all.builds.push(build.clone());
        }
        all.tests.extend(self.tests);
        all.instructions.extend(self.instructions);
        all.fields.extend(self.fields);
        let text = serde_json::to_string_pretty(&all)?;
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
        }
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(all)
    }
}

/// All that is kept, by kernel and layout.
pub fn kept(directory: &Path, names: &[String]) -> Result<Vec<(String, Results)>> {
    let mut kept = Vec::new();
    for name in names {
        let path = file(directory, name);
        if path.exists() {
            let text =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let results = serde_json::from_slice(&text)
                .with_context(|| format!("cannot read {}; delete it", path.display()))?;
            kept.push((name.clone(), results));
        }
    }
    Ok(kept)
}

/// Where the results of a machine are kept.
pub fn file(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{}.json", name.replace(' ', "-")))
}

fn family(test: &str) -> &str {
    let module = test.split("::").next().unwrap_or(test);
    module.split('_').next().unwrap_or(module)
}

/// `test NAME ... ok`; what tests print may stand between the dots and the verdict.
fn tests(console: &str) -> BTreeMap<String, Verdict> {
    let mut found = BTreeMap::new();
    let mut running: Option<&str> = None;
    let mut skipped = false;
    for line in console.lines().map(str::trim_end) {
        let mut rest = line;
        if let Some((name, behind)) = line
            .strip_prefix("test ")
            .and_then(|line| line.split_once(" ... "))
        {
            running = Some(name);
            skipped = false;
            rest = behind;
        }
        let Some(name) = running else { continue };
        skipped |= rest.starts_with("skipped: ");
        let verdict = match rest {
            "ok" if skipped => Verdict::Skipped,
            "ok" => Verdict::Ok,
            "FAILED" => Verdict::Failed,
            _ if rest.starts_with("ignored") => {
                running = None;
                continue;
            }
            _ => continue,
        };
        found.insert(name.to_owned(), verdict);
        running = None;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = "MEMTRACE-VM-STARTED\n\nrunning 4 tests\n\
        test fault::by_perf ... skipped: no perf\nok\n\
        test fault::by_wait ... ok\r\n\
        test incident_kinds::a ... FAILED\n\
        test incident_limit::b ... ignored, takes all memory\n\
        test oom::c ... [   12.3] a word of the kernel\nok\n\
        test result: ok. 4 passed\n";

    #[test]
    fn a_test_is_counted_in_its_family_with_what_became_of_it() {
        let results = Results::parse("6.1", CONSOLE, "");
        let families: Vec<_> = results.families().into_iter().collect();
        assert_eq!(
            families,
            [
                ("fault", [1, 0, 1]),
                ("incident", [0, 1, 0]),
                ("oom", [1, 0, 0])
            ]
        );
    }

    #[test]
    fn findings_are_sorted_into_instructions_and_fields_and_noise_is_none() {
        let findings = "instructions\theap.mmap\tfexit/x\tusual\t512\r\nnoise\n\
            field\toom::c\tkind\tright\nfield\toom::c\tkind\tabsent\nfield\toom::c\torder\twrong\n";
        let results = Results::parse("6.1", "", findings);
        assert_eq!(results.instructions["heap.mmap\tfexit/x\tusual"], 512);
        let fields = &results.fields["oom::c"];
        let held = |field: &str| {
            (
                fields[field].right,
                fields[field].absent,
                fields[field].wrong,
            )
        };
        assert_eq!(held("kind"), (1, 1, 0));
        assert_eq!(held("order"), (0, 0, 1));
    }

    fn build(object: &str, commit: &str) -> Build {
        Build {
            object: object.to_owned(),
            commit: commit.to_owned(),
            date: "2026-01-31".to_owned(),
        }
    }

    #[test]
    fn a_later_run_adds_unless_its_kernel_or_its_programs_are_others() {
        let directory = std::env::temp_dir().join(format!("mt-results-{}", std::process::id()));
        let path = file(&directory, "6.1 v2");
        let run = |release: &str, test: &str, build: &Build| {
            let console = format!("test {test} ... ok");
            let run = Results::parse(release, &console, "");
            run.keep(build, &path).unwrap()
        };
        run("6.1", "a::b", &build("o", "1"));
        let both = run("6.1", "c::d", &build("o", "2"));
        assert_eq!((both.tests.len(), both.builds.len()), (2, 2));
        let again = run("6.1", "c::d", &build("o", "2"));
        assert_eq!((again.tests.len(), again.builds.len()), (2, 2));
        let programs = run("6.1", "c::d", &build("p", "3"));
        assert_eq!((programs.tests.len(), programs.builds.len()), (1, 1));
        run("6.1", "a::b", &build("p", "3"));
        let kernel = run("6.2", "c::d", &build("p", "3"));
        assert_eq!(kernel.tests.len(), 1);
        let names = ["6.1 v2".into(), "6.1 v1".into()];
        assert_eq!(kept(&directory, &names).unwrap().len(), 1);
        fs::remove_dir_all(directory).unwrap();
    }
}
