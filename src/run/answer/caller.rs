//! The thread that waits for an answer.

use std::cell::OnceCell;
use std::ffi::CString;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags, fcntl_getfl, openat, statat};
use rustix::io::{Errno, pread};
use rustix::process::Pid;
use rustix::thread::capabilities;

use super::Handler;
use super::place::File;
use crate::sys::look;
use crate::sys::notify::{self, Call};

/// PATH_MAX.
const LONGEST_PATH: usize = 4096;
/// Where a process's memory is read, nothing is expected behind the end of a page.
const PAGE: u64 = 4096;
/// A status is seldom longer than the first; the list of groups has no end but the other.
const USUAL_STATUS: usize = 4 << 10;
const LONGEST_STATUS: usize = 1 << 20;

/// A thread, as it was when its call was received.
#[derive(Debug)]
pub(super) struct Caller {
    /// Its number, and the end of the paths of /proc that are its own.
    pub(super) thread: u32,
    id: u64,
    pid: Pid,
    /// Its effective capabilities.
    pub(super) effective: u64,
    /// Its memory as a file, where the kernel does not read it for us.
    memory: OnceCell<OwnedFd>,
    status: OnceCell<String>,
    /// Its root, if that is not ours.
    pub(super) root: Option<OwnedFd>,
}

impl Caller {
    /// `None` if it is of another user namespace. (Whoever is in ours can be of another mount namespace, if it was given
    /// SYS_ADMIN: its root is not ours then.)
    pub(super) fn of(handler: &mut Handler<'_>, call: &Call) -> Result<Option<Self>, Errno> {
        let thread = call.thread;
        let (namespace, root) = handler.whereabouts(thread)?;
        if namespace.to_bytes() != handler.namespace {
            return Ok(None);
        }
        let other = root != handler.whole;
        let root = other.then(|| open(handler, &format!("{thread}/root"))).transpose()?;
        let pid = pid(thread)?;
        let effective = capabilities(Some(pid))?.effective.bits();
        let (memory, status) = (OnceCell::new(), OnceCell::new());
        Ok(Some(Self { thread, id: call.id, pid, effective, memory, status, root }))
    }

    pub(super) fn may(&self, capability: u32) -> bool {
        self.effective & 1 << capability != 0
    }

    /// Whether all that was looked at was this thread's: to be asked after the looking and before the doing.
    pub(super) fn still_waits(&self, handler: &Handler<'_>) -> Result<(), Errno> {
        if notify::waits(handler.listener, self.id) { Ok(()) } else { Err(Errno::SRCH) }
    }

    /// A directory that a relative path begins at: an argument of the call.
    pub(super) fn directory(&self, handler: &Handler<'_>, fd: u64) -> Result<OwnedFd, Errno> {
        // The kernel takes descriptors as 32 bits.
        match fd as i32 {
            libc::AT_FDCWD => open(handler, &format!("{}/cwd", self.thread)),
            fd => self.descriptor(handler, fd),
        }
    }

    /// One of its open files: that itself, or where it lies.
    pub(super) fn file(&self, handler: &Handler<'_>, fd: i32) -> Result<File, Errno> {
        match handler.file(self.pid, fd) {
            Ok(file) if fcntl_getfl(&file)?.contains(OFlags::PATH) => Err(Errno::BADF),
            Ok(file) => Ok(File::Open(file)),
            Err(_) if self.is_mere_place(handler, fd)? => Err(Errno::BADF),
            Err(_) => self.descriptor(handler, fd).map(File::Place),
        }
    }

    /// The place of one of its open files.
    pub(super) fn descriptor(&self, handler: &Handler<'_>, fd: i32) -> Result<OwnedFd, Errno> {
        if fd < 0 {
            return Err(Errno::BADF);
        }
        match open(handler, &format!("{}/fd/{fd}", self.thread)) {
            Err(Errno::NOENT) => Err(Errno::BADF),
            other => other,
        }
    }

    /// Whether one of its descriptors was opened with `O_PATH`, which fchown(2) and fsetxattr(2) refuse: /proc
    /// shows neither read nor write permission then.
    fn is_mere_place(&self, handler: &Handler<'_>, fd: i32) -> Result<bool, Errno> {
        let name = format!("{}/fd/{fd}", self.thread);
        let stat = statat(&handler.proc, name, AtFlags::SYMLINK_NOFOLLOW);
        let stat = stat.map_err(|errno| if errno == Errno::NOENT { Errno::BADF } else { errno })?;
        Ok(stat.st_mode & 0o600 == 0)
    }

