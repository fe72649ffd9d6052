//! Remembered owners and devices of a tree that was just filled, written onto its files: the form that runs on
//! top of it inherit.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, fchmod, fchown, fremovexattr,
    fstat, futimens, openat,
};
use rustix::io::Errno;

use super::attributes::MODE_BITS;
use super::dir::{kind, lstat, lstat_if_any, open_beneath, open_child, open_file};
use super::gather::inode;
use super::meta::{self, Journal, Meta};
use super::owners::Remembered;
use super::{path, xattr};
use crate::fault::{Context, Result};
use crate::ids::IdMap;

/// Gives each file and directory its attribute, and makes an empty file in the place of each device; says how
/// many it made. Links, fifos and sockets have their line in `owners` only, or where the tree is an upper in the
/// `journal`, to which devices go, too. An entry without content takes the attribute of a directory away; of a link or
/// fifo the journal says that it is as on disk, whatever the layers beneath remember at its place.
///
/// # Errors
/// What the system says, naming the path.
pub fn inscribe(
    root: BorrowedFd<'_>,
    entries: &[Remembered],
    ids: &IdMap,
    journal: &mut Journal,
) -> Result<u64> {
    let mut made = 0;
    for entry in entries {
        let done = one(root, entry, ids, journal);
        made += done.context("set attributes", path::shown(&entry.path))?;
    }
    Ok(made)
}

fn one(
    root: BorrowedFd<'_>,
    entry: &Remembered,
    ids: &IdMap,
    journal: &mut Journal,
) -> Result<u64, Errno> {
    let nothing = entry.is_empty();
    if !nothing {
        journal.mark();
    }
    if entry.path.is_empty() {
        let dir = open_beneath(root, b"")?;
        let done = if nothing { forget(dir.as_fd()) } else { mark(dir.as_fd(), entry).map(drop) };
        return done.map(|()| 0);
    }
    let (parent, name) = path::split(&entry.path);
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    let dir = open_beneath(root, parent)?;
    let found = lstat_if_any(dir.as_fd(), &name)?;
    match (found.map(|stat| kind(&stat)), entry.device.is_some()) {
        (Some(FileType::Directory), false) if nothing => {
            forget(open_child(dir.as_fd(), &name)?.as_fd())?;
        }
        (Some(FileType::Directory), false) => {
            mark(open_child(dir.as_fd(), &name)?.as_fd(), entry)?;
        }
        (Some(FileType::RegularFile), false) if !nothing => {
            mark(open_file(dir.as_fd(), &name)?.as_fd(), entry)?;
        }
        (Some(FileType::Symlink | FileType::Fifo | FileType::Socket), false) => {
            let link = inode(dir.as_fd(), &name, AtFlags::SYMLINK_NOFOLLOW)?;
            // That of the same file: others may be at work in the tree.
            let stat = lstat(dir.as_fd(), &name)?;
            if stat.st_ino == link.number {
                journal.set(link, meta_of(entry, (stat.st_uid, stat.st_gid)));
            }
        }
        (None, true) => {
            device(dir.as_fd(), &name, entry, ids, journal)?;
            return Ok(1);
        }
        _ => {}
    }
    Ok(0)
}

/// Takes away what was remembered of a directory.
fn forget(dir: BorrowedFd<'_>) -> Result<(), Errno> {
    match fremovexattr(dir, meta::NAME) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        other => other,
    }
}

fn device(
    dir: BorrowedFd<'_>,
    name: &CString,
    entry: &Remembered,
    ids: &IdMap,
    journal: &mut Journal,
) -> Result<(), Errno> {
    let before = fstat(dir)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?;
    let uid = entry.uid.filter(|uid| ids.holds_uid(*uid)).unwrap_or(0);
    let gid = entry.gid.filter(|gid| ids.holds_gid(*gid)).unwrap_or(0);
    fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    let meta = mark(file.as_fd(), entry)?;
    // By the file that was just made, whatever has this name by now.
    journal.set(inode(file.as_fd(), c"", AtFlags::EMPTY_PATH)?, meta);
    fchmod(&file, Mode::from_raw_mode(entry.mode.unwrap_or(0o600) & MODE_BITS))?;
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds as _, tv_nsec: nanoseconds as _ };
    let times = Timestamps {
        last_access: time(before.st_atime, before.st_atime_nsec),
        last_modification: time(before.st_mtime, before.st_mtime_nsec),
    };
    futimens(dir, &times)
}

fn mark(fd: BorrowedFd<'_>, entry: &Remembered) -> Result<Meta, Errno> {
    let stat = fstat(fd)?;
    let meta = meta_of(entry, (stat.st_uid, stat.st_gid));
    xattr::set(fd, meta::NAME, meta.to_string().as_bytes()).map(|()| meta)
}

/// What is to be remembered of a file that has this owner on disk.
fn meta_of(entry: &Remembered, on: (u32, u32)) -> Meta {
    Meta {
        uid: entry.uid.filter(|uid| *uid != on.0),
        gid: entry.gid.filter(|gid| *gid != on.1),
        device: entry.device,
        on,
        unset: (false, false),
    }
}
