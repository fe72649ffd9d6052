//! The side of one who is attached to a run: shows its log as it grows, and sends what is typed.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::Signal as NixSignal;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::termios::{isatty, tcgetwinsize};

use super::super::signals::{Signals, Stops};
use super::super::terminal::RawMode;
use super::ask::{Heard, Line};
use super::keys::Keys;
use super::output::Reader;
use super::protocol::{Ending, Reply, Request, Typed};
use crate::fault::{Context, Result};

/// How somebody is attached.
#[derive(Debug)]
pub enum Manner {
    /// He only looks; signals have their usual effect on him.
    Looks,
    /// He also types, and leaves by these keys where the command has a terminal.
    Types(Keys),
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Left {
    /// The run is over.
    Ended(Ending),
    /// The keys were typed.
    Detached,
    /// This signal has ended the one who was attached, and not the run.
    Signal(i32),
}

/// Attaches the standard descriptors to a run, until one of the two ends. `from` looks at the log first.
///
/// # Errors
/// Not-found when the supervisor is killed; what writing says, EPIPE excepted.
pub fn attach(line: Line, manner: Manner, whole: bool) -> Result<Left> {
    let types = matches!(manner, Manner::Types(_));
    let (answer, mut fds) = line.ask(&Request::Attach { input: types })?;
    let (Reply::Attached { terminal, input }, Some(log)) = (answer, fds.pop()) else {
        return Err(line.odd());
    };
    let mut reader = Reader::new(log);
    if !whole {
        reader.to_last_line().context("read log", line.run())?;
    }
    let signals = if types { Some(Signals::block()?) } else { None };
    let typist = types && input;
    let raw = if typist && terminal && isatty(rustix::stdio::stdin()) {
        Some(RawMode::enter().context("set raw mode", "the terminal")?)
    } else {
        None
    };
    let keys = match manner {
        Manner::Types(keys) if raw.is_some() => keys,
        _ => Keys::none(),
    };
    let mut attached = Attached {
        line,
        reader,
        signals,
        keys,
        terminal,
        raw,
        reads: typist,
        more: true,
        shown: Vec::new(),
        typed: Vec::new(),
    };
    attached.resize();
    attached.serve()
}

struct Attached {
    line: Line,
    reader: Reader,
    signals: Option<Signals>,
    keys: Keys,
    terminal: bool,
    /// The terminal's mode, if that had to be changed; it comes back when this goes.
    raw: Option<RawMode>,
    /// Whether there is more to be typed.
    reads: bool,
    /// Whether there may be more in the log.
    more: bool,
    shown: Vec<u8>,
    /// Packets that the supervisor has had no room for.
    typed: Vec<Vec<u8>>,
}

/// What may be written at once to a pipe that has room at all.
const CHUNK: usize = 4096;

impl Attached {
    fn serve(&mut self) -> Result<Left> {
        loop {
            self.fill()?;
            let ready = self.wait()?;
            if ready.signal
                && let Some(left) = self.heed()
            {
                return Ok(left);
            }
            if ready.screen && !self.show()? {
                return Ok(Left::Detached);
            }
            if ready.room {
                self.send();
            }
            if ready.stdin && self.read() {
                return Ok(Left::Detached);
            }
            if ready.line {
                match self.line.heed()? {
                    Heard::More => self.hear_more(),
                    Heard::Reply(Reply::Ended(ending)) => return self.end(ending),
                    Heard::Nothing | Heard::Reply(_) => {}
                }
            }
        }
    }

    fn hear_more(&mut self) {
        self.more = true;
        self.typed.push(Typed::Heard.packet());
        self.send();
    }

    /// Takes the next part of the log, if all that was taken is shown.
    fn fill(&mut self) -> Result<()> {
        if !self.more || !self.shown.is_empty() {
            return Ok(());
        }
        self.shown.resize(4 * CHUNK, 0);
        let count = self.reader.next(&mut self.shown).context("read log", self.line.run())?;
        self.shown.truncate(count);
        self.more = count > 0;
        Ok(())
    }

