//! `memtrace doctor`: what works here, what does not, why, and how to get it.

mod lost;
#[cfg(test)]
mod tests;

use std::{fmt::Write as _, path::Path, time::Duration};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use serde::Serialize;

use crate::{
    host::{hierarchy::CgroupHierarchy, process::ProcRoot},
    identity::{
        facts::SourceState,
        options::{NamingArgs, NamingConfig, Process},
        sources,
    },
    kernel::capability::{Effective, NEEDS},
    loader::{LoadError, Loader, Options, Verdict},
};

/// Time that the sources of names have to answer.
const SOURCES_ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Everything that was found out.
#[derive(Debug, Serialize)]
pub struct Findings {
    pub verdict: Level,
    pub version: &'static str,
    pub kernel: Option<String>,
    pub btf: bool,
    pub cgroup_mode: Option<&'static str>,
    pub cgroup_root: Option<String>,
    pub lockdown: Option<String>,
    pub tracefs: Option<String>,
    pub capabilities: Vec<CapabilityFinding>,
    pub probes: Vec<ProbeFinding>,
    /// Who names containers.
    pub names: Vec<NameFinding>,
    /// Kernel fields that are not there; what they tell is absent.
    pub missing_fields: Vec<String>,
    /// Kernel memory of the BPF maps, bytes.
    pub map_bytes: Option<u64>,
    /// What is wrong, each with its remedy.
    pub problems: Vec<String>,
}

/// The exit code, in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Ok,
    Degraded,
    CannotRun,
}

impl Level {
    pub fn exit_code(self) -> u8 {
        match self {
            Level::Ok => 0,
            Level::Degraded => 1,
            Level::CannotRun => 2,
        }
    }
}

#[derive(Debug, Serialize)]
pub struct CapabilityFinding {
    pub name: &'static str,
    pub why: &'static str,
    pub granted: bool,
}

#[derive(Debug, Serialize)]
pub struct ProbeFinding {
    pub probe: &'static str,
    pub hook: Option<String>,
    pub verified_instructions: Option<u32>,
    /// Better hooks that do not work here.
    pub not_used: Vec<NotUsed>,
}

#[derive(Debug, Serialize)]
pub struct NotUsed {
    pub hook: String,
    pub reason: String,
}

#[derive(Debug, Serialize)]
pub struct NameFinding {
    pub source: &'static str,
    pub works: bool,
}

/// Looks at the host, tries every probe and every source of names. Attaches, reads the verdicts, detaches.
pub fn examine(options: &Options, cgroup_root: Option<&Path>, names: &NamingArgs) -> Findings {
    let mut findings = Findings {
        verdict: Level::Ok,
        version: env!("CARGO_PKG_VERSION"),
        kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")
            .ok()
            .map(|text| text.trim().to_owned()),
        btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        cgroup_mode: None,
        cgroup_root: None,
        lockdown: None,
        tracefs: None,
        capabilities: Vec::new(),
        probes: Vec::new(),
        names: Vec::new(),
        missing_fields: Vec::new(),
        map_bytes: None,
        problems: Vec::new(),
    };
    findings.capabilities();
    match CgroupHierarchy::detect(&ProcRoot::default(), cgroup_root) {
        Ok(hierarchy) => {
            findings.cgroup_mode = Some(hierarchy.mode.name());
            findings.cgroup_root = Some(hierarchy.memory_root.display().to_string());
        }
        Err(error) => findings.fail(error.to_string()),
    }
    match Loader::load(options) {
        Ok(loader) => findings.loaded(&loader),
        Err(error) => findings.fail(load_problem(&error)),
    }
    match names.resolve(&Process) {
        Ok(config) => findings.name_sources(config),
        Err(error) => findings.fail(error.to_string()),
    }
    findings
}

/// A loading error with its most likely cause named.
pub fn load_problem(error: &LoadError) -> String {
    match error {
        LoadError::Load(_) | LoadError::Map(_) => {
            let mut text = format!("{error}");
            let mut cause = std::error::Error::source(error);
            while let Some(inner) = cause {
                let message = inner.to_string();
                if !text.contains(&message) {
                    let _ = write!(text, ": {message}");
                }
                cause = inner.source();
            }
            if is_not_permitted(error) && may_lack_locked_memory() {
                text.push_str(
                    "; before Linux 5.11 maps count as locked memory: raise RLIMIT_MEMLOCK (LimitMEMLOCK=infinity in \
                     systemd, `ulimit -l unlimited` in a shell) or grant CAP_SYS_RESOURCE",
                );
            }
            text
        }
        _ => error.to_string(),
    }
}

fn is_not_permitted(error: &LoadError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        let io = inner.downcast_ref::<std::io::Error>();
        if io.and_then(std::io::Error::raw_os_error) == Some(libc::EPERM) {
            return true;
        }
        cause = inner.source();
    }
    false
}

/// The kernel says the same of a missing capability.
fn may_lack_locked_memory() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let locks_little =
        getrlimit(Resource::RLIMIT_MEMLOCK).is_ok_and(|(soft, _)| soft != RLIM_INFINITY);
    let may_load = Effective::read(Path::new("/proc"))
        .is_none_or(|effective| effective.missing().all(|need| !need.required));
    counts_as_locked_memory(&release) && locks_little && may_load
}

/// Whether this kernel's maps do; later ones charge them to the cgroup. So does one of unknown release.
fn counts_as_locked_memory(release: &str) -> bool {
    let mut numbers = release
        .split(|letter: char| !letter.is_ascii_digit())
        .map_while(|number| number.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => (major, minor) < (5, 11),
        _ => true,
    }
}

