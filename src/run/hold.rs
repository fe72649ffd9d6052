//! What the child of a run that stays hands to its supervisor, for those who join later: its namespaces and
//! its root. As descriptors, because PID 1 hides itself afterwards, and nobody finds them by its number then.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use super::spec::RunSpec;
use super::supervisor::Held;
use super::wire::{Up, send_up};

/// The namespaces and their names in /proc/PID/ns.
const NAMESPACES: [(Held, &str); 7] = [
    (Held::User, "user"),
    (Held::Mount, "mnt"),
    (Held::Pid, "pid"),
    (Held::Ipc, "ipc"),
    (Held::Uts, "uts"),
    (Held::Cgroup, "cgroup"),
    (Held::Network, "net"),
];

/// The directory of our namespaces, in the host's own procfs: nothing of a layer or of the payload has a say
/// in what is opened there later.
pub(super) fn place(spec: &RunSpec) -> Result<Option<OwnedFd>, Errno> {
    if !spec.stays {
        return Ok(None);
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, "/proc/self/ns", flags, Mode::empty()).map(Some)
}

/// Hands over the root, and the cgroup whose limits hold.
pub(super) fn root(spec: &RunSpec, root: &OwnedFd, wire: &OwnedFd) -> Result<(), Errno> {
    if spec.stays {
        send_up(wire.as_fd(), &Up::Held(Held::Root, fcntl_dupfd_cloexec(root, 3)?));
        if let Some(cgroup) = &spec.cgroup {
            send_up(wire.as_fd(), &Up::Held(Held::Limits, fcntl_dupfd_cloexec(&cgroup.dir, 3)?));
        }
    }
    Ok(())
}

/// Hands over the namespaces, when we are in all of them. The host's network is everybody's already.
pub(super) fn namespaces(spec: &RunSpec, place: &OwnedFd, wire: &OwnedFd) -> Result<(), Errno> {
    for (what, name) in NAMESPACES {
        if what == Held::Network && !spec.own_network {
            continue;
        }
        let fd = openat(place, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        send_up(wire.as_fd(), &Up::Held(what, fd));
    }
    Ok(())
}
