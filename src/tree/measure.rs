//! The walk of a commit: is this upper one that overlayfs wrote under us, and how much is in it.
//!
//! A commit must not cost more than a few microseconds a file: one getdents per directory, one fstatat
//! per entry, and attributes are read only where overlayfs can have put a meaning into them. Those are
//! directories, and regular files without a block on disk: a whiteout in file form is empty, and a file
//! whose data is elsewhere (`metacopy`) is all hole.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::attributes::MODE_BITS;
use super::dir::{Trail, open_file};
use super::walk::{Descend, Visit, Visitor, walk};
use super::whiteout::{check_upper_xattrs, is_real_device, own_xattrs};
use super::{Totals, path};
use crate::fault::{Context, Fault, Result, is_of_the_disk, printable, why};

/// The mode of the root directory of a fresh upper: as `/` is everywhere.
pub const FRESH_MODE: u32 = 0o755;

/// Walks the upper directory `fs`, refuses what must not be in one, and counts it.
///
/// # Errors
/// `Failed`, naming the path, for a device node that is no whiteout, for `user.overlay.redirect`,
/// `user.overlay.metacopy` or an unknown `user.overlay.*`, for `trusted.overlay.*`, and for a mount that
/// lies in the tree; otherwise what the system says.
pub fn measure(fs: BorrowedFd<'_>) -> Result<Totals> {
    verdict(examine_some(fs, false)?)
}

/// As [`measure`], for a tree that others could write without an overlay between: attributes may have been put on
/// any file.
///
/// # Errors
/// As [`measure`].
pub fn measure_strange(fs: BorrowedFd<'_>) -> Result<Totals> {
    verdict(examine_some(fs, true)?)
}

fn verdict((totals, refused): (Totals, Vec<Refused>)) -> Result<Totals> {
    match refused.into_iter().next() {
        None => Ok(totals),
        Some(found) => {
            let shown = printable(&path::shown(&found.path).to_string());
            Err(Fault::failed(format!("check layer: {shown}: {}", found.why)))
        }
    }
}

/// Something that must not be in a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Where, beneath the root.
    #[serde(flatten, with = "path")]
    pub path: Vec<u8>,
    /// Why.
    pub why: String,
    /// Whether it is the disk that cannot read it: what lies beneath is not counted.
    pub unread: bool,
}

/// As [`measure`], but goes on to the end and gives all that it refuses, and all that the disk cannot read, by path.
///
/// # Errors
/// What the system says, but of the disk itself.
pub fn examine(fs: BorrowedFd<'_>) -> Result<(Totals, Vec<Refused>)> {
    examine_some(fs, false)
}

fn examine_some(fs: BorrowedFd<'_>, every: bool) -> Result<(Totals, Vec<Refused>)> {
    let mut count =
        Count { totals: Totals::default(), linked: HashSet::new(), refused: Vec::new(), every };
    walk(fs, &mut count)?;
    Ok((count.totals, count.refused))
}

/// Whether the root directory of an upper is as the store makes it: mode 0755, of root inside, without
/// attributes of its own. Its times do not count, nor what a security module labels.
///
/// # Errors
/// What the system says.
pub fn is_fresh(fs: BorrowedFd<'_>) -> Result<bool> {
    let root = Trail::new(fs).context("open directory", "/")?;
    let stat = fstat(root.here()).context("look at", "/")?;
    if (stat.st_mode & MODE_BITS, stat.st_uid, stat.st_gid) != (FRESH_MODE, 0, 0) {
        return Ok(false);
    }
    Ok(own_xattrs(root.here()).context("read attributes", "/")?.is_empty())
}

struct Count {
    totals: Totals,
    /// Inodes with several names that were counted already.
    linked: HashSet<u64>,
    refused: Vec<Refused>,
    /// Whether the attributes of every file are read.
    every: bool,
}

impl Visitor for Count {
    fn entry(&mut self, visit: &Visit<'_>) -> Result<Descend> {
        self.totals.files += 1;
        match visit.kind() {
            FileType::Directory => return Ok(Descend::Yes),
            FileType::RegularFile => self.regular(visit)?,
            FileType::Socket => self.totals.sockets += 1,
            _ if is_real_device(visit.stat) => {
                self.refuse(visit.path, "a device node cannot be in a layer");
            }
            _ => {}
        }
        Ok(Descend::Yes)
    }

    fn enter(&mut self, dir: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
        self.check(dir, path)
    }

    fn mount(&mut self, visit: &Visit<'_>) -> Result<()> {
        self.refuse(visit.path, "a mount lies on it");
        Ok(())
    }

    fn unreadable(&mut self, _what: &str, path: &[u8], errno: Errno) -> Result<()> {
        let why = format!("cannot be read: {}", why(errno));
        self.refused.push(Refused { path: path.to_vec(), why, unread: true });
        Ok(())
    }
}

impl Count {
    fn regular(&mut self, visit: &Visit<'_>) -> Result<()> {
        let stat = visit.stat;
        if stat.st_nlink <= 1 || self.linked.insert(stat.st_ino) {
            self.totals.bytes += u64::try_from(stat.st_size).unwrap_or(0);
        }
        if stat.st_blocks == 0 || self.every {
            match open_file(visit.dir, visit.name) {
                Err(errno) if is_of_the_disk(errno) => {
                    self.unreadable("open file", visit.path, errno)?;
                }
                file => {
                    let file = file.context("open file", path::shown(visit.path))?;
                    self.check(file.as_fd(), visit.path)?;
                }
            }
        }
        Ok(())
    }

    fn check(&mut self, fd: BorrowedFd<'_>, at: &[u8]) -> Result<()> {
        match check_upper_xattrs(fd) {
            Err(errno) if is_of_the_disk(errno) => self.unreadable("read attributes", at, errno)?,
            found => {
                if let Some(why) = found.context("read attributes", path::shown(at))? {
                    self.refuse(at, &why);
                }
            }
        }
        Ok(())
    }

    fn refuse(&mut self, at: &[u8], why: &str) {
        self.refused.push(Refused { path: at.to_vec(), why: why.to_owned(), unread: false });
    }
}
