//! The network of a payload that has one of its own.

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::sys::exec::leave_open;

/// Brings up `lo` in the network namespace of the caller: 127.0.0.1 and ::1 work afterwards, because the
/// kernel itself gives them to a loopback device that comes up.
///
/// Two system calls, no allocation: the socket is left to the exec of the payload, or to whoever closes all it has.
/// Needs CAP_NET_ADMIN in that namespace.
///
/// # Errors
/// EPERM without the capability; what socket(2) says, where a filter forbids it.
pub fn loopback_up() -> Result<(), Errno> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    crate::sys::net::set_up(leave_open(socket), c"lo")
}
