//! The content of one regular file, holes where there is nothing but zeroes.

use std::os::fd::BorrowedFd;

use rustix::fs::ftruncate;
use rustix::io::{Errno, pwrite};

use super::reader::{Entry, Reader};
use crate::fault::{Fault, Result};

/// How much is read at once, in bytes. A multiple of [`PAGE`].
const CHUNK: usize = 128 * 1024;

/// The smallest hole, in bytes: a block of most file systems.
const PAGE: usize = 4096;

/// Smaller files are written as they are.
const SMALL: u64 = 64 * 1024;

const ZEROES: [u8; PAGE] = [0; PAGE];

/// Fills an empty file with the content of the entry that `reader` is at.
pub(super) fn write(entry: &Entry, reader: &mut Reader<'_>, file: BorrowedFd<'_>) -> Result<()> {
    let failed = |errno| Fault::errno("extract", String::from_utf8_lossy(&entry.path), errno);
    // A size beyond what the file system can hold is refused before anything is written.
    if entry.sparse.is_some() || entry.size > SMALL {
        ftruncate(file, entry.size).map_err(failed)?;
    }
    let whole = [(0, entry.size)];
    let capacity = usize::try_from(entry.size).unwrap_or(CHUNK).min(CHUNK);
    let mut buffer = vec![0; capacity];
    for (offset, len) in entry.sparse.as_deref().unwrap_or(&whole) {
        let end = offset + len;
        let mut at = *offset;
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(CHUNK).min(buffer.len());
            fill(reader, &mut buffer[..want])?;
            put(file, &buffer[..want], at, entry.size > SMALL).map_err(failed)?;
            at += want as u64;
        }
    }
    Ok(())
}

fn fill(reader: &mut Reader<'_>, buffer: &mut [u8]) -> Result<()> {
    let mut len = 0;
    while len < buffer.len() {
        match reader.read(&mut buffer[len..])? {
            0 => return Err(Fault::failed("read archive: a file is shorter than its size")),
            n => len += n,
        }
    }
    Ok(())
}

/// Writes a stretch, but for its pages of zeroes if `holes`.
fn put(file: BorrowedFd<'_>, data: &[u8], at: u64, holes: bool) -> Result<(), Errno> {
    if !holes {
        return write_all(file, data, at);
    }
    let mut start = 0;
    while start < data.len() {
        let skip = zero_pages(&data[start..]);
        let begin = start + skip;
        let mut end = begin;
        while end < data.len() && zero_pages(&data[end..]) == 0 {
            end = (end + PAGE).min(data.len());
        }
        write_all(file, &data[begin..end], at + begin as u64)?;
        start = end;
    }
    Ok(())
}

/// How many bytes at the start are whole pages of zeroes.
fn zero_pages(data: &[u8]) -> usize {
    data.chunks_exact(PAGE).take_while(|page| **page == ZEROES).count() * PAGE
}

fn write_all(file: BorrowedFd<'_>, mut data: &[u8], mut at: u64) -> Result<(), Errno> {
    while !data.is_empty() {
        match pwrite(file, data, at) {
            Err(Errno::INTR) => {}
            other => {
                let len = other?;
                data = &data[len..];
                at += len as u64;
            }
        }
    }
    Ok(())
}
