//! What a supervisor does besides passing things on: it keeps the time, heeds its companions, and at the end
//! waits until nothing is left.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use nix::sys::signal::Signal as NixSignal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{WaitId, WaitIdOptions};

use super::{Ready, Supervisor, session};
use crate::fault::{Context, Fault, Result};
use crate::run::companion::{Companion, FINE, OVER, refusal};
use crate::run::explain::Told;
use crate::run::outcome::{Ended, Reason};
use crate::run::spec::{GRACE, RunSpec};
use crate::run::wire::{Down, Up, receive_up, send_down};
use crate::run::{disk, early, network, pump};
use crate::sys::process::{
    NEW_CGROUP, NEW_IPC, NEW_MOUNT, NEW_PID, NEW_USER, NEW_UTS, Side, clone, clone_into,
};
use crate::sys::processor::send_off;

/// Puts pipes that are counted in place of stdout and stderr, if that is asked for.
pub(super) fn count_output(spec: &mut RunSpec) -> Result<Vec<Companion>> {
    // The output of a run that stays is counted where it goes into the log.
    let Some(limit) = spec.output_limit.filter(|_| !spec.stays) else { return Ok(Vec::new()) };
    let terminals = spec.terminal.as_ref().map_or([false; 2], |terminal| {
        let [_, stdout, stderr] = terminal.replaces;
        [stdout, stderr]
    });
    let job = pump::counting(limit, terminals, spec.id_map.root_owner());
    let started = pump::start(&job).context("count", "what the command writes")?;
    let Some((companion, [stdout, stderr])) = started else { return Ok(Vec::new()) };
    spec.pipes = [None, stdout, stderr];
    Ok(vec![companion])
}

/// Makes the child, and tells whether it was born into its cgroup, if it has one.
pub(super) fn clone_for(spec: &RunSpec) -> (std::result::Result<Side, Errno>, bool) {
    // The network, which takes longest, comes when there is somebody who has nothing else to do; others with it, if
    // that is beside the root.
    let mut namespaces = NEW_USER | NEW_MOUNT | NEW_PID;
    if !early::makes_namespaces(spec) {
        namespaces |= NEW_IPC | NEW_UTS;
    }
    match &spec.cgroup {
        None => (clone(namespaces | NEW_CGROUP), true),
        // Whose root is the cgroup of its maker, so the child makes that one itself.
        Some(cgroup) => match clone_into(namespaces, cgroup.dir.as_fd()) {
            Ok((side, entered)) => (Ok(side), entered),
            Err(errno) => (Err(errno), false),
        },
    }
}

impl Supervisor {
    /// Has the upper measured, if that is asked for. The run's directory is there.
    pub(super) fn watch_disk(&mut self, spec: &RunSpec, store: BorrowedFd<'_>) -> Result<()> {
        self.companions.extend(disk::watch(spec, store, self.child)?);
        Ok(())
    }

    /// The child has its namespaces: the user namespace is told first, then the network, which is filled.
    pub(super) fn make_network(&mut self, spec: &RunSpec, told: OwnedFd) -> Result<()> {
        let (Some(outside), Some(user)) = (&spec.outside, &self.user_namespace) else {
            self.user_namespace = Some(told);
            return Ok(());
        };
        let owner = spec.id_map.root_owner();
        let id = spec.first_id();
        let companion = network::start(outside, user.as_fd(), told.as_fd(), owner, id)?;
        self.companions.push(companion);
        send_down(self.wire.as_fd(), Down::Go).ok();
        Ok(())
    }

    /// Why a child that is gone could not go on, if it has told: the map of a dead process cannot be written (EACCES),
    /// which is no reason of its own.
    pub(super) fn cause(&self, spec: &RunSpec) -> Option<Fault> {
        while let Ok(Some(message)) = receive_up(self.wire.as_fd()) {
            if let Up::Failed(failure) = message {
                return Some(Told::of(spec).explain(failure).1);
            }
        }
        None
    }

    /// A companion has ended.
    pub(super) fn heed(&mut self, at: usize) {
        let mut companion = self.companions.swap_remove(at);
        let code = companion.reap();
        // The command learns it by itself, and ends as it likes.
        if let Some(errno) = refusal(code) {
            self.unwritten = Some(errno);
            return;
        }
        // One that has nothing more to do is fine; one that cannot do its work must not be missed.
        if code != FINE || companion.vital {
            let broken = if code == OVER { companion.reason } else { Reason::Helper };
            self.cut(broken);
        }
    }

    /// Ends the run at once.
    pub(super) fn cut(&mut self, reason: Reason) {
        if self.reason.is_none() {
            self.reason = Some(reason);
            self.kill();
            // It counts more than how the command happened to end.
            if self.ended.as_ref().is_none_or(std::result::Result::is_ok) {
                self.ended = Some(Ok(Ended::Signal(9)));
            }
        }
    }

