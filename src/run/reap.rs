//! PID 1 of the sandbox: reaps, forwards signals, tells how the payload ended, and takes all with it.
//!
//! It never execs, so close-on-exec protects nothing: it closes every descriptor but its wire, the gate and
//! its signalfd by list, is non-dumpable, has no effective capability but KILL (and where it may have to make the handler
//! only what that takes on in its permitted set), and the run's own filter (there with the calls by which the handler
//! looks at who asks in front).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::signal::{SigSet, Signal as NixSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, Signal, WaitOptions, WaitStatus};

use super::answer;
use super::gate::GateEnd;
use super::hold;
use super::spec::RunSpec;
use super::wire::{Down, Failure, Stage, Up, receive_down, receive_ready, send_up};
use crate::isolate::caps::{self, CapSet};
use crate::sys::process::{Side, clone, exit_now};
use crate::sys::{self, namespace};

/// The number of CAP_KILL in capabilities(7): PID 1 forwards signals to a payload of any user.
const CAP_KILL: u32 = 5;

/// Blocks every signal, before there is a payload. It unblocks them before its exec.
///
/// # Errors
/// None on Linux.
pub fn block_signals() -> Result<(), Errno> {
    SigSet::all().thread_block().map_err(errno)
}

/// A descriptor that tells of ended children, also of one that ended before.
fn ended_children() -> Result<SignalFd, Errno> {
    let mut children = SigSet::empty();
    children.add(NixSignal::SIGCHLD);
    SignalFd::with_flags(&children, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(errno)
}

/// Takes this process out of everybody's sight. /proc/1 is refused to the payload: a process that cannot be
/// dumped cannot be looked into, and our memory belongs to the host's user namespace, where the payload
/// has no capability. (Its own exec makes it dumpable again.)
///
/// # Errors
/// None on Linux.
pub fn hide() -> Result<(), Errno> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

fn errno(errno: nix::errno::Errno) -> Errno {
    Errno::from_raw_os_error(errno as i32)
}

/// A payload's process and what PID 1 needs for it.
#[derive(Debug)]
pub struct Started {
    /// Its pid.
    pub payload: Pid,
    /// Where it waits for the root; none if it was made when the root was ready and hands nothing over.
    pub gate: Option<Gate>,
    /// How many of the places where its program may be are known not to have it.
    pub absent: u8,
    /// Whether we are not PID 1, but have joined a run: what we leave behind does not go with us.
    pub joined: bool,
}

/// Between PID 1 and a payload's process that was made early, or that has a listener to hand over.
#[derive(Debug)]
pub struct Gate {
    /// The end of PID 1.
    pub end: GateEnd,
    /// Whose namespaces PID 1 joins.
    pub joins: Option<Joins>,
}

/// Namespaces that the payload's process has made and PID 1 joins: IPC and host name.
#[derive(Debug)]
pub struct Joins {
    /// That process, as a pidfd.
    pub from: OwnedFd,
    /// Whether the network is another one, too.
    pub network: bool,
}

/// The life of PID 1, until the payload ends or the supervisor is gone.
///
/// # Errors
/// Only what the set-up of itself says; after that it does not return.
pub fn run(
    spec: &RunSpec,
    wire: &OwnedFd,
    mut started: Started,
    place: Option<OwnedFd>,
) -> Result<(), Failure> {
    let signals = ended_children().map_err(Failure::at(Stage::Fork))?;
    // Nothing else stays open: not the store, not the layers, not the caller's standard descriptors. Before the payload's
    // process is waited for, because the kernel takes a while for so many.
    let gate = started.gate.as_ref().map(|gate| gate.end);
    let [told, opens] = [gate.map(|gate| gate.wire), gate.map(|gate| gate.opens)];
    let joined = started.gate.as_ref().and_then(|gate| gate.joins.as_ref());
    let joined = joined.map(|joins| joins.from.as_fd());
    let held = place.as_ref().map(AsFd::as_fd);
    let journal = spec.journal.as_ref().map(AsFd::as_fd);
    let kept = [Some(wire.as_fd()), Some(signals.as_fd()), told, opens, joined, held, journal];
    let mut kept: Vec<_> = kept.into_iter().flatten().map(|fd| fd.as_raw_fd()).collect();
    kept.sort_unstable();
    sys::exec::close_all_but(0, &kept).map_err(Failure::at(Stage::Descriptors))?;
    let mut listener = None;
    match &mut started.gate {
        // Nobody but us would reap what was killed before it came to its command.
        Some(gate) if started.joined => match receive_ready(gate.end.wire) {
            Ok(Some(found)) => listener = found,
            Ok(None) => await_end(wire.as_fd(), &started),
            Err(_) => leave(&started),
        },
        Some(gate) => listener = meet(gate)?,
        None => {}
    }
    if let Some(place) = place {
        // Not before the payload's process has given up all, nor long before we hide: who joins could look into us.
        hold::namespaces(spec, &place, wire).map_err(Failure::at(Stage::Descriptors))?;
    }
    let asked = listener.as_ref().map(AsFd::as_fd);
    let give_up = || -> Result<(), Errno> {
        // Capabilities that only become fewer take neither the death signal nor the hiding back.
        // What the handler needs is not effective in us.
        let spare = if asked.is_some() { answer::CAPABILITIES } else { CapSet::NONE };
        caps::hold_back(CapSet(1 << CAP_KILL), spare)?;
        hide()?;
        if let Some(gate) = gate {
            // A payload that failed early has told why, and is reaped in a moment.
            gate.open(started.absent).ok();
        }
        send_up(wire.as_fd(), &Up::Begun);
        let handler = spec.remember.as_ref().filter(|_| asked.is_some());
        sys::seccomp::load(handler.map_or(&spec.seccomp, |programs| &programs.handler))
    };
    if let Err(errno) = give_up() {
        send_up(wire.as_fd(), &Up::Failed(Failure { stage: Stage::Seccomp, detail: 1, errno }));
        leave(&started);
    }
    let mut init = Init { wire: wire.as_fd(), signals: signals.as_fd(), spec, listener };
    init.serve(&started)
}

/// Waits until the payload's process has given up all, and joins the namespaces that it has made. It holds no
/// secrets then, but must not be left in the host's: /proc/1/net shows what is there. Gives the
/// listener of calls that are remembered, if it has one.
pub(super) fn meet(gate: &mut Gate) -> Result<Option<OwnedFd>, Failure> {
    let Ok(Some(listener)) = receive_ready(gate.end.wire) else {
        // It has told why.
        exit_now(1);
    };
    let Some(Joins { from, network }) = gate.joins.take() else { return Ok(listener) };
    let done = match namespace::join_others(from.as_fd(), network) {
        // A program that its caller may not read runs as a process that nobody may look into; or a filter around us.
        Err(Errno::PERM | Errno::ACCESS | Errno::NOSYS) => namespace::unshare_others(network),
        joined => joined,
    };
    let stage = if network { Stage::Network } else { Stage::Namespaces };
    done.map(|()| listener).map_err(Failure::at(stage))
}

/// What PID 1 waits for.
struct Init<'a> {
    wire: BorrowedFd<'a>,
    signals: BorrowedFd<'a>,
    spec: &'a RunSpec,
    /// Until the handler is there.
    listener: Option<OwnedFd>,
}

