//! Loads the embedded object with this kernel's offsets and attaches what the plan says.

use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::sys::is_helper_supported;
use aya::{
    Btf, Ebpf, EbpfError, EbpfLoader, Endianness,
    maps::{Map, MapError},
    programs::{
        BtfTracePoint, FEntry, FExit, KProbe, PerfEvent, Program, ProgramError, ProgramType,
        TracePoint,
        perf_event::{PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent},
    },
    util::online_cpus,
};
use aya_obj::generated::bpf_func_id;
use memtrace_ebpf::offsets::ABSENT;
use thiserror::Error;

use crate::kernel::support::{Support, SupportError, syscall_function};

use super::{
    catalog::{self, Alternative, Family, Hook, Probe},
    commands::{self, Commands},
    counts::Counts,
    options::Options,
    plan::{self, Helpers, Planned},
    refusal,
    ring::Ring,
    runs,
    stacks::{self, StackSamples},
};

/// The object that `cargo xtask ebpf` builds and verifies.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../tracer-ebpf/prebuilt/memtrace.bpfel.o"
));

/// memtrace cannot trace on this host.
#[derive(Debug, Error)]
pub enum LoadError {
    #[error(transparent)]
    Support(#[from] SupportError),
    #[error("the kernel's type information cannot be used: {0}")]
    Btf(String),
    #[error(
        "this kernel lacks {fields}: memory cannot be attributed to cgroups\n\
         memtrace needs CONFIG_MEMCG=y and kernel 5.8 or later"
    )]
    MissingFields { fields: String },
    #[error("the kernel refused memtrace's BPF maps: {0}")]
    Load(#[from] EbpfError),
    #[error("a BPF map cannot be used: {0}")]
    Map(#[from] MapError),
}

/// What became of one probe.
#[derive(Debug, Clone)]
pub struct Verdict {
    pub probe: &'static str,
    pub family: Family,
    pub essential: bool,
    /// Program and hook that serve it; `None`: the signal is missing.
    pub attached: Option<(&'static str, String)>,
    /// Better alternatives that do not work here: hook and reason.
    pub rejected: Vec<(String, String)>,
    /// Instructions the verifier walked; `None` before 5.16.
    pub verified_instructions: Option<u32>,
}

/// The loaded programs. Dropping it detaches everything.
#[derive(Debug)]
pub struct Loader {
    pub(super) ebpf: Ebpf,
    stack_seed: u64,
    pub support: Support,
    pub verdicts: Vec<Verdict>,
}

impl Loader {
    /// Reads the facts, plans, loads and attaches. One probe that fails costs its signal only.
    pub fn load(options: &Options) -> Result<Self, LoadError> {
        let mut support = Support::read(
            std::path::Path::new("/"),
            &catalog::tracepoints(),
            &catalog::functions(),
        )?;
        let missing = support.offsets.missing_required();
        let Some(memory_cgrp_id) = support
            .offsets
            .memory_cgrp_id
            .filter(|_| missing.is_empty())
        else {
            let fields = if missing.is_empty() {
                "the memory controller".to_owned()
            } else {
                missing.join(", ")
            };
            return Err(LoadError::MissingFields { fields });
        };
        // The loader parses all of the kernel's types once for itself, and drops them here.
        let attach_types = std::mem::take(&mut support.attach_types);
        let btf = Btf::parse(&attach_types, Endianness::default())
            .map_err(|error| LoadError::Btf(error.to_string()))?;
        let helpers = helpers().without(&options.skipped_hooks);
        let planned = plan::plan(
            &support,
            helpers,
            |probe| options.wants(probe),
            &options.skipped_hooks,
        );

        let page_size = page_size();
        let trusted = u32::from(helpers.trusted_task);
        let command_lines = u32::from(options.command_lines);
        let upid_bytes = support.offsets.upid_bytes.unwrap_or(ABSENT);
        let page_shift = page_size.ilog2();
        let mask = options.fault_sample_mask();
        let stacks = u32::from(options.stacks);
        let task_regs = u32::from(helpers.task_regs && helpers.trusted_task);
        let stack_seed = stacks::seed();
        let huge_pages = stacks::huge_page_bytes() / page_size;
        let exit_min_pages = options.exit_min_pages(page_size);
        let mut loader = EbpfLoader::new();
        loader
            .btf(Some(&btf))
            .map_max_entries("CGROUPS", options.max_cgroups)
            .map_max_entries("RECLAIM", (options.max_cgroups / 4).max(64))
            .map_max_entries("PROCESSES", options.max_processes)
            .map_max_entries("BREAKS", options.max_processes)
            .map_max_entries("COMMANDS", options.max_processes)
            .map_max_entries("STACK_SHIFTS", options.max_cgroups)
            .map_max_entries("STACK_SAMPLES", stacks::ring_bytes(options.stacks))
            .override_global("STACKS", &stacks, true)
            .override_global("TASK_REGS", &task_regs, true)
            .override_global("STACK_SEED", &stack_seed, true)
            .override_global("HUGE_PAGES", &huge_pages, true)
            .override_global("COMMAND_LINES", &command_lines, true)
            .override_global("SIZE_UPID", &upid_bytes, true)
            .override_global("TRUSTED_TASK", &trusted, true)
            .override_global("PAGE_SIZE", &page_size, true)
            .override_global("PAGE_SHIFT", &page_shift, true)
            .override_global("FAULT_SAMPLE_MASK", &mask, true)
            .override_global("EXIT_MIN_PEAK_PAGES", &exit_min_pages, true)
            .override_global("MEMORY_CGRP_ID", &memory_cgrp_id, true);
        for (global, offset) in &support.offsets.values {
            loader.override_global(global, offset, true);
        }
        let mut ebpf = loader.load(OBJECT)?;
        commands::name_killers(&mut ebpf, &options.oom_killers)?;
        stacks::sample_nothing(&mut ebpf)?;
        let mut verdicts: Vec<Verdict> = Vec::with_capacity(planned.len());
        for planned in planned {
            let verdict = match planned.probe.needs {
                Some(needed) if !is_attached(&verdicts, needed) => useless(planned.probe, needed),
                _ => attach_first(&mut ebpf, planned, &btf, options),
            };
            verdicts.push(verdict);
        }
        Ok(Self {
            ebpf,
            support,
            verdicts,
            stack_seed,
        })
    }

    /// Where samples of pages arrive and their density is set. Once.
    pub fn stack_samples(&mut self) -> Result<StackSamples, LoadError> {
        Ok(StackSamples::take(&mut self.ebpf, self.stack_seed)?)
    }

    /// The maps to poll. Once.
    pub fn counts(&mut self) -> Result<Counts, LoadError> {
        Ok(Counts::take(&mut self.ebpf)?)
    }

    /// What processes were started as. Once.
    pub fn commands(&mut self) -> Result<Commands, LoadError> {
        Ok(Commands::take(&mut self.ebpf)?)
    }

    /// The ring of OOM records. Once, in a tokio runtime.
    pub fn oom_ring(&mut self) -> Result<Ring, LoadError> {
        Ok(Ring::take(&mut self.ebpf, "OOM_EVENTS")?)
    }

    /// The ring of cgroups and processes. Once, in a tokio runtime.
    pub fn event_ring(&mut self) -> Result<Ring, LoadError> {
        Ok(Ring::take(&mut self.ebpf, "EVENTS")?)
    }

    /// Whether a probe is attached, by its catalog name.
    pub fn has(&self, probe: &str) -> bool {
        is_attached(&self.verdicts, probe)
    }

    /// Why page faults come without the address that was touched; `None`: they have it.
    pub fn lacks_fault_addresses(&self) -> Option<String> {
        let probe = |verdict: &&Verdict| verdict.probe == "fault.user";
        let Some(verdict) = self.verdicts.iter().find(probe) else {
            return Some("the fault probe is off".to_owned());
        };
        if verdict
            .attached
            .as_ref()
            .is_some_and(|(program, _)| *program == "fault_user")
        {
            return None;
        }
        let reasons = verdict.rejected.iter();
        let reasons: Vec<String> = reasons
            .map(|(hook, why)| format!("{hook}: {why}"))
            .collect();
        Some(reasons.join("; "))
    }

    /// Whether every essential probe of a family is attached: with one missing its sums would be too small.
    pub fn serves_whole(&self, family: Family) -> bool {
        let mut of_family = self
            .verdicts
            .iter()
            .filter(|verdict| verdict.family == family && verdict.essential)
            .peekable();
        of_family.peek().is_some() && of_family.all(|verdict| verdict.attached.is_some())
    }

    /// Locked kernel memory of the maps, bytes; `None` where the kernel does not tell.
    pub fn map_bytes(&self) -> Option<u64> {
        self.ebpf
            .maps()
            .map(|(_, map)| {
                let fd = map_fd(map)?;
                let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
                runs::fdinfo_value(&info, "memlock")
            })
            .sum()
    }
}

fn map_fd(map: &Map) -> Option<i32> {
    let data = match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data) => data,
        _ => return None,
    };
    Some(data.fd().as_fd().as_raw_fd())
}

