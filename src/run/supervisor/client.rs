//! One who has connected, as the supervisor sees him.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown, recv, shutdown};
use serde::Serialize;

use super::protocol::{self, MORE, PACKET, Reply, Request};
use crate::fault::Fault;
use crate::sys::peer::peer;

/// What he has come for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// He has not said yet.
    Silent,
    /// He wants to, and waits until the run is whole.
    Joining,
    /// He holds descriptors of the run.
    Joined,
    /// He wants to know how it ends.
    Waiting,
    /// He reads along, and may type.
    Attached,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Client {
    socket: OwnedFd,
    pub(super) state: State,
    /// How often he was poked and has not heard it yet.
    unheard: u32,
}

/// He is not poked more often than this in vain.
const UNHEARD: u32 = 16;

impl Client {
    /// Takes a connection, if it is of the same user.
    pub(super) fn of(socket: OwnedFd) -> Option<Self> {
        let own = rustix::process::geteuid().as_raw();
        let same = peer(&socket).is_ok_and(|peer| peer.uid == own);
        same.then_some(Self { socket, state: State::Silent, unheard: 0 })
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The process that has connected, 0 if it is none of our pid namespace.
    pub(super) fn pid(&self) -> i32 {
        peer(&self.socket).map_or(0, |peer| peer.pid)
    }

    /// His request; none if there is none yet.
    ///
    /// # Errors
    /// EPIPE if he is gone; EPROTO for what is no request, which he is told.
    pub(super) fn request(&self) -> Result<Option<Request>, Errno> {
        match protocol::hear::<Request>(&self.socket) {
            Ok(Some((request, _))) => Ok(Some(request)),
            Ok(None) => Err(Errno::PIPE),
            Err(Errno::AGAIN) => Ok(None),
            Err(_) => {
                let fault = Fault::usage("ask a run: no request of this version")
                    .hint("use the program that the run was started with");
                self.tell(&Reply::Fault(fault), &[]);
                Err(Errno::PROTO)
            }
        }
    }

    /// A packet of one who is attached; none if there is none now.
    ///
    /// # Errors
    /// EPIPE if he is gone.
    pub(super) fn packet<'a>(
        &self,
        buffer: &'a mut [u8; PACKET],
    ) -> Result<Option<&'a [u8]>, Errno> {
        match recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((0, _)) => Err(Errno::PIPE),
            Ok((count, _)) => Ok(Some(&buffer[..count])),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(_) => Err(Errno::PIPE),
        }
    }

    /// Tells him; if he is gone or does not listen, that is his loss.
    pub(super) fn tell(&self, message: &impl Serialize, fds: &[BorrowedFd<'_>]) {
        protocol::tell(self.socket.as_fd(), message, fds).ok();
    }

    /// Tells him that the log has grown; one who does not listen finds that out by himself.
    pub(super) fn poke(&mut self) {
        if self.unheard < UNHEARD && protocol::send(self.socket.as_fd(), MORE, &[]).is_ok() {
            self.unheard += 1;
        }
    }

    /// He has heard it once.
    pub(super) fn has_heard(&mut self) {
        self.unheard = self.unheard.saturating_sub(1);
    }

    /// Says that the run is over.
    pub(super) fn shut(&self) {
        shutdown(&self.socket, Shutdown::Write).ok();
    }

    /// Whether he has closed his side.
    pub(super) fn has_let_go(&self) -> bool {
        let mut byte = [0; 1];
        loop {
            match recv(&self.socket, &mut byte, RecvFlags::empty()) {
                Err(Errno::AGAIN) => return false,
                Err(Errno::INTR) | Ok((1.., _)) => {}
                Ok(_) | Err(_) => return true,
            }
        }
    }
}
