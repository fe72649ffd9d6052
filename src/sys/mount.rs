//! What rustix lacks of the mount API: attributes of existing mounts.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// Attributes to set on a mount: `MOUNT_ATTR_*` bits of mount_setattr(2).
pub type Attributes = u64;

/// No writes through this mount.
pub const READ_ONLY: Attributes = libc::MOUNT_ATTR_RDONLY;
/// set-user-id bits and file capabilities have no effect.
pub const NO_SUID: Attributes = libc::MOUNT_ATTR_NOSUID;
/// Device nodes cannot be opened.
pub const NO_DEV: Attributes = libc::MOUNT_ATTR_NODEV;
/// Files cannot be executed.
pub const NO_EXEC: Attributes = libc::MOUNT_ATTR_NOEXEC;

/// Sets attributes on the mount whose root is `mount`, with `recursive` on all mounts beneath it too.
/// Needs Linux 5.12. See mount_setattr(2).
///
/// # Errors
/// EINVAL if `mount` is not the root of a mount, EPERM if an attribute is locked, ENOSYS before 5.12.
pub fn set_attributes(
    mount: BorrowedFd<'_>,
    set: Attributes,
    recursive: bool,
) -> Result<(), Errno> {
    change_attributes(mount, set, 0, recursive)
}

/// Takes attributes off the mount whose root is `mount`, and off no other.
///
/// # Errors
/// As [`set_attributes`].
pub fn clear_attributes(mount: BorrowedFd<'_>, clear: Attributes) -> Result<(), Errno> {
    change_attributes(mount, 0, clear, false)
}

fn change_attributes(
    mount: BorrowedFd<'_>,
    set: Attributes,
    clear: Attributes,
    recursive: bool,
) -> Result<(), Errno> {
    let attr = libc::mount_attr { attr_set: set, attr_clr: clear, propagation: 0, userns_fd: 0 };
    let empty: &CStr = c"";
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: the kernel reads the empty C string and size_of::<mount_attr>() bytes of `attr`; both live
    // through the call, and the descriptor is borrowed.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            empty.as_ptr(),
            flags,
            std::ptr::from_ref(&attr),
            std::mem::size_of::<libc::mount_attr>(),
        )
    };
    if answer == 0 { Ok(()) } else { Err(super::process::last_errno()) }
}

/// Maps the owners of files on the mount whose root is `mount`, a detached clone: id X on disk is seen as
/// the id outside that stands for X in the user namespace `namespace`. Needs Linux 5.12, CAP_SYS_ADMIN over
/// the file system, and one that supports it (ext4, xfs, btrfs; tmpfs since 6.3). See mount_setattr(2),
/// MOUNT_ATTR_IDMAP.
///
/// # Errors
/// EINVAL if the file system does not support it or is mapped already, EPERM without the capability.
pub fn map_owners(mount: BorrowedFd<'_>, namespace: BorrowedFd<'_>) -> Result<(), Errno> {
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: namespace.as_raw_fd() as u64,
    };
    // SAFETY: as in `set_attributes`; the kernel takes its own reference to the namespace.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            std::ptr::from_ref(&attr),
            std::mem::size_of::<libc::mount_attr>(),
        )
    };
    if answer == 0 { Ok(()) } else { Err(super::process::last_errno()) }
}
