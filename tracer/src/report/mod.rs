//! `memtrace report`: the debugging timeline of one container, as a page, a ticket or JSON.
//!
//! - `gather`: asks the agent and reads the store (`sources`); `facts` is what it brings.
//! - `story`: facts → [`story::Report`], what every format tells; pure, like all below.
//! - `events`: what happened, in order of time.
//! - `history`: one line of memory out of several resolutions; `graph`: it against the limit, as a picture and
//!   in characters.
//! - `trend`: whether it grew in the last minutes. `advice`: what to do next.
//! - `html`, `markdown`: the formats; JSON is the report itself.

mod advice;
mod command;
mod events;
pub mod facts;
mod gather;
mod graph;
mod history;
pub mod html;
pub mod markdown;
mod sources;
pub mod story;
mod trend;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;

pub use command::{EXAMPLES, ReportArgs, ReportError, run};
