//! The parent of a command that joins a run: what [`launch`](super) is to the first command, without a sandbox to
//! make. Signals, terminal and exit status are the same.

use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::io::Errno;

use super::super::join::{self, Door};
use super::super::moments::Moments;
use super::super::outcome::Ended;
use super::super::veil;
use super::super::weaker::Weaker;
use super::suspend::enter_raw_mode;
use super::{Outcome, Signals, Supervisor, explain, wire};
use crate::fault::{Context, Fault, Result};
use crate::isolate::cgroup::live::is_full;
use crate::isolate::lost::Lost;
use crate::run::spec::RunSpec;
use crate::sys::process::{Side, clone, clone_into};
use crate::sys::processor::Processors;

/// Nobody owns a joined command but who waits for it.
#[derive(Default)]
struct Waits {
    lost: Vec<Lost>,
}

impl Moments for Waits {
    fn ready(&mut self) -> Result<()> {
        Ok(())
    }

    fn weaker(&mut self, weaker: Weaker) {
        self.lost.push(weaker.lost());
    }

    fn ended(&mut self, _ended: Ended) {}
}

/// What came of a joined command.
#[derive(Debug)]
pub struct Joined {
    /// As of any command.
    pub outcome: Outcome,
    /// The protections that it had to do without.
    pub lost: Vec<Lost>,
}

/// Runs a command in a run that stays, to its end. Of the spec counts what a payload needs. The door is closed as soon
/// as the command is through.
///
/// # Errors
/// If no process can be made, for one because the run has as many as it may have; a fault of joining is told by
/// [`Outcome::ended`].
pub fn run(mut spec: RunSpec, door: Door) -> Result<Joined> {
    spec.processors = Processors::allowed();
    let processors = spec.processors;
    let signals = Signals::block()?;
    let (ours, theirs) = wire::pair().context("make a socket pair", "for the command")?;
    let veil = veil::start(&mut spec).context("make pipes", "for the command")?;
    let raw = enter_raw_mode(&spec)?;
    let (cloned, entered) = match &door.cgroup {
        None => (clone(0), true),
        // What is not born there goes there before anything else.
        Some(cgroup) => match clone_into(0, cgroup.as_fd()) {
            Ok((side, entered)) => (Ok(side), entered),
            Err(Errno::AGAIN) if is_full(cgroup.as_fd()) => return Err(full()),
            Err(errno) => (Err(errno), false),
        },
    };
    let (child, pidfd) = match cloned {
        Ok(Side::Child) => {
            drop(ours);
            // Never back into the frames of the parent, whose destructors would set its terminal.
            catch_unwind(AssertUnwindSafe(|| join::child(spec, &door, &theirs, entered))).ok();
            std::process::abort()
        }
        Ok(Side::Parent { child, pidfd }) => (child, pidfd),
        Err(errno) => return Err(refused(errno)),
    };
    drop((theirs, door));
    spec.pipes = Default::default();
    let mut supervisor = Supervisor {
        wire: ours,
        child,
        processors,
        pidfd,
        signals,
        relay: None,
        raw,
        deadline: None,
        setup: None,
        killed: false,
        stops: false,
        signalled: None,
        ended: None,
        journal: None,
        root: None,
        executing: None,
        reason: None,
        companions: veil.companions,
        until: veil.until,
        joined: true,
        unwritten: None,
        begun: false,
        user_namespace: None,
    };
    supervisor.expect_setup(&spec);
    let mut waits = Waits::default();
    if let Err(fault) = supervisor.serve(&spec, &mut waits) {
        supervisor.kill();
        drop(supervisor.wait_gone());
        return Err(fault);
    }
    let ended = supervisor.ended.ok_or_else(|| explain::vanished_from(&spec))?;
    let outcome = Outcome { ended, reason: None, journal: None, root: None, unwritten: None };
    Ok(Joined { outcome, lost: waits.lost })
}

fn full() -> Fault {
    Fault::failed("join the run: it has as many processes as it may have (--pids)")
        .hint("try again when some have ended, or start it with room for more")
}

fn refused(errno: Errno) -> Fault {
    let fault = Fault::errno("make a process", "for the command", errno);
    match errno {
        Errno::AGAIN => fault.hint("end other programs, or raise the limit (`ulimit -a`)"),
        _ => fault,
    }
}
