//! Records of layers: small, written once, never changed.

use std::os::fd::{AsFd, OwnedFd};

use jiff::Timestamp;
use rustix::fs::{AtFlags, fstat, statat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{LayerId, Store, file, layout};
use crate::fault::{Context, Fault, Result, is_of_the_disk, why};

/// What `layer.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Its own id.
    pub id: LayerId,
    /// The layer it is a difference to; none for the first of a box and for a fold layer.
    pub parent: Option<LayerId>,
    /// How many layers are beneath it by `parent`.
    pub depth: u32,
    /// The layers it mounts with, base first, itself last. A fold layer stands for those it folds.
    /// The other members may have been mounted with others when they were made, which may be gone.
    pub mount: Vec<LayerId>,
    /// Of a fold layer: the layers it stands for, base first. Else empty.
    #[serde(default)]
    pub folds: Vec<LayerId>,
    /// When it was made.
    pub created: Timestamp,
    /// The command that made it; empty for an import.
    #[serde(default)]
    pub argv: Vec<String>,
    /// The exit code of that command.
    #[serde(default)]
    pub exit: Option<i32>,
    /// How many entries its tree has.
    pub files: u64,
    /// The bytes of the files in its tree.
    pub own_bytes: u64,
    /// The digest of its uncompressed archive in OCI form, if known.
    #[serde(default)]
    pub diff_id: Option<String>,
    /// How many entries have an owner that the id map does not hold.
    #[serde(default)]
    pub unmapped: u64,
}

/// What a listing tells of a layer: a part of its record, read without the chain, which is the most of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LayerSize {
    id: LayerId,
    /// How many layers are beneath it by `parent`.
    pub depth: u32,
    /// The bytes of the files in its tree.
    pub own_bytes: u64,
}

/// Reads of many layers what a listing tells.
#[derive(Debug)]
pub struct LayerSizes<'s> {
    store: &'s Store,
    /// `layers/` as a place: a path that begins here is found sooner.
    dir: OwnedFd,
}

impl LayerSizes<'_> {
    /// A part of the record of a layer.
    ///
    /// # Errors
    /// As [`Store::layer`].
    pub fn of(&self, id: &LayerId) -> Result<LayerSize> {
        let name = layout::record_of_layer(id);
        let full = || layout::layer_record(id);
        let found = self.store.record_in(self.dir.as_fd(), &name, full)?;
        self.store.require_own(id, found, |record: &LayerSize| record.id == *id)
    }
}

impl LayerRecord {
    /// Whether the record fits itself: it is the last of its own chain.
    pub(crate) fn is_sound(&self) -> bool {
        self.mount.last() == Some(&self.id) && self.parent != Some(self.id)
    }
}

impl Store {
    /// The record of a layer.
    ///
    /// # Errors
    /// Damaged if there is no such layer, or if its record is not what we wrote.
    pub fn layer(&self, id: &LayerId) -> Result<LayerRecord> {
        let found = self.read_record(&layout::layer_record(id))?;
        self.require_own(id, found, |record: &LayerRecord| record.id == *id && record.is_sound())
    }

