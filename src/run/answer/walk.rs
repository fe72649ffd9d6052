//! A path walked step by step, for the few that lead through magic links of /proc.
//!
//! `/proc/self` and `/proc/thread-self` are the caller, not us. What a magic link of the caller's own process
//! leads to is opened by it; those of other processes are refused: the caller may not be allowed to follow
//! them, and some of them are ours.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, fstat, fstatfs, openat, readlinkat, statat,
};
use rustix::io::Errno;

use super::Handler;
use super::caller::{Caller, field};

/// As many symbolic links as the kernel follows.
const MOST_LINKS: usize = 40;
/// PROC_SUPER_MAGIC.
const PROC: i64 = 0x9fa0;

/// A walk in the root that the process has at present.
pub(super) struct Walk {
    /// The process and the thread of the caller, as /proc calls them.
    process: Vec<u8>,
    thread: Vec<u8>,
    /// What is left of the path, last component first.
    left: Vec<Vec<u8>>,
    links: usize,
}

impl Walk {
    pub(super) fn new(handler: &Handler<'_>, caller: &Caller) -> Result<Self, Errno> {
        let status = caller.status(handler)?;
        let process = field(status, "Tgid").next().ok_or(Errno::SRCH)?;
        caller.still_waits(handler)?;
        Ok(Self {
            process: process.into(),
            thread: caller.thread.to_string().into(),
            left: Vec::new(),
            links: 0,
        })
    }

    /// Opens what the path leads to. With `O_NOFOLLOW` or `O_EXCL` a link at its end is not followed.
    pub(super) fn open(
        mut self,
        base: BorrowedFd<'_>,
        path: &CStr,
        flags: OFlags,
        mode: Mode,
    ) -> Result<OwnedFd, Errno> {
        let mut here = if path.to_bytes().first() == Some(&b'/') { root()? } else { copy(base)? };
        self.push(path.to_bytes());
        let follow = !flags.intersects(OFlags::NOFOLLOW | OFlags::EXCL);
        while let Some(name) = self.left.pop() {
            let last = self.left.is_empty();
            let name = CString::new(name).map_err(|_| Errno::INVAL)?;
            if last && !follow {
                return openat(&here, &name, flags | OFlags::NOFOLLOW, mode);
            }
            here = self.step(here, &name)?;
        }
        if flags.contains(OFlags::PATH) { Ok(here) } else { Err(Errno::EXIST) }
    }

    fn push(&mut self, path: &[u8]) {
        if path.ends_with(b"/") {
            // What precedes has to be a directory.
            self.left.push(b".".to_vec());
        }
        let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
        self.left.extend(parts.rev().map(<[u8]>::to_vec));
    }

    fn step(&mut self, here: OwnedFd, name: &CStr) -> Result<OwnedFd, Errno> {
        let place = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let next = openat(&here, name, place, Mode::empty())?;
        if FileType::from_raw_mode(fstat(&next)?.st_mode) != FileType::Symlink {
            return Ok(next);
        }
        self.links += 1;
        if self.links > MOST_LINKS {
            return Err(Errno::LOOP);
        }
        if fstatfs(&here)?.f_type as i64 == PROC {
            match name.to_bytes() {
                b"self" => self.left.push(self.process.clone()),
                b"thread-self" => {
                    let task = [self.thread.clone(), b"task".to_vec(), self.process.clone()];
                    self.left.extend(task);
                }
                // The others of the top lead to `self/...`; all further down are magic.
                b"net" | b"mounts" => self.push(readlinkat(&here, name, Vec::new())?.as_bytes()),
                _ => return self.magic(&here, name),
            }
            return Ok(here);
        }
        let target = readlinkat(&next, c"", Vec::new())?;
        self.push(target.as_bytes());
        if target.as_bytes().first() == Some(&b'/') { root() } else { Ok(here) }
    }

    /// Follows a magic link of the caller's own process. Whose it is says the place where the directory
    /// lies: `/PROCESS/...` in its /proc.
    fn magic(&self, dir: &OwnedFd, name: &CStr) -> Result<OwnedFd, Errno> {
        let mut at = copy(dir.as_fd())?;
        let mut own = false;
        loop {
            let up = openat(&at, c"..", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            let (below, above) = (fstat(&at)?, fstat(&up)?);
            if fstatfs(&up)?.f_type as i64 != PROC || above.st_ino == below.st_ino {
                break;
            }
            for id in [&self.process, &self.thread] {
                let id = CString::new(id.clone()).map_err(|_| Errno::INVAL)?;
                let there = statat(&up, &id, AtFlags::SYMLINK_NOFOLLOW);
                own |= there.is_ok_and(|there| {
                    (there.st_dev, there.st_ino) == (below.st_dev, below.st_ino)
                });
            }
            at = up;
        }
        if !own {
            return Err(Errno::ACCESS);
        }
        openat(dir, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
    }
}

fn root() -> Result<OwnedFd, Errno> {
    openat(CWD, c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn copy(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    openat(fd, c".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}
