#!/bin/sh
# The compiler for memtrace's own crates when they are fuzzed (RUSTC_WORKSPACE_WRAPPER): what cargo-fuzz
# passes, without the address sanitizer, which needs a nightly compiler. Dependencies are those of every build.
exec "$@" -Copt-level=1 \
    -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares
