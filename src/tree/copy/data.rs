//! The content of one file: shared blocks where the file system can, else copied without its holes.

use std::os::fd::BorrowedFd;

use rustix::fs::{SeekFrom, copy_file_range, fstat, ftruncate, ioctl_ficlone, seek};
use rustix::io::{Errno, pread, pwrite};

/// How much is read at once where the kernel cannot copy by itself, in bytes.
const CHUNK: usize = 128 * 1024;

/// Makes `dst`, an empty file, hold what `src` holds.
pub(in crate::tree) fn copy(src: BorrowedFd<'_>, dst: BorrowedFd<'_>) -> Result<(), Errno> {
    let size = u64::try_from(fstat(src)?.st_size).unwrap_or(0);
    if size == 0 || ioctl_ficlone(dst, src).is_ok() {
        return Ok(());
    }
    ftruncate(dst, size)?;
    let mut at = 0;
    while let Some((start, end)) = next_data(src, at, size)? {
        range(src, dst, start, end)?;
        at = end;
    }
    Ok(())
}

/// The first stretch of data from `at` on, by SEEK_DATA and SEEK_HOLE; without these (EINVAL) all is data.
///
/// # Errors
/// What lseek(2) says.
pub(crate) fn next_data(
    src: BorrowedFd<'_>,
    at: u64,
    size: u64,
) -> Result<Option<(u64, u64)>, Errno> {
    if at >= size {
        return Ok(None);
    }
    let start = match seek(src, SeekFrom::Data(at)) {
        Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((at, size))),
        other => other?,
    };
    let end = seek(src, SeekFrom::Hole(start))?.min(size);
    Ok((start < end).then_some((start, end)))
}

fn range(src: BorrowedFd<'_>, dst: BorrowedFd<'_>, start: u64, end: u64) -> Result<(), Errno> {
    let (mut from, mut to) = (start, start);
    while from < end {
        let len = usize::try_from(end - from).unwrap_or(usize::MAX);
        match copy_file_range(src, Some(&mut from), dst, Some(&mut to), len) {
            // Some file systems answer 0 where they cannot: let read(2) decide whether it is the end.
            Ok(0) => return by_hand(src, dst, from, end),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {
                return by_hand(src, dst, from, end);
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn by_hand(src: BorrowedFd<'_>, dst: BorrowedFd<'_>, start: u64, end: u64) -> Result<(), Errno> {
    let mut buffer = vec![0; CHUNK];
    let mut at = start;
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
        let len = match pread(src, &mut buffer[..want], at) {
            Ok(0) => return Ok(()),
            Err(Errno::INTR) => continue,
            other => other?,
        };
        let mut written = 0;
        while written < len {
            match pwrite(dst, &buffer[written..len], at + written as u64) {
                Err(Errno::INTR) => {}
                other => written += other?,
            }
        }
        at += len as u64;
    }
    Ok(())
}
