//! The weaker ways of a run, where a container refuses the better ones. Each is told to the supervisor, and
//! none that takes a protection away is gone where the spec says that nothing may be lost.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};
use rustix::process::{Signal, WaitOptions, waitpid};

use super::reap::{self, Started};
use super::spec::RunSpec;
use super::wire::{Failure, Stage, Up, send_up};
use crate::isolate::lost::Lost;
use crate::isolate::remember::Programs;
use crate::remedy::{self, Host};
use crate::rootfs::apply::{self, Prepared};
use crate::rootfs::overlay::{Base, attach};
use crate::rootfs::plan::{Op, RESOLV_CONF};
use crate::sys::{keyring, notify, seccomp};

/// What a run had to do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Weaker {
    /// The outer /proc was bound instead of one of its own.
    Proc,
    /// The overlay was moved over the old root instead of pivot_root(2).
    Root,
    /// The caller's session keyring stayed.
    Keyring,
    /// The host name of outside stayed.
    HostName,
    /// The kernel refused the listener of the calls whose effect is remembered.
    Owners,
    /// Those who make such calls cannot be looked at in the outer /proc.
    OwnersUnseen,
    /// The layers have no place for the servers that answer names.
    Names,
    /// The layers have no place for another file of ours.
    Files,
}

/// All of them, in the order of their numbers on the wire.
pub(super) const ALL: [Weaker; 8] = [
    Weaker::Proc,
    Weaker::Root,
    Weaker::Keyring,
    Weaker::HostName,
    Weaker::Owners,
    Weaker::OwnersUnseen,
    Weaker::Names,
    Weaker::Files,
];

impl Weaker {
    /// What is lost, what stands in for it, and what would bring it back.
    pub fn lost(self) -> Lost {
        let host = Host::read();
        match self {
            Self::Proc => Lost::new(
                "fresh-proc",
                format!(
                    "the outer /proc is masked, so it is bound read-only: /proc/self is right, but the names of \
                     processes outside show ({})",
                    remedy::in_one_line(&remedy::proc(host))
                ),
            ),
            Self::Root => Lost::new(
                "pivot-root",
                format!(
                    "pivot_root is refused, so the root was moved and the old one is covered, not gone ({})",
                    remedy::in_one_line(&remedy::pivot_root(host))
                ),
            ),
            Self::HostName => Lost::new(
                "hostname",
                format!(
                    "sethostname is refused, so the name of outside shows ({})",
                    remedy::in_one_line(&remedy::pivot_root(host))
                ),
            ),
            Self::Owners => Lost::new(
                "owners",
                "owners that the id map cannot hold are not remembered: a sandbox around this one has the listener of \
                 system calls, or Linux is older than 5.0",
            ),
            Self::OwnersUnseen => Lost::new(
                "owners",
                "owners that the id map cannot hold are not remembered: who changes them cannot be looked at in the \
                 outer /proc",
            ),
            Self::Names => Lost::new(
                "names",
                "/etc/resolv.conf is as the layers have it: they have something there, or above it, on which no file can \
                 be mounted",
            ),
            Self::Files => Lost::new(
                "files",
                "/etc/hosts, /etc/hostname or the names of users are as the layers have them: there, or above, they have \
                 something on which no file can be mounted",
            ),
            Self::Keyring => Lost::new(
                "session-keyring",
                "your quota of keys is used up (kernel.keys.maxkeys), so the command has your session keyring; \
                 its system calls for keys are refused as always",
            ),
        }
    }
}

/// The host name, in a namespace of our own. podman's filter allows that and refuses the name.
pub(super) fn host_name(spec: &RunSpec, wire: &OwnedFd) -> Result<(), Errno> {
    match rustix::system::sethostname(spec.hostname.as_bytes()) {
        Err(Errno::PERM | Errno::NOSYS) if spec.may_lose => {
            send_up(wire.as_fd(), &Up::Weaker(Weaker::HostName));
            Ok(())
        }
        other => other,
    }
}

/// Tells of files that nobody asked for and that have no place, by the steps that were `missed`. They protect from nothing: the
/// run goes on in any case.
pub(super) fn missed(spec: &RunSpec, missed: &[usize], wire: &OwnedFd) {
    for step in missed {
        let weaker = match &spec.plan.ops[*step] {
            Op::Text { target, .. } | Op::Bind { target, .. }
                if target == Path::new(RESOLV_CONF) =>
            {
                Weaker::Names
            }
            _ => Weaker::Files,
        };
        send_up(wire.as_fd(), &Up::Weaker(weaker));
    }
}

/// An empty session keyring. Where there are no keys, or a container's filter refuses all that has to do with
/// them, nobody inside can use any. A user may have but few keys (200) of all runs and programs together.
pub(super) fn keyring(spec: &RunSpec, wire: &OwnedFd) -> Result<(), Errno> {
    match keyring::join_empty_session() {
        Ok(()) | Err(Errno::NOSYS | Errno::PERM) => Ok(()),
        Err(_) if spec.may_lose => {
            send_up(wire.as_fd(), &Up::Weaker(Weaker::Keyring));
            Ok(())
        }
        Err(errno) => Err(errno),
    }
}

/// Asks for the calls that are remembered. Without a listener (one of a sandbox around us, EBUSY; Linux before
/// 5.0) they are as they were without us: pretended with one id only, else refused by the kernel.
pub(super) fn listen(
    spec: &RunSpec,
    programs: &Programs,
    wire: &OwnedFd,
) -> Result<Option<OwnedFd>, Errno> {
    match notify::load(&programs.ask) {
        Ok(listener) => Ok(Some(listener)),
        Err(Errno::BUSY | Errno::INVAL) if spec.may_lose => {
            programs.pretend.as_ref().map_or(Ok(()), |program| seccomp::load(program))?;
            send_up(wire.as_fd(), &Up::Weaker(Weaker::Owners));
            Ok(None)
        }
        Err(errno) => Err(errno),
    }
}

