//! What a child does between its birth and its work: it becomes uid 0 of a user namespace, and nothing more.
//!
//! One step after the other; each has one reason to fail and says it in a [`Fault`].

use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{self, DumpableBehavior, Gid, Pid, Signal, Uid};
use rustix::thread::{self, CapabilitySet, CapabilitySets, LinkNameSpaceType};

use super::map::{IdMap, Mode};
use super::refused::{map_refused, step_refused};
use super::write::write_own_map;
use crate::fault::{Context, Fault, Result};
use crate::remedy::{Refused, Spaces};
use crate::sys::namespace::unshare_mounts;
use crate::sys::process::{NEW_MOUNT, NEW_USER, Namespaces};

/// The user namespace to do a job in.
#[derive(Debug, Clone, Copy)]
pub enum Entry<'a> {
    /// A fresh one with this map.
    Map(&'a IdMap),
    /// One that exists, by a descriptor of its `/proc/PID/ns/user`.
    Joined(BorrowedFd<'a>),
}

/// What a job may do as uid 0 inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Powers {
    /// Handle any file: DAC_OVERRIDE, FOWNER, CHOWN, FSETID, MKNOD, SETFCAP.
    Files,
    /// The same and SYS_ADMIN, in a fresh private mount namespace.
    Mounts,
    /// All that root of a user namespace may do, for a foreign program that builds a tree.
    Everything,
}

impl Powers {
    fn capabilities(self) -> CapabilitySet {
        let files = CapabilitySet::DAC_OVERRIDE
            | CapabilitySet::FOWNER
            | CapabilitySet::CHOWN
            | CapabilitySet::FSETID
            | CapabilitySet::MKNOD
            | CapabilitySet::SETFCAP;
        match self {
            Self::Files => files,
            Self::Mounts => files | CapabilitySet::SYS_ADMIN,
            Self::Everything => CapabilitySet::all(),
        }
    }
}

impl Entry<'_> {
    /// The namespaces that the child is born into.
    pub(super) fn namespaces(self, powers: Powers) -> Namespaces {
        match (self, powers) {
            (Self::Map(_), Powers::Files | Powers::Everything) => NEW_USER,
            (Self::Map(_), Powers::Mounts) => NEW_USER | NEW_MOUNT,
            (Self::Joined(_), _) => 0,
        }
    }

    /// The map that the parent has to write for the child, if that is the parent's task.
    pub(super) fn map_of_parent(&self) -> Option<&IdMap> {
        match self {
            Self::Map(map) if map.mode != Mode::Single => Some(map),
            _ => None,
        }
    }
}

/// Makes this process, which has one thread and a finished map (or writes it, in single mode), uid 0 of the
/// namespace with no more than `powers`. It is killed when `parent` ends. Does `before` while it is in the
/// namespaces and still the caller by uid, and returns what that returns.
pub(super) fn become_root<P>(
    entry: Entry<'_>,
    powers: Powers,
    parent: Pid,
    before: impl FnOnce() -> Result<P>,
) -> Result<P> {
    match entry {
        Entry::Map(map) if map.mode == Mode::Single => {
            write_own_map(map).map_err(|errno| map_refused("/proc/self/uid_map", errno))?;
        }
        Entry::Map(_) => {}
        Entry::Joined(namespace) => join(namespace, powers)?,
    }
    // Nobody may look into or trace us from inside a namespace that we share (CVE-2016-9962).
    hide()?;
    if powers == Powers::Mounts {
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).mounting("make the mounts private", "/")?;
    }
    let prepared = before()?;
    take_root_ids()?;
    drop_capabilities(powers.capabilities())?;
    if powers == Powers::Everything && !process::getuid().is_root() {
        keep_over_exec(powers.capabilities())?;
    }
    thread::set_no_new_privs(true).calling("set no_new_privs", "a job")?;
    // The change of ids has taken both back (prctl(2)).
    hide()?;
    tether(parent)?;
    process::umask(rustix::fs::Mode::empty());
    Ok(prepared)
}

