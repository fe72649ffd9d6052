//! keyctl(2).

use rustix::io::Errno;

use super::process::last_errno;

/// KEYCTL_JOIN_SESSION_KEYRING.
const JOIN_SESSION: libc::c_ulong = 1;

/// Gives this process, and what it will start, an empty session keyring of its own in place of the one that it
/// was started with, whose keys it could use by possession, in whatever namespaces.
///
/// # Errors
/// ENOSYS on a kernel without keys; EPERM where a container's filter refuses it; EDQUOT if the user has as
/// many keys as `kernel.keys.maxkeys` allows.
pub fn join_empty_session() -> Result<(), Errno> {
    let anonymous = std::ptr::null::<libc::c_char>();
    // SAFETY: the call reads no memory for a null name, and changes credentials of this thread only.
    let answer = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION, anonymous) };
    if answer < 0 { Err(last_errno()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of the session keyring of this thread, or what the kernel says.
    fn session() -> Result<i64, Errno> {
        let (get_id, of_session) = (0, -3);
        // SAFETY: gives a number.
        let answer = unsafe { libc::syscall(libc::SYS_keyctl, get_id, of_session, 0) };
        if answer < 0 { Err(last_errno()) } else { Ok(answer) }
    }

    #[test]
    fn the_new_session_is_another_one() {
        // Credentials are a thread's own.
        std::thread::spawn(|| {
            let before = session();
            match join_empty_session() {
                Ok(()) => assert_ne!(session(), before),
                // No key can be used by anybody then, or the user has too many.
                Err(errno) => assert!([Errno::NOSYS, Errno::PERM, Errno::DQUOT].contains(&errno)),
            }
        })
        .join()
        .expect("thread");
    }
}
