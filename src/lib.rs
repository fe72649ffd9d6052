//! `sandbox` runs a command in a root file system assembled from snapshot layers, without root and without
//! a daemon, and then keeps what the command changed as a new layer, or throws it away.
//!
//! The folders, from the top down; imports only go downwards (`tests/layering.rs`):
//! `cli`, `ops`, `image`, `run`, `isolate`, `rootfs`, `store`, `tree`, `ids`, `sys`. Beneath all of them
//! lies `fault`, the error that crosses module and process borders.

pub mod fault;
pub mod sys;
