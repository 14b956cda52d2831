//! A call path as outputs tell it: small, named, escaped.
//!
//! Owns the fields, an interface (added, never renamed), and which frames are of no interest to a person:
//! those of whoever allocates for others, by which no two call paths are told apart. Must not rank or
//! measure.

use serde::{Deserialize, Serialize};

/// Functions in the form on one line.
const MOST_FUNCTIONS: usize = 8;
/// Most characters of a function on one line.
const MOST_FUNCTION_CHARS: usize = 60;
/// What stands for a root that is missing.
pub const TRUNCATED: &str = "[truncated]";

/// A call path and what is resident by it. Errors are one standard error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StackRecord {
    pub resident_bytes: u64,
    pub error_bytes: u64,
    /// Since the profile's base; negative if it shrank.
    pub growth_bytes: i64,
    pub growth_error_bytes: u64,
    /// Of all resident memory in the profile, 0 to 1; `None` if there is none.
    pub share: Option<f64>,
    /// Age of the oldest page that is still resident.
    pub oldest_seconds: f64,
    /// Of the bytes that are still resident.
    pub median_age_seconds: f64,
    /// Sampled pages behind `resident_bytes`.
    pub samples: u64,
    pub process: ProcessRecord,
    /// `function (module)`, the innermost first.
    pub frames: Vec<String>,
    /// The root is missing: the stack was cut, or could not be unwound further.
    pub truncated: bool,
}

/// Whose stack it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    pub pid: u32,
    pub comm: String,
}

impl StackRecord {
    /// `leak < serve < main`, from the innermost function that is not the allocator's to its callers;
    /// `…` where some are left out.
    pub fn line(&self) -> String {
        let frames = self.code();
        let functions = frames.iter().map(|frame| {
            let function = split(frame).0;
            // Escaped already: only its length is to be bounded.
            match function.char_indices().nth(MOST_FUNCTION_CHARS) {
                Some((end, _)) => format!("{}…", function.get(..end).unwrap_or_default()),
                None => function.to_owned(),
            }
        });
        let mut line: Vec<String> = functions.take(MOST_FUNCTIONS).collect();
        if frames.len() > MOST_FUNCTIONS || self.truncated {
            line.push("…".to_owned());
        }
        line.join(" < ")
    }

    /// The frames from the innermost that is not of the C library, an allocator, or a language's containers
    /// on; all of them where there is no other.
    pub fn code(&self) -> &[String] {
        let first = self.frames.iter().position(|frame| !allocates(frame));
        self.frames.get(first.unwrap_or(0)..).unwrap_or_default()
    }

    /// Whether it grew by more than two standard errors.
    pub fn surely_grew(&self) -> bool {
        self.growth_bytes > 0 && self.growth_bytes.unsigned_abs() / 2 > self.growth_error_bytes
    }

    /// About the memory that it holds, bytes.
    pub fn held_bytes(&self) -> usize {
        let frames = self.frames.iter();
        let frames: usize = frames.map(|frame| frame.len() + size_of::<String>()).sum();
        size_of::<Self>() + self.process.comm.len() + frames
    }
}

/// Call paths of a process that differ only in the allocator's functions are one, in the place and with the
/// frames and the median age of the first of them.
pub fn by_code(stacks: impl Iterator<Item = StackRecord>) -> Vec<StackRecord> {
    let mut merged: Vec<StackRecord> = Vec::new();
    for stack in stacks {
        let is_same = |known: &&mut StackRecord| {
            known.process == stack.process
                && known.truncated == stack.truncated
                && known.code() == stack.code()
        };
        match merged.iter_mut().find(is_same) {
            Some(known) => known.add(&stack),
            None => merged.push(stack),
        }
    }
    merged
}

impl StackRecord {
    /// Samples are independent.
    fn add(&mut self, other: &StackRecord) {
        let both = |a: u64, b: u64| (a as f64).hypot(b as f64).round() as u64;
        self.resident_bytes = self.resident_bytes.saturating_add(other.resident_bytes);
        self.error_bytes = both(self.error_bytes, other.error_bytes);
        self.growth_bytes = self.growth_bytes.saturating_add(other.growth_bytes);
        self.growth_error_bytes = both(self.growth_error_bytes, other.growth_error_bytes);
        let shares = self.share.zip(other.share);
        self.share = shares.map(|(a, b)| ((a + b) * 1e4).round() / 1e4);
        self.oldest_seconds = self.oldest_seconds.max(other.oldest_seconds);
        self.samples = self.samples.saturating_add(other.samples);
    }
}

/// Function and module of a frame: `f (m)`, or `m+0x1234` as both.
fn split(frame: &str) -> (&str, &str) {
    if let Some((function, module)) = frame.rsplit_once(" (") {
        return (function, module.strip_suffix(')').unwrap_or(module));
    }
    let module = frame.rsplit_once("+0x").map_or(frame, |(module, _)| module);
    (frame, module)
}

/// Modules that only work for others.
const LIBRARIES: [&str; 12] = [
    "libc.so",
    "libc-2.",
    "libc.musl",
    "ld-linux",
    "ld-musl",
    "ld-2.",
    "libstdc++.so",
    "libc++.so",
    "libjemalloc",
    "libtcmalloc",
    "libmimalloc",
    "[vdso]",
];

/// Where programs are linked with them statically, their functions say it; without leading underscores.
const FUNCTIONS: [&str; 26] = [
    "malloc",
    "calloc",
    "realloc",
    "reallocarray",
    "memalign",
    "aligned_alloc",
    "posix_memalign",
    "valloc",
    "pvalloc",
    "libc_malloc",
    "libc_calloc",
    "libc_realloc",
    "libc_memalign",
    "int_malloc",
    "int_realloc",
    "int_memalign",
    "int_free",
    "malloc_consolidate",
    "sysmalloc",
    "mmap",
    "mmap64",
    "brk",
    "sbrk",
    "strdup",
    "strndup",
    "[unknown]",
];

