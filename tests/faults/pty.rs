//! A terminal with `sandbox` on it, and somebody who types and reads.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};

use crate::watch::{PATIENCE, gone, marker, until};
use crate::world::Place;

/// A terminal that this process looks at.
pub(crate) struct Terminal {
    master: Option<OwnedFd>,
    pub(crate) path: PathBuf,
    seen: Arc<Mutex<Vec<u8>>>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
    /// Keeps the terminal alive between programs, so that its settings can be compared.
    slave: File,
}

impl Terminal {
    pub(crate) fn new() -> Self {
        let mut terminal = Self::unread();
        let mut master = File::from(fcntl_dupfd_cloexec(terminal.master(), 3).expect("dup"));
        let (seen, stop) = (Arc::clone(&terminal.seen), Arc::clone(&terminal.stop));
        terminal.reader = Some(spawn(move || {
            let mut part = [0; 65536];
            while !stop.load(Ordering::Relaxed) {
                let mut fds = [PollFd::new(&master, PollFlags::IN)];
                let tick = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
                if poll(&mut fds, Some(&tick)).expect("poll") > 0 {
                    let size = master.read(&mut part).expect("read");
                    seen.lock().expect("lock").extend(&part[..size]);
                }
            }
        }));
        terminal
    }

    /// One whose output nobody reads.
    pub(crate) fn unread() -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("openpt");
        grantpt(&master).expect("grantpt");
        unlockpt(&master).expect("unlockpt");
        let path = PathBuf::from(
            ptsname(&master, Vec::new()).expect("ptsname").into_string().expect("text"),
        );
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = rustix::fs::open(&path, flags, Mode::empty()).expect("open slave").into();
        let (seen, stop) = (Arc::default(), Arc::default());
        let terminal = Self { master: Some(master), path, seen, stop, reader: None, slave };
        terminal.resize(30, 100);
        terminal
    }

    fn master(&self) -> &OwnedFd {
        self.master.as_ref().expect("not hung up")
    }

    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(self.master(), size).expect("resize");
    }

    /// A standard descriptor of this terminal.
    pub(crate) fn stdio(&self) -> File {
        self.slave.try_clone().expect("dup")
    }

    pub(crate) fn write(&self, text: &str) {
        let copy = fcntl_dupfd_cloexec(self.master(), 3).expect("dup");
        File::from(copy).write_all(text.as_bytes()).expect("type");
    }

    /// All that was shown so far.
    pub(crate) fn shown(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().expect("lock")).into_owned()
    }

    /// Waits until a text is shown, and forgets everything up to it.
    #[track_caller]
    pub(crate) fn expect(&self, text: &str) -> String {
        let end = Instant::now() + PATIENCE;
        // Whoever reads waits for the lock meanwhile: nothing is looked through twice.
        let mut known = 0;
        loop {
            {
                let mut seen = self.seen.lock().expect("lock");
                let mut parts = seen[known..].windows(text.len());
                if let Some(at) = parts.position(|part| part == text.as_bytes()) {
                    let before: Vec<u8> = seen.drain(..known + at + text.len()).collect();
                    return String::from_utf8_lossy(&before).into_owned();
                }
                known = seen.len().saturating_sub(text.len() - 1);
            }
            if Instant::now() >= end {
                let shown = self.shown();
                let from = shown.char_indices().rev().nth(1000).map_or(0, |(at, _)| at);
                panic!(
                    "never shown: {text:?}; but, of {} bytes: {:?}",
                    shown.len(),
                    &shown[from..]
                );
            }
            sleep(Duration::from_millis(5));
        }
    }

    /// Its settings, to compare.
    pub(crate) fn settings(&self) -> String {
        format!("{:?}", tcgetattr(&self.slave).expect("tcgetattr"))
    }

    /// Makes a command one whose controlling terminal and standard descriptors this is.
    pub(crate) fn control(&self, command: &Command) -> Command {
        let mut wrapped = Command::new("setsid");
        wrapped.arg("--ctty").arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(key, value),
                None => wrapped.env_remove(key),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            wrapped.current_dir(dir);
        }
        wrapped.stdin(self.stdio()).stdout(self.stdio()).stderr(self.stdio());
        wrapped
    }

    /// Starts `sandbox` on it.
    pub(crate) fn start(&self, place: &Place, words: &[&str]) -> OnTerminal {
        self.start_as(&place.command(words))
    }

    /// The same, with some of its standard descriptors led elsewhere by a shell.
    pub(crate) fn start_with(
        &self,
        place: &Place,
        words: &[&str],
        redirection: &str,
    ) -> OnTerminal {
        let inner = place.command(words);
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("exec \"$0\" \"$@\" {redirection}"));
        shell.arg(inner.get_program()).args(inner.get_args());
        for (key, value) in inner.get_envs() {
            shell.env(key, value.unwrap_or_default());
        }
        inner.get_current_dir().map(|dir| shell.current_dir(dir));
        self.start_as(&shell)
    }

    fn start_as(&self, command: &Command) -> OnTerminal {
        let mark = marker();
        let child = self.control(command).env("MARK", &mark).spawn().expect("start");
        OnTerminal { child, mark }
    }

    /// Closes the master side: the line is dead.
    pub(crate) fn hang_up(&mut self) {
        self.stop_reading();
        self.master = None;
    }

    fn stop_reading(&mut self) {
        if let Some(reader) = self.reader.take() {
            self.stop.store(true, Ordering::Relaxed);
            reader.join().expect("reader");
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.stop_reading();
    }
}

/// `sandbox` on a terminal.
pub(crate) struct OnTerminal {
    pub(crate) child: Child,
    mark: String,
}

impl OnTerminal {
    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Waits for its end; the exit code.
    #[track_caller]
    pub(crate) fn end(mut self) -> i32 {
        let ended = until("the end", || self.child.try_wait().expect("wait"));
        let code = ended.code().unwrap_or_else(|| 128 + ended.signal().unwrap_or(0));
        gone(&self.mark);
        code
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        // Only a case that failed leaves it alive.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}
