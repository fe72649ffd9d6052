//! What a payload may do: its profile, and the seccomp filter, capabilities, limits, environment and
//! network that follow from it.
//!
//! A [`profile::Profile`] is data. The parent turns all of it into plain numbers and strings before the
//! child exists ([`seccomp::program`], [`caps::CapSet`], [`limits::plan`], [`env::environment`]); what
//! the child then calls ([`caps::apply`], [`limits::apply`], [`net::loopback_up`] and
//! [`crate::sys::seccomp::load`]) allocates nothing and fails with an errno.

mod bpf;
pub mod caps;
pub mod cgroup;
pub mod change;
mod compile;
pub mod docker;
pub mod env;
pub mod filter;
pub mod limits;
pub mod lost;
pub mod net;
mod newer;
pub mod outside;
mod policy;
pub mod profile;
pub mod remember;
mod scmp;
mod search;
pub mod seccomp;
pub mod ulimit;
pub mod vital;
pub mod wall;
