//! Processes of ours that go beside a run: what relays its output, what measures its upper.
//!
//! They hold nothing of the store and nothing of the wire, die with the supervisor, and say by their exit code
//! whether the run has to end. The supervisor sees their end by a descriptor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::outcome::Reason;
use crate::sys;
use crate::sys::process::{Side, clone, exit_now};

/// All is well.
pub(super) const FINE: i32 = 0;
/// The run has used more than it may.
pub(super) const OVER: i32 = 1;
/// It could not do its work.
pub(super) const FAILED: i32 = 2;
/// Where the caller's side has refused what the command wrote: this, and the errno.
const REFUSED: i32 = 64;

/// The code for what the caller's side has answered.
pub(super) fn refused(errno: Errno) -> i32 {
    REFUSED + errno.raw_os_error()
}

/// What the caller's side has answered, if that is what the code says.
pub(super) fn refusal(code: i32) -> Option<Errno> {
    (code > REFUSED).then(|| Errno::from_raw_os_error(code - REFUSED))
}

/// One of them. When it is dropped it is killed and reaped.
#[derive(Debug)]
pub(super) struct Companion {
    pidfd: OwnedFd,
    /// Why the run ends when this one says so.
    pub(super) reason: Reason,
    /// Whether it has work left when the run is over.
    pub(super) drains: bool,
    /// Whether the run cannot go on without it.
    pub(super) vital: bool,
    reaped: bool,
}

impl Companion {
    /// Starts one that does `work` with only these descriptors open, and ends with what that returns.
    ///
    /// # Errors
    /// What clone(2) says.
    pub(super) fn start(
        reason: Reason,
        keep: Vec<RawFd>,
        work: impl FnOnce() -> i32,
    ) -> Result<Self, Errno> {
        match clone(0)? {
            Side::Parent { pidfd, .. } => Ok(Self::known(reason, pidfd)),
            Side::Child => {
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).ok();
                close_but(keep);
                // Never back into the frames of the supervisor.
                exit_now(catch_unwind(AssertUnwindSafe(work)).unwrap_or(FAILED))
            }
        }
    }

    /// One that runs already.
    pub(super) fn known(reason: Reason, pidfd: OwnedFd) -> Self {
        Self { pidfd, reason, drains: false, vital: false, reaped: false }
    }

    /// Readable when it has ended.
    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Reaps one that has ended; its exit code, [`FAILED`] if it was killed.
    pub(super) fn reap(&mut self) -> i32 {
        self.reaped = true;
        let ended = || waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
        let status = retry_on_intr(ended).ok().flatten();
        status.and_then(|status| status.exit_status()).unwrap_or(FAILED)
    }
}

impl Drop for Companion {
    fn drop(&mut self) {
        if !self.reaped {
            pidfd_send_signal(&self.pidfd, Signal::KILL).ok();
            self.reap();
        }
    }
}

/// Leaves nothing open but these: the locks of the store, above all.
pub(super) fn close_but(mut keep: Vec<RawFd>) {
    keep.sort_unstable();
    keep.dedup();
    sys::exec::close_all_but(0, &keep).ok();
}
