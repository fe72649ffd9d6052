//! The same entry once more, where a hard link cannot be had: attributes of directories, and files that
//! have as many names as their file system allows.
//!
//! Both are of a layer, so everything is taken as it lies on disk: escaped attributes stay escaped.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, chmodat, chownat, fchmod, fchown, fstat,
    futimens, mknodat, openat, readlinkat, symlinkat, utimensat,
};
use rustix::io::Errno;

use crate::tree::attributes::MODE_BITS;
use crate::tree::copy::data;
use crate::tree::dir::{kind, open_file};
use crate::tree::walk::Visit;
use crate::tree::whiteout::{Meaning, meaning};
use crate::tree::xattr;

use super::times;

/// Gives `to` the owner, attributes, mode and times of `from`, in the order that none undoes another. The
/// notes of overlayfs and its marks stay behind.
pub(super) fn attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    let stat = fstat(from)?;
    let (uid, gid) = owner(&stat);
    fchown(to, uid, gid)?;
    for (name, value) in xattr::all(from)? {
        if !matches!(meaning(&name), Meaning::Foreign | Meaning::Escaped(_)) {
            continue;
        }
        match xattr::set(to, &name, &value) {
            // A label of a security module is not ours to give.
            Err(Errno::PERM | Errno::OPNOTSUPP) if is_label(&name) => {}
            other => other?,
        }
    }
    fchmod(to, Mode::from_raw_mode(stat.st_mode & MODE_BITS))?;
    futimens(to, &times(&stat))
}

fn is_label(name: &CStr) -> bool {
    name.to_bytes().starts_with(b"security.") && name != c"security.capability"
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

/// Makes a whiteout.
pub(super) fn whiteout(dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0)
}

/// Copies an entry that is no directory.
pub(in crate::tree) fn copy(visit: &Visit<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    let (name, stat) = (visit.name, visit.stat);
    match kind(stat) {
        FileType::RegularFile => {
            let source = open_file(visit.dir, name)?;
            let flags =
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let target = openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
            data::copy(source.as_fd(), target.as_fd())?;
            return attributes(source.as_fd(), target.as_fd());
        }
        FileType::Symlink => {
            symlinkat(&readlinkat(visit.dir, name, Vec::new())?, to, name)?;
        }
        FileType::CharacterDevice => whiteout(to, name)?,
        other => mknodat(to, name, other, Mode::RUSR | Mode::WUSR, 0)?,
    }
    let (uid, gid) = owner(stat);
    chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    if matches!(kind(stat), FileType::Fifo | FileType::Socket) {
        // Just made by us, so it is no symbolic link.
        chmodat(to, name, Mode::from_raw_mode(stat.st_mode & MODE_BITS), AtFlags::empty())?;
    }
    utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
}
