//! What a tree takes on disk, as du(1) counts: blocks of every inode, directories included, each inode once.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, Stat, fstat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::dir::{Trail, kind};
use super::walk::{Descend, Visit, Visitor, walk};
use crate::fault::{Context, Fault, Result};

/// Bytes on disk.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Of directories, and of files that have one name only.
    pub bytes: u64,
    /// Files with several names, which may lie in other trees: by inode.
    pub linked: BTreeMap<u64, Linked>,
}

/// A file with several names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Linked {
    /// Its bytes on disk.
    pub bytes: u64,
    /// How many names it has anywhere.
    pub names: u64,
    /// How many of them were seen.
    pub seen: u64,
}

/// Measures the tree `dir`, itself included. Others may change it meanwhile: what goes is counted or not.
///
/// # Errors
/// What the system says, naming the path.
pub fn usage(dir: BorrowedFd<'_>) -> Result<Usage> {
    let mut count = Count::new(u64::MAX);
    count.walk(dir).map(|()| count.usage)
}

/// The bytes that were put into the tree `dir`, which was made empty: as [`usage`] counts, but nothing for a directory that is
/// as it was made.
///
/// # Errors
/// As [`usage`].
pub fn filled(dir: BorrowedFd<'_>) -> Result<u64> {
    let mut count = Count::new(u64::MAX);
    count.walk(dir).map(|()| count.filled())
}

/// Measures the tree `dir` as [`filled`] does, but for no longer than until it is known to take more than `limit` bytes. The
/// bytes that were seen, and whether that was all: a change in the midst may have ended it.
pub fn up_to(dir: BorrowedFd<'_>, limit: u64) -> (u64, bool) {
    let mut count = Count::new(limit);
    let whole = count.walk(dir).is_ok();
    (count.filled(), whole)
}

/// A tree that is measured.
struct Count {
    usage: Usage,
    /// When what has one name only takes more bytes than this, the walk ends.
    limit: u64,
    /// Whether it has nothing in it.
    empty: bool,
}

impl Count {
    fn new(limit: u64) -> Self {
        Self { usage: Usage::default(), limit, empty: true }
    }

    fn filled(&self) -> u64 {
        if self.empty { 0 } else { self.usage.total() }
    }

    fn walk(&mut self, dir: BorrowedFd<'_>) -> Result<()> {
        // The descriptor may be one that only stands for the place.
        let root = match Trail::new(dir) {
            Err(Errno::NOENT) => return Ok(()),
            other => other.context("open directory", "/")?,
        };
        self.usage.add(&fstat(root.here().as_fd()).context("look at", "/")?);
        walk(root.here(), self)
    }
}

impl Visitor for Count {
    fn entry(&mut self, visit: &Visit<'_>) -> Result<Descend> {
        self.usage.add(visit.stat);
        self.empty = false;
        if self.usage.bytes > self.limit {
            return Err(Fault::failed("measure: more than the limit"));
        }
        Ok(Descend::Yes)
    }

    fn tolerates_change(&self) -> bool {
        true
    }
}

/// What an inode takes on disk, in bytes.
pub fn on_disk(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or_default() * 512
}

impl Usage {
    fn add(&mut self, stat: &Stat) {
        if kind(stat) == FileType::Directory || stat.st_nlink <= 1 {
            self.bytes += on_disk(stat);
            return;
        }
        let new = Linked { bytes: on_disk(stat), names: stat.st_nlink, seen: 0 };
        self.linked.entry(stat.st_ino).or_insert(new).seen += 1;
    }

    /// Adds another tree of the same file system.
    pub fn merge(&mut self, other: &Self) {
        self.bytes += other.bytes;
        for (inode, linked) in &other.linked {
            let known = self.linked.entry(*inode).or_insert(Linked { seen: 0, ..*linked });
            known.seen += linked.seen;
        }
    }

    /// All of it, each inode once.
    pub fn total(&self) -> u64 {
        self.bytes + self.linked.values().map(|linked| linked.bytes).sum::<u64>()
    }

    /// What is free again when all these names go: not what has further names elsewhere.
    pub fn freed(&self) -> u64 {
        let whole = self.linked.values().filter(|linked| linked.seen >= linked.names);
        self.bytes + whole.map(|linked| linked.bytes).sum::<u64>()
    }
}
