//! A payload's process that is made before there is a root.
//!
//! On another processor it makes namespaces, copies up what is to be there and gives up its rights, while PID 1 mounts.
//! What it does is in [`super::payload`]; here is when there is one, and when it does what.

use std::os::fd::OwnedFd;

use super::gate::NewGate;
use super::init;
use super::payload::{self, Begin};
use super::reap::{Gate, Joins, Started};
use super::spec::RunSpec;
use super::weaker::{self, Switched};
use super::wire::{Failure, Stage};
use crate::ids::Mode as IdMode;
use crate::rootfs::copy_up;
use crate::sys::processor::Here;

/// Whether the payload's process makes the namespaces that the root does not need, those of IPC and of the host name,
/// together with the network, and PID 1 joins them. It cannot join those of a program that its caller may not read, and has
/// others then; so not if it hands them on to those who join the run.
pub(super) fn makes_namespaces(spec: &RunSpec) -> bool {
    let alone = spec.outside.is_none() && !spec.stays;
    spec.id_map.mode == IdMode::Single && possible(spec) && alone
}

/// Whether the payload's process needs nothing of the root before its exec.
pub(super) fn possible(spec: &RunSpec) -> bool {
    spec.user.is_none() && spec.terminal.is_none()
}

/// Makes the payload's process before there is a root: it makes namespaces if it is told so, names the
/// host and gives up its rights on another processor while we mount. pivot_root(2) moves it along, and
/// the gate tells it when all is ready.
pub(super) fn start(spec: &RunSpec, wire: &OwnedFd, namespaces: bool) -> Result<Started, Failure> {
    let mut gate = Some(NewGate::new().map_err(Failure::at(Stage::Fork))?);
    let here = Here::now(spec.processors);
    let (payload, pidfd) = init::fork(here, || {
        let Some(gate) = gate.take().map(NewGate::theirs) else { return };
        payload::become_command(spec, wire, Begin::WhenTold { gate, namespaces })
    })?;
    here.send_away(payload);
    let joins = namespaces.then(|| Joins { from: pidfd, network: spec.own_network });
    let gate = gate.map(|gate| Gate { end: gate.ours(), joins });
    Ok(Started { payload, gate, absent: 0, joined: false })
}

/// Tells the process, if there is one, that the root is switched. Where the new root is not its own it ends.
pub(super) fn tell(
    early: Option<Started>,
    switched: &Switched,
) -> Result<Option<Started>, Failure> {
    let Some(started) = early else { return Ok(None) };
    if matches!(switched, Switched::Moved) {
        return weaker::retire(started).map(|()| None);
    }
    if let Some(gate) = &started.gate {
        gate.end.tell_switched(true).map_err(Failure::at(Stage::Root))?;
    }
    Ok(Some(started))
}

/// Whether what is copied up is for the payload's process to do, right behind the switch: if no later mount can make a
/// difference to it.
pub(super) fn copies_up(spec: &RunSpec) -> bool {
    copy_up::is_independent(&spec.copy_up, &spec.plan.ops)
}
