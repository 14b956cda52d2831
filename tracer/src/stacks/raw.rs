//! A profile before its places have names, and how it gets them.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    agent::clock,
    host::{ProcRoot, escape, process::Program},
    symbols::Symbols,
};

use super::{
    callpaths::{CallPath, CallPaths},
    code::{Module, ModuleId, Place},
    modules::Modules,
    pages::PathPages,
    profile::{Estimate, Frame, Frames, Kind, Profile, ProfileStack},
    space::Space,
};

/// Longest name of a file shown, characters.
const MODULE_CHARS: usize = 160;

/// Of which address spaces a profile is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    All,
    /// Sampled last in one of these memory cgroups.
    Cgroups(Vec<u64>),
    /// Also those that have just ended.
    Processes(Vec<u32>),
}

impl Selection {
    pub fn has(&self, space: &Space) -> bool {
        let lives = space.ended.is_none();
        match self {
            Selection::All => lives,
            Selection::Cgroups(ids) => lives && ids.contains(&space.cgroup_id),
            Selection::Processes(pids) => pids.contains(&space.program.pid),
        }
    }
}

/// One call path of one process.
#[derive(Debug, Clone)]
struct RawStack {
    pid: u32,
    comm: String,
    kind: Kind,
    path: Arc<CallPath>,
    resident: Estimate,
    growth: Estimate,
    touched: Estimate,
    samples: u64,
    oldest: Duration,
    median_age: Duration,
}

/// A profile whose frames are places.
#[derive(Debug, Clone)]
pub struct RawProfile {
    programs: Vec<Program>,
    stacks: Vec<RawStack>,
    modules: HashMap<ModuleId, Module>,
    anon_bytes: Option<u64>,
    base: SystemTime,
    until: SystemTime,
    pages_per_sample: u64,
}

/// What a profile is made of.
pub(super) struct Spaces<'c, I> {
    pub spaces: I,
    pub paths: &'c CallPaths,
    pub modules: &'c Modules,
    pub proc: &'c ProcRoot,
}

impl<'c, I: Iterator<Item = &'c Space>> Spaces<'c, I> {
    pub fn profile(self, base_ns: u64, now_ns: u64) -> RawProfile {
        let (mut programs, mut stacks) = (Vec::new(), Vec::new());
        let mut modules = HashMap::new();
        let mut anon_bytes = None;
        let mut sparsest = 0;
        let mut buffer = Vec::new();
        for space in self.spaces {
            let reading = self.proc.process(space.program.pid, &mut buffer).ok();
            let anon = reading.and_then(|reading| reading.rss_anon_bytes);
            if let Some(anon) = anon {
                *anon_bytes.get_or_insert(0) += anon;
            }
            programs.push(space.program);
            sparsest = sparsest.max(space.pages.sparsest_shift());
            for (kind, id, pages) in space.by_path() {
                let Some(path) = self.paths.get(id) else {
                    continue;
                };
                for place in &path.places {
                    if let Place::File { module, .. } = place
                        && let Some(known) = self.modules.get(*module)
                    {
                        modules.entry(*module).or_insert_with(|| known.clone());
                    }
                }
                stacks.push(stack(space, kind, path, &pages, now_ns));
            }
        }
        RawProfile {
            programs,
            stacks,
            modules,
            anon_bytes,
            base: clock::wall_clock(base_ns),
            until: clock::wall_clock(now_ns),
            pages_per_sample: 1 << sparsest.min(63),
        }
    }
}

fn stack(
    space: &Space,
    kind: Kind,
    path: Arc<CallPath>,
    pages: &PathPages,
    now_ns: u64,
) -> RawStack {
    let age = |born_ns: u64| Duration::from_nanos(now_ns.saturating_sub(born_ns));
    RawStack {
        pid: space.program.pid,
        comm: space.comm.clone(),
        kind,
        path,
        resident: pages.resident.estimate(),
        growth: pages.new.minus(&pages.gone),
        touched: pages.touched.estimate(),
        samples: pages.resident.samples(),
        oldest: pages.oldest_ns.map_or(Duration::ZERO, age),
        median_age: age(median_birth(pages).unwrap_or(now_ns)),
    }
}

/// When half of the bytes that are still there were.
fn median_birth(pages: &PathPages) -> Option<u64> {
    let mut births = pages.births.clone();
    births.sort_unstable_by_key(|(born_ns, _)| *born_ns);
    let half = births.iter().map(|(_, bytes)| bytes).sum::<f64>() / 2.0;
    let mut sum = 0.0;
    births.into_iter().find_map(|(born_ns, bytes)| {
        sum += bytes;
        (sum >= half).then_some(born_ns)
    })
}

impl RawProfile {
    /// Whether nothing was sampled.
    pub fn is_empty(&self) -> bool {
        self.stacks.is_empty()
    }

    /// Names the `most` call paths of each kind that hold or grew most, because each name costs; the
    /// rest stays unnamed. Blocks, for seconds where files are large.
    pub fn named(
        mut self,
        symbols: &mut Symbols,
        scope: String,
        from: SystemTime,
        lost_samples: u64,
        most: usize,
    ) -> Profile {
        self.sort();
        let of = |kind| self.stacks.iter().filter(move |stack| stack.kind == kind);
        let mut places: Vec<Place> = of(Kind::Resident)
            .take(most)
            .chain(of(Kind::Mapped).take(most))
            .flat_map(|stack| stack.path.places.iter().copied())
            .collect();
        places.sort_unstable();
        places.dedup();
        let modules = |id: ModuleId| self.modules.get(&id).cloned();
        let frames = symbols.resolve(&places, &modules);
        let frames = frames
            .into_iter()
            .map(|of_place| shared(of_place).collect());
        let names = places.into_iter().zip(frames).collect();
        self.with(names, scope, from, lost_samples)
    }