impl Findings {
    fn capabilities(&mut self) {
        let Some(effective) = Effective::read(Path::new("/proc")) else {
            return self.fail("/proc is not mounted or not readable".into());
        };
        for need in NEEDS {
            let granted = effective.meets(need);
            self.capabilities.push(CapabilityFinding {
                name: need.name,
                why: need.why,
                granted,
            });
            if !granted {
                let problem = format!(
                    "{} is missing: needed to {} (run as root, or grant it: \
                     AmbientCapabilities= in systemd, securityContext.capabilities in Kubernetes)",
                    need.name, need.why
                );
                if need.required {
                    self.fail(problem);
                } else {
                    self.degrade(problem);
                }
            }
        }
    }

    fn loaded(&mut self, loader: &Loader) {
        self.lockdown.clone_from(&loader.support.lockdown);
        self.tracefs = loader
            .support
            .tracefs
            .as_ref()
            .map(|path| path.display().to_string());
        self.missing_fields = loader.support.offsets.missing_optional();
        self.map_bytes = loader.map_bytes();
        if loader.support.lockdown.as_deref() == Some("confidentiality") {
            self.degrade(
                "the kernel is locked down (confidentiality): tracing reads are refused; \
                 boot with lockdown=integrity"
                    .into(),
            );
        }
        for field in self.missing_fields.clone() {
            self.degrade(format!(
                "this kernel has no {field}: what it tells is absent"
            ));
        }
        for verdict in &loader.verdicts {
            if verdict.attached.is_none() && verdict.essential {
                self.degrade(format!(
                    "{} has no hook here: {}",
                    verdict.probe,
                    reasons(verdict)
                ));
            }
            self.probes.push(ProbeFinding {
                probe: verdict.probe,
                hook: verdict.attached.as_ref().map(|(_, hook)| hook.clone()),
                verified_instructions: verdict.verified_instructions,
                not_used: verdict
                    .rejected
                    .iter()
                    .map(|(hook, reason)| NotUsed {
                        hook: hook.clone(),
                        reason: reason.clone(),
                    })
                    .collect(),
            });
        }
    }

    fn name_sources(&mut self, config: NamingConfig) {
        let states = match sources::tried(config.sources, SOURCES_ANSWER_WITHIN) {
            Ok(states) => states,
            Err(error) => return self.degrade(error.to_string()),
        };
        for (source, state) in states {
            let problem = match state {
                SourceState::Synced | SourceState::Absent => None,
                SourceState::Failing(cause) => Some(cause),
                SourceState::Starting => Some(format!(
                    "no answer within {} s",
                    SOURCES_ANSWER_WITHIN.as_secs()
                )),
            };
            self.names.push(NameFinding {
                source: source.name(),
                works: problem.is_none(),
            });
            if let Some(problem) = problem {
                self.degrade(format!("no names by {}: {problem}", source.name()));
            }
        }
    }

    fn degrade(&mut self, problem: String) {
        if self.verdict == Level::Ok {
            self.verdict = Level::Degraded;
        }
        self.problems.push(problem);
    }

    fn fail(&mut self, problem: String) {
        self.verdict = Level::CannotRun;
        self.problems.push(problem);
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let unknown = "unknown";
        let _ = writeln!(text, "memtrace {}", self.version);
        let _ = writeln!(
            text,
            "kernel        {}",
            self.kernel.as_deref().unwrap_or(unknown)
        );
        let _ = writeln!(
            text,
            "BTF           {}",
            if self.btf { "yes" } else { "no" }
        );
        let _ = writeln!(
            text,
            "cgroups       {} at {}",
            self.cgroup_mode.unwrap_or(unknown),
            self.cgroup_root.as_deref().unwrap_or(unknown)
        );
        let _ = writeln!(
            text,
            "tracefs       {}",
            self.tracefs
                .as_deref()
                .unwrap_or("not mounted or not readable")
        );
        let _ = writeln!(
            text,
            "lockdown      {}",
            self.lockdown.as_deref().unwrap_or("none")
        );
        if let Some(bytes) = self.map_bytes {
            let _ = writeln!(text, "map memory    {:.1} MiB", bytes as f64 / 1048576.0);
        }
        let named: Vec<String> = self.names.iter().map(NameFinding::text).collect();
        let names = match named.is_empty() {
            true => "by paths of cgroups only".to_owned(),
            false => named.join(", "),
        };
        let _ = writeln!(text, "names         {names}");
        let _ = writeln!(text, "\ncapabilities");
        for capability in &self.capabilities {
            let mark = if capability.granted { "yes" } else { "NO " };
            let _ = writeln!(text, "  {mark} {:<20} {}", capability.name, capability.why);
        }
        if !self.probes.is_empty() {
            let _ = writeln!(text, "\nprobes");
        }
        for probe in &self.probes {
            let hook = match probe.hook.as_deref() {
                Some(hook) => hook,
                None if self.fault_user_tells(probe.probe) => "counted by fault.user",
                None => "NONE",
            };
            let _ = writeln!(text, "  {:<24} {hook}", probe.probe);
            for not_used in &probe.not_used {
                let _ = writeln!(
                    text,
                    "  {:<24}   not {}: {}",
                    "", not_used.hook, not_used.reason
                );
            }
        }
        if !self.problems.is_empty() {
            let _ = writeln!(text, "\nproblems");
            for problem in &self.problems {
                let _ = writeln!(text, "  - {problem}");
            }
        }
        let _ = write!(text, "\n{}", self.conclusion());
        text
    }
}

impl NameFinding {
    fn text(&self) -> String {
        let mark = if self.works { "" } else { " (NOT working)" };
        format!("by {}{mark}", self.source)
    }
}

fn reasons(verdict: &Verdict) -> String {
    verdict
        .rejected
        .iter()
        .map(|(hook, reason)| format!("{hook}: {reason}"))
        .collect::<Vec<_>>()
        .join("; ")
}
