//! Landlock, which rustix does not have. See landlock(7).

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

use super::process::last_errno;

/// LANDLOCK_CREATE_RULESET_VERSION of linux/landlock.h.
const VERSION: libc::c_uint = 1;
/// LANDLOCK_RULE_PATH_BENEATH.
const PATH_BENEATH: libc::c_int = 1;
/// LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET.
const ABSTRACT_UNIX_SOCKET: u64 = 1;

/// The version of Landlock's interface that lets files be moved from one directory to another (Linux 5.19); before, whoever
/// is in a domain cannot.
pub const MOVES: u32 = 2;
/// The version that scopes came with (Linux 6.12).
pub const SCOPES: u32 = 6;

/// LANDLOCK_ACCESS_FS_WRITE_FILE.
pub const WRITE_FILE: u64 = 1 << 1;
/// LANDLOCK_ACCESS_FS_READ_FILE.
pub const READ_FILE: u64 = 1 << 2;
/// LANDLOCK_ACCESS_FS_TRUNCATE, since version 3.
pub const TRUNCATE: u64 = 1 << 14;
/// LANDLOCK_ACCESS_FS_IOCTL_DEV, since version 5.
pub const IOCTL_DEV: u64 = 1 << 15;

/// `struct landlock_ruleset_attr`, as long as it is since [`SCOPES`]; older kernels take what is longer if the rest is zero.
#[repr(C)]
struct Attributes {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct Beneath {
    allowed_access: u64,
    parent_fd: i32,
}

/// The version of Landlock's interface; 0 where it is not there, or a container's filter forbids it.
pub fn version() -> u32 {
    let nothing = std::ptr::null::<Attributes>();
    // SAFETY: a null pointer with a size of 0 is how the version is asked for; nothing is read or written.
    let answer =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0_usize, VERSION) };
    u32::try_from(answer).unwrap_or(0)
}

/// All rights to files that this version knows, and we do: LANDLOCK_ACCESS_FS_*.
pub fn rights(version: u32) -> u64 {
    let bits = match version {
        0 => 0,
        1 => 13,
        2 => 14,
        3 | 4 => 15,
        _ => 16,
    };
    (1 << bits) - 1
}

/// What a process may still do, before it holds for that process.
#[derive(Debug)]
pub struct Rules(OwnedFd);

impl Rules {
    /// Rules that allow none of these [`rights`], and nothing that goes out of the domain by an abstract unix socket if
    /// `scoped`. Allocates nothing.
    ///
    /// # Errors
    /// EOPNOTSUPP, EINVAL, E2BIG where [`version`] does not know what is asked for.
    pub fn new(rights: u64, scoped: bool) -> Result<Self, Errno> {
        let scoped = if scoped { ABSTRACT_UNIX_SOCKET } else { 0 };
        let attributes = Attributes { handled_access_fs: rights, handled_access_net: 0, scoped };
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
        Ok(Self(unsafe { OwnedFd::from_raw_fd(number) }))
    }

    /// Allows these rights to the file that a descriptor is of, or beneath that directory, mounts in it included.
    ///
    /// # Errors
    /// EBADFD for what has no place in any file system: pipes, sockets, files in memory. What has none is out of reach of all
    /// rules. EINVAL for rights of directories to a file.
    pub fn allow(&self, place: RawFd, rights: u64) -> Result<(), Errno> {
        let beneath = Beneath { allowed_access: rights, parent_fd: place };
        // SAFETY: the kernel reads one `Beneath`, which lives through the call; the rest are integers, of which a number that
        // is no descriptor is an error.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                self.0.as_raw_fd(),
                PATH_BENEATH,
                std::ptr::from_ref(&beneath),
                0,
            )
        };
        if answer == 0 { Ok(()) } else { Err(last_errno()) }
    }

    /// Lets them hold for this process and all that it makes, for ever. no_new_privs must be set.
    ///
    /// # Errors
    /// E2BIG beyond sixteen of them; EPERM without no_new_privs.
    pub fn enforce(&self) -> Result<(), Errno> {
        // SAFETY: two integers.
        let answer =
            unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.0.as_raw_fd(), 0) };
        if answer == 0 { Ok(()) } else { Err(last_errno()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_grow_with_the_version() {
        assert_eq!(rights(0), 0);
        assert_eq!(rights(1) & TRUNCATE, 0);
        assert_eq!(rights(3) & TRUNCATE, TRUNCATE);
        assert_eq!(rights(4) & IOCTL_DEV, 0);
        assert_eq!(rights(7), rights(5));
    }
}
