//! The supervisor of a run that stays: what it hears on `runs/<id>/sock`, and what it does with the output.
//!
//! The socket lies in the run's own 0700 directory, and who is not of the same user is not answered. One
//! connection is one [`Request`] ([`protocol`]): a packet of JSON, which [`serve`] answers with another and
//! perhaps with descriptors. [`ask`] is the side of those who ask, [`held`] what those get who join the run,
//! [`output`] where the output goes.
//!
//! The supervisor keeps one thread. All that it waits for hangs on one epoll descriptor, which the loop of the
//! run ([`super::launch`]) waits for beside its own; nothing here blocks.

pub mod ask;
pub mod attach;
mod client;
pub mod held;
pub mod keys;
pub mod output;
pub mod protocol;
pub mod serve;

pub use held::{Confinement, HELD, Held};
pub use protocol::{Ending, Reply, Request, Verdict};
