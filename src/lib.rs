//! `sandbox` runs a command in a root file system assembled from snapshot layers, without root and without
//! a daemon, and then keeps what the command changed as a new layer, or throws it away.
//!
//! The binary is [`cli::main`] and nothing else. What it can do can be done from here, too, by a process that has
//! one thread (it clones): a function a command, in [`ops`], with plain data in and out, and one kind of error,
//! [`fault::Fault`].
//!
//! ```no_run
//! use std::path::Path;
//!
//! use sandbox::ops::{diff, init, list};
//! use sandbox::store::{BoxName, Store};
//!
//! # fn main() -> sandbox::fault::Result<()> {
//! let base_dir = Path::new("/home/me/.local/share/sandbox");
//! let debian: BoxName = "debian".parse()?;
//! let request = init::Request {
//!     box_name: debian.clone(),
//!     source: Some("tar:/home/me/rootfs.tar.xz".parse()?),
//!     ids: None, // the best id mode that works here
//!     refresh: false,
//!     max_age: None,
//! };
//! // Fills the box; changes nothing if it was filled from there before.
//! let made = init::init(base_dir, &request)?;
//! println!("postinit is {}, ids: {}", made.layer, made.id_map.mode);
//!
//! let store = Store::open(base_dir)?;
//! for snapshot in list::list(&store, &debian)?.snapshots {
//!     println!("{} of {}", snapshot.name, snapshot.created);
//! }
//! // What the head of the box changed: the same as `sandbox diff --json`.
//! let difference = diff::diff(&store, &debian, &diff::Sides::Of("head"))?;
//! println!("{}", serde_json::to_string(&difference).expect("plain data"));
//! # Ok(())
//! # }
//! ```
//!
//! The folders, from the top down; imports only go downwards (`tests/layering.rs`):
//! `cli`, `ops`, `image`, `run`, `isolate`, `rootfs`, `store`, `tree`, `ids`, `sys`. Beneath all of them
//! lie `remedy`, what to do about what a host refuses, and `fault`, the error that crosses module and process
//! borders. `docs/ARCHITECTURE.md` is the map.

pub mod cli;
pub mod fault;
pub mod ids;
pub mod image;
pub mod isolate;
pub mod ops;
pub mod remedy;
pub mod rootfs;
pub mod run;
pub mod store;
pub mod sys;
pub mod tree;
