//! A copy into a snapshot: onto a fresh upper, which becomes a layer.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};

use jiff::Timestamp;
use rustix::fs::{Mode, openat};
use rustix::mount::MountAttrFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::source::Root;
use super::view::{ROOT, no_snapshot};
use super::{Copied, Place, Side, Target, into};
use crate::fault::{Context, Result};
use crate::ids::{self, Entry, IdMap, Powers};
use crate::ops::commit::{Commit, Target as Named, commit};
use crate::ops::diff::at;
use crate::ops::snapshot::refuse_taken;
use crate::rootfs::overlay::{Base, Writable, assemble};
use crate::store::{BoxName, LayerRecord, Run, RunId, RunRecord, RunState, SnapshotName, Store};

/// An upper on top of a snapshot.
#[derive(Debug)]
pub(super) struct Fresh<'a> {
    store: &'a Store,
    run: Option<Run>,
    record: RunRecord,
    layer: LayerRecord,
    name: &'a SnapshotName,
}

impl<'a> Fresh<'a> {
    /// Makes it, with a record that keeps the layers where they are.
    pub(super) fn begin(
        store: &'a Store,
        box_name: &BoxName,
        word: &str,
        name: &'a SnapshotName,
    ) -> Result<Self> {
        refuse_taken(store, box_name, name)?;
        let lock = store.lock_shared()?;
        let resolved = store.resolve(box_name, word).map_err(|fault| no_snapshot(word, fault))?;
        let opened = store.open_box(box_name)?;
        if resolved.box_name != *opened.name() {
            let theirs = store.box_record(&resolved.box_name)?;
            opened.require_owners(&theirs.id_map, &format!("box {}", theirs.name))?;
        }
        let layer = store.layer(&resolved.layer)?;
        let id_map = opened.record().id_map.clone();
        ids::check(&id_map)?;
        let record = RunRecord {
            run: RunId::random()?,
            name: None,
            box_name: opened.name().clone(),
            from: word.to_owned(),
            layer: Some(layer.id),
            chain: layer.mount.clone(),
            scaffold: None,
            id_map,
            argv: vec!["sandbox".to_owned(), "cp".to_owned()],
            copy_up: Vec::new(),
            started: Timestamp::now(),
            pid: std::process::id(),
            state: RunState::Running,
            exit: None,
        };
        let mut run = store.new_run_of(&lock, &record.id_map, record.run)?;
        run.write_record(&record)?;
        Ok(Self { store, run: Some(run), record, layer, name })
    }

    /// Copies, and makes the layer; or throws all away.
    pub(super) fn fill(mut self, from: &Place, path: &OsStr, follow: bool) -> Result<Copied> {
        let target = Target { store: self.store, side: Side::Fresh(&self) };
        let answer = into(&target, from, path, follow).and_then(|copied| self.commit(copied));
        let discarded = self.run.take().map_or(Ok(()), |run| run.discard(self.store).map(drop));
        let copied = answer?;
        discarded.map(|()| copied)
    }

    fn commit(&self, copied: Copied) -> Result<Copied> {
        let Some(run) = &self.run else { return Ok(copied) };
        let made = commit(&Commit {
            store: self.store,
            run,
            record: &self.record,
            parent: &self.layer,
            target: Named::Name(self.name),
            action: "cp",
            exit: None,
            read: false,
            digest: false,
        })?;
        Ok(Copied { layer: Some(made.layer), name: Some(self.name.clone()), ..copied })
    }

    /// Does a job with the root, mounted on the upper, inside the user namespace.
    pub(super) fn inside<T: Serialize + DeserializeOwned>(
        &self,
        job: impl FnOnce(Root<'_>, &IdMap) -> Result<T>,
    ) -> Result<T> {
        let map = &self.record.id_map;
        let open = || {
            let base =
                Base::clone_cwd(self.store.dir()).context("clone the mount of", "the store")?;
            let place = |tree: String| base.open(&tree).context("open layer", &tree);
            let lowers = self.layer.mount.iter().rev().map(|id| place(format!("layers/{id}/fs")));
            let lowers = lowers.collect::<Result<Vec<_>>>()?;
            let run = place(format!("runs/{}", self.record.run))?;
            Ok((base, lowers, run))
        };
        let work = |(base, lowers, run): (Base, Vec<OwnedFd>, OwnedFd)| {
            let upper = Writable { dir: run.as_fd(), upper: "layer/fs", work: "work" };
            let root =
                assemble(&base, &lowers, Some(upper), MountAttrFlags::MOUNT_ATTR_NODEV, None)
                    .context("mount overlay of", "the snapshot")?;
            let root = openat(&root, ".", ROOT, Mode::empty()).context("read", "the snapshot")?;
            job(Root::Inside(root.as_fd()), map)
        };
        at(self.store, || ids::inside_prepared(Entry::Map(map), Powers::Mounts, open, work))
    }
}
