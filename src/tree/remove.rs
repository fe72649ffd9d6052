//! Taking a tree away, whatever its modes, depth and width.

use std::ffi::{CStr, CString, OsStr};
use std::fmt::Display;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, chmod, fchmod, fstat, openat, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::dir::{Names, Trail, kind, lstat_if_any, open_child};
use super::path;
use super::usage::on_disk;
use crate::fault::{Context, Fault, Result, printable};

/// How often a directory that is not empty after all is emptied again: some file systems skip entries
/// while others are unlinked.
const ATTEMPTS: u32 = 5;

/// What was taken away.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Entries, directories and the top itself included.
    pub files: u64,
    /// Bytes on disk that this gave back: blocks of directories, and of files whose last name it was.
    pub bytes: u64,
}

/// Removes `name` of `parent` and everything beneath it. Symbolic links are removed, not followed.
/// Directories that deny us are given mode 0700 first. A name that does not exist is no fault: nothing
/// is removed.
///
/// # Errors
/// `Busy` where a mount lies in the tree: what is on it is left alone. Otherwise what the system says,
/// naming the path; what was removed before stays removed.
pub fn remove_tree(parent: BorrowedFd<'_>, name: &OsStr) -> Result<Removed> {
    let top = CString::new(name.as_bytes())
        .map_err(|_| Fault::usage("remove: a name holds a NUL byte"))?;
    let mut job = Job { removed: Removed::default(), path: name.as_bytes().to_vec() };
    let Some(stat) = lstat_if_any(parent, &top).context("look at", job.shown())? else {
        return Ok(job.removed);
    };
    if kind(&stat) != FileType::Directory {
        job.unlink(parent, &top, &stat)?;
        return Ok(job.removed);
    }
    for _ in 0..ATTEMPTS {
        let (root, _) = job.open(parent, &top)?;
        job.empty(root.as_fd())?;
        match unlinkat(parent, &top, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY) => {}
            other => {
                other.context("remove directory", job.shown())?;
                job.gone(&stat);
                return Ok(job.removed);
            }
        }
    }
    Err(Fault::errno("remove directory", job.shown(), Errno::NOTEMPTY))
}

struct Job {
    removed: Removed,
    /// Path of what is being worked on, for messages.
    path: Vec<u8>,
}

/// A directory on the way down.
struct Level {
    /// Its sub-directories that are still there.
    left: Vec<CString>,
    /// Length of its path.
    prefix: usize,
    /// What it took on disk before it was emptied.
    bytes: u64,
}

impl Job {
    /// The path as it stands in a message. Made where it is printed, for the reason at [`path::Shown`].
    fn shown(&self) -> impl Display {
        OsStr::from_bytes(&self.path).display()
    }

    /// Removes everything in one directory.
    fn empty(&mut self, root: BorrowedFd<'_>) -> Result<()> {
        let mut trail = Trail::new(root).context("open directory", self.shown())?;
        let mut levels = vec![self.strip(trail.here())?];
        while let Some(level) = levels.last_mut() {
            self.path.truncate(level.prefix);
            if let Some(name) = level.left.last() {
                path::join(&mut self.path, name);
                let (child, bytes) = self.open(trail.here(), name)?;
                levels.push(Level { bytes, ..self.strip(child.as_fd())? });
                trail.push(child).context("open directory", self.shown())?;
                continue;
            }
            let bytes = levels.pop().map_or(0, |level| level.bytes);
            if let Some(level) = levels.last_mut()
                && let Some(name) = level.left.pop()
            {
                trail.pop().context("climb out of directory", self.shown())?;
                self.rmdir(trail.here(), &name, bytes)?;
            }
        }
        Ok(())
    }

    /// Removes an emptied directory. If something is left in it after all, the next attempt finds it.
    fn rmdir(&mut self, dir: BorrowedFd<'_>, name: &CStr, bytes: u64) -> Result<()> {
        match unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) => {
                self.removed.files += 1;
                self.removed.bytes += bytes;
            }
            Err(Errno::NOTEMPTY) => {}
            Err(errno) => return Err(Fault::errno("remove directory", self.shown(), errno)),
        }
        Ok(())
    }

    /// Removes all but the sub-directories of one directory, and lists those.
    fn strip(&mut self, dir: BorrowedFd<'_>) -> Result<Level> {
        let prefix = self.path.len();
        let mut left = Vec::new();
        let names = Names::read(dir).context("read directory", self.shown())?;
        for (name, told) in names.iter() {
            if told == FileType::Directory {
                left.push(name.to_owned());
                continue;
            }
            self.path.truncate(prefix);
            path::join(&mut self.path, name);
            match lstat_if_any(dir, name).context("look at", self.shown())? {
                Some(stat) if kind(&stat) == FileType::Directory => left.push(name.to_owned()),
                Some(stat) => self.unlink(dir, name, &stat)?,
                None => {}
            }
        }
        self.path.truncate(prefix);
        Ok(Level { left, prefix, bytes: 0 })
    }

    fn unlink(&mut self, dir: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<()> {
        match unlinkat(dir, name, AtFlags::empty()) {
            Err(Errno::BUSY) => Err(self.mounted()),
            other => {
                other.context("remove file", self.shown())?;
                self.gone(stat);
                Ok(())
            }
        }
    }

    fn gone(&mut self, stat: &Stat) {
        self.removed.files += 1;
        if stat.st_nlink <= 1 || kind(stat) == FileType::Directory {
            self.removed.bytes += on_disk(stat);
        }
    }

    /// Opens a directory and makes sure that its content can be listed and unlinked; also says what it takes
    /// on disk.
    fn open(&self, dir: BorrowedFd<'_>, name: &CStr) -> Result<(OwnedFd, u64)> {
        let child = match open_child(dir, name) {
            Err(Errno::ACCESS) => {
                unlock(dir, name).context("change mode", self.shown())?;
                open_child(dir, name)
            }
            other => other,
        };
        let child = match child {
            Err(Errno::XDEV) => return Err(self.mounted()),
            other => other.context("open directory", self.shown())?,
        };
        let stat = fstat(&child).context("look at", self.shown())?;
        if !Mode::from_raw_mode(stat.st_mode).contains(Mode::RWXU) {
            fchmod(&child, Mode::RWXU).context("change mode", self.shown())?;
        }
        Ok((child, on_disk(&stat)))
    }

    fn mounted(&self) -> Fault {
        Fault::busy(format!("remove: {}: a mount lies on it", printable(&self.shown().to_string())))
    }
}

/// Gives a directory that we own but may not read the mode 0700. Only without `CAP_DAC_OVERRIDE`.
///
/// fchmod(2) refuses `O_PATH` descriptors and fchmodat2(2) is younger than our oldest kernel, so this
/// goes by the descriptor's link in /proc, which leads to this very inode and nowhere else.
fn unlock(dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let child = openat(dir, name, flags, Mode::empty())?;
    chmod(format!("/proc/self/fd/{}", child.as_raw_fd()), Mode::RWXU)
}
