//! From kernel records to incidents: one for each OOM, complete and never wrong.
//!
//! - `assembly`: joins the records of one OOM.
//! - `charged`: whose limit it was.
//! - `meaning`: the sentences for a person.
//! - `reconcile`: kills seen beside kills that the kernel counted.
//! - `stall`: stuck at a limit without an OOM.
//! - `record`: what an incident is, for every output.
//!
//! Must not read files, know BPF or format for people: it is given what was read.

pub mod assembly;
pub mod charged;
pub mod meaning;
pub mod reconcile;
pub mod record;
pub mod stall;

pub use record::{Incident, Kind};
