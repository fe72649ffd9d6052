//! The rarer moments of a supervisor: the exec, if somebody wants to know of it, what its owner orders, and the
//! last output.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal as NixSignal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::super::moments::{Moments, Order};
use super::super::outcome::Ended;
use super::super::spec::{GRACE, RunSpec};
use super::super::wire::{Down, Failure, send_down};
use super::Supervisor;
use crate::fault::Result;

/// A pipe whose other end the payload has until its exec, if somebody wants to know of that.
pub(super) fn watch_exec(spec: &mut RunSpec) -> std::result::Result<Option<OwnedFd>, Errno> {
    if !spec.heeds_exec {
        return Ok(None);
    }
    let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    spec.executing = Some(theirs);
    Ok(Some(ours))
}

impl Supervisor {
    /// The payload is executed, or gone and has told why.
    pub(super) fn heed_exec(
        &mut self,
        spec: &RunSpec,
        mut wire_open: bool,
        moments: &mut dyn Moments,
    ) -> Result<bool> {
        self.executing = None;
        while wire_open && self.is_called() {
            wire_open = self.hear(spec, moments)?;
        }
        if !matches!(self.ended, Some(Err(_))) {
            moments.executing()?;
        }
        Ok(wire_open)
    }

    /// Whether the child has told something that was not heard yet.
    fn is_called(&self) -> bool {
        let mut fds = [PollFd::new(&self.wire, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// What a key of the terminal was the end of, if it came before PID 1 could tell: it goes to all of the foreground.
    pub(super) fn cut_short(&self) -> Option<std::result::Result<Ended, Failure>> {
        let ends = |one: &_| matches!(one, NixSignal::SIGINT | NixSignal::SIGQUIT);
        let key = self.signalled.filter(ends).filter(|_| !self.begun);
        key.map(|signal| Ok(Ended::Signal(signal as u8)))
    }

    pub(super) fn obey(&mut self, order: Order) {
        match order {
            Order::Signal(number) => {
                send_down(self.wire.as_fd(), Down::Signal(number)).ok();
            }
            Order::Cut(reason) => self.cut(reason),
            Order::End(grace) => self.end(grace),
        }
    }

    /// SIGTERM to the command, and after this time SIGKILL to all that is left.
    pub(super) fn end(&mut self, grace: Duration) {
        // One that is stopped would not see the first signal.
        for signal in [NixSignal::SIGTERM, NixSignal::SIGCONT] {
            send_down(self.wire.as_fd(), Down::Signal(signal as i32)).ok();
        }
        self.killed = true;
        self.deadline = Some(Instant::now() + grace);
    }

    /// Without a controlling terminal nobody sends SIGHUP when the terminal goes.
    pub(super) fn hung_up(&mut self) {
        send_down(self.wire.as_fd(), Down::SignalGroup(NixSignal::SIGHUP as i32)).ok();
        self.end_soon();
    }

    pub(super) fn end_soon(&mut self) {
        self.killed = true;
        self.deadline = Some(Instant::now() + GRACE);
    }

    /// Shows what is left of the output. A terminal that takes no more is waited for, as any program would
    /// wait, but not long against a signal.
    pub(super) fn show_rest(&mut self) {
        let Some(relay) = &mut self.relay else { return };
        relay.last_output();
        while let Some(screen) = relay.wants_output().filter(|_| !self.killed) {
            let mut fds = [
                PollFd::from_borrowed_fd(screen, PollFlags::OUT),
                PollFd::new(&self.signals.fd, PollFlags::IN),
            ];
            let grace = Timespec { tv_sec: GRACE.as_secs() as i64, tv_nsec: 0 };
            match poll(&mut fds, self.signalled.is_some().then_some(&grace)) {
                Ok(1..) | Err(Errno::INTR) => {}
                _ => return,
            }
            let ends = |signal| !matches!(signal, NixSignal::SIGWINCH | NixSignal::SIGCONT);
            if self.signals.next().is_some_and(ends) {
                return;
            }
            relay.last_output();
        }
    }
}
