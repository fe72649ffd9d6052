//! Who is at the other end of a socket.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

/// The process at the other end of a Unix socket, as it was when it connected (SO_PEERCRED).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its pid in our pid namespace; 0 if it has none there.
    pub pid: i32,
    /// Its effective user id in our user namespace.
    pub uid: u32,
}

/// Asks the kernel who has connected. rustix has this too, but its pid cannot be 0, which it is for a process of
/// another pid namespace.
///
/// # Errors
/// ENOTSOCK, EINVAL for what is no Unix socket.
pub fn peer(socket: impl AsFd) -> Result<Peer, Errno> {
    let mut found = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut size = std::mem::size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes to `found` and their number to `size`; both live through
    // the call, and every bit pattern is a valid ucred.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast(),
            &raw mut size,
        )
    };
    if answer == 0 {
        Ok(Peer { pid: found.pid, uid: found.uid })
    } else {
        Err(super::process::last_errno())
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    #[test]
    fn we_are_our_own_peer() {
        let (ours, _theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .expect("pair");
        let uid = rustix::process::geteuid().as_raw();
        assert_eq!(peer(&ours), Ok(Peer { pid: std::process::id() as i32, uid }));
        let file = std::fs::File::open("/dev/null").expect("open");
        assert_eq!(peer(&file), Err(Errno::NOTSOCK));
    }
}
