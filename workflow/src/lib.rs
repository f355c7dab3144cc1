//! What the commands do with the crates below.
//!
//! Nothing here prints or parses arguments: what is asked for comes as values, what was found goes back as typed facts, and what is
//! going on meanwhile is told to a [`progress::Progress`].

pub mod bundle;
pub mod convert;
pub mod diff;
pub mod doctor;
pub mod explain;
pub mod gate;
pub mod inspect;
pub mod oracle;
pub mod origin;
pub mod outputs;
pub mod publish;
pub mod release;
pub mod reporting;
pub mod runnable;
pub mod stage;
pub mod tables;