/// Lets this process, which has one thread, look into the processes of a user namespace whose owner it is, whoever they are
/// inside, and do nothing else. Its maps need not be there yet.
///
/// # Errors
/// What the kernel says, naming the step.
pub fn look_into(namespace: BorrowedFd<'_>) -> Result<()> {
    join(namespace, Powers::Files)?;
    drop_capabilities(CapabilitySet::SYS_PTRACE | CapabilitySet::DAC_READ_SEARCH)?;
    thread::set_no_new_privs(true).calling("set no_new_privs", "a job")?;
    hide()
}

/// Has this process killed when its parent ends. Call it again after a change of credentials.
pub(super) fn tether(parent: Pid) -> Result<()> {
    process::set_parent_process_death_signal(Some(Signal::KILL))
        .calling("bind the life of a job", "to its parent")?;
    if process::getppid() == Some(parent) {
        return Ok(());
    }
    Err(Fault::failed("bind the life of a job: to its parent: the parent has ended"))
}

fn join(namespace: BorrowedFd<'_>, powers: Powers) -> Result<()> {
    hide()?;
    thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::User))
        .context("join the user namespace", "of a run")?;
    match powers {
        Powers::Files | Powers::Everything => Ok(()),
        Powers::Mounts => {
            unshare_mounts().making(Spaces::MOUNTS, "make a mount namespace", "for a job")
        }
    }
}

fn hide() -> Result<()> {
    process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .calling("hide a job from ptrace", "prctl")
}

fn take_root_ids() -> Result<()> {
    const ON: &str = "in the user namespace";
    match thread::set_thread_groups(&[]) {
        // Denied once and for all: by a map of one id, or in an outer namespace.
        Err(Errno::PERM) if groups_are_denied() => {}
        other => {
            other.map_err(|errno| step_refused("drop supplementary groups", ON, errno))?;
        }
    }
    let (uid, gid) = (Uid::ROOT, Gid::ROOT);
    match thread::set_thread_res_gid(gid, gid, gid) {
        // There is no 0 in the namespace of a run by an ordinary user with one id: the caller is all there is.
        Err(Errno::INVAL) => return Ok(()),
        other => other.map_err(|errno| step_refused("become gid 0", ON, errno))?,
    }
    thread::set_thread_res_uid(uid, uid, uid)
        .map_err(|errno| step_refused("become uid 0", ON, errno))
}

/// A program that is not executed by uid 0 would lose what a job may do.
fn keep_over_exec(keep: CapabilitySet) -> Result<()> {
    const WHAT: &str = "keep capabilities";
    let held = thread::capabilities(None).context(WHAT, "permitted set")?;
    let keep = keep & held.permitted;
    let sets = CapabilitySets { effective: keep, permitted: keep, inheritable: keep };
    thread::set_capabilities(None, sets).context(WHAT, "inheritable set")?;
    for one in keep.iter() {
        thread::configure_capability_in_ambient_set(one, true).context(WHAT, "ambient set")?;
    }
    Ok(())
}

fn groups_are_denied() -> bool {
    std::fs::read("/proc/self/setgroups").is_ok_and(|text| text.starts_with(b"deny"))
}

fn drop_capabilities(keep: CapabilitySet) -> Result<()> {
    const WHAT: &str = "drop capabilities";
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if keep.contains(one) {
            continue;
        }
        match thread::remove_capability_from_bounding_set(one) {
            // Beyond the last one that this kernel knows.
            Err(Errno::INVAL) => break,
            other => other.calling(WHAT, "bounding set")?,
        }
    }
    thread::clear_ambient_capability_set().calling(WHAT, "ambient set")?;
    let sets =
        CapabilitySets { effective: keep, permitted: keep, inheritable: CapabilitySet::empty() };
    thread::set_capabilities(None, sets).calling(WHAT, "permitted set")
}
