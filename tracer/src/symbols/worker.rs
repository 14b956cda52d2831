//! The worker: reads untrusted files, and names places in them.
//!
//! It may end at any request, by a signal or a panic; the agent expects that. Must not write
//! anything but its answers, and must not outlive the agent.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
};

use addr2line::Context;

use super::{
    debug_files::{self, Found},
    image::{Image, Reader},
    mappings,
    perf_map::PerfMap,
    sandbox,
    symbol_table::SymbolTable,
    wire::{
        GeneratedPlace, MOST_FRAMES, MOST_PLACES, MOST_TEXT, MOST_TEXTS, ModuleReply,
        ModuleRequest, ProcessReply, ProcessRequest, Region, Reply, Request, WireFrame,
        WorkerLimits, receive, send,
    },
};

/// Functions that a linker threw away may be left in DWARF at address 0. Below this size they may
/// seem to cover code that is linked there.
const LARGEST_DISCARDED: u64 = 1 << 20;
/// Longer mangled names are shown as they are.
const LONGEST_MANGLED: usize = 64 << 10;

/// An answer names at least so many places, or reading a file anew would not pay.
const FEWEST_PLACES: usize = 64;
/// Places until memory is looked at again.
const PLACES_BETWEEN_LOOKS: usize = 8;

/// The worker could not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("standard input is no socket of memtrace: {0}")]
    Socket(#[from] io::Error),
    #[error("the first request sets no limits")]
    NoLimits,
}

/// Answers requests from standard input, which is a socket, until the agent closes it.
///
/// # Errors
/// Standard input is something else, or the agent is gone.
pub fn serve() -> Result<(), ServeError> {
    let socket: OwnedFd = io::stdin().as_fd().try_clone_to_owned()?;
    let socket = UnixStream::from(socket);
    socket.peer_addr()?;
    sandbox::enter();
    let Some((Request::Limits(limits), _)) = receive(&socket, None)? else {
        return Err(ServeError::NoLimits);
    };
    sandbox::limit_memory(&limits);
    let mut modules = HashMap::new();
    while let Some((request, file)) = receive::<Request>(&socket, None)? {
        sandbox::allow_cpu_seconds(limits.request_cpu_seconds);
        let reply = match request {
            Request::Limits(_) => continue,
            Request::Module(request) => {
                let module = modules
                    .entry(request.key)
                    .or_insert_with(|| Module::open(file.as_ref(), &request));
                Reply::Module(module.name(&request.offsets, &limits))
            }
            Request::Process(request) => Reply::Process(name_generated(&request)),
        };
        send(&socket, &reply, None)?;
    }
    Ok(())
}

/// Whether more than `eighths` of what is allowed is used.
fn uses(eighths: u64, limits: &WorkerLimits) -> bool {
    let most = |limit: u64| limit / 8 * eighths;
    sandbox::used_bytes().is_none_or(|(heap, mapped)| {
        heap > most(limits.heap_bytes) || mapped > most(limits.mapped_bytes)
    })
}

/// A file, and what names places in it.
#[derive(Default)]
struct Module {
    image: Option<Image>,
    dwarf: Option<Context<Reader>>,
    symbols: SymbolTable,
    changed: bool,
    /// Told with the first answer.
    rejected_debug_files: u64,
}

impl Module {
    fn open(file: Option<&File>, request: &ModuleRequest) -> Module {
        let mut module = Module::default();
        let Some(image) = file.and_then(|file| Image::open(file).ok()) else {
            return module;
        };
        if request.build_id.is_some() && image.build_id() != request.build_id.as_deref() {
            module.changed = true;
            return module;
        }
        let mut debug = None;
        let mut supplement = None;
        if request.debug_information {
            let roots = debug_files::roots(request.pid);
            if !image.has_dwarf() {
                let found = debug_files::find(&image, Path::new(&request.path), &roots);
                debug = module.take(found);
            }
            let with_dwarf = debug.as_ref().unwrap_or(&image);
            let found = debug_files::find_supplement(with_dwarf, &roots);
            supplement = module.take(found);
            if with_dwarf.has_dwarf() {
                module.dwarf = with_dwarf.dwarf(supplement.as_ref());
            }
        }
        drop(supplement);
        let complete = debug.as_ref().filter(|debug| debug.has_symbol_table());
        let has_own = image.has_symbol_table();
        module.symbols.add(&image.file);
        if let Some(debug) = complete.filter(|_| !has_own) {
            module.symbols.add(&debug.file);
        } else if !has_own && let Some(mini) = image.mini_debug_info() {
            module.symbols.add(&mini.file);
        }
        module.image = Some(image);
        module
    }

    fn take(&mut self, found: Found) -> Option<Image> {
        self.rejected_debug_files += found.rejected;
        found.debug
    }

    /// Stops early when it holds much: neighbours share what was parsed for them, so the rest goes to
    /// a new worker.
    fn name(&mut self, offsets: &[u64], limits: &WorkerLimits) -> ModuleReply {
        let mut budget = Budget {
            left: MOST_TEXTS,
            dropped: 0,
        };
        let mut places = Vec::with_capacity(offsets.len().min(MOST_PLACES));
        let mut full = false;
        for (index, offset) in offsets.iter().take(MOST_PLACES).enumerate() {
            if index >= FEWEST_PLACES && index % PLACES_BETWEEN_LOOKS == 0 && uses(7, limits) {
                full = true;
                break;
            }
            let mut frames = self.frames(*offset);
            budget.apply(&mut frames);
            places.push(frames);
        }
        ModuleReply {
            places,
            changed: self.changed,
            rejected_debug_files: std::mem::take(&mut self.rejected_debug_files),
            frames_over_budget: budget.dropped,
            // Another file must have room.
            full: full || uses(4, limits),
        }
    }

