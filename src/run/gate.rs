//! The gate between PID 1 and a payload's process that was made before all is ready, or that has a listener to hand over.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, read, retry_on_intr, write};

use super::wire;
use crate::sys::exec::leave_open;

/// What each of the two has of it.
#[derive(Debug, Clone, Copy)]
pub struct GateEnd {
    /// By this the payload's process says that it has given up all ([`send_ready`](wire::send_ready)). Who reads the end
    /// of file here knows that the other has died.
    pub wire: BorrowedFd<'static>,
    /// By this PID 1 opens it: an eventfd(2). (Who writes to a socket or a pipe seems to the kernel about to sleep, which
    /// then runs who is woken on the writer's processor; but PID 1 still has its filter to load.)
    pub opens: BorrowedFd<'static>,
}

impl GateEnd {
    /// For PID 1: lets the other one go, with a number for it. The gate is closed again behind it.
    ///
    /// # Errors
    /// None while the gate is closed.
    pub fn open(self, number: u8) -> Result<(), Errno> {
        write(self.opens, &(u64::from(number) + 1).to_ne_bytes()).map(drop)
    }

    /// For PID 1, before that: tells a process that was made early whether the root is its root, too.
    ///
    /// # Errors
    /// None while the gate is closed.
    pub fn tell_switched(self, for_all: bool) -> Result<(), Errno> {
        self.open(for_all.into())
    }

    /// For the other one: waits for that. None if PID 1 has failed.
    ///
    /// # Errors
    /// What read(2) says.
    pub fn await_switched(self) -> Result<Option<bool>, Errno> {
        Ok(self.await_open()?.map(|number| number != 0))
    }

    /// For the other one: waits for that number. If PID 1 dies meanwhile the kernel ends us, too (who joins a run has a death
    /// signal for that).
    ///
    /// # Errors
    /// What read(2) says.
    pub fn await_open(self) -> Result<Option<u8>, Errno> {
        let mut word = [0; 8];
        retry_on_intr(|| read(self.opens, &mut word))?;
        Ok(u64::from_ne_bytes(word).checked_sub(1).and_then(|number| u8::try_from(number).ok()))
    }
}

/// A gate before the fork.
#[derive(Debug)]
pub struct NewGate {
    theirs: OwnedFd,
    ours: OwnedFd,
    opens: OwnedFd,
}

impl NewGate {
    /// A closed one.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn new() -> Result<Self, Errno> {
        let (theirs, ours) = wire::pair()?;
        Ok(Self { theirs, ours, opens: eventfd(0, EventfdFlags::CLOEXEC)? })
    }

    /// The end of the payload's process, to be called there.
    pub fn theirs(self) -> GateEnd {
        GateEnd { wire: leave_open(self.theirs), opens: leave_open(self.opens) }
    }

    /// The end of PID 1. The other one is closed, so that the end of the payload's process is heard.
    pub fn ours(self) -> GateEnd {
        GateEnd { wire: leave_open(self.ours), opens: leave_open(self.opens) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_comes_through_and_an_end_is_heard() {
        let gate = NewGate::new().expect("gate");
        let other = gate.theirs.try_clone().expect("dup");
        let end = gate.ours();
        for number in [0, 7, u8::MAX] {
            end.open(number).expect("open");
            assert_eq!(end.await_open().expect("await"), Some(number));
        }
        for for_all in [true, false] {
            end.tell_switched(for_all).expect("tell");
            assert_eq!(end.await_switched().expect("await"), Some(for_all));
        }
        drop(other);
        assert!(wire::receive_ready(end.wire).expect("receive").is_none());
    }
}