pub(super) fn map(ebpf: &mut Ebpf, name: &str) -> Result<Map, MapError> {
    ebpf.take_map(name).ok_or_else(|| MapError::InvalidName {
        name: name.to_owned(),
    })
}

pub fn page_size() -> u64 {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|bytes| u64::try_from(bytes).ok())
        .unwrap_or(4096)
}

fn helpers() -> Helpers {
    // Asked of a kprobe program, which needs no kprobe to be loaded.
    let supported = |helper| is_helper_supported(ProgramType::KProbe, helper).unwrap_or(false);
    Helpers {
        trusted_task: supported(bpf_func_id::BPF_FUNC_get_current_task_btf),
        task_regs: supported(bpf_func_id::BPF_FUNC_task_pt_regs),
    }
}

fn is_attached(verdicts: &[Verdict], probe: &str) -> bool {
    let mut verdicts = verdicts.iter();
    verdicts.any(|verdict| verdict.probe == probe && verdict.attached.is_some())
}

/// Of a probe that is left out because another is missing.
fn useless(probe: &Probe, needed: &str) -> Verdict {
    let reason = format!("it would tell what is not so without {needed}");
    let hooks = probe.alternatives.iter();
    Verdict {
        probe: probe.name,
        family: probe.family,
        essential: probe.essential,
        attached: None,
        rejected: hooks
            .map(|alternative| (alternative.hook.describe(), reason.clone()))
            .collect(),
        verified_instructions: None,
    }
}

