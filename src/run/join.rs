//! The child of `exec`: joins a run that stays, and becomes what PID 1 is to the first command, a process of
//! ours that reaps the joined one and forwards signals to it.
//!
//! All comes from the supervisor, by descriptor: nothing is found by a pid or by a file that the run could have
//! made (CVE-2022-31214). The order matters. We hide before the user namespace is ours as well as the run's, so
//! that nobody inside can look into a process that is not confined yet (CVE-2016-9962), and again after each
//! change of credentials, which may take it back. The other namespaces come after the user namespace, which
//! gives the right to enter them. The root is entered by its descriptor, because the root of a mount namespace
//! need not be that of the run (CVE-2026-109569). Only our child is in the pid namespace, and from there on it
//! is one of [`payload`]: descriptors, limits, capabilities, no_new_privs and filter by the same code.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, fstatfs, openat};
use rustix::io::Errno;
use rustix::process::WaitOptions;

use super::payload::{self, Begin};
use super::reap::{self, Started};
use super::spec::RunSpec;
use super::wire::{Failure, Stage, Up, send_up};
use super::{init, terminal, user, weaker};
use crate::isolate::cgroup;
use crate::sys::exec::leave_open;
use crate::sys::namespace;
use crate::sys::process::{Side, clone, exit_now};
use crate::sys::title;

/// What is joined: descriptors that the supervisor of the run gave.
#[derive(Debug)]
pub struct Door {
    /// The user namespace.
    pub user: OwnedFd,
    /// The others, in any order: mount, pid, ipc, uts, cgroup and, if the run has its own, network.
    pub others: Vec<OwnedFd>,
    /// The root directory of the run, in that mount namespace.
    pub root: OwnedFd,
    /// The directory of the run's cgroup, if it has one of its own.
    pub cgroup: Option<OwnedFd>,
}

/// Told with [`Stage::Over`] by what had no time to become a command.
pub(super) const NOT_BEGUN: u32 = 1;

/// Runs the child of a joining spec to its end. `entered`: whether it was born into the cgroup of the run, if that has
/// one.
pub fn child(mut spec: RunSpec, door: &Door, wire: &OwnedFd, entered: bool) -> ! {
    title::hide_arguments();
    let limited = if entered { Ok(()) } else { enter_cgroup(door) };
    if let Err(failure) = limited.and_then(|()| stages(&mut spec, door, wire)) {
        send_up(wire.as_fd(), &Up::Failed(failure));
    }
    exit_now(i32::from(super::outcome::OURS));
}

fn stages(spec: &mut RunSpec, door: &Door, wire: &OwnedFd) -> Result<(), Failure> {
    init::die_with_parent_still(wire).map_err(Failure::at(Stage::Join))?;
    // A session of its own: what a terminal sends to the caller's group is passed on by the caller, once.
    rustix::process::setsid().map_err(Failure::at(Stage::Session))?;
    rustix::process::umask(Mode::empty());
    weaker::keyring(spec, wire).map_err(Failure::at(Stage::Session))?;
    enter(door).map_err(Failure::at(Stage::Join))?;
    init::become_root(spec, wire).map_err(Failure::at(Stage::Join))?;
    reap::hide().map_err(Failure::at(Stage::Join))?;
    init::die_with_parent_still(wire).map_err(Failure::at(Stage::Join))?;
    user::settle(spec)?;
    let terminal = open_terminal(spec, wire).map_err(Failure::at(Stage::Terminal))?;
    outlive_parent(wire).map_err(Failure::at(Stage::Join))?;
    // While we may read it; what becomes of it meanwhile is looked at once more before the exec.
    init::check_program(spec)?;
    let (payload, gate) = init::fork_at_gate(spec, |gate| {
        payload::become_command(spec, wire, Begin::Joined { terminal, gate })
    })
    .map_err(|failure| match (failure.stage, failure.errno) {
        // As fork(2) says where PID 1 has gone.
        (Stage::Fork, Errno::NOMEM) => Failure { stage: Stage::Over, detail: NOT_BEGUN, ..failure },
        _ => failure,
    })?;
    reap::run(spec, wire, Started { payload, gate, absent: 0, joined: true }, None)
}

/// From here on we end by the end of the wire, and not by a signal at the death of `exec`: first we kill the command and
/// reap it. Else it would be left to a process outside, and where that reaps nobody it would keep the pid namespace of the
/// run from ending, dead as it is.
fn outlive_parent(wire: &OwnedFd) -> Result<(), Errno> {
    rustix::process::set_parent_process_death_signal(None)?;
    let mut fds = [PollFd::new(wire, PollFlags::empty())];
    if poll(&mut fds, Some(&Timespec::default()))? > 0 {
        exit_now(i32::from(super::outcome::OURS));
    }
    Ok(())
}

/// The limits of the run hold for all that joins it, or it is not joined.
fn enter_cgroup(door: &Door) -> Result<(), Failure> {
    let Some(cgroup) = &door.cgroup else { return Ok(()) };
    cgroup::live::enter(cgroup.as_fd()).map_err(Failure::at(Stage::Cgroup))
}

fn enter(door: &Door) -> Result<(), Errno> {
    reap::hide()?;
    namespace::join(door.user.as_fd())?;
    reap::hide()?;
    for other in &door.others {
        namespace::join(other.as_fd())?;
    }
    rustix::process::fchdir(&door.root)?;
    rustix::process::chroot(".")
}

/// A pty of the run's devpts, as for the first command. The run is alive: what it may have put in the place of
/// its multiplexer is refused.
fn open_terminal(spec: &RunSpec, wire: &OwnedFd) -> Result<Option<OwnedFd>, Errno> {
    if spec.terminal.is_some() {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = leave_open(openat(CWD, "/dev/pts/ptmx", flags, Mode::empty())?);
        if fstatfs(found)?.f_type != terminal::DEVPTS {
            return Err(Errno::NODEV);
        }
    }
    init::open_terminal(spec, wire)
}

/// Whether a joined command that ended with this status went with its run. SIGKILL is what the kernel sends to all
/// that is left in a pid namespace; then that has lost its PID 1, and "fork(2) fails with the error ENOMEM"
/// (pid_namespaces(7)).
pub(super) fn is_over(status: i32) -> bool {
    const SIGKILL: i32 = 9;
    if status & 0x7f != SIGKILL {
        return false;
    }
    match clone(0) {
        Err(errno) => errno == Errno::NOMEM,
        Ok(Side::Child) => exit_now(0),
        Ok(Side::Parent { child, .. }) => {
            // Not left to whoever may reap nobody: the pid namespace would wait for it.
            rustix::process::waitpid(Some(child), WaitOptions::empty()).ok();
            false
        }
    }
}
