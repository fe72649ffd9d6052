//! From layers to a mount tree: the overlay, the plan of what is mounted over it, and its executor.
//!
//! A plan is data, made and tested without touching the kernel ([`plan`]); the executor ([`apply`]) decides
//! nothing. All of [`overlay`] and [`apply`] runs in the child, inside its user and mount namespaces.

pub mod account;
pub mod apply;
pub mod copy_up;
mod hide;
pub mod overlay;
pub mod plan;
pub mod scaffold;
mod target;
