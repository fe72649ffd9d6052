//! Makes room in a chain that is as long as one may be: its old layers but the base become one fold layer.
//!
//! The fold layer is filled in a run of its own, whose record keeps the layers for gc meanwhile. A commit that
//! fails or is killed leaves a run for the reaper, or a layer that nothing names.

use std::os::fd::{AsFd, OwnedFd};

use jiff::Timestamp;
use rustix::fs::{Mode, OFlags, openat};

use super::Commit;
use crate::fault::{Context, Result};
use crate::ids::{self, Entry, Powers};
use crate::store::{
    FoldPlan, LayerId, LayerRecord, Run, RunRecord, RunState, SharedLock, Store, reached,
};
use crate::tree::{Totals, fold};

/// A fold layer that is still in the run it was made in.
#[derive(Debug)]
pub(super) struct Staged {
    run: Run,
    record: LayerRecord,
}

/// Fills a fold layer. Takes as long as it takes to link every file that was changed since the base: call it
/// without the store lock.
pub(super) fn stage(job: &Commit<'_>, plan: &FoldPlan) -> Result<Staged> {
    let lock = job.store.lock_shared()?;
    let mut run = job.store.new_run(&lock, &job.record.id_map)?;
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
        ..job.record.clone()
    };
    let written = run.write_record(&record);
    drop(lock);
    match written.and_then(|()| fill(job, plan, &run)) {
        Ok(totals) => Ok(Staged { record: record_of(plan, totals)?, run }),
        Err(fault) => {
            run.discard(job.store).ok();
            Err(fault)
        }
    }
}

fn fill(job: &Commit<'_>, plan: &FoldPlan, run: &Run) -> Result<Totals> {
    let layers: Vec<_> =
        plan.layers.iter().rev().map(|id| open(job.store, id)).collect::<Result<_>>()?;
    let (ground, place) = (open(job.store, &plan.ground)?, run.fs_dir()?);
    ids::inside(Entry::Map(&job.record.id_map), Powers::Files, || {
        let layers: Vec<_> = layers.iter().map(AsFd::as_fd).collect();
        fold(&layers, ground.as_fd(), place.as_fd(), &mut reached)
    })
}

fn open(store: &Store, id: &LayerId) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(store.dir(), format!("layers/{id}/fs"), flags, Mode::empty()).context("open layer", id)
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
    pub(super) fn layer(&self) -> LayerId {
        self.record.id
    }

    /// Makes it a layer; one that names it follows under the same hold of the lock.
    pub(super) fn publish(&self, store: &Store, lock: &SharedLock) -> Result<()> {
        store.publish(lock, &self.run, &self.record, None, self.run.dir()).map(drop)
    }

    /// Nothing names it after all.
    pub(super) fn take_back(&self, store: &Store, lock: &SharedLock) {
        // What cannot be taken back now is for gc.
        store.take_back(lock, &self.run, &self.record.id).ok();
    }

    /// Removes what is left of the run.
    pub(super) fn discard(self, store: &Store) {
        // What cannot be removed now is found by the next command.
        self.run.discard(store).ok();
    }
}
