//! The supervisor: makes the child, writes its id maps, forwards signals, relays the terminal, keeps the
//! time, and waits until nothing of the sandbox is left.

mod heed;
pub mod joined;
mod rest;
pub(super) mod session;
mod suspend;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use nix::sys::signal::Signal as NixSignal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, pidfd_send_signal};

use super::companion::Companion;
use super::moments::Moments;
use super::outcome::{Ended, Reason};
use super::signals::Signals;
use super::spec::RunSpec;
use super::terminal::{RawMode, Relay};
use super::wire::{self, Down, Failure, Up, receive_up, send_down};
use super::{explain, init};
use crate::fault::{Context, Result};
use crate::ids::{self, Mode as IdMode};
use crate::isolate::cgroup::live::Entrance;
use crate::rootfs::plan::Op;
use crate::sys::process::Side;
use crate::sys::processor::{Here, Processors};

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// How the payload ended, or why it never began.
    pub ended: std::result::Result<Ended, Failure>,
    /// Why we ended it, if we did.
    pub reason: Option<Reason>,
    /// What the handler of remembered owners has written down, if there was anything to handle.
    pub journal: Option<OwnedFd>,
    /// The root's descriptor, if the spec wanted it; the overlay stays mounted until it is dropped.
    pub root: Option<OwnedFd>,
    /// Why the caller's side took no more of what the command wrote, if it had to be carried.
    pub unwritten: Option<Errno>,
}

/// Runs a spec to its end. `store` is a descriptor of base_dir, which must be the working directory.
/// When this returns, no process of the sandbox is left.
///
/// # Errors
/// A host fault where namespaces or maps are refused, with the remedy; a fault of the set-up is told by
/// [`Outcome::ended`] and made into text by [`explain`].
pub fn run(mut spec: RunSpec, store: BorrowedFd<'_>, moments: &mut dyn Moments) -> Result<Outcome> {
    let signals = Signals::block()?;
    let (ours, theirs) = wire::pair().context("make a socket pair", "for the sandbox")?;
    let companions = rest::count_output(&mut spec)?;
    let raw = suspend::enter_raw_mode(&spec)?;
    let executing = heed::watch_exec(&mut spec).context("make a pipe", "for the sandbox")?;
    let started = Instant::now();
    spec.processors = Processors::allowed();
    let here = Here::now(spec.processors);
    let (cloned, entered) = rest::clone_for(&spec);
    let (child, pidfd) = match cloned {
        Ok(Side::Child) => {
            here.give_way();
            drop(ours);
            // Never back into the frames of the parent, whose destructors would discard the run and set its
            // terminal.
            catch_unwind(AssertUnwindSafe(|| init::child(spec, store, &theirs, entered))).ok();
            std::process::abort()
        }
        Ok(Side::Parent { child, pidfd }) => (child, pidfd),
        Err(errno) => return Err(ids::namespace_refused(errno)),
    };
    here.send_away(child);
    drop(theirs);
    // The child has its own copies; ours would keep the sources busy.
    spec.prepared.clear();
    spec.executing = None;
    spec.pipes = Default::default();
    let mut supervisor = Supervisor {
        wire: ours,
        child,
        processors: spec.processors,
        pidfd,
        signals,
        relay: None,
        raw,
        deadline: spec.timeout.map(|time| started + time),
        setup: None,
        killed: false,
        stops: false,
        signalled: None,
        ended: None,
        journal: None,
        root: None,
        executing,
        reason: None,
        companions,
        until: None,
        joined: false,
        unwritten: None,
        begun: false,
        user_namespace: None,
    };
    if let Err(fault) = supervisor.make_ready(&spec, store, moments) {
        supervisor.kill();
        drop(supervisor.wait_gone());
        return Err(supervisor.cause(&spec).unwrap_or(fault));
    }
    moments.born(child);
    if let Err(fault) = supervisor.serve(&spec, moments) {
        supervisor.kill();
        drop(supervisor.wait_gone());
        return Err(fault);
    }
    // PID 1 goes, too, if the kernel finds nothing larger.
    let starved = |cgroup: &Entrance| cgroup.events().oom_kills > 0;
    if supervisor.ended.is_none() && spec.cgroup.as_ref().is_some_and(starved) {
        supervisor.ended = Some(Ok(Ended::Signal(9)));
    }
    Ok(Outcome {
        ended: supervisor
            .ended
            .or(supervisor.cut_short())
            .ok_or_else(|| explain::vanished_from(&spec))?,
        reason: supervisor.reason,
        journal: supervisor.journal,
        root: supervisor.root,
        unwritten: supervisor.unwritten,
    })
}