    /// The string at an address of it.
    pub(super) fn string(
        &self,
        handler: &Handler<'_>,
        address: u64,
        longest: usize,
    ) -> Result<CString, Errno> {
        let mut bytes = Vec::with_capacity(256);
        while bytes.len() <= longest {
            let from = address.checked_add(bytes.len() as u64).ok_or(Errno::FAULT)?;
            // Not across the end of a page: the next one may not be there.
            let room = (PAGE - from % PAGE).min(256) as usize;
            let before = bytes.len();
            bytes.resize(before + room, 0);
            let got = self.peek(handler, from, &mut bytes[before..])?;
            bytes.truncate(before + got);
            if let Some(end) = bytes[before..].iter().position(|byte| *byte == 0) {
                bytes.truncate(before + end);
                return CString::new(bytes).map_err(|_| Errno::FAULT);
            }
        }
        Err(Errno::NAMETOOLONG)
    }

    /// A path.
    pub(super) fn path(&self, handler: &Handler<'_>, address: u64) -> Result<CString, Errno> {
        let path = self.string(handler, address, LONGEST_PATH)?;
        if path.as_bytes().len() >= LONGEST_PATH { Err(Errno::NAMETOOLONG) } else { Ok(path) }
    }

    /// That many bytes at an address.
    pub(super) fn bytes(
        &self,
        handler: &Handler<'_>,
        address: u64,
        length: usize,
    ) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; length];
        let mut done = 0;
        while done < length {
            let from = address.checked_add(done as u64).ok_or(Errno::FAULT)?;
            done += self.peek(handler, from, &mut bytes[done..])?;
        }
        Ok(bytes)
    }

    fn peek(&self, handler: &Handler<'_>, address: u64, into: &mut [u8]) -> Result<usize, Errno> {
        if self.memory.get().is_none() {
            match look::memory(self.pid, address, into) {
                // Only a container around us refuses it: its filter, or its kernel.
                Err(Errno::PERM | Errno::NOSYS) => {
                    let (name, flags) =
                        (format!("{}/mem", self.thread), OFlags::RDONLY | OFlags::CLOEXEC);
                    self.memory.set(openat(&handler.proc, name, flags, Mode::empty())?).ok();
                }
                Ok(0) => return Err(Errno::FAULT),
                other => return other,
            }
        }
        match pread(self.memory.get().ok_or(Errno::IO)?, into, address) {
            Ok(0) | Err(Errno::IO | Errno::INVAL | Errno::OVERFLOW) => Err(Errno::FAULT),
            other => other,
        }
    }

    /// Its /proc/TID/status, which the kernel writes slowly: read once for each call.
    pub(super) fn status(&self, handler: &Handler<'_>) -> Result<&str, Errno> {
        if self.status.get().is_none() {
            let name = format!("{}/status", self.thread);
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let file = openat(&handler.proc, name, flags, Mode::empty())?;
            self.status.set(whole(&file)?).ok();
        }
        self.status.get().map(String::as_str).ok_or(Errno::IO)
    }
}

/// What a file of /proc says, by one call: a second one could tell of another moment.
fn whole(file: &OwnedFd) -> Result<String, Errno> {
    let mut bytes = vec![0; USUAL_STATUS];
    loop {
        let length = pread(file, &mut bytes, 0)?;
        if length < bytes.len() {
            bytes.truncate(length);
            return String::from_utf8(bytes).map_err(|_| Errno::IO);
        }
        if bytes.len() >= LONGEST_STATUS {
            return Err(Errno::FBIG);
        }
        bytes = vec![0; bytes.len() * 4];
    }
}

/// The words behind `name:` of a status.
pub(super) fn field<'a>(status: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().split_whitespace()
}

/// The number of a thread, as one.
pub(super) fn pid(thread: u32) -> Result<Pid, Errno> {
    i32::try_from(thread).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)
}

fn open(handler: &Handler<'_>, name: &str) -> Result<OwnedFd, Errno> {
    openat(&handler.proc, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}
