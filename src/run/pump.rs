//! `--output-limit`: carries what the command writes to where the caller wants it, and counts. So does `exec -T`
//! ([`super::veil`]), without a limit.
//!
//! The command's stdout and stderr are pipes then, one for both where they lead to the same file, so that their
//! order stays. Bytes move from pipe to pipe without being copied (splice(2)). A reader that takes no more holds
//! up the command, as it would without us, and nothing else. Where the caller's side fails (a full disk), the command's
//! pipe breaks, and what has failed is told.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Gid, Uid, fchown, fstat};
use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::{
    PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice,
};

use super::companion::{Companion, FAILED, FINE, OVER, refused};
use super::outcome::Reason;
use super::terminal::standard;

/// What one call moves at most, and the size of our pipes and of the caller's.
const CHUNK: usize = 512 << 10;

/// Who writes that much at once will write more in a moment.
const FAST: u64 = 64 << 10;
/// How long such a one is left alone, so that he and the reader are not held up by each other, nor by us on their
/// processors, at each page: a fraction of the time that he takes to fill a pipe. The kernel adds some 50 microseconds.
const NAP: Duration = Duration::from_micros(20);

/// The command's ends, in place of 1 and 2.
pub(super) type Ends = [Option<OwnedFd>; 2];

/// What is to be carried.
#[derive(Debug)]
pub(super) struct Job<'a> {
    /// Whether 1, and whether 2 becomes a pipe, if it is open.
    pub(super) wanted: [bool; 2],
    /// How many bytes may go through.
    pub(super) limit: u64,
    /// How much a pipe holds.
    pub(super) size: usize,
    /// The ids of inside root, which has to be able to open /dev/stdout.
    pub(super) owner: (u32, u32),
    /// Hangs up when the command has ended, where others may live on that hold its pipes: what is in these then is the last.
    pub(super) until: Option<BorrowedFd<'a>>,
}

/// The pipes of `--output-limit`. None for what is a terminal, whose relay counts.
pub(super) fn counting(limit: u64, terminals: [bool; 2], owner: (u32, u32)) -> Job<'static> {
    Job { wanted: terminals.map(|is| !is), limit, size: CHUNK, owner, until: None }
}

/// Makes the pipes and starts what empties them, and gives the command's ends; none if nothing becomes a pipe.
///
/// # Errors
/// EMFILE, ENFILE, EAGAIN.
pub(super) fn start(job: &Job<'_>) -> Result<Option<(Companion, Ends)>, Errno> {
    let mut streams = Vec::new();
    let mut ends: Ends = [None, None];
    for at in 0..2 {
        let target = standard(at + 1);
        if !job.wanted[at] || rustix::io::fcntl_getfd(target).is_err() {
            continue;
        }
        if at == 1
            && let Some(first) = &ends[0]
            && is_same(standard(1), target)
        {
            ends[1] = Some(first.try_clone().map_err(|_| Errno::MFILE)?);
            continue;
        }
        let (read, write) = pipe_for(job.owner, job.size)?;
        ends[at] = Some(write);
        // A smaller one on the way would hold up all. It stays the caller's: only larger.
        if fcntl_getpipe_size(target).is_ok_and(|size| size < job.size) {
            fcntl_setpipe_size(target, job.size).ok();
        }
        streams.push(Stream::new(read, target));
    }
    if streams.is_empty() {
        return Ok(None);
    }
    let reads = streams.iter().filter_map(|stream| stream.read.as_ref().map(AsRawFd::as_raw_fd));
    let targets = streams.iter().map(|stream| stream.target.as_raw_fd());
    let until = job.until.iter().map(AsRawFd::as_raw_fd);
    let keep = reads.chain(targets).chain(until).collect();
    let work = || carry(&mut streams, job.limit, job.until);
    let mut companion = Companion::start(Reason::Output, keep, work)?;
    companion.drains = true;
    Ok(Some((companion, ends)))
}

