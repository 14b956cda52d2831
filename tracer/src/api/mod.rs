//! The agent's API: what a running agent tells other programs of this host over its Unix socket.
//!
//! Owns the records, the paths, the server and the client. Must not measure, judge or draw.

pub mod records;
