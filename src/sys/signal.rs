//! Signal dispositions, and signals that have to wait.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Gives a signal its default effect again.
///
/// # Errors
/// EINVAL for SIGKILL and SIGSTOP.
pub fn default(signal: Signal) -> Result<(), Errno> {
    set(signal, SigHandler::SigDfl)
}

/// Gives a signal no effect, here and in what is executed.
///
/// # Errors
/// EINVAL for SIGKILL and SIGSTOP.
pub fn ignore(signal: Signal) -> Result<(), Errno> {
    set(signal, SigHandler::SigIgn)
}

/// Signals that wait until this is dropped: then they have their effect on this process.
#[derive(Debug)]
pub struct Blocked(SigSet);

impl Blocked {
    /// Blocks these beside those that are blocked already.
    pub fn new(signals: &[Signal]) -> Self {
        let mut before = SigSet::empty();
        let wanted: SigSet = signals.iter().copied().collect();
        // It fails for a wrong `how` only.
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&wanted), Some(&mut before)).ok();
        Self(before)
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.0), None).ok();
    }
}

/// Lets these have their effect again, whoever has blocked them.
pub fn unblock(signals: &[Signal]) {
    let wanted: SigSet = signals.iter().copied().collect();
    // It fails for a wrong `how` only.
    sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&wanted), None).ok();
}

/// Signals that wait, and of which somebody wants to know whether one has come. When this is dropped, those that nobody
/// has asked for have their effect.
#[derive(Debug)]
pub struct Deferred {
    blocked: Blocked,
    /// Tells what has come. Without it (there is no descriptor free) nothing is ever heard of.
    fd: Option<SignalFd>,
    first: Cell<Option<Signal>>,
}

impl Deferred {
    /// Listens for these, which are blocked. What the caller ignores (nohup) stays ignored.
    pub fn new(blocked: Blocked, signals: &[Signal]) -> Self {
        let wanted: SigSet =
            signals.iter().copied().filter(|signal| !is_ignored(*signal)).collect();
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let fd = SignalFd::with_flags(&wanted, flags).ok();
        Self { blocked, fd, first: Cell::new(None) }
    }

    /// The first one, if one has come by now. It has no other effect any more.
    pub fn come(&self) -> Option<Signal> {
        if self.first.get().is_none() {
            let info = self.fd.as_ref().and_then(|fd| fd.read_signal().ok().flatten());
            self.first.set(info.and_then(|info| Signal::try_from(info.ssi_signo as i32).ok()));
        }
        self.first.get()
    }

    /// The one that [`Deferred::come`] has told of, if it has.
    pub fn heard(&self) -> Option<Signal> {
        self.first.get()
    }

    /// A descriptor that is readable when [`Deferred::come`] has one to tell of.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// Does `job` while they have their effect at once.
    pub fn meanwhile<T>(&self, job: impl FnOnce() -> T) -> T {
        let mut wanted = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.blocked.0), Some(&mut wanted)).ok();
        let done = job();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&wanted), None).ok();
        done
    }

    /// They wait until this process ends, which is about to say how it went.
    pub fn to_the_end(self) {
        std::mem::forget(self);
    }
}

/// Forgets a signal that is blocked and has come; its disposition stays.
///
/// # Errors
/// EINVAL for SIGKILL and SIGSTOP.
pub fn forget(signal: Signal) -> Result<(), Errno> {
    // To ignore it for a moment is what drops a pending one (signal(7), POSIX `sigaction`).
    let none =
        SigAction::new(SigHandler::SigIgn, nix::sys::signal::SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler is installed.
    let before = unsafe { sigaction(signal, &none) }?;
    // SAFETY: what was in force until now is put back; if it is a handler, its owner has installed it for this signal.
    unsafe { sigaction(signal, &before) }.map(drop)
}

fn set(signal: Signal, handler: SigHandler) -> Result<(), Errno> {
    let action = SigAction::new(handler, nix::sys::signal::SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler of ours is installed, only the default one or none.
    unsafe { sigaction(signal, &action) }.map(drop)
}

/// Whether a signal is ignored by this process.
pub fn is_ignored(signal: Signal) -> bool {
    // SAFETY: sigaction is plain data, for which all zeroes is a valid value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a null pointer for the new action changes nothing; the kernel's answer is written to
    // `action`, which lives through the call.
    let answer = unsafe { libc::sigaction(signal as i32, std::ptr::null(), &raw mut action) };
    answer == 0 && action.sa_sigaction == libc::SIG_IGN
}