struct Supervisor {
    wire: OwnedFd,
    /// PID 1, and a descriptor of it.
    child: Pid,
    processors: Processors,
    pidfd: OwnedFd,
    signals: Signals,
    relay: Option<Relay>,
    raw: Option<RawMode>,
    deadline: Option<Instant>,
    /// When the command has to have begun, until it has.
    setup: Option<Instant>,
    killed: bool,
    /// Whether somebody outside has stopped us, and the command is to be first.
    stops: bool,
    /// The last signal that was passed on and may have ended the payload.
    signalled: Option<NixSignal>,
    ended: Option<std::result::Result<Ended, Failure>>,
    journal: Option<OwnedFd>,
    root: Option<OwnedFd>,
    /// Reads as ended when the payload is executed or gone.
    executing: Option<OwnedFd>,
    reason: Option<Reason>,
    /// What goes beside the run and may end it.
    companions: Vec<Companion>,
    /// Dropped at the end, for those who carry what is left until then.
    until: Option<OwnedFd>,
    /// Whether the child has joined a run, and what it leaves does not go with it.
    joined: bool,
    /// What the caller's side has answered to what the command wrote, if it has taken no more.
    unwritten: Option<Errno>,
    /// Whether PID 1 hears us.
    begun: bool,
    /// Where what makes the network goes.
    user_namespace: Option<OwnedFd>,
}

impl Supervisor {
    /// All that the child waits for.
    fn make_ready(
        &mut self,
        spec: &RunSpec,
        store: BorrowedFd<'_>,
        moments: &mut dyn Moments,
    ) -> Result<()> {
        let writing = match spec.id_map.mode {
            IdMode::Single => None,
            _ => Some(ids::start_maps(self.child, &spec.id_map)?),
        };
        moments.ready()?;
        // What is there before the command begins is not the command's: measured before anything can begin.
        self.watch_disk(spec, store)?;
        self.expect_setup(spec);
        writing.map_or(Ok(()), |writing| writing.finish(self.setup)).map_err(|f| self.late(f))?;
        // A child that died meanwhile is seen by its descriptor.
        send_down(self.wire.as_fd(), Down::Go).ok();
        Ok(())
    }

    /// Until the child is gone.
    fn serve(&mut self, spec: &RunSpec, moments: &mut dyn Moments) -> Result<()> {
        let mut wire_open = true;
        loop {
            let ready = self.wait(wire_open, moments.waits_for())?;
            if ready.wire {
                wire_open = self.hear(spec, moments)?;
            }
            if ready.executing {
                wire_open = self.heed_exec(spec, wire_open, moments)?;
            }
            if ready.called {
                moments.called()?.into_iter().for_each(|order| self.obey(order));
            }
            if ready.signal {
                self.pass_signals(spec);
            }
            self.come_to_front(spec);
            if let Some(relay) = &mut self.relay {
                if ready.master {
                    relay.flush();
                }
                if ready.master || ready.output {
                    relay.show_output();
                }
                let over = relay.is_over();
                if ready.input && !relay.take_input() {
                    self.hung_up();
                }
                if over {
                    self.cut(Reason::Output);
                }
            }
            if let Some(at) = ready.companion {
                self.heed(at);
            }
            self.keep_time(spec);
            self.keep_setup(&ready, spec)?;
            if ready.gone {
                while wire_open {
                    wire_open = self.hear(spec, moments)?;
                }
                if self.executing.is_some() && self.ended.is_some() {
                    self.heed_exec(spec, false, moments)?;
                }
                return self.wait_gone();
            }
        }
    }