    /// Files and offsets only: at once.
    pub fn unnamed(mut self, scope: String, from: SystemTime, lost_samples: u64) -> Profile {
        self.sort();
        self.with(HashMap::new(), scope, from, lost_samples)
    }

    /// What holds or grew most first.
    fn sort(&mut self) {
        let weight = |stack: &RawStack| stack.resident.bytes.max(stack.growth.bytes);
        self.stacks
            .sort_by(|a, b| weight(b).total_cmp(&weight(a)).then(a.pid.cmp(&b.pid)));
    }

    fn with(
        self,
        mut names: HashMap<Place, Vec<Arc<Frame>>>,
        scope: String,
        from: SystemTime,
        lost_samples: u64,
    ) -> Profile {
        let mut known: HashMap<*const CallPath, Frames> = HashMap::new();
        let mut frames_of = |path: &Arc<CallPath>| {
            let frames = known.entry(Arc::as_ptr(path)).or_insert_with(|| {
                let mut frames = Vec::with_capacity(path.places.len());
                for place in &path.places {
                    let of_place = names
                        .entry(*place)
                        .or_insert_with(|| vec![Arc::new(unnamed(place, &self.modules))]);
                    frames.extend_from_slice(of_place);
                }
                frames.into()
            });
            Arc::clone(frames)
        };
        let stacks = self
            .stacks
            .iter()
            .map(|stack| ProfileStack {
                pid: stack.pid,
                comm: stack.comm.clone(),
                kind: stack.kind,
                frames: frames_of(&stack.path),
                root: stack.path.root,
                resident: stack.resident,
                growth: stack.growth,
                touched: stack.touched,
                samples: stack.samples,
                oldest: stack.oldest,
                median_age: stack.median_age,
            })
            .collect();
        Profile {
            scope,
            from,
            until: self.until,
            base: self.base,
            pages_per_sample: self.pages_per_sample,
            anon_bytes: self.anon_bytes,
            lost_samples,
            programs: self.programs,
            stacks,
        }
    }
}

fn shared(frames: Vec<Frame>) -> impl Iterator<Item = Arc<Frame>> {
    frames.into_iter().map(Arc::new)
}

fn unnamed(place: &Place, modules: &HashMap<ModuleId, Module>) -> Frame {
    let (module, offset) = match *place {
        Place::File { module, offset } => {
            let path = modules.get(&module).map(|module| module.path.as_str());
            let name = path.and_then(|path| path.rsplit('/').next());
            (name.unwrap_or("[unknown]"), offset)
        }
        Place::Anonymous { address, .. } => ("[anonymous]", address),
    };
    Frame {
        function: None,
        module: escape::display(module.as_bytes(), MODULE_CHARS),
        offset,
        source: None,
        inlined: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stacks::code::Root;

    fn place(offset: u64) -> Place {
        Place::File {
            module: ModuleId(1),
            offset,
        }
    }

    fn path(offsets: &[u64]) -> Arc<CallPath> {
        Arc::new(CallPath {
            places: offsets.iter().copied().map(place).collect(),
            root: Root::Reached,
        })
    }

    fn raw(stacks: &[(u32, &Arc<CallPath>)]) -> RawProfile {
        let stacks = stacks.iter().map(|(pid, path)| RawStack {
            pid: *pid,
            comm: "cc".into(),
            kind: Kind::Resident,
            path: Arc::clone(path),
            resident: Estimate::default(),
            growth: Estimate::default(),
            touched: Estimate::default(),
            samples: 1,
            oldest: Duration::ZERO,
            median_age: Duration::ZERO,
        });
        RawProfile {
            programs: Vec::new(),
            stacks: stacks.collect(),
            modules: HashMap::new(),
            anon_bytes: None,
            base: SystemTime::UNIX_EPOCH,
            until: SystemTime::UNIX_EPOCH,
            pages_per_sample: 1,
        }
    }

    fn offsets(stack: &ProfileStack) -> Vec<u64> {
        stack.frames.iter().map(|frame| frame.offset).collect()
    }

    #[test]
    fn what_call_paths_have_in_common_is_held_once() {
        let (one, other) = (path(&[1, 7, 9]), path(&[2, 7, 9]));
        let raw = raw(&[(1, &one), (1, &other), (2, &one)]);
        let stacks = raw.unnamed(String::new(), SystemTime::UNIX_EPOCH, 0).stacks;
        assert_eq!(offsets(&stacks[0]), [1, 7, 9]);
        assert_eq!(offsets(&stacks[1]), [2, 7, 9]);
        assert!(Arc::ptr_eq(&stacks[0].frames, &stacks[2].frames));
        for at in [1, 2] {
            assert!(Arc::ptr_eq(&stacks[0].frames[at], &stacks[1].frames[at]));
        }
    }

    #[test]
    fn frames_inlined_at_a_place_stay_together_and_the_rest_stays_unnamed() {
        let frame = |function: &str, inlined| Frame {
            function: Some(function.into()),
            module: "cc".into(),
            offset: 7,
            source: None,
            inlined,
        };
        let frames = shared(vec![frame("push", true), frame("grow", false)]);
        let names = HashMap::from([(place(7), frames.collect())]);
        let one = path(&[1, 7, 9]);
        let profile = raw(&[(1, &one)]).with(names, String::new(), SystemTime::UNIX_EPOCH, 0);
        let functions = profile.stacks[0].frames.iter();
        let functions: Vec<_> = functions.map(|frame| frame.function.as_deref()).collect();
        assert_eq!(functions, [None, Some("push"), Some("grow"), None]);
    }
}
