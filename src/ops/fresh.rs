//! A fresh upper on top of a snapshot, for what is no command in a sandbox: it becomes a layer, or goes.

use std::os::fd::{AsFd, OwnedFd};

use jiff::Timestamp;
use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::MountAttrFlags;

use super::commit::{Commit, Committed, Target, commit};
use super::diff::open_tree;
use super::snapshot::refuse_taken;
use crate::fault::{Context, Result};
use crate::ids::{self, IdMap};
use crate::remedy::Refused;
use crate::rootfs::overlay::{Base, Writable, assemble};
use crate::store::{BoxName, LayerRecord, Run, RunId, RunRecord, RunState, SnapshotName, Store};

/// The upper, with a record that keeps the layers beneath it where they are.
#[derive(Debug)]
pub(super) struct Fresh<'a> {
    store: &'a Store,
    run: Run,
    record: RunRecord,
    layer: LayerRecord,
    name: Option<&'a SnapshotName>,
}

/// What of it is opened in a mount namespace, before there is the right to nothing but the inside.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) base: Base,
    lowers: Vec<OwnedFd>,
    run: OwnedFd,
}

impl<'a> Fresh<'a> {
    /// Makes it, of `word`. With a name, which must be free, it can be committed in this box.
    pub(super) fn begin(
        store: &'a Store,
        box_name: &BoxName,
        word: &str,
        name: Option<&'a SnapshotName>,
        argv: Vec<String>,
    ) -> Result<Self> {
        if let Some(name) = name {
            refuse_taken(store, box_name, name)?;
        }
        let lock = store.lock_shared()?;
        let resolved = store.resolve(box_name, word)?;
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
            argv,
            copy_up: Vec::new(),
            plain: false,
            made: Vec::new(),
            nest: None,
            started: Timestamp::now(),
            pid: std::process::id(),
            state: RunState::Running,
            exit: None,
            fault: None,
        };
        let mut run = store.new_run_of(&lock, &record.id_map, record.run)?;
        run.write_record(&record)?;
        Ok(Self { store, run, record, layer, name })
    }

    /// Whose its files are.
    pub(super) fn map(&self) -> &IdMap {
        &self.record.id_map
    }

    /// Opens layers and upper in this mount namespace; base_dir must be the working directory.
    pub(super) fn open(&self) -> Result<Opened> {
        let base = Base::clone_store(self.store.dir(), self.store.is_nest())?;
        let place = |tree: String| open_tree(&base, &tree);
        let lowers = self.layer.mount.iter().rev().map(|id| place(format!("layers/{id}/fs")));
        let lowers = lowers.collect::<Result<Vec<_>>>()?;
        let run = place(format!("runs/{}", self.record.run))?;
        Ok(Opened { base, lowers, run })
    }

    /// Whether it has a name, to make a layer of it.
    pub(super) fn commits(&self) -> bool {
        self.name.is_some()
    }

    /// Makes a layer of it, if it has a name, once it is unmounted.
    /// `journal` is what was written down of owners and devices that its files cannot have.
    pub(super) fn commit(
        &self,
        action: &str,
        exit: Option<i32>,
        journal: &str,
    ) -> Result<Option<Committed>> {
        let Some(name) = self.name else { return Ok(None) };
        commit(&Commit {
            store: self.store,
            run: &self.run,
            record: &self.record,
            parent: &self.layer,
            target: Target::Name(name),
            action,
            exit,
            journal: journal.as_bytes(),
            read: false,
            digest: false,
            signals: None,
        })
        .map(Some)
    }

    /// Throws away what has not become a layer.
    pub(super) fn discard(self) -> Result<()> {
        self.run.discard(self.store).map(drop)
    }
}

impl Opened {
    /// Mounts it, detached: the root, open for reading.
    pub(super) fn mount(&self) -> Result<OwnedFd> {
        let upper = Writable { dir: self.run.as_fd(), upper: "layer/fs", work: "work" };
        let attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
        assemble(&self.base, &self.lowers, Some(upper), attributes, None)
            .mounting("mount overlay of", "the snapshot")
    }
}

/// Opens a directory, such as the root of a mount, for reading.
pub(super) fn readable(place: &OwnedFd) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(place, ".", flags, Mode::empty()).context("read", "the root of the snapshot")
}
