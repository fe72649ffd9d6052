//! Which user and group ids a box has, and how a process comes to hold them.
//!
//! An [`IdMap`] says which outside id stands for each inside id; it is what user_namespaces(7) calls
//! `uid_map` and `gid_map`, and a box records it, because it decides which owners lie on disk. There are
//! four ways to one ([`Mode`]); [`pick`] finds the best that works here, [`check`] tells whether a
//! recorded one can be made again.
//!
//! [`inside`] does a piece of work as uid 0 of such a user namespace, in a child of its own, with no more
//! capabilities than the work needs: whatever reads, writes or removes files of a layer goes through it.
//!
//! Files, from the bottom up: `span` (sets of ids), `map`, `accounts` (the files of /etc), `refused` (why the
//! kernel said no, and the remedy), `facts` (what there is here), `plan` (which map, decided from facts alone),
//! `helper` (newuidmap, newgidmap), `write`, `enter` (what the child does), `work` ([`inside`]), `select`.

pub mod accounts;
mod enter;
mod facts;
mod helper;
mod map;
mod plan;
mod refused;
mod select;
mod span;
mod work;
mod write;

pub use enter::{Entry, Powers, look_into};
pub use facts::{in_initial_namespace, is_no_boundary};
pub use helper::Writing;
pub use map::{Extent, IdMap, Mode};
pub use refused::namespace_refused;
pub use select::{Picked, check, choose, pick};
pub use span::Span;
pub use work::{aside, beside, inside, inside_prepared, inside_unless, unless_ended};
pub use write::{number_in_proc, start_maps, write_maps, write_own_map};

/// The user and the group, inside, of who is an ordinary user there (`run --as-user`).
pub const ORDINARY: u32 = 1000;