impl Init<'_> {
    fn serve(&mut self, started: &Started) -> ! {
        let (wire, signals) = (self.wire, self.signals);
        loop {
            let mut fds =
                vec![PollFd::new(&wire, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
            fds.extend(self.listener.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => exit_now(1),
            }
            let ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
            let (told, child) = (ready(0), ready(1));
            let asked = fds.get(2).map_or(PollFlags::empty(), PollFd::revents);
            self.heed(asked, started.joined);
            if child {
                drain(signals);
                reap(wire, started, self.spec.suspends());
            }
            if told {
                match receive_down(wire) {
                    Ok(Some(message)) => forward(message, started.payload),
                    // The supervisor is gone: so are we, and with us everything in this pid namespace.
                    Ok(None) | Err(_) => leave(started),
                }
            }
        }
    }

    /// What the listener says: that a call waits, or that nobody is left who could make one. The latter comes with
    /// the end of every payload, just before it can be reaped, and needs no handler.
    fn heed(&mut self, asked: PollFlags, joined: bool) {
        match waits(asked) {
            Some(true) => self.start_handler(joined),
            Some(false) => self.listener = None,
            None => {}
        }
    }

    /// Makes the handler, which alone keeps the listener: if it dies, the kernel tells its callers ENOSYS. So
    /// it does if it cannot be made. One who has joined may go before his handler, which would be left to a process
    /// outside then: if that reaps nobody, the pid namespace of the run never ends. A child of a child that has ended
    /// belongs to PID 1.
    fn start_handler(&mut self, joined: bool) {
        let Some(listener) = self.listener.take() else { return };
        match clone(0) {
            Ok(Side::Child) if !joined || matches!(clone(0), Ok(Side::Child)) => {
                if joined {
                    // It serves what the command leaves behind, too, and is none of its session, which may be ended.
                    rustix::process::setsid().ok();
                }
                answer::serve(&listener, self.wire, self.spec)
            }
            Ok(Side::Child) => exit_now(0),
            Ok(Side::Parent { child, .. }) if joined => {
                rustix::process::waitpid(Some(child), WaitOptions::empty()).ok();
            }
            Ok(Side::Parent { .. }) | Err(_) => {}
        }
    }
}

/// Whether a listener says that a call waits, or that none will come any more (it hangs up then).
fn waits(events: PollFlags) -> Option<bool> {
    (!events.is_empty()).then(|| events.contains(PollFlags::IN))
}

fn leave(started: &Started) -> ! {
    if started.joined {
        rustix::process::kill_process(started.payload, Signal::KILL).ok();
        // A dead process that nobody waits for would keep the pid namespace of the run from ending.
        rustix::process::waitpid(Some(started.payload), WaitOptions::empty()).ok();
    }
    exit_now(1)
}

fn drain(signals: BorrowedFd<'_>) {
    let mut buffer = [0_u8; 128];
    while rustix::io::read(signals, &mut buffer).is_ok_and(|bytes| bytes > 0) {}
}

/// `suspends`: whether the supervisor wants to know when the payload is stopped.
fn reap(wire: BorrowedFd<'_>, started: &Started, suspends: bool) {
    let stopped = if suspends { WaitOptions::UNTRACED } else { WaitOptions::empty() };
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG | stopped) {
        match pid == started.payload {
            true if status.stopped() => send_up(wire, &Up::Stopped),
            true => end(wire, started, status),
            false => {}
        }
    }
}