/// Beginnings of such names, without leading `_` and `<`.
const BEGINNINGS: [&str; 25] = [
    // C library and C++.
    "memset",
    "memcpy",
    "memmove",
    "mempcpy",
    "operator new",
    "std::",
    // Allocators.
    "je_",
    "mi_",
    "tc_malloc",
    "tcmalloc::",
    // Rust.
    "rust_alloc",
    "rust_realloc",
    "rdl_",
    "rustc::__r",
    "alloc::",
    "core::ptr::",
    "core::iter::",
    "core::ops::",
    "core::slice::",
    "hashbrown::",
    // Go.
    "runtime.",
    // CPython.
    "PyMem_",
    "PyObject_Malloc",
    "PyObject_Realloc",
    "PyObject_Calloc",
];

fn allocates(frame: &str) -> bool {
    let (function, module) = split(frame);
    let name = function.trim_start_matches(['_', '<']);
    LIBRARIES.iter().any(|library| module.starts_with(library))
        || FUNCTIONS.contains(&name)
        || BEGINNINGS.iter().any(|begin| name.starts_with(begin))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// 61 MiB, of which 20 grew.
    pub(crate) fn record(frames: &[&str]) -> StackRecord {
        StackRecord {
            resident_bytes: 61 << 20,
            error_bytes: 6 << 20,
            growth_bytes: 20 << 20,
            growth_error_bytes: 2 << 20,
            share: Some(0.8),
            oldest_seconds: 60.0,
            median_age_seconds: 30.0,
            samples: 240,
            process: ProcessRecord {
                pid: 7,
                comm: "app".to_owned(),
            },
            frames: frames.iter().map(|frame| (*frame).to_owned()).collect(),
            truncated: false,
        }
    }

    fn line(frames: &[&str]) -> String {
        record(frames).line()
    }

    #[test]
    fn the_line_begins_at_the_code_that_wants_memory() {
        let c = [
            "__memset_avx2_unaligned_erms (libc.so.6)",
            "leak (app)",
            "main (app)",
            "__libc_start_call_main (libc.so.6)",
        ];
        assert_eq!(line(&c), "leak < main < __libc_start_call_main");
        let cpp = [
            "libc.so.6+0x9a1f0",
            "operator new(unsigned long) (libstdc++.so.6.0.30)",
            "std::vector<int, std::allocator<int> >::reserve(unsigned long) (app)",
            "Cache::put(int) (app)",
        ];
        assert_eq!(line(&cpp), "Cache::put(int)");
        let rust = [
            "_int_malloc (app)",
            "__rustc::__rust_alloc (app)",
            "alloc::raw_vec::RawVecInner::finish_grow (app)",
            "<alloc::vec::Vec<T> as core::iter::Extend<T>>::extend (app)",
            "app::serve (app)",
            "std::rt::lang_start (app)",
        ];
        assert_eq!(line(&rust), "app::serve < std::rt::lang_start");
        let go = [
            "runtime.memclrNoHeapPointers (app)",
            "runtime.mallocgc (app)",
            "main.leak (app)",
            "runtime.main (app)",
        ];
        assert_eq!(line(&go), "main.leak < runtime.main");
        let jemalloc = ["libjemalloc.so.2+0x10", "app+0x1234"];
        assert_eq!(line(&jemalloc), "app+0x1234");
    }

    #[test]
    fn where_there_is_only_an_allocator_it_is_shown() {
        let frames = ["_int_malloc (libc.so.6)", "malloc (libc.so.6)"];
        assert_eq!(line(&frames), "_int_malloc < malloc");
        assert_eq!(record(&frames).code().len(), 2);
        assert_eq!(line(&[]), "");
        let mut cut = record(&frames);
        cut.truncated = true;
        assert_eq!(cut.line(), "_int_malloc < malloc < …");
    }

    #[test]
    fn names_that_only_resemble_an_allocator_are_code() {
        for frame in [
            "malloc_cache_fill (app)",
            "mmapped_table (app)",
            "libcurl.so.4+0x10",
            "core::Engine::leak() (app)",
            "… 137 frames",
        ] {
            assert!(!allocates(frame), "{frame}");
        }
    }

    #[test]
    fn what_differs_only_in_the_allocator_is_one_call_path() {
        let touched = record(&["memset (libc.so.6)", "leak (app)", "main (app)"]);
        let split = record(&["_int_malloc (libc.so.6)", "leak (app)", "main (app)"]);
        let other = record(&["memset (libc.so.6)", "main (app)"]);
        let mut foreign = touched.clone();
        foreign.process.pid = 8;
        let all = [touched.clone(), other.clone(), split, foreign.clone()];
        let merged = by_code(all.into_iter());
        assert_eq!(merged.len(), 3);
        assert_eq!(merged[1..], [other, foreign]);
        let leak = &merged[0];
        assert_eq!(leak.frames, touched.frames);
        assert_eq!(
            (leak.resident_bytes, leak.growth_bytes),
            (122 << 20, 40 << 20)
        );
        // 6 MiB times the root of 2.
        assert!((8_897_000..8_898_000).contains(&leak.error_bytes));
        assert_eq!((leak.samples, leak.share), (480, Some(1.6)));
    }

    #[test]
    fn growth_within_its_error_is_not_sure() {
        let mut grown = record(&["f (app)"]);
        assert!(grown.surely_grew());
        grown.growth_error_bytes = 11 << 20;
        assert!(!grown.surely_grew());
        grown.growth_bytes = -(20 << 20);
        grown.growth_error_bytes = 1;
        assert!(!grown.surely_grew());
    }
}
