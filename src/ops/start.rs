//! `start`: a run in a process of its own, which outlives whoever has started it.

use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};
use serde::Serialize;

use super::run::{Birth, RunOptions, Stay, supervise};
use crate::fault::{Context, Fault, Result};
use crate::run::supervisor::Ending;
use crate::store::{BoxName, RunId, RunName, Store};
use crate::sys::process::{Side, clone, exit_now};

/// The longest word of a supervisor's about its birth.
const WORD: usize = 64 * 1024;

/// What came of it.
#[derive(Debug)]
pub enum Started {
    /// The command is being executed.
    Running(Running),
    /// It never was, and this is how it ended.
    Over(Ending),
}

/// A run that was started.
#[derive(Debug, Serialize)]
pub struct Running {
    /// Its id.
    pub run: RunId,
    /// Its name.
    pub name: Option<RunName>,
    /// The pid of its supervisor.
    pub pid: u32,
}

/// Starts a run that stays, and returns when its command is being executed. Must be called while this process
/// has one thread and no descriptor that the run must not keep.
///
/// # Errors
/// A fault of kind conflict if the name is taken; those of [`super::run::run`] before the command begins are in
/// [`Started::Over`].
pub fn start(
    store: &Store,
    box_name: &BoxName,
    options: RunOptions,
    stay: Stay,
) -> Result<Started> {
    if let Some(name) = &stay.name {
        if name.as_str().starts_with("r-") {
            return Err(Fault::usage(format!("run name: {name}: ids of runs begin so")));
        }
        // For an early word; it is claimed when the run is made.
        drop(store.claim_run_name(name)?);
    }
    let name = stay.name.clone();
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .context("make a socket pair", "for the run")?;
    let pid = match clone(0).context("make a process", "for the run")? {
        Side::Child => {
            drop(ours);
            // Never back into the frames of the caller.
            catch_unwind(AssertUnwindSafe(|| stay_alone(store, box_name, options, stay, theirs)))
                .ok();
            exit_now(0)
        }
        Side::Parent { child, .. } => child.as_raw_nonzero().get().unsigned_abs(),
    };
    drop(theirs);
    let mut word = vec![0; WORD];
    let size = match retry_on_intr(|| recv(&ours, &mut *word, RecvFlags::empty())) {
        Ok((size, _)) => size,
        Err(Errno::CONNRESET) => 0,
        Err(errno) => return Err(Fault::errno("hear from", "the run", errno)),
    };
    match serde_json::from_slice(&word[..size]) {
        Ok(Birth::Running(run)) => Ok(Started::Running(Running { run, name, pid })),
        Ok(Birth::Stillborn(ending)) => Ok(Started::Over(ending)),
        Err(_) => Err(Fault::failed("start: the run: its supervisor was killed")
            .hint("start it again; `sandbox doctor` tells what this host allows")),
    }
}

/// The supervisor: in a session of its own, so that no terminal's end is its end.
fn stay_alone(store: &Store, box_name: &BoxName, options: RunOptions, stay: Stay, caller: OwnedFd) {
    // A process that was just forked leads no group.
    rustix::process::setsid().ok();
    supervise(store, box_name, options, stay, caller);
    // Nobody is there to be told; what stays is found by the next command.
    super::trash::tidy(store, false).ok();
}
