//! Signal dispositions.

use nix::errno::Errno;
use nix::sys::signal::{SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};

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