    /// A command that was told to end because its time was over has not done its work, whatever it returns.
    pub(super) fn in_time(&self, ended: Ended) -> Ended {
        match self.reason {
            Some(Reason::Time) if ended.success() => Ended::Signal(NixSignal::SIGTERM as u8),
            _ => ended,
        }
    }

    /// PID 1 has itself and its mounts to take down, and we what is around them. (Where SIGCHLD is ignored the kernel may
    /// have reaped it already.)
    pub(super) fn clear_way(&self) {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        if poll(&mut fds, Some(&Timespec::default())) == Ok(0) {
            send_off(self.child, self.processors);
        }
    }

    /// At the deadline SIGTERM, and SIGKILL of everything after the grace period. While PID 1 is still busy with
    /// the root (a large copy-up) nobody would hear the first.
    pub(super) fn keep_time(&mut self, spec: &RunSpec) {
        if self.deadline.is_none_or(|deadline| Instant::now() < deadline) {
            return;
        }
        if self.killed {
            if self.joined {
                session::kill(self.child);
            }
            self.kill();
            self.deadline = None;
            self.ended.get_or_insert(Ok(Ended::Signal(9)));
        } else if self.begun {
            self.reason = self.reason.or(Some(Reason::Time));
            self.end(spec.grace);
        } else {
            self.deadline = None;
            self.cut(Reason::Time);
        }
    }

    /// From now on the set-up takes its time: what came before, a lock of the store for one, is waited for with a patience of
    /// its own.
    pub(super) fn expect_setup(&mut self, spec: &RunSpec) {
        self.setup = spec.setup_timeout.and_then(|time| Instant::now().checked_add(time));
    }

    /// We were stopped, and with us most likely who makes the root.
    pub(super) fn renew_setup(&mut self, spec: &RunSpec) {
        if self.setup.is_some() {
            self.expect_setup(spec);
        }
    }

    fn is_late(&self) -> bool {
        self.setup.is_some_and(|until| Instant::now() >= until)
    }

    /// Gives up a set-up that takes too long. What has come meanwhile is heard first: it may be us who are late.
    pub(super) fn keep_setup(&mut self, ready: &Ready, spec: &RunSpec) -> Result<()> {
        if ready.wire || ready.gone || !self.is_late() {
            return Ok(());
        }
        if self.ended.is_some() || self.reason.is_some() {
            // It ends anyway.
            self.setup = None;
            return Ok(());
        }
        if self.joined {
            session::kill(self.child);
        }
        let time = spec.setup_timeout.unwrap_or_default().as_secs_f64();
        Err(self.late(Fault::failed(format!(
            "run: set up the sandbox: not done after {time} s, the time of --setup-timeout"
        ))))
    }

    /// With what helps against a fault that is one of time.
    pub(super) fn late(&self, fault: Fault) -> Fault {
        if !self.is_late() {
            return fault;
        }
        let more = "--setup-timeout T waits longer, 0 for as long as it takes";
        let hint = match &fault.hint {
            Some(hint) => format!("{hint} {more}"),
            None => more.to_owned(),
        };
        fault.hint(hint)
    }

    /// Shows what is left of the output and reaps PID 1. The kernel lets it be reaped only when every
    /// process of its namespace is gone. One that took too long to set up may be where no signal reaches it, in the call
    /// of a file system whose server is gone: that one is left to the kernel.
    pub(super) fn wait_gone(&mut self) -> Result<()> {
        self.show_rest();
        if self.is_late() {
            let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
            let grace = Timespec { tv_sec: GRACE.as_secs() as i64, tv_nsec: 0 };
            if retry_on_intr(|| poll(&mut fds, Some(&grace))) == Ok(0) {
                self.raw = None;
                return Ok(());
            }
        }
        loop {
            match rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED)
            {
                Ok(_) | Err(Errno::CHILD) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).context("wait for", "the sandbox"),
            }
        }
        self.drain();
        self.raw = None;
        Ok(())
    }

    /// Waits for those who have something left to do, but not long against a signal; the others go.
    fn drain(&mut self) {
        self.until = None;
        self.companions.retain(|companion| companion.drains);
        while let Some(companion) = self.companions.first() {
            let mut fds = [
                PollFd::from_borrowed_fd(companion.pidfd(), PollFlags::IN),
                PollFd::new(&self.signals.fd, PollFlags::IN),
            ];
            let grace = Timespec { tv_sec: GRACE.as_secs() as i64, tv_nsec: 0 };
            let hurry = self.signalled.is_some() || self.killed || self.reason.is_some();
            match poll(&mut fds, hurry.then_some(&grace)) {
                Ok(1..) if !fds[0].revents().is_empty() => self.heed(0),
                Ok(1..) => {
                    let ends = |one: &_| !matches!(one, NixSignal::SIGWINCH | NixSignal::SIGCONT);
                    self.signalled = self.signals.next().filter(ends).or(self.signalled);
                }
                Err(Errno::INTR) => {}
                _ => self.companions.clear(),
            }
        }
    }
}
