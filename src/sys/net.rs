//! Network interfaces: netdevice(7).

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

use super::process::last_errno;

/// Brings an interface up (IFF_UP, IFF_RUNNING) in the network namespace of `socket`. Flags that can be
/// changed otherwise are cleared, of which loopback has none. Allocates nothing.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN there, ENODEV if there is none of that name, EINVAL if the name is too
/// long.
pub fn set_up(socket: impl AsFd, name: &CStr) -> Result<(), Errno> {
    let name = name.to_bytes_with_nul();
    if name.len() > libc::IFNAMSIZ {
        return Err(Errno::INVAL);
    }
    // SAFETY: ifreq is plain data of integers, for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which lives through the call.
    let answer = unsafe {
        libc::ioctl(
            socket.as_fd().as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            std::ptr::from_ref(&request),
        )
    };
    if answer == 0 { Ok(()) } else { Err(last_errno()) }
}
