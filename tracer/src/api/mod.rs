//! The agent's API: what a running agent tells other programs of this host over its Unix socket.
//!
//! Owns the records, the paths, the server and the client. Must not measure, judge or draw.
//!
//! - `records`: what is told.
//! - `query`: what can be asked, for both sides; `parameters`: how it is written; `route`: the paths.
//! - `readings`: of each time the finest that is told.
//! - `rows`: cgroups in short: chosen, ordered, cut.
//! - `socket`: the socket file: made, replaced, removed.
//! - `server`: the thread that answers, and what it asks the agent; `answer`: from questions to bytes.
//! - `client`: asks a running agent.

mod answer;
pub mod client;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod hostile_tests;
pub mod parameters;
pub mod query;
pub mod readings;
pub mod records;
pub mod route;
pub mod rows;
pub mod server;
pub mod socket;
