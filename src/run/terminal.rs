//! The supervisor's side of a terminal: raw mode, relay, window size.
//!
//! The host's terminal never gets inside. Where a standard descriptor is a terminal, the payload has a pty
//! of the sandbox's own devpts there, and this file carries bytes between the two. (Without one it has pipes:
//! `veil`.)

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, getpgrp, waitpid};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer};
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios, Winsize,
    isatty, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr, tcsetwinsize,
};

use super::spec::TerminalSpec;
use crate::sys::process::{Side, clone, exit_now};

/// The standard descriptor of this number.
pub(super) fn standard(number: usize) -> BorrowedFd<'static> {
    match number {
        0 => rustix::stdio::stdin(),
        1 => rustix::stdio::stdout(),
        _ => rustix::stdio::stderr(),
    }
}

/// How a devpts tells what it is, by statfs(2) (DEVPTS_SUPER_MAGIC).
pub const DEVPTS: rustix::fs::FsWord = 0x1cd1;

/// Which of 0, 1, 2 are terminals.
pub(super) fn terminals() -> [bool; 3] {
    [0, 1, 2].map(|number| isatty(standard(number)))
}

/// Looks at 0, 1, 2 and makes the spec of the payload's terminal, if any of them is one.
pub fn inspect() -> Option<TerminalSpec> {
    let replaces = terminals();
    let host = standard(replaces.iter().position(|is| *is)?);
    let mut settings = tcgetattr(host).ok()?;
    if !is_in_front(host) {
        make_cooked(&mut settings);
    }
    if !replaces[0] {
        // Our side stays in cooked mode then, and would turn each line feed into two carriage returns.
        settings.output_modes.remove(OutputModes::OPOST);
    }
    let size = tcgetwinsize(host).unwrap_or(Winsize {
        ws_row: 24,
        ws_col: 80,
        ws_xpixel: 0,
        ws_ypixel: 0,
    });
    Some(TerminalSpec { replaces, settings, size })
}

/// Whether to read from a terminal and to set it would not stop this process. One that does not control it never does; one
/// that has hung up is nobody's.
pub(super) fn is_in_front(terminal: BorrowedFd<'_>) -> bool {
    match tcgetpgrp(terminal) {
        Err(errno) => errno == Errno::NOTTY,
        Ok(front) => front == getpgrp(),
    }
}

/// Whether it controls this process, and is in front of it: then a shell may have put it there.
pub(super) fn controls_us(terminal: BorrowedFd<'_>) -> bool {
    tcgetpgrp(terminal) == Ok(getpgrp())
}

/// How a terminal is set for a program that does nothing about that: in the background it may be as a shell sets it
/// that reads a line there.
fn make_cooked(settings: &mut Termios) {
    settings.input_modes.remove(InputModes::INLCR | InputModes::IGNCR);
    settings.input_modes.insert(InputModes::ICRNL | InputModes::IXON);
    settings.output_modes.insert(OutputModes::OPOST | OutputModes::ONLCR);
    settings.local_modes.insert(LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN);
    settings.local_modes.insert(LocalModes::ECHO | LocalModes::ECHOE | LocalModes::ECHOK);
}

/// Raw mode of the host's terminal, for as long as this value lives.
///
/// A keeper process holds the terminal too, in a session of its own, so that not even SIGKILL of the
/// supervisor leaves the terminal raw: when our end of its pipe closes, it restores what was.
#[derive(Debug)]
pub struct RawMode {
    before: Termios,
    keeper: Option<(Pid, OwnedFd)>,
}

impl RawMode {
    /// Makes the terminal on standard input raw. Must be called while this process has one thread.
    ///
    /// # Errors
    /// ENOTTY, EIO.
    pub fn enter() -> Result<Self, Errno> {
        let before = tcgetattr(standard(0))?;
        let keeper = keep(&before)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(standard(0), OptionalActions::Drain, &raw)?;
        Ok(Self { before, keeper: Some(keeper) })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that hung up has nothing to restore.
        tcsetattr(standard(0), OptionalActions::Drain, &self.before).ok();
        if let Some((keeper, pipe)) = self.keeper.take() {
            rustix::io::write(&pipe, b".").ok();
            drop(pipe);
            waitpid(Some(keeper), WaitOptions::empty()).ok();
        }
    }
}

/// Starts the keeper; it ends when the pipe closes, and restores unless it was told that we did.
fn keep(before: &Termios) -> Result<(Pid, OwnedFd), Errno> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    if let Side::Parent { child, .. } = clone(0)? {
        return Ok((child, write));
    }
    // A session of its own: a signal to the supervisor's process group does not reach it.
    rustix::process::setsid().ok();
    drop(write);
    use std::os::fd::AsRawFd;
    let kept = crate::sys::exec::copy_to(read.as_raw_fd(), 1, true)
        .and_then(|()| crate::sys::exec::close_all_but(2, &[]));
    if kept.is_ok() {
        let told = loop {
            match rustix::io::read(standard(1), &mut [0_u8; 1]) {
                Err(Errno::INTR) => {}
                Ok(1) => break true,
                _ => break false,
            }
        };
        if !told {
            tcsetattr(standard(0), OptionalActions::Now, before).ok();
        }
    }
    exit_now(0)
}

