//! PID 1 of the sandbox: reaps, forwards signals, tells how the payload ended, and takes all with it.
//!
//! It never execs, so close-on-exec protects nothing: it closes every descriptor but its wire and its
//! signalfd by list, is non-dumpable, keeps no capability but KILL, and has the run's own filter.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::signal::{SigSet, Signal as NixSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, Signal, WaitOptions};

use super::spec::RunSpec;
use super::wire::{Down, Failure, Stage, Up, receive_down, send_up};
use crate::isolate::caps::{self, CapSet};
use crate::sys;
use crate::sys::process::exit_now;

/// The number of CAP_KILL in capabilities(7): PID 1 forwards signals to a payload of any user.
const CAP_KILL: u32 = 5;

/// Blocks every signal and gives a descriptor that tells of ended children. The payload unblocks before
/// its exec.
///
/// # Errors
/// EMFILE.
pub fn block_signals() -> Result<SignalFd, Errno> {
    let all = SigSet::all();
    all.thread_block().map_err(errno)?;
    let mut children = SigSet::empty();
    children.add(NixSignal::SIGCHLD);
    SignalFd::with_flags(&children, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(errno)
}

fn errno(errno: nix::errno::Errno) -> Errno {
    Errno::from_raw_os_error(errno as i32)
}

/// A payload's process and what PID 1 needs for it.
#[derive(Debug)]
pub struct Started {
    /// Its pid.
    pub payload: Pid,
    /// Tells of ended children.
    pub signals: SignalFd,
    /// A byte in here tells the payload that the root is ready; none if it was made when it was.
    pub gate: Option<OwnedFd>,
}

/// The life of PID 1, until the payload ends or the supervisor is gone.
///
/// # Errors
/// Only what the set-up of itself says; after that it does not return.
pub fn run(spec: &RunSpec, wire: &OwnedFd, started: Started) -> Result<(), Failure> {
    let failed = Failure::at(Stage::Fork);
    // The wire becomes 0, the signalfd 1, the gate 2, and nothing else stays open: not the store, not the
    // layers, not the caller's standard descriptors.
    sys::exec::copy_to(wire.as_raw_fd(), 0, true).map_err(&failed)?;
    sys::exec::copy_to(started.signals.as_fd().as_raw_fd(), 1, true).map_err(&failed)?;
    if let Some(gate) = &started.gate {
        sys::exec::copy_to(gate.as_raw_fd(), 2, true).map_err(&failed)?;
    }
    let first = if started.gate.is_some() { 3 } else { 2 };
    sys::exec::close_all_but(first, &[]).map_err(&failed)?;
    let (wire, signals) = (rustix::stdio::stdin(), rustix::stdio::stdout());
    let give_up = || -> Result<(), Errno> {
        caps::hold(CapSet(1 << CAP_KILL))?;
        // The change of capabilities has taken both back.
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        rustix::thread::set_no_new_privs(true)?;
        if started.gate.is_some() {
            // A payload that failed early has told why, and is reaped in a moment.
            rustix::io::write(rustix::stdio::stderr(), b"g").ok();
        }
        sys::seccomp::load(&spec.seccomp)
    };
    if let Err(errno) = give_up() {
        send_up(wire, &Up::Failed(Failure { stage: Stage::Seccomp, detail: 1, errno }));
        exit_now(1);
    }
    serve(wire, signals, started.payload)
}

fn serve(wire: BorrowedFd<'_>, signals: BorrowedFd<'_>, payload: Pid) -> ! {
    loop {
        let mut fds = [PollFd::new(&wire, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => exit_now(1),
        }
        let (told, child) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        if child {
            drain(signals);
            reap(wire, payload);
        }
        if told {
            match receive_down(wire) {
                Ok(Some(message)) => forward(message, payload),
                // The supervisor is gone: so are we, and with us everything in this pid namespace.
                Ok(None) | Err(_) => exit_now(1),
            }
        }
    }
}

fn drain(signals: BorrowedFd<'_>) {
    let mut buffer = [0_u8; 128];
    while rustix::io::read(signals, &mut buffer).is_ok_and(|bytes| bytes > 0) {}
}

fn reap(wire: BorrowedFd<'_>, payload: Pid) {
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid == payload {
            send_up(wire, &Up::Exited(status.as_raw()));
            exit_now(0);
        }
    }
}

fn forward(message: Down, payload: Pid) {
    let (number, group) = match message {
        Down::Go => return,
        Down::Signal(number) => (number, false),
        Down::SignalGroup(number) => (number, true),
    };
    let Some(signal) = Signal::from_named_raw(number) else { return };
    // A payload that has just ended is reaped in the next turn: ESRCH says nothing.
    if group {
        // It leads its own session and group; before its setsid the group does not exist yet.
        if rustix::process::kill_process_group(payload, signal).is_err() {
            rustix::process::kill_process(payload, signal).ok();
        }
    } else {
        rustix::process::kill_process(payload, signal).ok();
    }
}