/// A pipe that the command may open by name: root of the machine may give it away; for others inside root is the caller.
pub(super) fn pipe_for(owner: (u32, u32), size: usize) -> Result<(OwnedFd, OwnedFd), Errno> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    // More than a plain user's share is refused: then it stays as it is.
    fcntl_setpipe_size(&write, size).ok();
    fchown(&write, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1))).ok();
    Ok((read, write))
}

/// Whether both lead to the same file.
fn is_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    let id = |fd| fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).ok();
    id(one).is_some() && id(one) == id(other)
}

/// One way from the command to the caller.
struct Stream {
    /// The command's side; none when it has ended, or nobody takes more.
    read: Option<OwnedFd>,
    target: BorrowedFd<'static>,
    /// Whether the caller's side takes no more for now.
    full: bool,
    /// Whether much came the last time.
    fast: bool,
    /// Whether the caller's side is nothing that splice(2) writes to: a file opened for appending.
    copies: bool,
    /// How much is still to come, once the command has ended.
    rest: Option<u64>,
}

/// Until all has ended, or `left` bytes have gone and there is more.
fn carry(streams: &mut [Stream], mut left: u64, mut until: Option<BorrowedFd<'_>>) -> i32 {
    let mut answer = FINE;
    while streams.iter().any(|stream| stream.read.is_some()) {
        let Ok((ready, ended)) = wait(streams, until) else { return FAILED };
        if ended {
            until = None;
            streams.iter_mut().for_each(Stream::begin_last);
            continue;
        }
        if streams.iter().any(|stream| stream.fast && !stream.full) {
            std::thread::sleep(NAP);
        }
        for stream in ready.into_iter().zip(&mut *streams).filter_map(|(is, one)| is.then_some(one))
        {
            match stream.advance(left) {
                Ok(Some(0)) => stream.read = None,
                Ok(Some(bytes)) if bytes > left => return OVER,
                Ok(Some(bytes)) => left -= bytes,
                Ok(None) => {}
                // Nobody reads: the command learns it as it would without us.
                Err(Errno::PIPE) => stream.read = None,
                // It may have written all before, and has not learned it: it is to be told.
                Err(errno) => {
                    stream.read = None;
                    answer = refused(errno);
                }
            }
        }
    }
    answer
}

/// Waits until something can be done; for each stream whether there is, and whether the command has ended.
fn wait(streams: &[Stream], until: Option<BorrowedFd<'_>>) -> Result<(Vec<bool>, bool), Errno> {
    let open: Vec<_> = streams.iter().map(|stream| stream.read.as_ref()).collect();
    let mut fds: Vec<PollFd<'_>> = Vec::new();
    for (stream, read) in streams.iter().zip(&open) {
        let Some(read) = read else { continue };
        fds.push(match stream.full {
            true => PollFd::from_borrowed_fd(stream.target, PollFlags::OUT),
            false => PollFd::new(*read, PollFlags::IN),
        });
    }
    fds.extend(until.map(|until| PollFd::from_borrowed_fd(until, PollFlags::IN)));
    retry_on_intr(|| poll(&mut fds, None))?;
    let mut told = fds.iter().map(|fd| !fd.revents().is_empty());
    let ready = open.iter().map(|read| read.is_some() && told.next().unwrap_or_default()).collect();
    Ok((ready, told.next().unwrap_or_default()))
}

impl Stream {
    fn new(read: OwnedFd, target: BorrowedFd<'static>) -> Self {
        Self { read: Some(read), target, full: false, fast: false, copies: false, rest: None }
    }

    /// The command has ended: what it has written is in the pipe.
    fn begin_last(&mut self) {
        let waiting = self.read.as_ref().map(rustix::io::ioctl_fionread);
        self.rest = waiting.and_then(Result::ok);
        if self.rest.is_none_or(|rest| rest == 0) {
            self.read = None;
        }
    }

    /// [`Self::step`], and not more than is still to come.
    fn advance(&mut self, left: u64) -> Result<Option<u64>, Errno> {
        let Some(rest) = self.rest else { return self.step(left) };
        let moved = self.step(left.min(rest))?;
        if let Some(bytes) = moved {
            self.rest = Some(rest.saturating_sub(bytes));
            if bytes >= rest {
                self.read = None;
            }
        }
        Ok(moved)
    }