/// Carries bytes between the host's terminal and the payload's.
#[derive(Debug)]
pub struct Relay {
    master: OwnedFd,
    /// Holds the payload's side open, or the master would be ready all the time, with an error, whenever
    /// nobody inside has the terminal open.
    slave: Option<OwnedFd>,
    input: bool,
    output: usize,
    /// The terminal on `output` once more, of our own, so that it can be non-blocking: a terminal that
    /// takes no more must not keep us from signals and time. None if it cannot be opened again.
    screen: Option<OwnedFd>,
    typed: VecDeque<u8>,
    shown: VecDeque<u8>,
    /// How much more may be shown, if that is limited.
    left: Option<u64>,
    over: bool,
    /// The key that stops what is in front, as the host's terminal has it, and whether it was typed.
    stop_key: u8,
    told_to_stop: bool,
}

const CHUNK: usize = 16 * 1024;

impl Relay {
    /// A relay for the payload's terminal whose master side is `master`, which shows `left` bytes at most.
    ///
    /// # Errors
    /// EBADF, EMFILE.
    pub fn new(master: OwnedFd, spec: &TerminalSpec, left: Option<u64>) -> Result<Self, Errno> {
        rustix::io::ioctl_fionbio(&master, true)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = Some(ioctl_tiocgptpeer(&master, flags)?);
        let output = if spec.replaces[1] {
            1
        } else {
            spec.replaces.iter().rposition(|is| *is).unwrap_or(1)
        };
        let flags = OFlags::WRONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let screen = open(format!("/proc/self/fd/{output}"), flags, Mode::empty()).ok();
        let (typed, shown) = (VecDeque::new(), VecDeque::new());
        let (input, over, told_to_stop) = (spec.replaces[0], false, false);
        let stop_key = spec.settings.special_codes[SpecialCodeIndex::VSUSP];
        Ok(Self {
            master,
            slave,
            input,
            output,
            screen,
            typed,
            shown,
            left,
            over,
            stop_key,
            told_to_stop,
        })
    }

    /// Whether the key that stops was typed since this was asked last.
    pub fn was_told_to_stop(&mut self) -> bool {
        std::mem::take(&mut self.told_to_stop)
    }

    /// The master side, and what to wait for on it.
    pub fn master(&self) -> (BorrowedFd<'_>, PollFlags) {
        let mut flags = PollFlags::empty();
        if self.shown.is_empty() {
            flags |= PollFlags::IN;
        }
        if !self.typed.is_empty() {
            flags |= PollFlags::OUT;
        }
        (self.master.as_fd(), flags)
    }

    /// Whether what is typed on the host's terminal is for the payload.
    pub fn has_input(&self) -> bool {
        self.input
    }

    /// The host's side of input, while there is room for more.
    pub fn wants_input(&self) -> Option<BorrowedFd<'static>> {
        (self.input && self.typed.len() < CHUNK).then(|| standard(0))
    }

    /// The host's side of output, while it has not taken all.
    pub fn wants_output(&self) -> Option<BorrowedFd<'_>> {
        (!self.shown.is_empty()).then(|| self.screen())
    }

    fn screen(&self) -> BorrowedFd<'_> {
        self.screen.as_ref().map_or(standard(self.output), AsFd::as_fd)
    }

    /// Takes what was typed; false if the host's terminal hung up.
    pub fn take_input(&mut self) -> bool {
        let mut buffer = [0_u8; 4096];
        match rustix::io::read(standard(0), &mut buffer) {
            Ok(bytes @ 1..) => {
                self.told_to_stop |= buffer[..bytes].contains(&self.stop_key);
                self.typed.extend(&buffer[..bytes]);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            // In raw mode a terminal reads as ended only when it is gone.
            Ok(_) | Err(_) => self.input = false,
        }
        self.flush();
        self.input
    }

    /// Gives the payload what it has room for.
    pub fn flush(&mut self) {
        while !self.typed.is_empty() {
            let (front, _) = self.typed.as_slices();
            match rustix::io::write(&self.master, front) {
                Ok(bytes) => drop(self.typed.drain(..bytes)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.typed.clear(),
            }
        }
    }

    /// Shows what the payload wrote; false when there is nothing more, or no room for it, for now.
    pub fn show_output(&mut self) -> bool {
        if !self.shown.is_empty() {
            return self.write_out();
        }
        let mut buffer = [0_u8; CHUNK];
        match rustix::io::read(&self.master, &mut buffer) {
            Ok(bytes @ 1..) => {
                let bytes = self.allow(bytes);
                self.shown.extend(&buffer[..bytes]);
                self.write_out()
            }
            Err(Errno::INTR) => true,
            // EIO at the end: nobody has the slave open any more.
            Ok(_) | Err(_) => false,
        }
    }

    /// How many of these bytes may be shown.
    fn allow(&mut self, bytes: usize) -> usize {
        let Some(left) = &mut self.left else { return bytes };
        let allowed = bytes.min(usize::try_from(*left).unwrap_or(bytes));
        *left -= allowed as u64;
        self.over |= allowed < bytes;
        allowed
    }

    /// Whether more was written than may be shown.
    pub fn is_over(&self) -> bool {
        self.over
    }

    fn write_out(&mut self) -> bool {
        while !self.shown.is_empty() {
            let (front, _) = self.shown.as_slices();
            match rustix::io::write(self.screen(), front) {
                Ok(bytes) => drop(self.shown.drain(..bytes)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return false,
                // Nobody looks any more; the payload's output is read on, so that it does not block.
                Err(_) => self.shown.clear(),
            }
        }
        true
    }

    /// The payload is gone: what it wrote last is all that comes.
    pub fn last_output(&mut self) {
        self.slave = None;
        while self.show_output() {}
    }

    /// Passes the size of the host's terminal on; the kernel then tells the payload by SIGWINCH.
    pub fn resize(&self) {
        if let Ok(size) = tcgetwinsize(standard(if self.input { 0 } else { self.output })) {
            tcsetwinsize(&self.master, size).ok();
        }
    }
}
