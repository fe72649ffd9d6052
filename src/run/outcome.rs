//! How a payload ended, and the exit code of ours that tells it.

use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

/// The end of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It returned this code.
    Code(u8),
    /// This signal killed it.
    Signal(u8),
}

/// Why we ended a run ourselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It took too long.
    Time,
    /// It wrote too much to stdout and stderr.
    Output,
    /// It changed too much.
    Disk,
    /// What makes its network, counts its output or measures its upper has failed.
    Helper,
}

impl Reason {
    /// Its word in the report.
    pub fn word(self) -> &'static str {
        match self {
            Self::Time => "timeout",
            Self::Output => "output",
            Self::Disk => "disk",
            Self::Helper => "helper",
        }
    }
}

/// Exit code of anything that went wrong on our side; so do env(1), nohup(1), podman(1).
pub const OURS: u8 = 125;
/// Exit code of a command that was found but cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// Exit code of a command that was not found.
pub const NOT_FOUND: u8 = 127;

impl Ended {
    /// From the status of wait(2).
    pub fn from_wait(status: i32) -> Self {
        match WaitStatus::from_raw(Pid::from_raw(0), status) {
            Ok(WaitStatus::Exited(_, code)) => Self::Code(code as u8),
            Ok(WaitStatus::Signaled(_, signal, _)) => Self::Signal(signal as u8),
            // A real-time signal, which nix has no name for: the low bits are its number (wait(2)).
            _ => Self::Signal((status & 0x7f) as u8),
        }
    }

    /// The exit code of `sandbox run`: the command's own, or 128 and the signal's number.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128_u8.saturating_add(signal),
        }
    }

    /// Whether it returned 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_signals() {
        assert_eq!(Ended::from_wait(3 << 8).exit_code(), 3);
        assert_eq!(Ended::from_wait(9).exit_code(), 137);
        assert!(Ended::from_wait(0).success());
    }
}
