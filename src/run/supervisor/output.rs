//! The output of a run that stays: from the command's pipe or terminal into `runs/<id>/log`, and from there to
//! whoever wants to see it.
//!
//! The log is what was written, byte by byte, without a header. It is bounded: the oldest bytes are given
//! back to the disk by a hole at the front (fallocate(2)), so that positions keep their meaning for those who read
//! along. Nobody who reads slowly slows the command down; he misses what has become a hole meanwhile.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, fstat, ftruncate, seek};
use rustix::io::{Errno, retry_on_intr};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer};
use rustix::termios::{Winsize, tcsetwinsize};

/// How much is read at once.
const CHUNK: usize = 16 * 1024;

/// How many times in one turn, so that others have theirs.
const READS: usize = 16;

/// How much is given back at once, at least: a multiple of every block size.
const HOLE: u64 = 64 * 1024;

/// The most that is typed ahead.
const AHEAD: usize = 32 * 1024;

/// The writing end of a log.
#[derive(Debug)]
pub struct Log {
    file: OwnedFd,
    limit: u64,
    at: u64,
    freed: u64,
}

impl Log {
    /// A new log in an empty file that keeps at least this many bytes.
    pub fn new(file: OwnedFd, limit: u64) -> Self {
        Self { file, limit, at: 0, freed: 0 }
    }

    /// Appends. What cannot be written (a full disk) is lost, since the command must not wait for it.
    pub fn append(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match retry_on_intr(|| rustix::io::pwrite(&self.file, bytes, self.at)) {
                Ok(count @ 1..) => {
                    self.at += count as u64;
                    bytes = &bytes[count..];
                }
                _ => break,
            }
        }
        self.free();
    }

    fn free(&mut self) {
        let old = self.at.saturating_sub(self.limit) / HOLE * HOLE;
        if old < self.freed + HOLE.max(self.limit / 8) {
            return;
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if fallocate(&self.file, flags, 0, old).is_ok() {
            self.freed = old;
        } else if ftruncate(&self.file, 0).is_ok() {
            // A file system without holes: from the beginning, then.
            (self.at, self.freed) = (0, 0);
        }
    }
}

/// The reading end of a log.
#[derive(Debug)]
pub struct Reader {
    file: OwnedFd,
    at: u64,
}

impl Reader {
    /// From the first byte that there is.
    pub fn new(file: OwnedFd) -> Self {
        Self { file, at: 0 }
    }

    /// Moves to the start of the last line, if that is not long: what somebody sees who looks at the end.
    ///
    /// # Errors
    /// What reading says.
    pub fn to_last_line(&mut self) -> Result<(), Errno> {
        let size = self.size()?;
        self.at = size.saturating_sub(4096);
        let mut buffer = [0; 4096];
        let count = self.next(&mut buffer)?;
        let line = buffer[..count].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.at = self.at - count as u64 + line as u64;
        Ok(())
    }

    fn size(&self) -> Result<u64, Errno> {
        Ok(u64::try_from(fstat(&self.file)?.st_size).unwrap_or_default())
    }

