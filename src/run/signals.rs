//! The signals of the supervisor: blocked and taken by descriptor, so that no handler runs.

use nix::sys::signal::{SigSet, SigmaskHow, Signal as NixSignal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use rustix::io::Errno;

use crate::fault::{Context, Result};
use crate::sys;

/// The signals that the supervisor takes by descriptor; the mask of before comes back when it is dropped.
#[derive(Debug)]
pub(super) struct Signals {
    /// Tells what has arrived.
    pub(super) fd: SignalFd,
    before: SigSet,
}

/// Those that are passed on to the payload.
const FORWARDED: [NixSignal; 9] = [
    NixSignal::SIGINT,
    NixSignal::SIGTERM,
    NixSignal::SIGHUP,
    NixSignal::SIGQUIT,
    NixSignal::SIGUSR1,
    NixSignal::SIGUSR2,
    NixSignal::SIGTSTP,
    NixSignal::SIGCONT,
    NixSignal::SIGWINCH,
];

/// Whom [`Signals::stop`] stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stops {
    /// This process.
    Ourselves,
    /// Its whole process group, as ^Z does: a pipeline is stopped when all of it is.
    Group,
}

impl Signals {
    /// Blocks them and opens the descriptor.
    ///
    /// # Errors
    /// EMFILE.
    pub(super) fn block() -> Result<Self> {
        let wanted: SigSet = FORWARDED.into_iter().collect();
        let mut before = SigSet::empty();
        let convert = |errno: nix::errno::Errno| Errno::from_raw_os_error(errno as i32);
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&wanted), Some(&mut before))
            .map_err(convert)
            .context("block", "signals")?;
        let fd = SignalFd::with_flags(&wanted, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(convert)
            .context("open", "a signal descriptor")?;
        Ok(Self { fd, before })
    }

    /// Stops by SIGTSTP, and returns when this process has been continued; at once where nobody could do that, because
    /// the group is orphaned (setpgid(2)): the kernel drops the signal then, as it would not drop SIGSTOP.
    pub(super) fn stop(&self, whom: Stops) {
        match whom {
            Stops::Ourselves => _ = nix::sys::signal::raise(NixSignal::SIGTSTP).ok(),
            Stops::Group => _ = nix::sys::signal::kill(Pid::from_raw(0), NixSignal::SIGTSTP).ok(),
        }
        let stop: SigSet = [NixSignal::SIGTSTP].into_iter().collect();
        // It arrives between these two. They fail for a wrong `how` only.
        sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&stop), None).ok();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&stop), None).ok();
        // What has continued us is not passed on: whoever has stopped us does that, once.
        sys::signal::forget(NixSignal::SIGCONT).ok();
    }

    /// The next signal that has arrived. What the caller ignores (nohup, a shell's background job) stays
    /// ignored; a signal that is blocked is told by the descriptor all the same.
    pub(super) fn next(&self) -> Option<NixSignal> {
        loop {
            let info = self.fd.read_signal().ok()??;
            let signal = NixSignal::try_from(info.ssi_signo as i32).ok()?;
            if !sys::signal::is_ignored(signal) {
                return Some(signal);
            }
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // What arrived too late to be passed on still has its effect on us now, or when whoever blocked it before lets it.
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None).ok();
    }
}
