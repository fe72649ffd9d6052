//! Takes out of the upper of a run what was copied up for its command and did not change, and what was made to mount on.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};

use super::diff::no_tree;
use crate::fault::{Context, Result};
use crate::ids::{self, Entry, Powers};
use crate::rootfs::copy_up::DATABASES;
use crate::store::{Run, RunRecord, Store, reached};
use crate::tree;
use crate::tree::merged::plain_path;

/// An ended run, open for it.
#[derive(Debug)]
pub(super) struct Upper<'a> {
    record: &'a RunRecord,
    /// The upper and the layers beneath it, top first, as places (`O_PATH`).
    layers: Vec<OwnedFd>,
}

impl<'a> Upper<'a> {
    /// Opens what is needed with the rights of the caller.
    ///
    /// # Errors
    /// Damaged for a layer that is not there.
    pub(super) fn open(store: &Store, run: &Run, record: &'a RunRecord) -> Result<Self> {
        let mut layers = vec![run.fs_dir()?];
        for id in record.chain.iter().rev() {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let tree = format!("layers/{id}/fs");
            let fs = openat(store.dir(), &tree, flags, Mode::empty());
            layers.push(fs.map_err(|errno| no_tree(&tree, errno))?);
        }
        Ok(Self { record, layers })
    }

    /// The upper itself.
    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.layers[0].as_fd()
    }

    /// The upper and the layers beneath it, top first.
    pub(super) fn layers(&self) -> &[OwnedFd] {
        &self.layers
    }

    /// Takes it out. To be called inside.
    ///
    /// # Errors
    /// What the system says, naming the path.
    pub(super) fn settle(&self) -> Result<u64> {
        let layers: Vec<_> = self.layers.iter().map(AsFd::as_fd).collect();
        let mut gone = 0;
        // What was made last may lie in what was made before.
        for made in self.record.made.iter().rev() {
            let found = plain_path(&layers, made.path.as_bytes()).context("look at", &made.path)?;
            if let Some(place) = found {
                let levels = made.levels as usize;
                gone += tree::unmake(layers[0], &layers[1..], &place, levels, &mut reached)?;
            }
        }
        let mut places: Vec<Vec<u8>> = DATABASES.iter().map(|place| beneath(place)).collect();
        for path in &self.record.copy_up {
            // They may lead through symbolic links, and those of the command itself count.
            let found = plain_path(&layers, path.as_bytes()).context("look at", path)?;
            places.extend(found.filter(|place| !place.is_empty()));
        }
        Ok(gone + tree::settle(layers[0], &layers[1..], &places, &mut reached)?)
    }
}

fn beneath(path: &str) -> Vec<u8> {
    path.trim_start_matches('/').into()
}

/// The same as a job of its own, for an upper that stays one.
///
/// # Errors
/// As [`Upper::open`] and [`Upper::settle`].
pub(super) fn settle(store: &Store, run: &Run, record: &RunRecord) -> Result<()> {
    let upper = Upper::open(store, run, record)?;
    ids::inside(Entry::Map(&record.id_map), Powers::Files, || upper.settle()).map(drop)
}