    fn wait(&self) -> Result<Ready> {
        let stdin = self.reads && self.typed.is_empty();
        let (input, screen) = (rustix::stdio::stdin(), rustix::stdio::stdout());
        let flags = |wanted: bool, flags| if wanted { flags } else { PollFlags::empty() };
        let room = flags(!self.typed.is_empty(), PollFlags::OUT);
        let mut fds = vec![PollFd::from_borrowed_fd(self.line.as_fd(), PollFlags::IN | room)];
        let mut add = |wanted: bool, fd: BorrowedFd<'static>, flags| {
            wanted.then(|| {
                fds.push(PollFd::from_borrowed_fd(fd, flags));
                fds.len() - 1
            })
        };
        let stdin = add(stdin, input, PollFlags::IN);
        let screen = add(!self.shown.is_empty(), screen, PollFlags::OUT);
        let signal = self.signals.as_ref().map(|signals| {
            fds.push(PollFd::new(&signals.fd, PollFlags::IN));
            fds.len() - 1
        });
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("wait for", self.line.run()),
        }
        let ready = |at: Option<usize>| at.is_some_and(|at| !fds[at].revents().is_empty());
        let line = fds[0].revents();
        Ok(Ready {
            line: line.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR),
            room: line.contains(PollFlags::OUT),
            stdin: ready(stdin),
            screen: ready(screen),
            signal: ready(signal),
        })
    }

    /// Shows a part; false if nobody looks any more.
    fn show(&mut self) -> Result<bool> {
        let part = &self.shown[..self.shown.len().min(CHUNK)];
        match retry_on_intr(|| rustix::io::write(rustix::stdio::stdout(), part)) {
            Ok(count) => drop(self.shown.drain(..count)),
            Err(Errno::AGAIN) => {}
            Err(Errno::PIPE | Errno::IO) => return Ok(false),
            Err(errno) => return Err(errno).context("write", "output"),
        }
        Ok(true)
    }

    /// Takes what was typed; true if that were the keys to leave by.
    fn read(&mut self) -> bool {
        let mut buffer = [0; CHUNK];
        match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
            Ok(count @ 1..) => {
                let (bytes, leaves) = self.keys.take(&buffer[..count]);
                if !bytes.is_empty() {
                    self.typed.push(Typed::Bytes(&bytes).packet());
                }
                self.send();
                leaves
            }
            Err(Errno::INTR | Errno::AGAIN) => false,
            Ok(_) | Err(_) => {
                self.reads = false;
                self.typed.push(Typed::End.packet());
                self.send();
                // A terminal reads as ended only when it is gone.
                self.terminal && self.signals.is_some() && isatty(rustix::stdio::stdin())
            }
        }
    }

    fn send(&mut self) {
        while let Some(packet) = self.typed.first() {
            match self.line.send(packet) {
                Ok(()) => drop(self.typed.remove(0)),
                Err(Errno::AGAIN) => return,
                // It is over, as we shall hear.
                Err(_) => self.typed.clear(),
            }
        }
    }

    fn resize(&mut self) {
        if self.terminal
            && self.signals.is_some()
            && let Ok(size) = tcgetwinsize(rustix::stdio::stdin())
                .or_else(|_| tcgetwinsize(rustix::stdio::stdout()))
        {
            self.typed.push(Typed::Size(size.ws_row, size.ws_col).packet());
            self.send();
        }
    }

    /// What a terminal's keys send is for the command; what ends us ends us alone.
    fn heed(&mut self) -> Option<Left> {
        while let Some(signal) = self.signals.as_ref().and_then(Signals::next) {
            match signal {
                NixSignal::SIGWINCH => self.resize(),
                NixSignal::SIGINT | NixSignal::SIGQUIT => {
                    self.typed.push(Typed::Signal(signal as u8).packet());
                    self.send();
                }
                NixSignal::SIGTSTP => self.stop(),
                NixSignal::SIGTERM | NixSignal::SIGHUP => return Some(Left::Signal(signal as i32)),
                _ => {}
            }
        }
        None
    }

    /// Stops; whoever gets the terminal meanwhile finds it as it was before.
    fn stop(&mut self) {
        let Some(signals) = &self.signals else { return };
        let was_raw = self.raw.take().is_some();
        signals.stop(Stops::Ourselves);
        if was_raw {
            // One that is gone is told by what is read from it.
            self.raw = RawMode::enter().ok();
            self.resize();
        }
    }

    /// The run is over: what is left of its log is all that comes.
    fn end(&mut self, ending: Ending) -> Result<Left> {
        self.more = true;
        loop {
            self.fill()?;
            if self.shown.is_empty() || !self.show()? {
                return Ok(Left::Ended(ending));
            }
        }
    }
}

struct Ready {
    line: bool,
    room: bool,
    stdin: bool,
    screen: bool,
    signal: bool,
}
