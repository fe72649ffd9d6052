//! A directory of several layers, looked at as overlayfs merges it, without a mount.
//!
//! Layers do not change, so a path that was found to be a directory in one, component by component, stays
//! one: later it is named in one go. Only the layers' roots are kept open, however deep one looks.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Stat, readlinkat};
use rustix::io::Errno;

use super::dir::{kind, lstat_if_any, open_beneath};
use super::path;
use super::whiteout::{is_opaque, is_whiteout};

/// How many symbolic links a path may lead through, as in the kernel.
const MOST_LINKS: usize = 40;

/// PATH_MAX: no call takes a longer path, with the NUL byte at its end.
const LONGEST_PATH: usize = 4096;

/// A directory of the merged view.
#[derive(Debug, Clone)]
pub struct Merged<'a> {
    layers: &'a [BorrowedFd<'a>],
    /// Beneath the root, without a leading `/`; empty for the root.
    path: Vec<u8>,
    /// The layers that have it, by their index, top first.
    parts: Vec<usize>,
}

/// What stands at a name of the merged view.
#[derive(Debug)]
pub enum Found<'a> {
    /// Nothing: no layer has it, or it was taken away.
    Nothing,
    /// A directory.
    Directory(Merged<'a>),
    /// Anything else.
    Other {
        /// The layer that has it, by its index.
        layer: usize,
        /// Its lstat(2).
        stat: Stat,
    },
}

impl<'a> Merged<'a> {
    /// The root of a view of these directories in the form of uppers, top first.
    ///
    /// # Errors
    /// What opening a layer or reading its attributes says.
    pub fn root(layers: &'a [BorrowedFd<'a>]) -> Result<Self, Errno> {
        let mut root = Self { layers, path: Vec::new(), parts: Vec::new() };
        for layer in 0..layers.len() {
            root.parts.push(layer);
            if is_opaque(root.open(layer)?.as_fd())? {
                break;
            }
        }
        Ok(root)
    }

    /// The same one, found before: its path, and which of these layers have it.
    pub(super) fn again(
        layers: &'a [BorrowedFd<'a>],
        (path, parts): (Vec<u8>, Vec<usize>),
    ) -> Self {
        Self { layers, path, parts }
    }

    /// What [`Merged::again`] needs of it.
    pub(super) fn found(&self) -> (Vec<u8>, Vec<usize>) {
        (self.path.clone(), self.parts.clone())
    }

    /// Looks at one name.
    ///
    /// # Errors
    /// What the system says.
    pub fn child(&self, name: &CStr) -> Result<Found<'a>, Errno> {
        let mut path = self.path.clone();
        path::join(&mut path, name);
        let whole = CString::new(&*path).map_err(|_| Errno::INVAL)?;
        let is_long = path.len() >= LONGEST_PATH;
        let mut child = Self { layers: self.layers, path, parts: Vec::new() };
        for &layer in &self.parts {
            let opened = if is_long { Some(self.open(layer)?) } else { None };
            let (dir, name) = match &opened {
                Some(dir) => (dir.as_fd(), name),
                None => (self.layers[layer], &*whole),
            };
            let Some(stat) = lstat_if_any(dir, name)? else { continue };
            if kind(&stat) != FileType::Directory {
                if !child.parts.is_empty() || is_whiteout(dir, name, &stat)? {
                    break;
                }
                return Ok(Found::Other { layer, stat });
            }
            child.parts.push(layer);
            if is_opaque(child.open(layer)?.as_fd())? {
                break;
            }
        }
        Ok(if child.parts.is_empty() { Found::Nothing } else { Found::Directory(child) })
    }

    /// Opens the part of this directory that a layer has, for reading.
    ///
    /// # Errors
    /// What openat2(2) says.
    pub fn open(&self, layer: usize) -> Result<OwnedFd, Errno> {
        open_beneath(self.layers[layer], &self.path)
    }

    /// The topmost layer that has it, by its index.
    pub fn top(&self) -> Option<usize> {
        self.parts.first().copied()
    }

    /// Opens the part whose owner, mode and attributes the view shows.
    ///
    /// # Errors
    /// As [`Merged::open`].
    pub fn open_top(&self) -> Result<OwnedFd, Errno> {
        self.open(self.top().ok_or(Errno::NOENT)?)
    }
}

/// Where `path` leads in the view of `layers`: the same place by a path without symbolic links, `.` and
/// `..`; none if nothing is there.
///
/// # Errors
/// What the system says.
pub fn plain_path(layers: &[BorrowedFd<'_>], path: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    let mut trail = vec![Merged::root(layers)?];
    let mut left = components(path);
    let mut links = 0;
    while let Some(name) = left.pop() {
        match name.to_bytes() {
            b"" | b"." => continue,
            b".." => {
                trail.truncate((trail.len() - 1).max(1));
                continue;
            }
            _ => {}
        }
        let here = &trail[trail.len() - 1];
        match here.child(&name)? {
            Found::Nothing => return Ok(None),
            Found::Directory(child) => trail.push(child),
            Found::Other { layer, stat } if kind(&stat) == FileType::Symlink => {
                links += 1;
                if links > MOST_LINKS {
                    return Ok(None);
                }
                let target = readlinkat(here.open(layer)?, &name, Vec::new())?;
                if target.to_bytes().starts_with(b"/") {
                    trail.truncate(1);
                }
                left.extend(components(target.to_bytes()));
            }
            Found::Other { .. } => {
                let mut path = here.path.clone();
                path::join(&mut path, &name);
                return Ok(left.is_empty().then_some(path));
            }
        }
    }
    Ok(trail.pop().map(|here| here.path))
}

/// The components of a path, the last one first.
fn components(path: &[u8]) -> Vec<CString> {
    path.split(|byte| *byte == b'/').rev().filter_map(|name| CString::new(name).ok()).collect()
}
