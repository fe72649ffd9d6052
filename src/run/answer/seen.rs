//! What is kept open of the thread that asked last.
//!
//! Whoever unpacks files asks thousands of times. To walk to its files in /proc takes the kernel longer each time than to
//! say what is in them. What is kept are the places of its directory and of a symbolic link there, and a descriptor of its
//! process: what they say is asked for anew with each call, and of a thread that is gone they say nothing any more, even
//! if its number is another's by now.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, fstat, openat, readlinkat, statat, statx};
use rustix::io::Errno;
use rustix::process::{ForeignRawFd, Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::Handler;

/// Which directory a root is: the number of its mount, and its own. Each mount namespace has mounts of its own, so the
/// root of a thread in another one is another one, even if its name is the same.
pub(super) type Root = (u64, u64);

/// The root that a name leads to.
pub(super) fn root_at(dir: &OwnedFd, name: &str) -> Result<Root, Errno> {
    let found = statx(dir, name, AtFlags::empty(), StatxFlags::MNT_ID | StatxFlags::INO)?;
    Ok((found.stx_mnt_id, found.stx_ino))
}

/// A thread that asks again and again.
#[derive(Debug)]
pub(super) struct Seen {
    thread: u32,
    /// Its directory in /proc, and `ns/user` in that.
    dir: OwnedFd,
    namespace: OwnedFd,
    /// The process, if the thread is its first one.
    process: Option<OwnedFd>,
}

impl Handler<'_> {
    /// The user namespace of a thread, as /proc names it, and its root.
    pub(super) fn whereabouts(&mut self, thread: u32) -> Result<(CString, Root), Errno> {
        let again = self.last == thread;
        self.last = thread;
        if self.seen.as_ref().is_some_and(|seen| seen.thread != thread) {
            self.seen = None;
        }
        if let Some(Ok(found)) = self.seen.as_ref().map(Seen::says) {
            return Ok(found);
        }
        self.seen = None;
        if again {
            // Not at the first time: most threads never ask again, and opening takes longer than reading.
            let seen = Seen::new(self, thread)?;
            let found = seen.says()?;
            self.seen = Some(seen);
            return Ok(found);
        }
        let namespace = readlinkat(&self.proc, format!("{thread}/ns/user"), room())?;
        Ok((namespace, root_at(&self.proc, &format!("{thread}/root"))?))
    }

    /// Whether the files of a thread in /proc belong to root inside: they belong to its effective user, or to nobody
    /// here if it lets nobody look into it.
    pub(super) fn is_of_root(&self, thread: u32) -> bool {
        let stat = match &self.seen {
            Some(seen) => fstat(&seen.dir),
            None => statat(&self.proc, thread.to_string(), AtFlags::empty()),
        };
        stat.is_ok_and(|stat| stat.st_uid == 0)
    }

    /// An open file of a thread (pidfd_getfd(2), Linux 5.6). Not if the thread is not the first of its process, or a filter
    /// around us refuses.
    pub(super) fn file(&self, thread: Pid, fd: i32) -> Result<OwnedFd, Errno> {
        let get = |process: &OwnedFd| {
            pidfd_getfd(process, ForeignRawFd::from(fd), PidfdGetfdFlags::empty())
        };
        match self.seen.as_ref().and_then(|seen| seen.process.as_ref()) {
            Some(process) => get(process),
            None => get(&pidfd_open(thread, PidfdFlags::empty())?),
        }
    }
}

impl Seen {
    fn new(handler: &Handler<'_>, thread: u32) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = openat(&handler.proc, thread.to_string(), flags, Mode::empty())?;
        let namespace = openat(&dir, "ns/user", flags, Mode::empty())?;
        let pid = super::caller::pid(thread)?;
        let process = pidfd_open(pid, PidfdFlags::empty()).ok();
        Ok(Self { thread, dir, namespace, process })
    }

    /// An empty path names the link itself (readlinkat(2), Linux 2.6.39).
    fn says(&self) -> Result<(CString, Root), Errno> {
        Ok((readlinkat(&self.namespace, c"", room())?, root_at(&self.dir, "root")?))
    }
}

fn room() -> Vec<u8> {
    Vec::with_capacity(64)
}