    /// Innermost first; none if nothing is known.
    fn frames(&self, offset: u64) -> Vec<WireFrame> {
        let address = self.image.as_ref().and_then(|image| image.address(offset));
        let Some(address) = address else {
            return Vec::new();
        };
        let symbol = self.symbols.covering(address);
        let mut frames = self.dwarf_frames(address).unwrap_or_default();
        if frames.is_empty() {
            frames.push(WireFrame::default());
        }
        if let Some(outermost) = frames.last_mut()
            && outermost.function.is_none()
        {
            outermost.function = symbol.map(demangled);
        }
        // A caller without a name stays, or what is inlined would take its place.
        if frames.iter().all(|frame| *frame == WireFrame::default()) {
            frames.clear();
        }
        frames
    }

    fn dwarf_frames(&self, address: u64) -> Option<Vec<WireFrame>> {
        let mut found = self
            .dwarf
            .as_ref()?
            .find_frames(address)
            .skip_all_loads()
            .ok()?;
        let mut frames = Vec::new();
        let mut function: Option<Vec<u8>> = None;
        // What is corrupt after some frames takes them all: half an inlining names the wrong caller.
        while let Some(frame) = found.next().ok()? {
            let raw = frame.function.map(|function| function.name.slice());
            let raw = raw.filter(|raw| !raw.is_empty());
            let source = frame
                .location
                .and_then(|location| Some((cut(location.file?), location.line?)));
            let wire = WireFrame {
                function: raw.map(demangled),
                source,
            };
            function = raw.map(<[u8]>::to_vec);
            // The outermost stays: it is the function.
            if frames.len() == MOST_FRAMES {
                frames.pop();
            }
            frames.push(wire);
        }
        if let (Some(function), Some(outermost)) = (&function, frames.last_mut())
            && let Some(better) = self.better_name(address, function)
        {
            outermost.function = Some(demangled(better));
        }
        let discarded = address < LARGEST_DISCARDED
            && self.symbols.is_complete()
            && function.is_some_and(|function| !self.confirms(address, &function));
        (!discarded).then_some(frames)
    }

    /// What people know the function as that DWARF calls `function`, if a symbol tells that.
    fn better_name(&self, address: u64, function: &[u8]) -> Option<&'static [u8]> {
        let mut symbols = self.symbols.all_covering(address);
        // A C library calls its functions by private aliases, such as `__GI___libc_malloc`.
        if function.starts_with(b"__") {
            let known = symbols.any(|alias| alias == function);
            return self.symbols.covering(address).filter(|_| known);
        }
        // DWARF of line tables only has no linkage names, and so no module or class.
        let mangled = |name: &[u8]| name.starts_with(b"_Z") || name.starts_with(b"_R");
        let plain = function.split(|byte| *byte == b'<').next()?;
        if plain.is_empty() || mangled(function) {
            return None;
        }
        symbols.find(|symbol| mangled(symbol) && memchr::memmem::find(symbol, plain).is_some())
    }

    /// Whether a symbol at `address` is of the function that DWARF calls `function`, by its linkage
    /// name or its plain one; compilers append `.cold`, `.part.0` and the like.
    fn confirms(&self, address: u64, function: &[u8]) -> bool {
        self.symbols
            .all_covering(address)
            .any(|symbol| memchr::memmem::find(symbol, function).is_some())
    }
}

/// Room for text in an answer.
struct Budget {
    left: usize,
    dropped: u64,
}

impl Budget {
    fn apply(&mut self, frames: &mut Vec<WireFrame>) {
        let text = |text: &String| text.len();
        let bytes = |frame: &WireFrame| {
            frame.function.as_ref().map_or(0, text)
                + frame.source.as_ref().map_or(0, |(file, _)| text(file))
        };
        let size: usize = frames.iter().map(bytes).sum();
        if size > self.left {
            self.dropped += frames.len() as u64;
            frames.clear();
        } else {
            self.left -= size;
        }
    }
}

/// As a programmer writes it; as it is where that is not known.
fn demangled(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    if name.len() > LONGEST_MANGLED {
        return cut(&name);
    }
    cut(&addr2line::demangle_auto(name, None))
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(MOST_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

fn name_generated(request: &ProcessRequest) -> ProcessReply {
    let map = PerfMap::of_process(request.pid);
    let state = map.state;
    let rejected_perf_maps = u64::from(map.rejected);
    if request.known == Some(state) {
        return ProcessReply {
            state,
            places: None,
            rejected_perf_maps,
        };
    }
    let mut addresses = request.addresses.clone();
    addresses.truncate(MOST_PLACES);
    addresses.sort_unstable();
    addresses.dedup();
    let regions = mappings::regions(request.pid, &addresses);
    let names = map.names(&addresses);
    let place = |address: &u64| {
        let index = addresses.binary_search(address).ok();
        let region = index.and_then(|index| regions.get(index)).copied();
        GeneratedPlace {
            region: region.unwrap_or(Region::Unknown),
            name: index.and_then(|index| names.get(index)?.clone()),
        }
    };
    ProcessReply {
        state,
        places: Some(request.addresses.iter().map(place).collect()),
        rejected_perf_maps,
    }
}
