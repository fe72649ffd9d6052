//! Whether two files of one size hold the same bytes.

use std::os::fd::BorrowedFd;

use rustix::io::{Errno, pread};

use crate::tree::copy::next_data;

/// How much of two files is compared at once, in bytes.
const CHUNK: usize = 64 * 1024;

/// Whether both files, of `size` bytes each, hold the same. What is a hole in both is not read: a file may be
/// terabytes long and take no place on the disk.
pub(super) fn same(a: BorrowedFd<'_>, b: BorrowedFd<'_>, size: u64) -> Result<bool, Errno> {
    let (mut left, mut right) = (Data::new(a, size)?, Data::new(b, size)?);
    let mut buffers = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut at = 0;
    loop {
        // The stretch that comes first, in full: where the other file has a hole there, zeroes are read.
        let (start, end) = match (left.from(at)?, right.from(at)?) {
            (Some(left), Some(right)) => left.min(right),
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => return Ok(true),
        };
        if !same_stretch(a, b, (start, end), &mut buffers)? {
            return Ok(false);
        }
        at = end;
    }
}

/// The stretches of data of a file, one at a time: the one that was found is kept until it is passed, so that
/// each is asked for once however many the other file has.
struct Data<'a> {
    file: BorrowedFd<'a>,
    size: u64,
    next: Option<(u64, u64)>,
}

impl<'a> Data<'a> {
    fn new(file: BorrowedFd<'a>, size: u64) -> Result<Self, Errno> {
        Ok(Self { file, size, next: next_data(file, 0, size)? })
    }

    /// The first stretch of data from `at` on, which never gets less.
    fn from(&mut self, at: u64) -> Result<Option<(u64, u64)>, Errno> {
        if self.next.is_some_and(|(_, end)| end <= at) {
            self.next = next_data(self.file, at, self.size)?;
        }
        Ok(self.next.map(|(start, end)| (start.max(at), end)))
    }
}

fn same_stretch(
    a: BorrowedFd<'_>,
    b: BorrowedFd<'_>,
    (mut at, end): (u64, u64),
    (left, right): &mut (Vec<u8>, Vec<u8>),
) -> Result<bool, Errno> {
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
        let (m, n) = (fill(a, at, &mut left[..want])?, fill(b, at, &mut right[..want])?);
        if left[..m] != right[..n] {
            return Ok(false);
        }
        if m < want {
            break;
        }
        at += want as u64;
    }
    Ok(true)
}

/// Reads until the buffer is full or the file ends.
fn fill(file: BorrowedFd<'_>, at: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut len = 0;
    while len < buffer.len() {
        match pread(file, &mut buffer[len..], at + len as u64) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(len)
}
