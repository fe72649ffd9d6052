//! Puts up the walls of [`Wall`] around the process that becomes the command.

use std::os::fd::{AsRawFd, RawFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use super::spec::RunSpec;
use crate::isolate::wall::Wall;
use crate::sys::exec::opened_for;
use crate::sys::landlock::{IOCTL_DEV, READ_FILE, Rules, TRUNCATE, WRITE_FILE, rights};

/// From here on this process reaches the files of its root, and of those outside the ones it was given open, by what they
/// were opened for: /proc/self/fd/0 would be a way to write what one was given to read. The root must be switched.
pub(super) fn put_up(spec: &RunSpec) -> Result<(), Errno> {
    let Wall { files: version, sockets } = spec.wall;
    if !spec.wall.stands() {
        return Ok(());
    }
    let all = rights(version);
    let rules = Rules::new(all, sockets)?;
    if version > 0 {
        let root = openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        rules.allow(root.as_raw_fd(), all)?;
        given(spec).try_for_each(|number| allow_again(&rules, number, all))?;
    }
    rules.enforce()
}

/// What the caller has given that we have put nothing of ours in place of.
fn given(spec: &RunSpec) -> impl Iterator<Item = RawFd> {
    let ours = |number: usize| {
        let terminal = spec.terminal.as_ref().is_some_and(|wanted| wanted.replaces[number]);
        terminal || spec.pipes[number].is_some()
    };
    let standard = (0..3).filter(move |number| !ours(*number)).map(|number| number as RawFd);
    standard.chain(spec.preserve_fds.iter().copied())
}

/// Lets a file be opened anew for what it is open for; what is only named (O_PATH), for reading. Rules are about files: if two
/// descriptors are of one, each may do what the other may.
fn allow_again(rules: &Rules, number: RawFd, all: u64) -> Result<(), Errno> {
    let Some(flags) = opened_for(number) else { return Ok(()) };
    let writes = WRITE_FILE | TRUNCATE;
    let may = match flags & OFlags::RWMODE {
        OFlags::RDWR => READ_FILE | writes,
        OFlags::WRONLY => writes,
        _ => READ_FILE,
    };
    match rules.allow(number, (may | IOCTL_DEV) & all) {
        // A pipe, a socket, a file in memory: no rule is about these.
        Err(Errno::BADFD) => Ok(()),
        other => other,
    }
}
