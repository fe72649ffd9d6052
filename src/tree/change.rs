//! What differs between two views of a tree.
//!
//! The lowers are never walked as a whole. A path can only differ if it is in one of the layers that differ,
//! or if such a layer replaced or hid one of its parents. So the walk is over the entries of those layers,
//! and each path is looked at in both merged views; only beneath a directory that a layer replaced, hid
//! (opaque) or took away (whiteout) the views themselves are read.
//!
//! Owners and devices that are not on disk but remembered ([`super::recall`]) are what they are inside.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType as Kind, Stat};
use serde::{Deserialize, Serialize};

use super::dir::{Names, Trail, kind, lstat_if_any, open_child};
use super::path;
use super::recall::{Recall, Seen};
use super::walk::{Descend, Visit, walk};
use crate::fault::{Context, Result};

mod candidates;
mod content;
mod entry;

use candidates::Candidate;
pub(super) use entry::{difference, directories_differ, owner_or_mode};

/// How a path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// It is only in the second view.
    Added,
    /// Content, link target or device number.
    Modified,
    /// It is only in the first view.
    Deleted,
    /// It is another type of file.
    Type,
    /// Same content, but another mode, owner, group, attribute or, for regular files, time of
    /// modification. Times of directories and links are no change.
    Metadata,
}

/// The types of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileType {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character or block device.
    Device,
}

impl From<&Stat> for FileType {
    fn from(stat: &Stat) -> Self {
        match kind(stat) {
            Kind::Directory => Self::Dir,
            Kind::Symlink => Self::Symlink,
            Kind::Fifo => Self::Fifo,
            Kind::Socket => Self::Socket,
            Kind::CharacterDevice | Kind::BlockDevice => Self::Device,
            _ => Self::File,
        }
    }
}

/// One path that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Beneath the root, without a leading `/`; `.` is the root itself.
    #[serde(flatten, with = "path")]
    pub path: Vec<u8>,
    /// How it differs.
    pub kind: ChangeKind,
    /// Its type in the second view, or in the first if it was deleted.
    #[serde(rename = "type")]
    pub file_type: FileType,
}

/// A merged view.
#[derive(Debug)]
pub struct View<'a> {
    /// Its root.
    pub root: BorrowedFd<'a>,
    /// What its layers remember.
    pub recall: Recall<'a>,
}

impl<'a> View<'a> {
    /// A view of which nothing is remembered.
    pub fn plain(root: BorrowedFd<'a>) -> Self {
        Self { root, recall: Recall::default() }
    }
}

/// Compares two merged views.
///
/// `from` is `None` for the view that holds nothing. `candidates` are the directories of the layers that
/// are in the chain of one view and not of the other; layers of both need not be named. The result is
/// sorted by the bytes of the path. A directory that is gone or was replaced names all that was in it.
///
/// # Errors
/// What the system says, naming the path.
pub fn compare(
    from: Option<&View<'_>>,
    to: &View<'_>,
    candidates: &[BorrowedFd<'_>],
) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    match from {
        None => subtree(to.root, &to.recall, &[], ChangeKind::Added, &mut changes)?,
        Some(from) => {
            let list = candidates::collect(candidates)?;
            let mut pair = Pair::new(from, to, &mut changes)?;
            pair.root()?;
            if list.whole {
                pair.whole(&[])?;
            } else {
                pair.sweep(&list.paths)?;
            }
        }
    }
    changes.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(changes)
}

/// Names everything beneath a directory that is in one view only.
fn subtree(
    dir: BorrowedFd<'_>,
    recall: &Recall<'_>,
    prefix: &[u8],
    change: ChangeKind,
    changes: &mut Vec<Change>,
) -> Result<()> {
    walk(dir, &mut |visit: &Visit<'_>| {
        let mut path = prefix.to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(visit.path);
        let seen = Seen::new(recall, &path, *visit.stat).context("look at", path::shown(&path))?;
        changes.push(Change { path, kind: change, file_type: seen.file_type() });
        Ok(Descend::Yes)
    })
}

/// The same directory in both views, and what was found so far.
struct Pair<'a> {
    from: Trail,
    to: Trail,
    /// What the layers of each remember.
    recall: (&'a Recall<'a>, &'a Recall<'a>),
    changes: &'a mut Vec<Change>,
}

impl<'a> Pair<'a> {
    fn new(from: &'a View<'a>, to: &'a View<'a>, changes: &'a mut Vec<Change>) -> Result<Self> {
        let recall = (&from.recall, &to.recall);
        let from = Trail::new(from.root).context("open directory", "/")?;
        let to = Trail::new(to.root).context("open directory", "/")?;
        Ok(Self { from, to, recall, changes })
    }

    fn root(&mut self) -> Result<()> {
        if entry::directories_differ(self.from.here(), self.to.here()).context("look at", "/")? {
            self.note(b".", ChangeKind::Metadata, FileType::Dir);
        }
        Ok(())
    }

