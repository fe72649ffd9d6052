//! `--output-limit`: carries what the command writes to where the caller wants it, and counts.
//!
//! The command's stdout and stderr are pipes then, one for both where they lead to the same file, so that their
//! order stays. Bytes move from pipe to pipe without being copied (splice(2)). A reader that takes no more holds
//! up the command, as it would without us, and nothing else.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Gid, Uid, fchown, fstat};
use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::{
    PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice,
};

use super::companion::{Companion, FAILED, FINE, OVER};
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

/// Makes the pipes and starts what empties them, and gives the command's ends; none if both are a terminal, whose relay counts. `owner` are
/// the ids of inside root, which has to be able to open /dev/stdout.
///
/// # Errors
/// EMFILE, ENFILE, EAGAIN.
pub(super) fn start(
    limit: u64,
    terminals: [bool; 2],
    owner: (u32, u32),
) -> Result<Option<(Companion, Ends)>, Errno> {
    let mut streams = Vec::new();
    let mut ends: Ends = [None, None];
    for at in 0..2 {
        let target = standard(at + 1);
        if terminals[at] || rustix::io::fcntl_getfd(target).is_err() {
            continue;
        }
        if at == 1
            && let Some(first) = &ends[0]
            && is_same(standard(1), target)
        {
            ends[1] = Some(first.try_clone().map_err(|_| Errno::MFILE)?);
            continue;
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        // More than a plain user's share is refused: then it stays as it is.
        fcntl_setpipe_size(&write, CHUNK).ok();
        // Root of the machine may give it away; for others inside root is the caller.
        fchown(&write, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1))).ok();
        ends[at] = Some(write);
        // A smaller one on the way would hold up all. It stays the caller's: only larger.
        if fcntl_getpipe_size(target).is_ok_and(|size| size < CHUNK) {
            fcntl_setpipe_size(target, CHUNK).ok();
        }
        streams.push(Stream { read: Some(read), target, full: false, fast: false, copies: false });
    }
    if streams.is_empty() {
        return Ok(None);
    }
    let reads = streams.iter().filter_map(|stream| stream.read.as_ref().map(AsRawFd::as_raw_fd));
    let targets = streams.iter().map(|stream| stream.target.as_raw_fd());
    let keep = reads.chain(targets).collect();
    let mut companion = Companion::start(Reason::Output, keep, || carry(&mut streams, limit))?;
    companion.drains = true;
    Ok(Some((companion, ends)))
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
}

/// Until all has ended, or `left` bytes have gone and there is more.
fn carry(streams: &mut [Stream], mut left: u64) -> i32 {
    let mut answer = FINE;
    while streams.iter().any(|stream| stream.read.is_some()) {
        let Ok(ready) = wait(streams) else { return FAILED };
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
                Err(_) => {
                    stream.read = None;
                    answer = FAILED;
                }
            }
        }
    }
    answer
}

/// Waits until something can be done; for each stream whether there is.
fn wait(streams: &[Stream]) -> Result<Vec<bool>, Errno> {
    let open: Vec<_> = streams.iter().map(|stream| stream.read.as_ref()).collect();
    let mut fds: Vec<PollFd<'_>> = Vec::new();
    for (stream, read) in streams.iter().zip(&open) {
        let Some(read) = read else { continue };
        fds.push(match stream.full {
            true => PollFd::from_borrowed_fd(stream.target, PollFlags::OUT),
            false => PollFd::new(*read, PollFlags::IN),
        });
    }
    retry_on_intr(|| poll(&mut fds, None))?;
    let mut told = fds.iter().map(|fd| !fd.revents().is_empty());
    Ok(open.iter().map(|read| read.is_some() && told.next().unwrap_or_default()).collect())
}

impl Stream {
    /// Moves what there is, but not more than `left`: how much, and one more than `left` if nothing may be
    /// moved any more and there is something. None if it has to wait.
    fn advance(&mut self, left: u64) -> Result<Option<u64>, Errno> {
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
    use super::*;
    use crate::sys::exec::leave_open;

    /// What goes through, and the answer.
    fn carried(bytes: usize, limit: u64) -> (usize, i32) {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).expect("pipe");
        let (out, target) = pipe_with(PipeFlags::CLOEXEC).expect("pipe");
        rustix::io::write(&write, &vec![7; bytes]).expect("write");
        drop(write);
        let mut streams = [Stream {
            read: Some(read),
            target: leave_open(target),
            full: false,
            fast: false,
            copies: false,
        }];
        let answer = carry(&mut streams, limit);
        let mut buffer = vec![0; bytes + 1];
        rustix::io::ioctl_fionbio(&out, true).expect("non-blocking");
        (rustix::io::read(&out, &mut buffer).unwrap_or(0), answer)
    }

    #[test]
    fn not_a_byte_more() {
        assert_eq!(carried(1000, 1000), (1000, FINE));
        assert_eq!(carried(1000, 2000), (1000, FINE));
        assert_eq!(carried(1001, 1000), (1000, OVER));
        assert_eq!(carried(0, 1), (0, FINE));
    }
}
