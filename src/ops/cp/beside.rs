//! The two sides of a copy, each in a process of its own: one reads and one writes, so that neither has rights at
//! both ends. We wait for both, and for the end of a run that is copied into or out of.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::fault::{Context, Fault, Result};
use crate::sys::process::{Side, clone, exit_now};

/// A process of ours at work. It is killed when this is dropped, and what works for it with it.
#[derive(Debug)]
pub(super) struct Helper {
    pidfd: OwnedFd,
    answer: OwnedFd,
    ended: bool,
}

impl Helper {
    /// Does `job` in a child. Must be called while this process has one thread.
    pub(super) fn start<T: Serialize>(job: impl FnOnce() -> Result<T>) -> Result<Self> {
        let (answer, reply) = pipe_with(PipeFlags::CLOEXEC).context("make a pipe", "for a copy")?;
        match clone(0).context("make a process", "for a copy")? {
            Side::Child => {
                drop(answer);
                // Never back into the frames of the parent.
                catch_unwind(AssertUnwindSafe(|| work(job, &reply))).ok();
                exit_now(0)
            }
            Side::Parent { pidfd, .. } => Ok(Self { pidfd, answer, ended: false }),
        }
    }

    /// Its answer, once it has ended.
    pub(super) fn answer<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut text = Vec::new();
        let copy = self.answer.try_clone().context("read", "the answer of a copy")?;
        std::fs::File::from(copy).read_to_end(&mut text).context("read", "the answer of a copy")?;
        self.reap();
        serde_json::from_slice::<Result<T>>(&text)
            .unwrap_or_else(|_| Err(Fault::failed("copy: a process of it: was killed")))
    }

    fn reap(&mut self) {
        while matches!(
            waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED),
            Err(Errno::INTR)
        ) {}
        self.ended = true;
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if !self.ended {
            pidfd_send_signal(&self.pidfd, Signal::KILL).ok();
            self.reap();
        }
    }
}

fn work<T: Serialize>(job: impl FnOnce() -> Result<T>, reply: &OwnedFd) {
    let tethered = rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .context("bind the life of a copy", "to its parent");
    let answer = tethered.and_then(|()| job());
    let text = serde_json::to_vec(&answer).unwrap_or_default();
    let mut rest = &text[..];
    while let Ok(written @ 1..) = rustix::io::retry_on_intr(|| rustix::io::write(reply, rest)) {
        rest = &rest[written..];
    }
}

/// Waits until all helpers have answered; false if `line` ended before that.
pub(super) fn await_all(helpers: &[&Helper], line: Option<BorrowedFd<'_>>) -> Result<bool> {
    let mut waiting: Vec<_> = helpers.iter().map(|one| one.pidfd.as_fd()).collect();
    while !waiting.is_empty() {
        let mut fds: Vec<_> =
            waiting.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        fds.extend(line.map(|line| PollFd::from_borrowed_fd(line, PollFlags::IN)));
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Fault::errno("wait for", "a copy", errno)),
        }
        let ready: Vec<_> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if line.is_some() && ready[waiting.len()] {
            return Ok(false);
        }
        let mut at = 0;
        waiting.retain(|_| {
            at += 1;
            !ready[at - 1]
        });
    }
    Ok(true)
}
