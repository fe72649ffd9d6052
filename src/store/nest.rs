//! The store of a sandbox inside the sandbox: a directory of the run, filled outside, used inside.
//!
//! It has the box of the run under its name, with its snapshots, and for each layer of theirs a directory
//! with a record and an empty `fs`, onto which the run mounts the tree of the outer layer, read-only. So
//! inside every layer is where it always is, whichever sandbox made it, and however deep. Those that are lent
//! are named in `outer.json`: they are not the inner store's to remove.
//!
//! The payload owns all of it. What comes back is hostile, and read in [`claims`] only.

mod claims;
mod take;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, StatxAttributes, StatxFlags, Uid, chownat, mkdirat, statx};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::failpoint::step;
use super::file::{self, PRIVATE_DIR};
use super::format::Format;
use super::refs::Head;
use super::{
    BoxName, BoxRecord, BoxSettings, LayerId, LayerRecord, Run, RunRecord, SharedLock,
    SnapshotName, Store, json_line, layout,
};
use crate::fault::{Context, Fault, Result};

pub use claims::{Claim, Claims};
pub use take::{claimed_owners, take_tree};

/// What a run was lent for the store inside it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lent {
    /// The layers that it shows inside. They live as long as the run does.
    pub layers: BTreeSet<LayerId>,
    /// The snapshots of the box, as they were.
    pub names: BTreeMap<SnapshotName, LayerId>,
    /// Layers that were made inside and are being taken in: what they are called inside, and here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub taken: BTreeMap<LayerId, LayerId>,
}

/// `outer.json` of such a store.
#[derive(Debug, Serialize, Deserialize)]
struct Outer {
    layers: BTreeSet<LayerId>,
}

impl Store {
    /// Whether this is the store of a sandbox inside the sandbox: its layers are mounts, then.
    pub fn is_nest(&self) -> bool {
        self.outer.is_some()
    }

    /// Whether a layer is one of the store around this one.
    pub fn is_outer(&self, layer: &LayerId) -> bool {
        self.outer.as_ref().is_some_and(|outer| outer.contains(layer))
    }

    /// What a run in this box that starts from `base` lends: all that its snapshots, head and current are
    /// mounted with. The lock is to be held until the run has a record that says so.
    ///
    /// # Errors
    /// Damaged if a record cannot be read.
    pub fn lend(&self, _lock: &SharedLock, name: &BoxName, base: &LayerRecord) -> Result<Lent> {
        let mut lent = Lent { layers: base.mount.iter().copied().collect(), ..Lent::default() };
        let head = self.box_head(name)?;
        let mut tips: BTreeSet<_> = head.head.into_iter().chain(head.current).collect();
        for found in self.box_refs(name)? {
            tips.insert(found.layer);
            lent.names.insert(found.name, found.layer);
        }
        for tip in tips {
            lent.layers.extend(self.layer(&tip)?.mount);
        }
        Ok(lent)
    }

    /// Makes and fills the store inside a run, if its record says that it has one.
    ///
    /// # Errors
    /// What reading the box and the system calls say.
    pub fn make_nest(&self, _lock: &SharedLock, run: &Run, record: &RunRecord) -> Result<()> {
        let Some(lent) = &record.nest else { return Ok(()) };
        let (uid, gid) = record.id_map.root_owner();
        let owner = (uid != self.owner).then(|| (Uid::from_raw(uid), Gid::from_raw(gid)));
        let made = step("nest.make", || mkdirat(run.dir(), layout::NEST, PRIVATE_DIR));
        made.context("make the inner store of run", run.id)?;
        let dir = file::open_dir(run.dir(), layout::NEST)
            .context("open the inner store of run", run.id)?;
        let nest = Maker { dir, owner };
        nest.give(".").context("make the inner store of run", run.id)?;
        self.fill_nest(&nest, record, lent)
    }

