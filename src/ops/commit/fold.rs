//! Makes room in a chain that is as long as one may be: its old layers but the base become one fold layer.
//!
//! The fold layer is filled in a run of its own, whose record keeps the layers for gc meanwhile. A commit that
//! fails or is killed leaves a run for the reaper, or a layer that nothing names.

use std::os::fd::{AsFd, OwnedFd};

use jiff::Timestamp;
use rustix::fs::{Mode, OFlags, openat};

use crate::fault::Result;
use crate::ids::{self, Entry, Powers};
use crate::ops::diff::no_tree;
use crate::ops::owners::{self, Memory};
use crate::store::{
    FoldPlan, LayerId, LayerRecord, Run, RunRecord, RunState, SharedLock, Store, reached,
};
use crate::sys::signal::Deferred;
use crate::tree::owners::Remembered;
use crate::tree::{Totals, fold};

/// A fold layer that is still in the run it was made in.
#[derive(Debug)]
pub(in crate::ops) struct Staged {
    run: Run,
    record: LayerRecord,
    /// The file `owners`.
    remembered: Option<Vec<u8>>,
}

/// Fills a fold layer for what came of the run `of`. Takes as long as it takes to link every file that was changed
/// since the base: better called without the store lock. A signal of these ends it.
pub(in crate::ops) fn stage(
    store: &Store,
    of: &RunRecord,
    plan: &FoldPlan,
    signals: Option<&Deferred>,
) -> Result<Staged> {
    let lock = store.lock_shared()?;
    let mut run = store.new_run(&lock, &of.id_map)?;
    let record = RunRecord {
        run: run.id(),
        name: None,
        layer: None,
        chain: [plan.ground].iter().chain(&plan.layers).copied().collect(),
        scaffold: None,
        argv: Vec::new(),
        started: Timestamp::now(),
        pid: std::process::id(),
        state: RunState::Running,
        exit: None,
        fault: None,
        nest: None,
        ..of.clone()
    };
    let written = run.write_record(&record);
    drop(lock);
    match written.and_then(|()| fill(store, of, plan, &run, signals)) {
        Ok((totals, remembered)) => {
            let remembered = owners::file(&remembered)?;
            Ok(Staged { record: record_of(plan, totals)?, run, remembered })
        }
        Err(fault) => {
            run.discard(store).ok();
            Err(fault)
        }
    }
}

fn fill(
    store: &Store,
    of: &RunRecord,
    plan: &FoldPlan,
    run: &Run,
    signals: Option<&Deferred>,
) -> Result<(Totals, Vec<Remembered>)> {
    let top_first: Vec<_> = plan.layers.iter().rev().copied().collect();
    let layers: Vec<_> = top_first.iter().map(|id| open(store, id)).collect::<Result<_>>()?;
    let memory = Memory::of_folded(store, &of.id_map, &top_first)?;
    let (ground, place) = (open(store, &plan.ground)?, run.fs_dir()?);
    ids::inside_unless(signals, Entry::Map(&of.id_map), Powers::Files, || {
        let layers: Vec<_> = layers.iter().map(AsFd::as_fd).collect();
        let totals = fold(&layers, ground.as_fd(), place.as_fd(), &mut reached)?;
        Ok((totals, memory.gather_folded(place.as_fd(), &layers)?))
    })
}

fn open(store: &Store, id: &LayerId) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let tree = format!("layers/{id}/fs");
    openat(store.dir(), &tree, flags, Mode::empty()).map_err(|errno| no_tree(&tree, errno))
}

fn record_of(plan: &FoldPlan, totals: Totals) -> Result<LayerRecord> {
    let id = LayerId::random()?;
    Ok(LayerRecord {
        id,
        parent: None,
        depth: 0,
        mount: vec![id],
        folds: plan.folds.clone(),
        created: Timestamp::now(),
        argv: Vec::new(),
        exit: None,
        files: totals.files,
        own_bytes: totals.bytes,
        diff_id: None,
        unmapped: 0,
    })
}

impl Staged {
    /// The layer to be.
    pub(in crate::ops) fn layer(&self) -> LayerId {
        self.record.id
    }

    /// Whether it is the one of a plan.
    pub(in crate::ops) fn is_of(&self, plan: &FoldPlan) -> bool {
        self.record.folds == plan.folds
    }

    /// Makes it a layer; one that names it follows under the same hold of the lock.
    pub(in crate::ops) fn publish(&self, store: &Store, lock: &SharedLock) -> Result<()> {
        let remembered = self.remembered.as_deref();
        store.publish(lock, &self.run, &self.record, remembered, self.run.dir()).map(drop)
    }

    /// Nothing names it after all.
    pub(in crate::ops) fn take_back(&self, store: &Store, lock: &SharedLock) {
        // What cannot be taken back now is for gc.
        store.take_back(lock, &self.run, &self.record.id).ok();
    }

    /// Removes what is left of the run.
    pub(in crate::ops) fn discard(self, store: &Store) {
        // What cannot be removed now is found by the next command.
        self.run.discard(store).ok();
    }
}