    fn note(&mut self, path: &[u8], kind: ChangeKind, file_type: FileType) {
        self.changes.push(Change { path: path.to_vec(), kind, file_type });
    }

    /// Looks at the paths of the layers, each directory before its content.
    fn sweep(&mut self, mut list: &[Candidate]) -> Result<()> {
        let mut at: Vec<u8> = Vec::new();
        while let Some((candidate, rest)) = list.split_first() {
            let path = &candidate.path;
            let (parent, name) = candidate.split();
            while at != parent {
                self.leave(&at)?;
                at.truncate(at.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
            }
            list = rest;
            if self.entry(path, &name)? {
                self.enter(path, &name)?;
                if !candidate.replaced {
                    at.clone_from(path);
                    continue;
                }
                self.whole(path)?;
                self.leave(path)?;
            }
            let beneath = list.iter().take_while(|next| next.is_beneath(path)).count();
            list = &list[beneath..];
        }
        Ok(())
    }

    /// Compares everything in the present directories, whose path is `top`, with one another.
    fn whole(&mut self, top: &[u8]) -> Result<()> {
        let mut path = top.to_vec();
        let mut levels = vec![self.names(&path)?];
        while let Some((names, prefix)) = levels.last_mut() {
            path.truncate(*prefix);
            let Some(name) = names.pop() else {
                levels.pop();
                if !levels.is_empty() {
                    self.leave(&path)?;
                }
                continue;
            };
            path::join(&mut path, &name);
            if self.entry(&path, &name)? {
                self.enter(&path, &name)?;
                levels.push(self.names(&path)?);
            }
        }
        Ok(())
    }

    /// The names in either of the present directories, last first.
    fn names(&self, path: &[u8]) -> Result<(Vec<CString>, usize)> {
        let mut names = Vec::new();
        for dir in [self.from.here(), self.to.here()] {
            let found = Names::read(dir).context("read directory", path::shown(path))?;
            names.extend(found.iter().map(|(name, _)| name.to_owned()));
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        names.dedup();
        Ok((names, path.len()))
    }

    fn enter(&mut self, path: &[u8], name: &CStr) -> Result<()> {
        for trail in [&mut self.from, &mut self.to] {
            let child = open_child(trail.here(), name);
            let child = child.context("open directory", path::shown(path))?;
            trail.push(child).context("open directory", path::shown(path))?;
        }
        Ok(())
    }

    fn leave(&mut self, path: &[u8]) -> Result<()> {
        for trail in [&mut self.from, &mut self.to] {
            trail.pop().context("climb out of directory", path::shown(path))?;
        }
        Ok(())
    }

    /// Looks at one name in both views. True: it is a directory in both, its content is not yet compared.
    fn entry(&mut self, path: &[u8], name: &CStr) -> Result<bool> {
        let look = |dir, recall: &'a Recall<'a>| {
            lstat_if_any(dir, name)
                .and_then(|found| found.map(|stat| Seen::new(recall, path, stat)).transpose())
                .context("look at", path::shown(path))
        };
        let found = (look(self.from.here(), self.recall.0)?, look(self.to.here(), self.recall.1)?);
        match found {
            (None, None) => Ok(false),
            (Some(old), None) => {
                self.note(path, ChangeKind::Deleted, old.file_type());
                self.all(Side::From, path, name, &old.stat)?;
                Ok(false)
            }
            (None, Some(new)) => {
                self.note(path, ChangeKind::Added, new.file_type());
                self.all(Side::To, path, name, &new.stat)?;
                Ok(false)
            }
            (Some(old), Some(new)) if entry::is_another_type(&old, &new) => {
                self.note(path, ChangeKind::Type, new.file_type());
                self.all(Side::From, path, name, &old.stat)?;
                self.all(Side::To, path, name, &new.stat)?;
                Ok(false)
            }
            (Some(old), Some(new)) => {
                let (from, to) = ((self.from.here(), &old), (self.to.here(), &new));
                let found = entry::seen_difference(name, from, to);
                if let Some(found) = found.context("compare", path::shown(path))? {
                    self.note(path, found, new.file_type());
                }
                Ok(kind(&new.stat) == Kind::Directory)
            }
        }
    }

    /// Names everything in a directory that is in one view only.
    fn all(&mut self, side: Side, path: &[u8], name: &CStr, stat: &Stat) -> Result<()> {
        if kind(stat) != Kind::Directory {
            return Ok(());
        }
        let (dir, recall, change) = match side {
            Side::From => (self.from.here(), self.recall.0, ChangeKind::Deleted),
            Side::To => (self.to.here(), self.recall.1, ChangeKind::Added),
        };
        let dir = open_child(dir, name).context("open directory", path::shown(path))?;
        subtree(dir.as_fd(), recall, path, change, self.changes)
    }
}

#[derive(Debug, Clone, Copy)]
enum Side {
    From,
    To,
}