    fn fill_nest(&self, nest: &Maker, record: &RunRecord, lent: &Lent) -> Result<()> {
        for folder in layout::FOLDERS {
            nest.folder(folder)?;
        }
        nest.file(layout::LOCK, b"")?;
        for layer in &lent.layers {
            nest.folder(&layout::layer(layer))?;
            nest.folder(&layout::tree(layer))?;
            nest.file(&layout::layer_record(layer), &json_line(&self.layer(layer)?)?)?;
            if let Some(owners) = self.layer_owners(layer)? {
                nest.file(&layout::owners(layer), &owners)?;
            }
        }
        self.fill_box_of_nest(nest, record, lent)?;
        nest.file(layout::OUTER, &json_line(&Outer { layers: lent.layers.clone() })?)?;
        nest.file(layout::FORMAT, &json_line(&Format::nest())?)
    }

    /// The box of the run, with the names it had when they were lent.
    fn fill_box_of_nest(&self, nest: &Maker, record: &RunRecord, lent: &Lent) -> Result<()> {
        let name = &record.box_name;
        let outer = self.box_record(name)?;
        // What else a box may say means paths and profiles of this side.
        let settings = BoxSettings {
            env: outer.settings.env,
            copy_up: outer.settings.copy_up,
            touch_rpmdb: outer.settings.touch_rpmdb,
            ..BoxSettings::default()
        };
        let id_map = record.id_map.as_seen_inside();
        let inner = BoxRecord { id_map, first: None, settings, ..outer };
        nest.folder(&layout::boxed(name))?;
        nest.folder(&layout::refs(name))?;
        nest.file(&layout::box_lock(name), b"")?;
        for found in self.box_refs(name)? {
            if lent.names.get(&found.name) == Some(&found.layer) {
                nest.file(&layout::reference(name, &found.name), &json_line(&found.record())?)?;
            }
        }
        let Head { head, current } = self.box_head(name)?;
        let known = |tip: Option<LayerId>| tip.filter(|layer| lent.layers.contains(layer));
        let head = Head { head: known(head), current: known(current) };
        nest.file(&layout::head(name), &json_line(&head)?)?;
        nest.file(&layout::box_record(name), &json_line(&inner)?)
    }
}

/// Makes what root inside shall own.
struct Maker {
    dir: OwnedFd,
    /// If that is somebody else than we are.
    owner: Option<(Uid, Gid)>,
}

impl Maker {
    fn folder(&self, name: &str) -> Result<()> {
        step("nest.folder", || mkdirat(&self.dir, name, PRIVATE_DIR))
            .and_then(|()| self.give(name))
            .context("make directory of the inner store", name)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        step("nest.file", || file::write_small(self.dir.as_fd(), name, bytes))
            .and_then(|()| self.give(name))
            .context("make file of the inner store", name)
    }

    fn give(&self, name: &str) -> Result<(), Errno> {
        let Some((uid, gid)) = self.owner else { return Ok(()) };
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        step("nest.chown", || chownat(&self.dir, name, Some(uid), Some(gid), flags))
    }
}

/// The outer layers of a store that is an inner one.
///
/// # Errors
/// Damaged if the file cannot be read; usage where their trees are not mounted, so that they would seem to be
/// empty: outside of the run.
pub(super) fn outer_layers(dir: BorrowedFd<'_>, shown: &str) -> Result<BTreeSet<LayerId>> {
    let bytes = file::read_small(dir, layout::OUTER, file::RECORD_LIMIT)
        .context("read the outer layers of the store", shown)?;
    let outer: Outer = serde_json::from_slice(&bytes)
        .map_err(|error| Fault::damaged(format!("read {}: {shown}: {error}", layout::OUTER)))?;
    for layer in &outer.layers {
        if !is_mount(dir, &layout::tree(layer)).context("look at layer", layer)? {
            return Err(Fault::usage(format!(
                "open store: {shown}: it is the inner store of a run, and of use in that run only"
            ))
            .hint("`sandbox adopt RUN` takes in what it holds, once the run is over"));
        }
    }
    Ok(outer.layers)
}

fn is_mount(dir: BorrowedFd<'_>, name: &str) -> Result<bool, Errno> {
    let found = statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)?;
    Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}