    /// For reading parts of the records of many layers.
    ///
    /// # Errors
    /// What opening a directory says.
    pub fn layer_sizes(&self) -> Result<LayerSizes<'_>> {
        match file::open_place(self.dir(), layout::LAYERS) {
            Err(Errno::NOENT) => Err(self.lost("open directory", layout::LAYERS)),
            Err(errno) => Err(Fault::errno("open directory", self.show(layout::LAYERS), errno)),
            Ok(dir) => Ok(LayerSizes { store: self, dir }),
        }
    }

    /// What was found as the record of a layer, if it is.
    fn require_own<T>(
        &self,
        id: &LayerId,
        found: Option<T>,
        is_it: impl FnOnce(&T) -> bool,
    ) -> Result<T> {
        let shown = || self.show(&layout::layer_record(id));
        match found {
            // Ids come from records of ours: what they name must be there.
            None => Err(Fault::damaged(format!("open layer: {}: it is missing", shown()))),
            Some(record) if is_it(&record) => Ok(record),
            Some(_) => Err(Fault::damaged(format!(
                "read record: {}: it is not the record of this layer",
                shown()
            ))),
        }
    }

    /// The record of a layer that can be opened: all that it is mounted with is there.
    ///
    /// # Errors
    /// As [`Store::layer`], also for a layer beneath; not-found for a fold layer, which is no tree of its own, and
    /// for a layer whose chain was folded and given back, so that it lives on only beneath later ones.
    pub fn openable(&self, id: &LayerId) -> Result<LayerRecord> {
        let record = self.layer(id)?;
        let hint = "`sandbox list` shows what can be opened";
        if !record.folds.is_empty() {
            let count = record.folds.len();
            return Err(Fault::not_found(format!(
                "open layer: {id}: it stands for {count} layers of a chain, and is no snapshot"
            ))
            .hint(hint));
        }
        for member in record.mount.iter().rev() {
            if self.has_tree(member)? {
                continue;
            }
            if member == id || self.has_layer(member)? || !self.is_folded(member)? {
                return Err(self.no_tree(member));
            }
            return Err(Fault::not_found(format!(
                "open layer: {id}: folded away: only snapshots on top of it are there"
            ))
            .hint(hint));
        }
        Ok(record)
    }

    /// Whether a layer is there that stands for this one.
    fn is_folded(&self, id: &LayerId) -> Result<bool> {
        for other in self.layers()? {
            // One that cannot be read stands for nothing that could be opened.
            if self.layer(&other).is_ok_and(|record| record.folds.contains(id)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The fault of a layer whose tree is not there.
    fn no_tree(&self, id: &LayerId) -> Fault {
        let missing = match self.has_layer(id) {
            Ok(true) => layout::tree(id),
            _ => layout::layer(id),
        };
        Fault::damaged(format!("open layer: {}: it is missing", self.show(&missing)))
    }

    fn has_tree(&self, id: &LayerId) -> Result<bool> {
        match statat(self.dir(), layout::tree(id), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(errno) => Err(Fault::errno("open layer", id, errno)),
        }
    }

    /// Whether there is a layer, whatever its record says.
    pub fn has_layer(&self, id: &LayerId) -> Result<bool> {
        match statat(self.dir(), layout::layer(id), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(Fault::errno("open layer", id, errno)),
        }
    }

    /// The tree of a layer as a place (`O_PATH`); none if there is no such layer (any more).
    ///
    /// # Errors
    /// What openat(2) says; damaged where the disk cannot read it.
    pub fn layer_tree(&self, id: &LayerId) -> Result<Option<OwnedFd>> {
        match file::open_place(self.dir(), &layout::tree(id)) {
            Ok(dir) => Ok(Some(dir)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) if is_of_the_disk(errno) => {
                Err(Fault::damaged(format!("open layer: {id}: {}", why(errno))))
            }
            Err(errno) => Err(Fault::errno("open layer", id, errno)),
        }
    }

    /// Whether `tree` is still that of the layer: what is removed is moved away first, so that a tree which was
    /// looked at before, and is still there, was whole all the time.
    ///
    /// # Errors
    /// What the system calls say.
    pub fn is_tree_of(&self, tree: &OwnedFd, id: &LayerId) -> Result<bool> {
        let held = fstat(tree).context("look at layer", id)?;
        match statat(self.dir(), layout::tree(id), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(named) => Ok((named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(errno) => Err(Fault::errno("look at layer", id, errno)),
        }
    }

    /// The ids of all layers, oldest first.
    pub fn layers(&self) -> Result<Vec<LayerId>> {
        Ok(self.names(layout::LAYERS)?.iter().filter_map(|name| name.parse().ok()).collect())
    }
}
