//! Small files and directories of the store, by descriptor, in few system calls.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, IFlags, Mode, OFlags, ioctl_getflags, ioctl_setflags, openat, unlinkat};
use rustix::io::{Errno, read, retry_on_intr, write};

use crate::tree::dir::Names;

/// No record is larger; a chain of 400 layers takes 12 KiB, the rest is for command lines.
pub(crate) const RECORD_LIMIT: usize = 4 << 20;

/// What a first read(2) asks for: every usual record in one call, and no memory touched for nothing.
const FIRST_READ: usize = 4 << 10;

/// Permission bits of our directories.
pub(crate) const PRIVATE_DIR: Mode = Mode::RWXU;

/// Permission bits of our files.
pub(crate) const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Opens a directory for reading, flock(2) and fsync(2).
pub(crate) fn open_dir(dir: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    retry_on_intr(|| openat(dir, name, flags, Mode::empty()))
}

/// Opens a directory as a place only; this works whatever its own permissions are.
pub(crate) fn open_place(dir: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    retry_on_intr(|| openat(dir, name, flags, Mode::empty()))
}

/// Reads a whole file of at most `limit` bytes: open, one read for all usual records, close.
///
/// # Errors
/// EFBIG beyond the limit, ELOOP for a symlink; what openat(2) and read(2) say.
pub(crate) fn read_small(dir: BorrowedFd<'_>, name: &str, limit: usize) -> Result<Vec<u8>, Errno> {
    // NONBLOCK: a fifo that somebody put there must not hang us.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = retry_on_intr(|| openat(dir, name, flags, Mode::empty()))?;
    // Not zeroed before: this is done for each of thousands of snapshots.
    let mut bytes = Vec::with_capacity(FIRST_READ);
    let mut filled = retry_on_intr(|| read(&file, spare_capacity(&mut bytes)))?;
    // A short read of a regular file is its end.
    if filled < FIRST_READ {
        return if filled > limit { Err(Errno::FBIG) } else { Ok(bytes) };
    }
    loop {
        if filled > limit {
            return Err(Errno::FBIG);
        }
        bytes.resize((filled * 2).min(limit + 1), 0);
        let space = bytes.get_mut(filled..).unwrap_or_default();
        filled += retry_on_intr(|| read(&file, &mut *space))?;
        if filled < bytes.len() {
            bytes.truncate(filled);
            return Ok(bytes);
        }
    }
}

/// Opens a file of ours for reading and fsync(2), whatever somebody may have put in its place.
pub(crate) fn open_file(dir: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    retry_on_intr(|| openat(dir, name, flags, Mode::empty()))
}

/// Writes at the end of a file that is there.
pub(crate) fn append(dir: BorrowedFd<'_>, name: &str, bytes: &[u8]) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    write_all(retry_on_intr(|| openat(dir, name, flags, Mode::empty()))?, bytes)
}

/// Makes a file empty (or makes it), for writing.
pub(crate) fn create(dir: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    retry_on_intr(|| openat(dir, name, flags, PRIVATE_FILE))
}

/// Writes all bytes at the file's position.
pub(crate) fn write_all(file: impl AsFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match retry_on_intr(|| write(&file, bytes))? {
            0 => return Err(Errno::IO),
            count => bytes = bytes.get(count..).unwrap_or_default(),
        }
    }
    Ok(())
}

/// Makes a file with this content, not durably: open, write, close.
pub(crate) fn write_small(dir: BorrowedFd<'_>, name: &str, bytes: &[u8]) -> Result<(), Errno> {
    write_all(create(dir, name)?, bytes)
}

/// Fills a file that is empty, if it is there. It is not truncated again: ext4 takes that for the replacement of its content,
/// and writes the new one out when it is closed (`auto_da_alloc`), which is a wait here, and another when the blocks are
/// freed.
pub(crate) fn fill_empty(dir: BorrowedFd<'_>, name: &str, bytes: &[u8]) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    write_all(retry_on_intr(|| openat(dir, name, flags, PRIVATE_FILE))?, bytes)
}

/// The names in a directory (without `.` and `..`), sorted. Names that are not UTF-8 are none of ours
/// and left out.
pub(crate) fn names(dir: BorrowedFd<'_>) -> Result<Vec<String>, Errno> {
    let names = Names::read(dir)?.sorted();
    let texts = names.iter().filter_map(|(name, _)| name.to_str().ok());
    Ok(texts.map(str::to_owned).collect())
}

/// Whether a directory has no entry at all.
pub(crate) fn is_empty(dir: BorrowedFd<'_>) -> Result<bool, Errno> {
    Names::read(dir).map(|names| names.is_empty())
}

/// Removes a file; one that is not there is fine.
pub(crate) fn unlink(dir: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    absent_is_fine(unlinkat(dir, name, AtFlags::empty()))
}

/// Removes an empty directory; one that is not there is fine.
pub(crate) fn rmdir(dir: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    absent_is_fine(unlinkat(dir, name, AtFlags::REMOVEDIR))
}

/// Tells ext4 that the directories in this one have nothing to do with each other (chattr(1), `T`), so that it gives each inodes
/// of a group of its own. Without a journal it looks, for each new inode, at all of the group that were removed in the
/// last minutes (`recently_deleted` in fs/ext4/ialloc.c): after a large run is thrown away, a start next to it would take
/// several times as long. Only a hint, which other file systems do not know.
pub(crate) fn spread(dir: BorrowedFd<'_>, name: &str) {
    let Ok(dir) = open_dir(dir, name) else { return };
    if let Ok(flags) = ioctl_getflags(&dir) {
        ioctl_setflags(&dir, flags | IFlags::TOPDIR).ok();
    }
}

fn absent_is_fine(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}