/// The number of CAP_SYS_ADMIN in capabilities(7).
const CAP_SYS_ADMIN: u32 = 21;

/// A /proc of our own in its place among what is `prepared`. The kernel grants one only while all of the outer one
/// is visible ("mount too revealing"), and containers mask parts of theirs: then the outer one is bound,
/// read-only, with its masks. The pid namespace stays ours: nothing outside can be killed, all inside is.
pub(super) fn proc(spec: &RunSpec, prepared: &mut Prepared, wire: &OwnedFd) -> Result<(), Failure> {
    let Some(step) = spec.plan.ops.iter().position(|op| *op == Op::Proc) else { return Ok(()) };
    let failed = |errno| Failure { stage: Stage::Prepare, detail: step as u32, errno };
    let tree = match apply::fresh_proc() {
        Err(Errno::PERM) if spec.may_lose => {
            let tree = apply::outer_proc().map_err(failed)?;
            send_up(wire.as_fd(), &Up::Weaker(Weaker::Proc));
            if spec.remember.is_some() {
                send_up(wire.as_fd(), &Up::Weaker(Weaker::OwnersUnseen));
            }
            tree
        }
        other => other.map_err(failed)?,
    };
    prepared.resize_with(spec.plan.ops.len(), || None);
    prepared[step] = Some(tree);
    Ok(())
}

/// Goes into the new root. The overlay is put over the clone of base_dir for a moment, because pivot_root(2) wants a
/// mount point.
pub(super) fn enter_root(base: &Base, root: &OwnedFd) -> Result<(), Errno> {
    // So that it goes with the old root: a detached tree that is closed on its own costs a wait for all
    // processors (synchronize_rcu), on the path of the payload's exec.
    base.attach()?;
    attach(root.as_fd(), base.tree())?;
    rustix::process::fchdir(root)
}

/// How the root was switched.
#[derive(Debug)]
pub(super) enum Switched {
    /// Every process of the namespace has the new one.
    Pivoted(OldRoot),
    /// Only this process has the new one, which covers the old one.
    Moved,
}

/// The old root where it is still mounted, if it is.
#[derive(Debug)]
pub(super) struct OldRoot(Option<OwnedFd>);

impl OldRoot {
    /// Whether it still is.
    pub(super) fn is_mounted(&self) -> bool {
        self.0.is_some()
    }

    /// Takes the host out of the namespace; lazily, because it is busy with our descriptors.
    pub(super) fn unmount(self) -> Result<(), Errno> {
        let Some(old_root) = self.0 else { return Ok(()) };
        rustix::process::fchdir(&old_root)?;
        unmount(".", UnmountFlags::DETACH)?;
        rustix::process::chdir("/")
    }
}

/// Makes `root`, which is the working directory, the root. The old one comes to the place `aside`, where no path leads to
/// it, until it is unmounted: the kernel waits for all processors then, and for one that makes a network namespace longer
/// than for any other. Without such a place it is gone at once.
///
/// Docker's default filter never allows pivot_root. Then the overlay is moved over `/` and is our root by
/// chroot(2). That is no boundary to whoever can move mounts or make them; to anybody else every way up ends
/// at the topmost mount on `/`, which is the overlay: `..` beyond a chroot, setns(2) to the same namespace,
/// and, as mounts are locked to one another there, a new mount namespace in a new user namespace, too.
/// Descriptors of the old root would lead there; PID 1 and the payload close them, as always.
pub(super) fn switch_root(
    spec: &RunSpec,
    root: &OwnedFd,
    wire: &OwnedFd,
    aside: Option<&Path>,
) -> Result<Switched, Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let old_root = aside.map(|_| openat(CWD, "/", flags, Mode::empty())).transpose();
    let old_root = old_root.map_err(Failure::at(Stage::Place))?;
    match rustix::process::pivot_root(".", aside.unwrap_or(Path::new("."))) {
        Err(Errno::PERM | Errno::NOSYS)
            if spec.may_lose && !spec.capabilities.holds(CAP_SYS_ADMIN) =>
        {
            move_mount(root, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
                .and_then(|()| rustix::process::chroot("."))
                .and_then(|()| rustix::process::chdir("/"))
                .map_err(Failure::at(Stage::Place))?;
            send_up(wire.as_fd(), &Up::Weaker(Weaker::Root));
            return Ok(Switched::Moved);
        }
        other => other.map_err(Failure::at(Stage::Root))?,
    }
    if old_root.is_none() {
        // It lies on top of the new one. The working directory stays what it was: the new root.
        unmount(".", UnmountFlags::DETACH).map_err(Failure::at(Stage::OldRoot))?;
    }
    Ok(Switched::Pivoted(OldRoot(old_root)))
}

/// Ends a payload's process that was made early: its root is the old one, and it has no right left to leave
/// that. The namespaces that it has made are ours before.
pub(super) fn retire(mut started: Started) -> Result<(), Failure> {
    let fork = Failure::at(Stage::Fork);
    if let Some(gate) = &mut started.gate {
        gate.end.tell_switched(false).map_err(&fork)?;
        reap::meet(gate)?;
    }
    rustix::process::kill_process(started.payload, Signal::KILL).map_err(&fork)?;
    waitpid(Some(started.payload), WaitOptions::empty()).map(drop).map_err(fork)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_places() {
        for (index, weaker) in ALL.into_iter().enumerate() {
            assert_eq!(weaker as usize, index);
        }
    }
}
