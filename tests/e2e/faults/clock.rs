//! A wall clock for one program that a test steps.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};
use memtrace_tests::compiled::Compiled;

/// Stands before the function of libc. The offset is in a file that is mapped, so that it can change.
const SOURCE: &str = r#"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile long *offset_s;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("STEPPED_CLOCK");
    int fd = path ? open(path, O_RDONLY) : -1;
    if (fd < 0)
        return;
    void *mapped = mmap(0, sizeof *offset_s, PROT_READ, MAP_SHARED, fd, 0);
    if (mapped != MAP_FAILED)
        offset_s = mapped;
    close(fd);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int status = syscall(SYS_clock_gettime, clock, time);
    if (status == 0 && clock == CLOCK_REALTIME && offset_s)
        time->tv_sec += *offset_s;
    return status;
}
"#;

/// A library for `LD_PRELOAD` and the file by which it is told.
pub struct Stepped {
    compiled: Compiled,
    offset: File,
}

impl Stepped {
    /// `None` where there is no compiler.
    pub fn make() -> Result<Option<Self>> {
        let compiler = ["cc", "-shared", "-fPIC", "-O1", "-o", "clock.so", "clock.c"];
        let Some(compiled) = Compiled::make(&compiler, &[("clock.c", SOURCE)])? else {
            return Ok(None);
        };
        let offset = File::create(compiled.path("offset"))?;
        let clock = Self { compiled, offset };
        clock.step(0)?;
        Ok(Some(clock))
    }

    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let path = |name| self.compiled.path(name).display().to_string();
        vec![
            ("LD_PRELOAD", path("clock.so")),
            ("STEPPED_CLOCK", path("offset")),
        ]
    }

    /// The clock is that far from the machine's from now on.
    pub fn step(&self, offset_s: i64) -> Result<()> {
        let written = self.offset.write_all_at(&offset_s.to_ne_bytes(), 0);
        written.context("the clock cannot be stepped")
    }
}
