//! Extended attributes by descriptor.

use std::ffi::{CStr, CString};
use std::os::fd::BorrowedFd;

use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr};
use rustix::io::Errno;

/// A name and its value.
pub type Xattr = (CString, Vec<u8>);

/// Enough for almost every list and value, so that one call does.
const FIRST_TRY: usize = 512;

/// xattr(7): no list and no value is larger than 64 KiB.
const LARGEST: usize = 64 * 1024;

/// The names of the attributes, sorted. A file system without attributes has none.
///
/// # Errors
/// What flistxattr(2) says, but for ENOTSUP.
pub fn names(fd: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
    let list = match grow(|buffer| flistxattr(fd, buffer)) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(Vec::new()),
        other => other?,
    };
    let mut names: Vec<CString> = list
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .filter_map(|name| CString::new(name).ok())
        .collect();
    names.sort_unstable();
    Ok(names)
}

/// The value of one attribute, `None` if the file or its file system has no such attribute.
///
/// # Errors
/// What fgetxattr(2) says, but for ENODATA and ENOTSUP.
pub fn get(fd: BorrowedFd<'_>, name: &CStr) -> Result<Option<Vec<u8>>, Errno> {
    match grow(|buffer| fgetxattr(fd, name, buffer)) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        other => other.map(Some),
    }
}

/// All attributes, sorted by name.
///
/// # Errors
/// As [`names`] and [`get`].
pub fn all(fd: BorrowedFd<'_>) -> Result<Vec<Xattr>, Errno> {
    let mut found = Vec::new();
    for name in names(fd)? {
        if let Some(value) = get(fd, &name)? {
            found.push((name, value));
        }
    }
    Ok(found)
}

/// Sets one attribute, made or replaced.
///
/// # Errors
/// What fsetxattr(2) says.
pub fn set(fd: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> Result<(), Errno> {
    fsetxattr(fd, name, value, XattrFlags::empty())
}

/// Whether the file system of a directory of ours has user xattrs, by setting one and taking it away.
///
/// # Errors
/// EOPNOTSUPP if it has none; what fsetxattr(2) and fremovexattr(2) say.
pub fn try_user(dir: BorrowedFd<'_>) -> Result<(), Errno> {
    let name = c"user.sandbox.try";
    set(dir, name, b"")?;
    fremovexattr(dir, name)
}

fn grow(mut call: impl FnMut(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; FIRST_TRY];
    loop {
        match call(&mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < LARGEST => buffer.resize(LARGEST, 0),
            Err(errno) => return Err(errno),
        }
    }
}
