//! Namespaces of the process that runs.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::thread::{
    ThreadNameSpaceType, UnshareFlags, move_into_link_name_space, move_into_thread_name_spaces,
};

/// Moves this process, which has one thread, into a copy of its mount namespace.
///
/// # Errors
/// What unshare(2) says.
pub fn unshare_mounts() -> Result<(), Errno> {
    unshare(UnshareFlags::NEWNS)
}

/// Moves this process, which has one thread, into a fresh network namespace. This takes the kernel several
/// times as long as all other namespaces together.
///
/// # Errors
/// What unshare(2) says: EPERM without CAP_SYS_ADMIN, ENOSPC beyond `user.max_net_namespaces`.
pub fn unshare_network() -> Result<(), Errno> {
    unshare(UnshareFlags::NEWNET)
}

/// Lets other processes of the same user and namespace see which namespaces this one is in.
pub fn show() {
    let seen = rustix::process::DumpableBehavior::Dumpable;
    rustix::process::set_dumpable_behavior(seen).ok();
}

/// Moves this process, which has one thread, into fresh namespaces of System V IPC and POSIX message queues, of the host
/// name, and with `network` of the network.
///
/// # Errors
/// As [`unshare_network`]; which of them is refused it does not tell.
pub fn unshare_others(network: bool) -> Result<(), Errno> {
    let mut flags = UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    flags.set(UnshareFlags::NEWNET, network);
    unshare(flags)
}

/// Gives this process a view of cgroups whose root is the cgroup it is in.
///
/// # Errors
/// What unshare(2) says.
pub fn unshare_cgroup() -> Result<(), Errno> {
    unshare(UnshareFlags::NEWCGROUP)
}

/// Moves this process, which has one thread, into the namespaces of another that [`unshare_others`] makes. See setns(2).
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN over both, or if that process may not be looked into.
pub fn join_others(pidfd: BorrowedFd<'_>, network: bool) -> Result<(), Errno> {
    let mut kinds = ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME;
    kinds.set(ThreadNameSpaceType::NETWORK, network);
    move_into_thread_name_spaces(pidfd, kinds)
}

/// Moves this process, which has one thread, into a namespace by a descriptor of it, as of /proc/PID/ns; into a pid
/// namespace only its children to come. See setns(2).
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN over the namespace; EINVAL for a descriptor of something else, or the user
/// namespace that we are in.
pub fn join(namespace: BorrowedFd<'_>) -> Result<(), Errno> {
    move_into_link_name_space(namespace, None)
}

fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    debug_assert!(!flags.contains(UnshareFlags::FILES));
    // SAFETY: unshare(2) is unsafe in rustix for CLONE_FILES alone, which would give threads different
    // tables of descriptors; the others leave descriptors and memory as they are.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}
