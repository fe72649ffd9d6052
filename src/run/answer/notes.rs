//! Where the handler writes down what it remembers: on the file, or in the journal.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, MemfdFlags, XattrFlags, getxattr, memfd_create, removexattr, setxattr};
use rustix::io::{Errno, write};

use super::place::Found;
use crate::tree::meta::{self, Inode, Meta, journal_line};

/// The journal in memory is not longer than this, in bytes: a payload cannot fill the machine's memory by it.
const LONGEST: usize = 64 << 20;

/// The journal: a file in memory that the supervisor has, too, and what stands in it.
#[derive(Debug)]
pub(super) struct Notes {
    file: OwnedFd,
    length: usize,
    known: HashMap<Inode, Meta>,
}

impl Notes {
    pub(super) fn new() -> Result<Self, Errno> {
        let file = memfd_create(c"owners", MemfdFlags::CLOEXEC)?;
        Ok(Self { file, length: 0, known: HashMap::new() })
    }

    pub(super) fn copy(&self) -> Result<OwnedFd, Errno> {
        rustix::io::fcntl_dupfd_cloexec(&self.file, 0)
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// What is remembered of a file.
    pub(super) fn read(&self, found: &Found) -> Result<Meta, Errno> {
        if !has_attributes(found) {
            return Ok(self.known.get(&found.inode()).copied().unwrap_or_default());
        }
        let mut buffer = [0_u8; meta::LONGEST];
        match getxattr(found.name().as_c_str(), meta::NAME, &mut buffer) {
            Ok(length) => Ok(Meta::parse(&buffer[..length]).unwrap_or_default()),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(Meta::default()),
            Err(errno) => Err(errno),
        }
    }

    /// Remembers this of a file from now on.
    pub(super) fn write(&mut self, found: &Found, meta: &Meta) -> Result<(), Errno> {
        if !has_attributes(found) {
            return self.note(found.inode(), meta);
        }
        if meta.is_empty() {
            return match removexattr(found.name().as_c_str(), meta::NAME) {
                Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
                other => other,
            };
        }
        let value = meta.to_string();
        let (name, flags) = (found.name(), XattrFlags::empty());
        setxattr(name.as_c_str(), meta::NAME, value.as_bytes(), flags)
    }

    /// Adds a line to the journal.
    pub(super) fn note(&mut self, inode: Inode, meta: &Meta) -> Result<(), Errno> {
        if self.known.get(&inode) == Some(meta) {
            return Ok(());
        }
        let line = journal_line(&inode, meta);
        if self.length + line.len() > LONGEST {
            return Err(Errno::NOSPC);
        }
        if write(&self.file, line.as_bytes())? != line.len() {
            return Err(Errno::NOSPC);
        }
        self.length += line.len();
        self.known.insert(inode, *meta);
        Ok(())
    }
}

/// Only these can have attributes of the user (xattr(7)).
fn has_attributes(found: &Found) -> bool {
    let kind = FileType::from_raw_mode(u32::from(found.stat.stx_mode));
    matches!(kind, FileType::RegularFile | FileType::Directory)
}