    /// Moves what there is, but not more than `left`: how much, and one more than `left` if nothing may be
    /// moved any more and there is something. None if it has to wait.
    fn step(&mut self, left: u64) -> Result<Option<u64>, Errno> {
        let Some(read) = &self.read else { return Ok(None) };
        if left == 0 {
            let more = retry_on_intr(|| rustix::io::read(read, &mut [0_u8; 1]))?;
            return Ok(Some(more as u64));
        }
        let most = CHUNK.min(usize::try_from(left).unwrap_or(CHUNK));
        if self.copies {
            return copy(read, self.target, most).map(Some);
        }
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        match splice(read, None, self.target, None, most, flags) {
            Ok(bytes) => {
                self.full = false;
                self.fast = bytes as u64 >= FAST;
                Ok(Some(bytes as u64))
            }
            // It was readable: the other side has no room. Or it has now, and there is nothing to read.
            Err(Errno::AGAIN) => {
                self.full = !self.full;
                Ok(None)
            }
            Err(Errno::INTR) => Ok(None),
            Err(Errno::INVAL) => {
                self.copies = true;
                Ok(None)
            }
            Err(errno) => Err(errno),
        }
    }
}

/// The plain way.
fn copy(from: &OwnedFd, to: BorrowedFd<'_>, most: usize) -> Result<u64, Errno> {
    let mut buffer = [0_u8; 64 * 1024];
    let most = most.min(buffer.len());
    let bytes = retry_on_intr(|| rustix::io::read(from, &mut buffer[..most]))?;
    let mut rest = &buffer[..bytes];
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::from_borrowed_fd(to, PollFlags::OUT)], None).ok();
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(bytes as u64)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::exec::leave_open;

    /// What goes through, and the answer.
    fn carried(bytes: usize, limit: u64) -> (usize, i32) {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).expect("pipe");
        let (out, target) = pipe_with(PipeFlags::CLOEXEC).expect("pipe");
        rustix::io::write(&write, &vec![7; bytes]).expect("write");
        drop(write);
        let mut streams = [Stream::new(read, leave_open(target))];
        let answer = carry(&mut streams, limit, None);
        let mut buffer = vec![0; bytes + 1];
        rustix::io::ioctl_fionbio(&out, true).expect("non-blocking");
        (rustix::io::read(&out, &mut buffer).unwrap_or(0), answer)
    }

    #[test]
    fn what_is_left_behind_is_not_waited_for() {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).expect("pipe");
        let (out, target) = pipe_with(PipeFlags::CLOEXEC).expect("pipe");
        let (until, ended) = pipe_with(PipeFlags::CLOEXEC).expect("pipe");
        rustix::io::write(&write, b"last").expect("write");
        drop(ended);
        let mut streams = [Stream::new(read, leave_open(target))];
        assert_eq!(carry(&mut streams, u64::MAX, Some(until.as_fd())), FINE);
        let mut buffer = [0; 8];
        assert_eq!(rustix::io::read(&out, &mut buffer), Ok(4));
        assert_eq!(rustix::io::write(&write, b"more"), Err(Errno::PIPE));
    }

    #[test]
    fn a_sink_that_refuses_breaks_the_pipe() {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).expect("pipe");
        let full = std::fs::File::options().write(true).open("/dev/full").expect("open");
        rustix::io::write(&write, b"x").expect("write");
        let mut streams = [Stream::new(read, leave_open(full.into()))];
        assert_eq!(carry(&mut streams, 10, None), refused(Errno::NOSPC));
        assert_eq!(rustix::io::write(&write, b"x"), Err(Errno::PIPE));
    }

    #[test]
    fn not_a_byte_more() {
        assert_eq!(carried(1000, 1000), (1000, FINE));
        assert_eq!(carried(1000, 2000), (1000, FINE));
        assert_eq!(carried(1001, 1000), (1000, OVER));
        assert_eq!(carried(0, 1), (0, FINE));
    }
}
