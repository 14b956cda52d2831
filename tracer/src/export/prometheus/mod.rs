//! The HTTP endpoint of `--listen`: `/metrics` for Prometheus, `/healthz`, `/readyz`, `/status`.
//!
//! - `names`: OTLP names and units as Prometheus has them.
//! - `exposition`: the metrics of the OTLP mapping as text, so that one table of names serves both.
//! - `bounded`: connections bounded in number and time; `turns`: long answers, and who makes way. The API has both too.
//! - `server`: the thread that answers.
//!
//! A scrape asks the agent for a picture of this moment and formats it on a thread of its own; without a
//! scrape it costs nothing. Must not hold up the agent.

pub(crate) mod bounded;
mod exposition;
mod names;
mod server;
pub(crate) mod turns;

pub use exposition::Format;
pub use server::{Ask, Endpoint, Health, ListenError};
