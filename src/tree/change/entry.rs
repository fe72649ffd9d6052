//! One path in two views: is it the same?

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, Stat, fstat, readlinkat};
use rustix::io::Errno;

use super::{ChangeKind, content};
use crate::tree::attributes::MODE_BITS;
use crate::tree::dir::{kind, open_child, open_file};
use crate::tree::recall::Seen;
use crate::tree::whiteout::own_xattrs;

/// A directory of a view, and the lstat(2) of the name in question there.
type Place<'a> = (BorrowedFd<'a>, &'a Stat);

/// Whether two entries of the same name are of different types. A device that is remembered lies on disk as an empty file.
pub(super) fn is_another_type(old: &Seen<'_>, new: &Seen<'_>) -> bool {
    let class = |seen: &Seen<'_>| seen.device().map(|device| device.class);
    kind(&old.stat) != kind(&new.stat) || class(old) != class(new)
}

/// How two entries of the same name and type differ, if they do, with what is remembered of them.
pub(super) fn seen_difference(
    name: &CStr,
    (from, old): (BorrowedFd<'_>, &Seen<'_>),
    (to, new): (BorrowedFd<'_>, &Seen<'_>),
) -> Result<Option<ChangeKind>, Errno> {
    if old.device() != new.device() {
        return Ok(Some(ChangeKind::Modified));
    }
    let found = match new.device() {
        // As of a node: what the file is that stands for it says nothing.
        Some(_) => owner_or_mode(&old.stat, &new.stat),
        None => difference(name, (from, &old.stat), (to, &new.stat))?,
    };
    Ok(found.or((old.owner() != new.owner()).then_some(ChangeKind::Metadata)))
}

/// How two entries of the same name and type on disk differ, if they do.
pub(in crate::tree) fn difference(
    name: &CStr,
    from: Place<'_>,
    to: Place<'_>,
) -> Result<Option<ChangeKind>, Errno> {
    let ((from_dir, old), (to_dir, new)) = (from, to);
    match kind(new) {
        FileType::Directory => {
            let (a, b) = (open_child(from_dir, name)?, open_child(to_dir, name)?);
            let differ = directories_differ(a.as_fd(), b.as_fd())?;
            Ok(differ.then_some(ChangeKind::Metadata))
        }
        FileType::RegularFile => regular(name, from, to),
        FileType::Symlink => {
            let a = readlinkat(from_dir, name, Vec::new())?;
            let b = readlinkat(to_dir, name, Vec::new())?;
            Ok(if a == b { owner_or_mode(old, new) } else { Some(ChangeKind::Modified) })
        }
        FileType::CharacterDevice | FileType::BlockDevice if old.st_rdev != new.st_rdev => {
            Ok(Some(ChangeKind::Modified))
        }
        _ => Ok(owner_or_mode(old, new)),
    }
}

/// Whether two open directories differ in mode, owner, group or attributes.
pub(in crate::tree) fn directories_differ(
    a: BorrowedFd<'_>,
    b: BorrowedFd<'_>,
) -> Result<bool, Errno> {
    Ok(owner_or_mode(&fstat(a)?, &fstat(b)?).is_some() || own_xattrs(a)? != own_xattrs(b)?)
}

/// How owner, group or mode differ, if they do.
pub(in crate::tree) fn owner_or_mode(old: &Stat, new: &Stat) -> Option<ChangeKind> {
    let parts = |stat: &Stat| (stat.st_mode & MODE_BITS, stat.st_uid, stat.st_gid);
    (parts(old) != parts(new)).then_some(ChangeKind::Metadata)
}

fn regular(name: &CStr, from: Place<'_>, to: Place<'_>) -> Result<Option<ChangeKind>, Errno> {
    let ((from_dir, old), (to_dir, new)) = (from, to);
    if same_inode(old, new) {
        return Ok(None);
    }
    if old.st_size != new.st_size {
        return Ok(Some(ChangeKind::Modified));
    }
    let (a, b) = (open_file(from_dir, name)?, open_file(to_dir, name)?);
    let size = u64::try_from(new.st_size).unwrap_or(0);
    if !content::same(a.as_fd(), b.as_fd(), size)? {
        return Ok(Some(ChangeKind::Modified));
    }
    let mtime = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec);
    if mtime(old) != mtime(new) || own_xattrs(a.as_fd())? != own_xattrs(b.as_fd())? {
        return Ok(Some(ChangeKind::Metadata));
    }
    Ok(owner_or_mode(old, new))
}

/// Whether both are the file of one layer. The device number is of the view and says nothing; an inode
/// number with the same time of last change, to the nanosecond, is the same inode.
fn same_inode(old: &Stat, new: &Stat) -> bool {
    let parts = |stat: &Stat| {
        (
            stat.st_ino,
            stat.st_size,
            (stat.st_mtime, stat.st_mtime_nsec),
            (stat.st_ctime, stat.st_ctime_nsec),
        )
    };
    parts(old) == parts(new)
}
