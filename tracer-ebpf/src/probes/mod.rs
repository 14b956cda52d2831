//! One module per probe family, under the same names as in `tracer/src/probes/`.

mod fault;
mod heap;
mod lifecycle;
mod oom;
mod reclaim;
mod stack;
