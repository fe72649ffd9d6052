//! The paths that may differ: the entries of the layers that are in one chain only.

use std::ffi::CString;
use std::os::fd::BorrowedFd;

use rustix::fs::FileType;

use crate::fault::{Context, Result};
use crate::tree::path;
use crate::tree::walk::{Descend, Visit, Visitor, walk};
use crate::tree::whiteout::is_opaque;

/// A path of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) path: Vec<u8>,
    /// A layer holds no directory here, or an opaque one: what the layers beneath have under this path is
    /// hidden.
    pub(super) replaced: bool,
}

impl Candidate {
    /// The path of the directory that holds it, and its name there.
    pub(super) fn split(&self) -> (&[u8], CString) {
        let (parent, name) = path::split(&self.path);
        (parent, CString::new(name).expect("a name that the kernel gave has no NUL"))
    }

    pub(super) fn is_beneath(&self, top: &[u8]) -> bool {
        path::is_beneath(&self.path, top)
    }
}

/// All candidates, each directory directly before its content.
#[derive(Debug, Default)]
pub(super) struct List {
    pub(super) paths: Vec<Candidate>,
    /// A layer's root is opaque: everything may differ.
    pub(super) whole: bool,
}

pub(super) fn collect(layers: &[BorrowedFd<'_>]) -> Result<List> {
    let mut list = List::default();
    for layer in layers {
        walk(*layer, &mut list)?;
    }
    list.paths.sort_unstable_by(|a, b| order(&a.path).cmp(order(&b.path)));
    list.paths.dedup_by(|next, first| {
        let same = next.path == first.path;
        first.replaced |= same && next.replaced;
        same
    });
    Ok(list)
}

/// The bytes of a path such that the content of `a` follows `a` before `a-b` does: no name holds a NUL, so
/// the separator sorts before everything else.
fn order(path: &[u8]) -> impl Iterator<Item = u8> {
    path.iter().map(|byte| if *byte == b'/' { 0 } else { *byte })
}

impl Visitor for List {
    fn entry(&mut self, visit: &Visit<'_>) -> Result<Descend> {
        let replaced = visit.kind() != FileType::Directory;
        self.paths.push(Candidate { path: visit.path.to_vec(), replaced });
        Ok(Descend::Yes)
    }

    fn enter(&mut self, dir: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
        let opaque = is_opaque(dir).context("read attributes", path::shown(path))?;
        match self.paths.last_mut() {
            Some(entered) if !path.is_empty() => entered.replaced |= opaque,
            _ => self.whole |= opaque,
        }
        Ok(())
    }
}
