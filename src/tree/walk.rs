//! The ordered walk of a tree: every entry once, each directory before its content, names in the order
//! of their bytes.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::dir::{Names, Trail, kind, lstat, open_child};
use super::path;
use crate::fault::{Context, Fault, Result, is_of_the_disk};

/// One entry, as a [`Visitor`] sees it.
#[derive(Debug, Clone, Copy)]
pub struct Visit<'a> {
    /// The directory that holds it.
    pub dir: BorrowedFd<'a>,
    /// Its name there.
    pub name: &'a CStr,
    /// Its path beneath the root of the walk, without a leading `/`.
    pub path: &'a [u8],
    /// Its lstat(2).
    pub stat: &'a Stat,
}

impl Visit<'_> {
    /// What type of file it is.
    pub fn kind(&self) -> FileType {
        kind(self.stat)
    }
}

/// Whether the walk goes into the directory that was just visited. Means nothing for other types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Descend {
    /// Visit what is in it.
    Yes,
    /// Leave it out.
    No,
}

/// What is done at the entries. A closure over [`Visit`] serves where the rest is not needed.
pub trait Visitor {
    /// An entry, before its content.
    ///
    /// # Errors
    /// Any fault ends the walk and is handed on.
    fn entry(&mut self, visit: &Visit<'_>) -> Result<Descend>;

    /// A directory was opened; its content follows. Also called for the root, with an empty path.
    ///
    /// # Errors
    /// As [`Visitor::entry`].
    fn enter(&mut self, _dir: BorrowedFd<'_>, _path: &[u8]) -> Result<()> {
        Ok(())
    }

    /// All content of a directory was visited. Also called for the root.
    ///
    /// # Errors
    /// As [`Visitor::entry`].
    fn leave(&mut self, _dir: BorrowedFd<'_>, _path: &[u8]) -> Result<()> {
        Ok(())
    }

    /// A directory was visited and would be entered, but a mount lies on it: it is left out.
    ///
    /// # Errors
    /// As [`Visitor::entry`].
    fn mount(&mut self, _visit: &Visit<'_>) -> Result<()> {
        Ok(())
    }

    /// Whether others may change the tree meanwhile: what is gone when it is looked at is passed over then.
    fn tolerates_change(&self) -> bool {
        false
    }

    /// The disk cannot read an entry (its inode, or the names in a directory that was visited but not entered). It is
    /// left out, with all beneath it, unless this is a fault.
    ///
    /// # Errors
    /// As [`Visitor::entry`]: of itself the fault of what the system says.
    fn unreadable(&mut self, what: &str, path: &[u8], errno: Errno) -> Result<()> {
        Err(Fault::errno(what, path::shown(path), errno))
    }
}

impl<F: FnMut(&Visit<'_>) -> Result<Descend>> Visitor for F {
    fn entry(&mut self, visit: &Visit<'_>) -> Result<Descend> {
        self(visit)
    }
}

/// Walks everything beneath `root`, not `root` itself. Mounts are not crossed. An entry that vanishes
/// while the walk goes on is a fault, because the trees walked are at rest, unless the visitor says otherwise.
///
/// # Errors
/// What the system says, naming the path; whatever the visitor returns.
pub fn walk(root: BorrowedFd<'_>, visitor: &mut impl Visitor) -> Result<()> {
    let mut path = Vec::new();
    let opened = Trail::new(root).and_then(|trail| Ok((Level::read(trail.here(), 0)?, trail)));
    let (level, mut trail) = match told("open directory", &path, opened, visitor)? {
        Some(opened) => opened,
        None => return Ok(()),
    };
    let mut levels = vec![level];
    visitor.enter(trail.here(), &path)?;
    while let Some(level) = levels.last_mut() {
        path.truncate(level.prefix);
        let Some((name, _)) = level.names.get(level.next) else {
            visitor.leave(trail.here(), &path)?;
            levels.pop();
            trail.pop().context("climb out of directory", path::shown(&path))?;
            continue;
        };
        level.next += 1;
        path::join(&mut path, name);
        let Some(stat) = told("look at", &path, lstat(trail.here(), name), visitor)? else {
            continue;
        };
        let visit = Visit { dir: trail.here(), name, path: &path, stat: &stat };
        if visitor.entry(&visit)? == Descend::No || visit.kind() != FileType::Directory {
            continue;
        }
        let opened = match open_child(trail.here(), name) {
            Err(Errno::XDEV) => {
                visitor.mount(&visit)?;
                continue;
            }
            other => other.and_then(|child| Ok((Level::read(child.as_fd(), path.len())?, child))),
        };
        let Some((level, child)) = told("open directory", &path, opened, visitor)? else {
            continue;
        };
        visitor.enter(child.as_fd(), &path)?;
        levels.push(level);
        trail.push(child).context("open directory", path::shown(&path))?;
    }
    Ok(())
}

/// What was read; none if the disk cannot read it and the visitor goes on without.
fn told<T>(
    what: &str,
    path: &[u8],
    read: Result<T, Errno>,
    visitor: &mut impl Visitor,
) -> Result<Option<T>> {
    match read {
        // Removed, or another file by now.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if visitor.tolerates_change() => Ok(None),
        Err(errno) if is_of_the_disk(errno) => {
            visitor.unreadable(what, path, errno)?;
            Ok(None)
        }
        other => other.map(Some).context(what, path::shown(path)),
    }
}

/// One directory on the way from the root: what is still to be visited in it.
struct Level {
    names: Names,
    next: usize,
    /// Length of the directory's own path.
    prefix: usize,
}

impl Level {
    fn read(dir: BorrowedFd<'_>, prefix: usize) -> Result<Self, Errno> {
        Ok(Self { names: Names::read(dir)?.sorted(), next: 0, prefix })
    }
}
