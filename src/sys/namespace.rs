//! Namespaces of the process that runs.

use rustix::io::Errno;

/// Moves this process, which has one thread, into a copy of its mount namespace.
///
/// # Errors
/// What unshare(2) says.
pub fn unshare_mounts() -> Result<(), Errno> {
    let flags = rustix::thread::UnshareFlags::NEWNS;
    // SAFETY: unshare(2) is unsafe in rustix for CLONE_FILES alone, which would give threads different
    // tables of descriptors; CLONE_NEWNS leaves descriptors and memory as they are.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}
