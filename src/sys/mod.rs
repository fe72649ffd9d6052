//! The kernel, made typed. The only folder with `unsafe`.
//!
//! Rules of a wrapper here: errors are results, out-parameters are return values, descriptors are
//! `BorrowedFd` in and `OwnedFd` out, flags are constants with a name, every block of `unsafe` says why it
//! is sound. What rustix offers is used as it is; this folder holds what rustix does not.

#![allow(unsafe_code)]

pub mod detach;
pub mod exec;
pub mod heap;
pub mod keyring;
pub mod landlock;
pub mod look;
pub mod mount;
pub mod namespace;
pub mod net;
pub mod notify;
pub mod peer;
pub mod probe;
pub mod process;
pub mod processor;
pub mod seccomp;
pub mod signal;
pub mod title;
