//! Whether the kernel has a call, asked in a way that does nothing.

use rustix::io::Errno;

use super::process::last_errno;

/// Whether clone3(2) is there. A struct of no bytes is refused with EINVAL by every kernel that has it.
///
/// # Errors
/// ENOSYS before Linux 5.3, and from the filters of containers.
pub fn clone3() -> Result<(), Errno> {
    // SAFETY: the kernel refuses a size of 0 before it looks at the pointer, which is null.
    let answer =
        unsafe { libc::syscall(libc::SYS_clone3, std::ptr::null::<libc::clone_args>(), 0) };
    match last_errno() {
        Errno::INVAL if answer == -1 => Ok(()),
        errno => Err(errno),
    }
}

/// The version of Landlock's interface: 1 since Linux 5.13, 6 (abstract sockets, signals) since 6.12.
///
/// # Errors
/// ENOSYS without it, EOPNOTSUPP where it is turned off at boot.
pub fn landlock_abi() -> Result<u32, Errno> {
    const VERSION: libc::c_ulong = 1;
    // SAFETY: with this flag the kernel takes a null pointer and a size of 0, and makes nothing.
    let answer = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, VERSION)
    };
    u32::try_from(answer).map_err(|_| last_errno())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_makes_nothing() {
        clone3().expect("clone3");
        assert!(landlock_abi().map_or(true, |version| version > 0));
    }
}