    /// The next bytes; 0 at the end, for now.
    ///
    /// # Errors
    /// What reading says.
    pub fn next(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        loop {
            if self.size()? < self.at {
                self.at = 0;
            }
            let count = retry_on_intr(|| rustix::io::pread(&self.file, &mut *buffer, self.at))?;
            if count == 0 {
                return Ok(0);
            }
            // A hole reads as zeroes; it may be as young as the read.
            match seek(&self.file, SeekFrom::Data(self.at)) {
                Ok(data) if data > self.at => self.at = data,
                Ok(_) | Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                    self.at += count as u64;
                    return Ok(count);
                }
                // Nothing but a hole up to the end.
                Err(Errno::NXIO) => self.at += count as u64,
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// The command's output and input.
#[derive(Debug)]
pub struct Output {
    log: Log,
    /// What the command writes to: a pipe's reading end, or the master of its terminal.
    from: Option<OwnedFd>,
    /// What it reads from, if that is a pipe.
    to: Option<OwnedFd>,
    terminal: bool,
    /// Holds the command's side of the terminal open, or the master would be ready all the time, with an error,
    /// whenever nobody inside has it open.
    slave: Option<OwnedFd>,
    typed: Vec<u8>,
    closing: bool,
    /// How much more may be written, if that is limited.
    left: Option<u64>,
    over: bool,
}

impl Output {
    /// Of a command whose output comes from a pipe, and whose input, if it has one, goes to another.
    ///
    /// # Errors
    /// EBADF.
    pub fn pipes(log: Log, from: Option<OwnedFd>, to: Option<OwnedFd>) -> Result<Self, Errno> {
        for fd in from.iter().chain(&to) {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        Ok(Self {
            log,
            from,
            to,
            terminal: false,
            slave: None,
            typed: Vec::new(),
            closing: false,
            left: None,
            over: false,
        })
    }

    /// The same of a command that may write so many bytes at most.
    #[must_use]
    pub fn limited(self, left: Option<u64>) -> Self {
        Self { left, ..self }
    }

    /// Whether it has written more.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The command has a terminal, and this is its master side.
    ///
    /// # Errors
    /// EBADF, EMFILE.
    pub fn use_terminal(&mut self, master: OwnedFd) -> Result<(), Errno> {
        rustix::io::ioctl_fionbio(&master, true)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        self.slave = Some(ioctl_tiocgptpeer(&master, flags)?);
        self.from = Some(master);
        self.terminal = true;
        Ok(())
    }

    /// Whether the command has a terminal.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Whether the command takes input.
    pub fn takes_input(&self) -> bool {
        self.terminal || (self.to.is_some() && !self.closing)
    }

    /// Whether there is room for a packet more of what is typed.
    pub fn has_room(&self) -> bool {
        self.typed.len() < AHEAD
    }

    /// What to wait for: the descriptors and the events.
    pub(super) fn waits_for(&self) -> [(Option<BorrowedFd<'_>>, PollFlags); 2] {
        let out = if self.typed.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        let more = if self.terminal { out } else { PollFlags::empty() };
        [
            (self.from.as_ref().map(AsFd::as_fd), PollFlags::IN | more),
            (self.to.as_ref().map(AsFd::as_fd), out),
        ]
    }

    /// Takes what the command has written; true if there was something.
    pub fn take(&mut self) -> bool {
        let mut buffer = [0; CHUNK];
        let mut some = false;
        for _ in 0..READS {
            let Some(from) = &self.from else { break };
            match retry_on_intr(|| rustix::io::read(from, &mut buffer)) {
                Ok(count @ 1..) => {
                    let allowed = self.allow(count);
                    self.log.append(&buffer[..allowed]);
                    some = true;
                }
                Err(Errno::AGAIN) => break,
                // The end of a pipe, or EIO of a terminal that nobody has open any more.
                Ok(_) | Err(_) => self.from = None,
            }
        }
        some
    }

    /// How many of these bytes are within the limit.
    fn allow(&mut self, bytes: usize) -> usize {
        let Some(left) = &mut self.left else { return bytes };
        let allowed = bytes.min(usize::try_from(*left).unwrap_or(bytes));
        *left -= allowed as u64;
        self.over |= allowed < bytes;
        allowed
    }

    /// The command is gone: what it wrote last is all that comes.
    pub fn take_last(&mut self) {
        self.slave = None;
        self.to = None;
        while self.take() {}
    }

    /// A line of ours in the log.
    pub fn note(&mut self, line: &str) {
        self.log.append(line.as_bytes());
        self.log.append(b"\n");
    }

    /// Gives the command what was typed, as soon as it has room.
    pub fn give(&mut self, bytes: &[u8]) {
        if self.takes_input() {
            self.typed.extend_from_slice(bytes);
            self.flush();
        }
    }

    /// Ends the command's input when all of it was given. That of a terminal never ends.
    pub fn give_end(&mut self) {
        self.closing = !self.terminal;
        self.flush();
    }

    /// The command has closed its input.
    pub(super) fn close_input(&mut self) {
        self.typed.clear();
        self.to = None;
    }

    /// Gives the command what it has room for.
    pub fn flush(&mut self) {
        while !self.typed.is_empty() {
            let Some(to) = (if self.terminal { &self.from } else { &self.to }) else { break };
            match retry_on_intr(|| rustix::io::write(to, &self.typed)) {
                Ok(count) => drop(self.typed.drain(..count)),
                Err(Errno::AGAIN) => return,
                // The command has closed it.
                Err(_) => {
                    self.typed.clear();
                    self.to = None;
                }
            }
        }
        if self.closing {
            self.to = None;
        }
    }

    /// Sets the size of the command's terminal.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        if let (true, Some(master)) = (self.terminal, &self.from) {
            tcsetwinsize(master, size).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(reader: &mut Reader) -> Vec<u8> {
        let (mut all, mut buffer) = (Vec::new(), [0; 1000]);
        loop {
            match reader.next(&mut buffer).unwrap() {
                0 => return all,
                count => all.extend_from_slice(&buffer[..count]),
            }
        }
    }

    fn log(limit: u64) -> (Log, Reader, std::fs::File) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let reader = std::fs::File::open(file.path()).unwrap();
        let look = reader.try_clone().unwrap();
        (Log::new(file.into_file().into(), limit), Reader::new(reader.into()), look)
    }

    #[test]
    fn what_is_written_is_read_along() {
        let (mut log, mut reader, _) = log(1 << 20);
        assert_eq!(all(&mut reader), b"");
        log.append(b"one\n");
        assert_eq!(all(&mut reader), b"one\n");
        log.append(b"two\n$ ");
        assert_eq!(all(&mut reader), b"two\n$ ");
        reader.to_last_line().unwrap();
        assert_eq!(all(&mut reader), b"$ ");
    }

    #[test]
    fn a_log_is_bounded_and_its_end_is_whole() {
        use std::os::unix::fs::MetadataExt;
        let (mut log, mut reader, file) = log(256 * 1024);
        for number in 0..200_000 {
            log.append(format!("{number:09}\n").as_bytes());
        }
        assert!(file.metadata().unwrap().blocks() * 512 < 600 * 1024);
        let text = String::from_utf8(all(&mut reader)).unwrap();
        assert!(text.len() >= 256 * 1024 && text.ends_with("000199999\n"), "{}", text.len());
        let mut lines = text.lines();
        lines.next();
        let numbers: Vec<u32> = lines.map(|line| line.parse().unwrap()).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    }

    #[test]
    fn input_waits_for_room_and_ends() {
        let (from, to) = rustix::pipe::pipe().unwrap();
        let mut output = Output::pipes(log(1).0, None, Some(to)).unwrap();
        output.give(&vec![7; 100_000]);
        assert!(!output.has_room());
        output.give_end();
        let mut taken = 0;
        let mut buffer = vec![0; 65536];
        loop {
            match rustix::io::read(&from, &mut *buffer).unwrap() {
                0 => break,
                count => taken += count,
            }
            output.flush();
        }
        assert_eq!(taken, 100_000);
        assert!(!output.takes_input());
    }
}