fn attach_first(ebpf: &mut Ebpf, planned: Planned, btf: &Btf, options: &Options) -> Verdict {
    let Planned {
        probe,
        attempts,
        ruled_out,
    } = planned;
    let mut verdict = Verdict {
        probe: probe.name,
        family: probe.family,
        essential: probe.essential,
        attached: None,
        rejected: Vec::new(),
        verified_instructions: None,
    };
    for alternative in attempts {
        let hook = alternative.hook.describe();
        match attach(ebpf, alternative, btf, options) {
            Ok(instructions) => {
                verdict.attached = Some((alternative.program, hook));
                verdict.verified_instructions = instructions;
                break;
            }
            Err(error) => {
                let reason = refusal::reason(&error, &alternative.hook);
                verdict.rejected.push((hook, reason));
            }
        }
    }
    // Ruled-out hooks are worth telling only where they would have been better.
    let better = |hook: &String| match &verdict.attached {
        None => true,
        Some((program, _)) => probe
            .alternatives
            .iter()
            .take_while(|alternative| alternative.program != *program)
            .any(|alternative| alternative.hook.describe() == *hook),
    };
    let mut rejected: Vec<_> = ruled_out
        .into_iter()
        .filter(|(hook, _)| better(hook))
        .collect();
    rejected.append(&mut verdict.rejected);
    rejected.sort_by_key(|(hook, _)| {
        probe
            .alternatives
            .iter()
            .position(|alternative| alternative.hook.describe() == *hook)
    });
    verdict.rejected = rejected;
    verdict
}

fn attach(
    ebpf: &mut Ebpf,
    alternative: &Alternative,
    btf: &Btf,
    options: &Options,
) -> Result<Option<u32>, ProgramError> {
    let program = ebpf
        .program_mut(alternative.program)
        .ok_or_else(|| ProgramError::IOError(io::Error::from(io::ErrorKind::NotFound)))?;
    match alternative.hook {
        Hook::BtfTracepoint { name, .. } => {
            let program: &mut BtfTracePoint = program.try_into()?;
            program.load(name, btf)?;
            program.attach()?;
        }
        Hook::FEntry(function) => {
            let program: &mut FEntry = program.try_into()?;
            program.load(function, btf)?;
            program.attach()?;
        }
        Hook::SyscallFExit(call) => {
            let program: &mut FExit = program.try_into()?;
            program.load(&syscall_function(call), btf)?;
            program.attach()?;
        }
        Hook::KProbe(function) => attach_kprobe(program, function)?,
        Hook::SyscallKRetProbe(call) => attach_kprobe(program, &syscall_function(call))?,
        Hook::SyscallExit(call) => {
            let program: &mut TracePoint = program.try_into()?;
            program.load()?;
            program.attach("syscalls", &format!("sys_exit_{call}"))?;
        }
        Hook::PageFaultEvent => {
            let program: &mut PerfEvent = program.try_into()?;
            program.load()?;
            let cpus = online_cpus().map_err(|(_, error)| ProgramError::IOError(error))?;
            for cpu in cpus {
                program.attach(
                    PerfEventConfig::Software(SoftwareEvent::PageFaults),
                    PerfEventScope::AllProcessesOneCpu { cpu },
                    SamplePolicy::Period(options.fault_sample),
                    false,
                )?;
            }
        }
    }
    let info = ebpf
        .program(alternative.program)
        .and_then(|program| program.info().ok());
    Ok(info.and_then(|info| info.verified_instruction_count()))
}

fn attach_kprobe(program: &mut Program, function: &str) -> Result<(), ProgramError> {
    let program: &mut KProbe = program.try_into()?;
    program.load()?;
    program.attach(function, 0)?;
    Ok(())
}