fn await_end(wire: BorrowedFd<'_>, started: &Started) -> ! {
    match rustix::process::waitpid(Some(started.payload), WaitOptions::empty()) {
        Ok(Some((_, status))) => end(wire, started, status),
        Ok(None) | Err(_) => exit_now(1),
    }
}

fn end(wire: BorrowedFd<'_>, started: &Started, status: WaitStatus) -> ! {
    if started.joined && super::join::is_over(status.as_raw()) {
        let errno = Errno::SRCH;
        send_up(wire, &Up::Failed(Failure { stage: Stage::Over, detail: 0, errno }));
    }
    send_up(wire, &Up::Exited(status.as_raw()));
    exit_now(0)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_hangs_up_asks_nothing() {
        let (reader, writer) = rustix::pipe::pipe().expect("pipe");
        let events = || {
            let mut fds = [PollFd::new(&reader, PollFlags::IN)];
            poll(&mut fds, Some(&rustix::event::Timespec::default())).expect("poll");
            fds[0].revents()
        };
        assert_eq!(waits(events()), None);
        rustix::io::write(&writer, b"x").expect("write");
        assert_eq!(waits(events()), Some(true));
        rustix::io::read(&reader, &mut [0; 1]).expect("read");
        drop(writer);
        assert_eq!(waits(events()), Some(false));
    }
}
