//! The side of those who ask a run.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::held::{Confinement, Held};
use super::protocol::{self, Ending, MORE, PACKET, Reply, Request};
use crate::fault::{Context, Fault, Result};
use crate::store::RunId;
use crate::sys::peer::peer;
use crate::sys::process::is_stopped;

/// A connection to the supervisor of a run. It asks one thing.
#[derive(Debug)]
pub struct Line {
    run: RunId,
    socket: OwnedFd,
}

/// What somebody gets who joins a run.
#[derive(Debug)]
pub struct Joined {
    /// How the command is confined.
    pub confinement: Confinement,
    /// The descriptors of namespaces and root.
    pub held: Vec<(Held, OwnedFd)>,
    /// To be held for as long as any of them, or a copy, is open, and to be looked at: it reads as ended when the
    /// run is over.
    pub line: Line,
}

impl Joined {
    /// The descriptor of this kind.
    pub fn get(&self, what: Held) -> Option<BorrowedFd<'_>> {
        self.held.iter().find(|(one, _)| *one == what).map(|(_, fd)| fd.as_fd())
    }
}

/// What one hears who is attached.
#[derive(Debug)]
pub(super) enum Heard {
    /// There is nothing yet.
    Nothing,
    /// The log has grown.
    More,
    /// A message.
    Reply(Reply),
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Line {
    /// A connection that was made to this run.
    pub fn new(run: RunId, socket: OwnedFd) -> Self {
        Self { run, socket }
    }

    /// The run.
    pub fn run(&self) -> RunId {
        self.run
    }

    /// Asks and hears the answer.
    ///
    /// # Errors
    /// The fault that is the answer; not-found if the run ends without one.
    pub fn ask(&self, request: &Request) -> Result<(Reply, Vec<OwnedFd>)> {
        self.rouse(request)?;
        match protocol::tell(self.as_fd(), request, &[]) {
            // It may have answered what it was not asked any more.
            Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => {}
            Err(errno) => return Err(errno).context("ask run", self.run),
        }
        self.hear()
    }

    /// A supervisor that a signal has stopped answers nobody. Who wants an end of the command has it go on for that; who
    /// wants something else may not want that.
    fn rouse(&self, request: &Request) -> Result<()> {
        let asked = peer(&self.socket).ok().and_then(|peer| Pid::from_raw(peer.pid));
        let Some(pid) = asked.filter(|pid| is_stopped(*pid)) else { return Ok(()) };
        if matches!(request, Request::Kill { .. } | Request::Stop { .. }) {
            // It may have gone on, or away, by itself.
            kill_process(pid, Signal::CONT).ok();
            return Ok(());
        }
        let (run, pid) = (self.run, pid.as_raw_nonzero());
        Err(Fault::conflict(format!("ask run: {run}: its supervisor, process {pid}, is stopped"))
            .hint(format!("`kill -CONT {pid}` has it go on; `sandbox stop {run}` ends it")))
    }

    /// Hears the next message.
    ///
    /// # Errors
    /// As [`Line::ask`].
    pub fn hear(&self) -> Result<(Reply, Vec<OwnedFd>)> {
        match protocol::hear::<Reply>(self.as_fd()) {
            Ok(Some((Reply::Fault(fault), _))) => Err(fault),
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(self.gone()),
            Err(Errno::PROTO) => {
                let what = format!("ask run: {}: its answer is none of this version", self.run);
                Err(Fault::failed(what).hint("use the program that the run was started with"))
            }
            Err(errno) => Err(errno).context("ask run", self.run),
        }
    }

    /// What an end without an answer means.
    pub fn gone(&self) -> Fault {
        Fault::not_found(format!(
            "ask run: {}: it has ended, or its supervisor was killed",
            self.run
        ))
        .hint("`sandbox ps`")
    }

    /// What somebody needs who joins the run.
    ///
    /// # Errors
    /// As [`Line::ask`].
    pub fn join(self) -> Result<Joined> {
        let (Reply::Joined(what), fds) = self.ask(&Request::Join)? else { return Err(self.odd()) };
        let mut held: Vec<_> = what.into_iter().zip(fds).collect();
        let at = held.iter().position(|(what, _)| *what == Held::Confinement);
        let (_, file) = held.swap_remove(at.ok_or_else(|| self.odd())?);
        let confinement = Confinement::read(file).context("join run", self.run)?;
        Ok(Joined { confinement, held, line: self })
    }

    /// Asks for something that is answered at the end of the run, and waits for that.
    ///
    /// # Errors
    /// As [`Line::ask`].
    pub fn until_end(&self, request: &Request) -> Result<Ending> {
        match self.ask(request)? {
            (Reply::Ended(ending), _) => Ok(ending),
            _ => Err(self.odd()),
        }
    }

    /// Sends what was typed, without waiting.
    ///
    /// # Errors
    /// EAGAIN if there is no room; EPIPE when the run is over.
    pub(super) fn send(&self, packet: &[u8]) -> Result<(), Errno> {
        protocol::send_now(self.as_fd(), packet)
    }

    /// Takes the next packet of one who is attached.
    ///
    /// # Errors
    /// Not-found if the supervisor is gone without a last word.
    pub(super) fn heed(&self) -> Result<Heard> {
        let mut buffer = vec![0; PACKET];
        match protocol::receive(self.as_fd(), &mut buffer) {
            Ok(None) => Err(self.gone()),
            Ok(Some((MORE, _))) => Ok(Heard::More),
            Ok(Some((packet, _))) => match serde_json::from_slice(packet) {
                Ok(reply) => Ok(Heard::Reply(reply)),
                Err(_) => Err(self.odd()),
            },
            Err(Errno::AGAIN) => Ok(Heard::Nothing),
            Err(errno) => Err(errno).context("hear from run", self.run),
        }
    }

    /// The fault of an answer that does not fit the question.
    pub fn odd(&self) -> Fault {
        Fault::failed(format!("ask run: {}: an answer to another question", self.run))
    }
}
