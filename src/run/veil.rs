//! `exec -T`: a command without a terminal, whose caller has one.
//!
//! The host's terminal never gets inside, where what lives on could set it, and read what is typed when `exec` is long
//! over. Each standard descriptor that is a terminal, and for which no pty stands in, is a pipe inside; what is no
//! terminal goes through as it is. Bytes pass untouched: the terminal stays as it is set, and its line is what is read.
//! Two processes of ours carry them, which end with `exec`: nothing is read after the command's end, and what it has
//! written by then is shown.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::signal::{SigSet, Signal as NixSignal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use super::companion::{Companion, FINE};
use super::outcome::Reason;
use super::pump::{self, Job};
use super::spec::RunSpec;
use super::terminal::{is_in_front, standard, terminals};

/// What a pipe holds: one page of input, so that what was typed for somebody else is not taken before the command wants
/// it; little of output, which else would go on for long after ^C.
const INPUT: usize = 4 << 10;
const OUTPUT: usize = 16 << 10;

/// How long one in the background waits until it looks again whether it may read.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };

/// What carries the bytes.
#[derive(Debug, Default)]
pub(super) struct Veil {
    /// The processes that do.
    pub(super) companions: Vec<Companion>,
    /// To be dropped when the command has ended: then the last of its output is shown.
    pub(super) until: Option<OwnedFd>,
}

/// Puts pipes in place of the terminals for which the spec has no pty. This process must have one thread.
///
/// # Errors
/// EMFILE, ENFILE, EAGAIN.
pub(super) fn start(spec: &mut RunSpec) -> Result<Veil, Errno> {
    let hidden = terminals();
    if spec.terminal.is_some() || hidden == [false; 3] {
        return Ok(Veil::default());
    }
    let owner = spec.id_map.root_owner();
    let (ended, until) = pipe_with(PipeFlags::CLOEXEC)?;
    let mut companions = Vec::new();
    let [input, stdout, stderr] = hidden;
    let until_then = Some(ended.as_fd());
    let wanted = [stdout, stderr];
    let job = Job { wanted, limit: u64::MAX, size: OUTPUT, owner, until: until_then };
    if let Some((companion, [stdout, stderr])) = pump::start(&job)? {
        companions.push(companion);
        spec.pipes = [None, stdout, stderr];
    }
    if input {
        let (read, write) = pump::pipe_for(owner, INPUT)?;
        let keep = vec![standard(0).as_raw_fd(), write.as_raw_fd()];
        // The command's end must not be this process's, too, and is closed in it.
        companions.push(Companion::start(Reason::Helper, keep, || feed(write.as_fd()))?);
        spec.pipes[0] = Some(read);
    }
    Ok(Veil { companions, until: Some(until) })
}

/// Until there is no more input, or nobody who reads it.
fn feed(pipe: BorrowedFd<'_>) -> i32 {
    // Who reads in the background is not stopped then, and all of the caller's group with him, but told.
    SigSet::from(NixSignal::SIGTTIN).thread_block().ok();
    while feed_once(pipe).is_ok_and(|more| more) {}
    FINE
}

/// Whether there may be more.
fn feed_once(pipe: BorrowedFd<'_>) -> Result<bool, Errno> {
    let terminal = standard(0);
    let (_, gone) = look(&[(pipe, PollFlags::OUT)], None)?;
    if gone {
        return Ok(false);
    }
    let (ready, gone) = look(&[(pipe, PollFlags::empty()), (terminal, PollFlags::IN)], None)?;
    if gone {
        return Ok(false);
    }
    // A terminal that has hung up has nobody in front.
    if !ready.contains(PollFlags::HUP) && !is_in_front(terminal) {
        let (_, gone) = look(&[(pipe, PollFlags::empty())], Some(&LOOK))?;
        return Ok(!gone);
    }
    let mut buffer = [0; INPUT];
    match rustix::io::read(terminal, &mut buffer) {
        Ok(0) => Ok(false),
        // There is room for a page, or it would not have been told.
        Ok(bytes) => write_all(pipe, &buffer[..bytes]),
        Err(Errno::INTR | Errno::AGAIN) => Ok(true),
        // In the background by now.
        Err(Errno::IO) => Ok(!is_in_front(terminal) && !ready.contains(PollFlags::HUP)),
        Err(errno) => Err(errno),
    }
}

fn write_all(pipe: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<bool, Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(pipe, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(true)
}

/// Waits for one of these; what the last one says, and whether nobody reads the first one, a pipe, any more.
fn look(
    what: &[(BorrowedFd<'_>, PollFlags)],
    time: Option<&Timespec>,
) -> Result<(PollFlags, bool), Errno> {
    let mut fds: Vec<_> =
        what.iter().map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
    match poll(&mut fds, time) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(errno),
    }
    let says = |fd: Option<&PollFd<'_>>| fd.map_or(PollFlags::empty(), PollFd::revents);
    Ok((says(fds.last()), says(fds.first()).contains(PollFlags::ERR)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_ends_when_nobody_reads_it() {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).expect("pipe");
        assert_eq!(write_all(write.as_fd(), b"word"), Ok(true));
        assert_eq!(look(&[(write.as_fd(), PollFlags::OUT)], None).map(|(_, gone)| gone), Ok(false));
        drop(read);
        assert_eq!(feed(write.as_fd()), FINE);
    }
}
