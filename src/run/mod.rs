//! One execution: from a resolved spec to an exit status.
//!
//! One file a process, and one for the wire between them: [`launch`] is the supervisor (our parent
//! process), [`init`] the child that assembles the root and then, as PID 1, is [`reap`]; [`payload`] is the
//! process that becomes the user's command. Everything that can be computed is computed in [`spec`] before
//! the clone; the child executes stages and reports `(stage, errno)`; the text is made in [`explain`].

pub mod answer;
mod byfd;
mod companion;
pub mod disk;
mod early;
mod elf;
pub mod explain;
pub mod gate;
mod hold;
pub mod init;
pub mod join;
pub mod launch;
pub mod moments;
pub mod network;
pub mod outcome;
pub mod payload;
pub mod program;
mod pump;
pub mod reap;
mod signals;
pub mod spec;
pub mod supervisor;
pub mod terminal;
pub mod user;
mod veil;
mod wall;
pub mod weaker;
pub mod wire;
