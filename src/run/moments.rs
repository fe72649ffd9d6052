//! What the owner of a run hears of it, and what it may have done to it: the border between one execution
//! ([`super::launch`]) and whoever wanted it.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::process::Pid;

use super::outcome::{Ended, Reason};
use super::supervisor::Held;
use super::weaker::Weaker;
use crate::fault::Result;

/// What the owner of a run does at its moments, so that it costs the run no time.
pub trait Moments {
    /// Makes the run's directory, while the kernel and the child are busy with namespaces.
    ///
    /// # Errors
    /// Then nothing is run.
    fn ready(&mut self) -> Result<()>;

    /// All is made, and the command is let go.
    fn begun(&mut self) {}

    /// The command begins, on another processor: there is time for what can also be left undone. (While the root is made,
    /// it would take a processor from those who make it.)
    fn meanwhile(&mut self) {}

    /// PID 1 of the sandbox is there and has its ids: this is its pid outside.
    fn born(&mut self, _child: Pid) {}

    /// The command is being executed: nothing of ours can fail any more. Heard only of a spec that
    /// [wants it](super::spec::RunSpec::heeds_exec), and perhaps after its end.
    ///
    /// # Errors
    /// Then the run is ended.
    fn executing(&mut self) -> Result<()> {
        Ok(())
    }

    /// The place of a mount was made in the upper: so many of the last components of its path.
    fn made(&mut self, _place: &Path, _levels: u32) {}

    /// A descriptor of the sandbox, for those who join it. Of a spec that stays.
    fn held(&mut self, _what: Held, _fd: OwnedFd) {}

    /// The master side of the payload's terminal; given back if the caller's own terminal is to be relayed.
    fn terminal(&mut self, master: OwnedFd) -> Option<OwnedFd> {
        Some(master)
    }

    /// A descriptor that becomes readable when [`Moments::called`] has something to do.
    fn waits_for(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// It is readable. What comes back is done to the run, in this order.
    ///
    /// # Errors
    /// Then the run is ended.
    fn called(&mut self) -> Result<Vec<Order>> {
        Ok(Vec::new())
    }

    /// A protection is lost: this host refuses it, and something weaker stands in.
    fn weaker(&mut self, weaker: Weaker);

    /// The command has ended; what else runs inside is being killed, and the overlay taken down.
    fn ended(&mut self, ended: Ended);
}

/// What is to be done to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// This signal to the command.
    Signal(i32),
    /// SIGTERM to the command, and SIGKILL to all that is left after this time.
    End(Duration),
    /// SIGKILL to all of it at once, for this reason.
    Cut(Reason),
}
