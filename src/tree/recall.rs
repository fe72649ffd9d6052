//! What the layers of a view remember of its paths: owners and devices that are not on disk.
//!
//! The file `owners` of a layer tells of all in that layer that has something to remember, whatever the type of
//! file, and a commit has judged what of it is to be believed. The attributes on the files themselves are what
//! their commands say. So of a path counts what the topmost layer that has it says, and only that: it has it
//! copied up, with all that was remembered beneath, or anew.

use std::cell::RefCell;
use std::ffi::{CStr, CString};
use std::os::fd::BorrowedFd;

use rustix::fs::Stat;
use rustix::io::Errno;

use super::change::FileType;
use super::merged::{Found, Merged, plain_path};
use super::owners::{Device, Remembered};
use super::path;

/// The layers of a view, and what each of them remembers.
#[derive(Debug, Clone, Default)]
pub struct Recall<'a> {
    layers: Vec<BorrowedFd<'a>>,
    known: Vec<&'a [Remembered]>,
    /// The directory of the last path that was looked for, and which layers have it: mostly that of the next one, too.
    last: RefCell<Option<(Vec<u8>, Vec<usize>)>>,
}

impl<'a> Recall<'a> {
    /// Of these layers, top first, each with what its `owners` says, sorted by path.
    pub fn new(layers: Vec<BorrowedFd<'a>>, known: Vec<&'a [Remembered]>) -> Self {
        Self { layers, known, last: RefCell::default() }
    }

    /// Whether no layer remembers anything.
    pub fn is_empty(&self) -> bool {
        self.known.iter().all(|known| known.is_empty())
    }

    /// What is remembered of a path beneath the root, without a leading `/`; empty for the root itself.
    ///
    /// # Errors
    /// What looking at the layers says.
    pub fn of(&self, path: &[u8]) -> Result<Option<&'a Remembered>, Errno> {
        // Mostly nobody says anything, and no layer need be looked at.
        if self.known.iter().all(|known| look_up(known, path).is_none()) {
            return Ok(None);
        }
        let top = self.topmost(path)?;
        Ok(top.and_then(|layer| self.known.get(layer)).and_then(|known| look_up(known, path)))
    }

    /// The topmost layer that has a path, by its index.
    fn topmost(&self, path: &[u8]) -> Result<Option<usize>, Errno> {
        let (parent, name) = path::split(path);
        let Some(dir) = self.directory(parent)? else { return Ok(None) };
        if path.is_empty() {
            return Ok(dir.top());
        }
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        Ok(match dir.child(&name)? {
            Found::Directory(child) => child.top(),
            Found::Other { layer, .. } => Some(layer),
            Found::Nothing => None,
        })
    }

    /// The directory at a path; none if that is none.
    fn directory(&self, path: &[u8]) -> Result<Option<Merged<'_>>, Errno> {
        if let Some(last) = self.last.borrow().as_ref().filter(|(last, _)| last == path) {
            return Ok(Some(Merged::again(&self.layers, last.clone())));
        }
        let mut here = Merged::root(&self.layers)?;
        for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
            let name = CString::new(part).map_err(|_| Errno::INVAL)?;
            let Found::Directory(child) = here.child(&name)? else { return Ok(None) };
            here = child;
        }
        *self.last.borrow_mut() = Some(here.found());
        Ok(Some(here))
    }
}

/// What a layer says of a path; `known` is sorted by path.
pub(super) fn look_up<'a>(known: &'a [Remembered], path: &[u8]) -> Option<&'a Remembered> {
    known.binary_search_by(|entry| entry.path.as_slice().cmp(path)).ok().map(|place| &known[place])
}

/// A file, as it can be looked at.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// A directory or regular file, open for reading.
    Open(BorrowedFd<'a>),
    /// Anything else: a name in an open directory.
    Entry(BorrowedFd<'a>, &'a CStr),
}

/// What a file is inside, where the disk has something else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inside {
    /// Its owner.
    pub uid: Option<u32>,
    /// Its group.
    pub gid: Option<u32>,
    /// The node that an empty file stands for.
    pub device: Option<Device>,
}

impl From<&Remembered> for Inside {
    fn from(known: &Remembered) -> Self {
        Self { uid: known.uid, gid: known.gid, device: known.device }
    }
}

/// Somebody who knows of a tree what is not on disk.
pub trait Memory {
    /// What is remembered of the file at `path`, beneath the top of the tree, without a leading `/`; empty for the top.
    ///
    /// # Errors
    /// What looking at it says.
    fn of(&self, path: &[u8], place: Place<'_>, stat: &Stat) -> Result<Inside, Errno>;
}

/// A part of a view, from some path on.
#[derive(Debug)]
pub struct Part<'a> {
    recall: &'a Recall<'a>,
    top: Vec<u8>,
}

impl<'a> Recall<'a> {
    /// The part of the view that `path` leads to, as in the view: symbolic links on the way are followed.
    ///
    /// # Errors
    /// What the system says.
    pub fn part(&'a self, path: &[u8]) -> Result<Part<'a>, Errno> {
        let top = if self.is_empty() { None } else { plain_path(&self.layers, path)? };
        Ok(Part { recall: self, top: top.unwrap_or_default() })
    }
}

impl Part<'_> {
    /// The part of one name in it.
    #[must_use]
    pub fn child(mut self, name: &CStr) -> Self {
        path::join(&mut self.top, name);
        self
    }
}

impl Memory for Part<'_> {
    fn of(&self, path: &[u8], _: Place<'_>, stat: &Stat) -> Result<Inside, Errno> {
        if self.recall.is_empty() {
            return Ok(Inside::default());
        }
        let mut whole = self.top.clone();
        if !whole.is_empty() && !path.is_empty() {
            whole.push(b'/');
        }
        whole.extend_from_slice(path);
        let seen = Seen::new(self.recall, &whole, *stat)?;
        let inside = seen.known.map(Inside::from).unwrap_or_default();
        Ok(Inside { device: seen.device(), ..inside })
    }
}

/// One path of a view: what is on disk, and what is remembered of it.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Its lstat(2).
    pub stat: Stat,
    known: Option<&'a Remembered>,
}

impl<'a> Seen<'a> {
    /// A path that looks like this.
    ///
    /// # Errors
    /// As [`Recall::of`].
    pub fn new(recall: &Recall<'a>, path: &[u8], stat: Stat) -> Result<Self, Errno> {
        Ok(Self { stat, known: recall.of(path)? })
    }

    /// The node that an empty file stands for.
    pub fn device(&self) -> Option<Device> {
        let device = self.known?.device?;
        (FileType::from(&self.stat) == FileType::File).then_some(device)
    }

    /// Its type as inside.
    pub fn file_type(&self) -> FileType {
        if self.device().is_some() { FileType::Device } else { (&self.stat).into() }
    }

    /// Its owner and group as inside.
    pub fn owner(&self) -> (u32, u32) {
        let id = |of: fn(&Remembered) -> Option<u32>| self.known.and_then(of);
        let uid = id(|known| known.uid).unwrap_or(self.stat.st_uid);
        (uid, id(|known| known.gid).unwrap_or(self.stat.st_gid))
    }
}