    fn wait(&self, wire_open: bool, called: Option<BorrowedFd<'_>>) -> Result<Ready> {
        let nothing = PollFlags::empty();
        let wire_flags = if wire_open { PollFlags::IN } else { nothing };
        let mut fds = vec![
            PollFd::new(&self.pidfd, PollFlags::IN),
            PollFd::new(&self.signals.fd, PollFlags::IN),
        ];
        if wire_open {
            fds.push(PollFd::new(&self.wire, wire_flags));
        }
        let at = fds.len();
        let behind = self.is_behind();
        let stdin = self.relay.as_ref().and_then(Relay::wants_input).filter(|_| !behind);
        let screen = self.relay.as_ref().and_then(Relay::wants_output);
        if let Some(relay) = &self.relay {
            let (master, flags) = relay.master();
            fds.push(PollFd::from_borrowed_fd(master, flags));
            if let Some(stdin) = stdin {
                fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
            }
            if let Some(screen) = screen {
                fds.push(PollFd::from_borrowed_fd(screen, PollFlags::OUT));
            }
        }
        let more = fds.len();
        if let Some(executing) = &self.executing {
            fds.push(PollFd::new(executing, PollFlags::IN));
        }
        if let Some(called) = called {
            fds.push(PollFd::from_borrowed_fd(called, PollFlags::IN));
        }
        let companions = fds.len();
        fds.extend(
            self.companions.iter().map(|one| PollFd::from_borrowed_fd(one.pidfd(), PollFlags::IN)),
        );
        let due = self.deadline.into_iter().chain(self.setup).min();
        let left = due.map(|due| due.saturating_duration_since(Instant::now()));
        let left = left.into_iter().chain(behind.then_some(suspend::LOOK)).min();
        let timeout = left.map(|left| Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("wait for", "the sandbox"),
        }
        let ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        Ok(Ready {
            gone: ready(0),
            signal: ready(1),
            wire: wire_open && ready(2),
            master: self.relay.is_some() && ready(at),
            input: stdin.is_some() && ready(at + 1),
            output: screen.is_some() && ready(at + 1 + usize::from(stdin.is_some())),
            executing: self.executing.is_some() && ready(more),
            called: called.is_some() && ready(more + usize::from(self.executing.is_some())),
            companion: (0..self.companions.len()).find(|number| ready(companions + number)),
        })
    }

    /// Takes one message; false at the wire's end.
    fn hear(&mut self, spec: &RunSpec, moments: &mut dyn Moments) -> Result<bool> {
        match receive_up(self.wire.as_fd()).context("hear from", "the sandbox")? {
            None => return Ok(false),
            // The first one is the cause.
            Some(Up::Failed(failure)) => {
                self.ended.get_or_insert(Err(failure));
            }
            Some(Up::Exited(status)) => {
                self.clear_way();
                // A payload that failed before its exec has told why already.
                let ended = self.in_time(Ended::from_wait(status));
                let ended = *self.ended.get_or_insert(Ok(ended));
                if let Ok(ended) = ended {
                    moments.ended(ended);
                }
            }
            Some(Up::Stopped) => self.suspend(spec),
            Some(Up::Weaker(weaker)) => moments.weaker(weaker),
            Some(Up::Journal(journal)) => self.journal = Some(journal),
            Some(Up::Root(root)) => self.root = Some(root),
            Some(Up::Held(what, fd)) => moments.held(what, fd),
            Some(Up::Made(step, levels)) => {
                let op = spec.plan.ops.get(step as usize);
                op.and_then(Op::place).into_iter().for_each(|place| moments.made(place, levels));
            }
            Some(Up::Begun) => {
                (self.begun, self.setup) = (true, None);
                moments.begun();
                if self.ended.is_none() {
                    moments.meanwhile();
                }
            }
            Some(Up::Namespace(fd)) => {
                self.make_network(spec, fd)?;
            }
            Some(Up::Terminal(master)) => {
                if let (Some(master), Some(terminal)) = (moments.terminal(master), &spec.terminal) {
                    let relay = Relay::new(master, terminal, spec.output_limit);
                    self.relay = Some(relay.context("relay", "the terminal")?);
                }
            }
        }
        Ok(true)
    }

    fn pass_signals(&mut self, spec: &RunSpec) {
        while let Some(signal) = self.signals.next() {
            let number = signal as i32;
            let message = match signal {
                NixSignal::SIGWINCH => {
                    self.resize();
                    continue;
                }
                NixSignal::SIGTSTP => Down::SignalGroup(NixSignal::SIGSTOP as i32),
                // What a terminal sends goes to a whole foreground group; what kill(1) sends, to one.
                NixSignal::SIGINT | NixSignal::SIGQUIT | NixSignal::SIGHUP | NixSignal::SIGCONT => {
                    Down::SignalGroup(number)
                }
                _ => Down::Signal(number),
            };
            send_down(self.wire.as_fd(), message).ok();
            if signal != NixSignal::SIGCONT {
                self.signalled = Some(signal);
            }
            match signal {
                NixSignal::SIGTSTP => self.stop_with(spec),
                // The terminal is gone: nobody is left who could end a payload that ignores it.
                NixSignal::SIGHUP => self.end_soon(),
                _ => {}
            }
        }
    }

    /// Ends PID 1, and with it everything in its pid namespace.
    fn kill(&self) {
        pidfd_send_signal(&self.pidfd, Signal::KILL).ok();
    }
}

#[derive(Debug)]
struct Ready {
    gone: bool,
    signal: bool,
    wire: bool,
    master: bool,
    input: bool,
    output: bool,
    executing: bool,
    called: bool,
    companion: Option<usize>,
}
