//! Landlock: only its scopes, which rustix does not have. See landlock(7).

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use super::process::last_errno;

/// LANDLOCK_CREATE_RULESET_VERSION of linux/landlock.h.
const VERSION: libc::c_uint = 1;
/// LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET.
const ABSTRACT_UNIX_SOCKET: u64 = 1;

/// The version of Landlock's interface that scopes came with (Linux 6.12).
pub const SCOPES: u32 = 6;

/// `struct landlock_ruleset_attr`, as long as it is since that version.
#[repr(C)]
struct Attributes {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// The version of Landlock's interface; 0 where it is not there, or a container's filter forbids it.
pub fn version() -> u32 {
    let nothing = std::ptr::null::<Attributes>();
    // SAFETY: a null pointer with a size of 0 is how the version is asked for; nothing is read or written.
    let answer =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0_usize, VERSION) };
    u32::try_from(answer).unwrap_or(0)
}

/// Puts abstract unix sockets of others out of reach of this process and all that it makes, for ever. Two
/// system calls; allocates nothing. no_new_privs must be set.
///
/// # Errors
/// EOPNOTSUPP, EINVAL where [`version`] is below [`SCOPES`].
pub fn scope_abstract_sockets() -> Result<(), Errno> {
    let attributes =
        Attributes { handled_access_fs: 0, handled_access_net: 0, scoped: ABSTRACT_UNIX_SOCKET };
    // SAFETY: the kernel reads one `Attributes`, whose size is given and which lives through the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::from_ref(&attributes),
            std::mem::size_of::<Attributes>(),
            0,
        )
    };
    let number = i32::try_from(answer).map_err(|_| Errno::INVAL)?;
    if number < 0 {
        return Err(last_errno());
    }
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows its number.
    let rules = unsafe { OwnedFd::from_raw_fd(number) };
    // SAFETY: two integers.
    let answer = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) };
    if answer == 0 { Ok(()) } else { Err(last_errno()) }
}
