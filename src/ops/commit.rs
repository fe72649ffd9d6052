//! From the upper of a run that has ended to a layer with a name: the end of `run --commit` and `--keep`, and
//! of `recover`.

use std::os::fd::{BorrowedFd, OwnedFd};

use jiff::Timestamp;
use rustix::fs::FileType;
use rustix::io::{read, retry_on_intr};
use serde::{Deserialize, Serialize};

use super::copyup::Upper;
use super::owners::{self, Memory};
use super::seal;
use crate::fault::{Context, Result};
use crate::ids::{self, Entry, Powers};
use crate::store::{
    Expected, LayerId, LayerRecord, LogEntry, Run, RunRecord, SharedLock, SnapshotName, Store,
};
use crate::sys::signal::Deferred;
use crate::tree::dir::open_file;
use crate::tree::measure::is_fresh;
use crate::tree::owners::Remembered;
use crate::tree::{Descend, Totals, Visit, measure, walk};

pub(super) mod fold;

use fold::Staged;

/// How much of a file is read at once, in bytes.
const CHUNK: usize = 1 << 20;

/// What becomes a layer.
#[derive(Debug)]
pub(super) struct Commit<'a> {
    pub(super) store: &'a Store,
    /// The run, ended and unmounted.
    pub(super) run: &'a Run,
    pub(super) record: &'a RunRecord,
    /// The layer that the run was started from.
    pub(super) parent: &'a LayerRecord,
    pub(super) target: Target<'a>,
    /// How the log calls it.
    pub(super) action: &'a str,
    /// The exit code of the command, if it is known.
    pub(super) exit: Option<i32>,
    /// What its last command has left in the journal of remembered owners.
    pub(super) journal: &'a [u8],
    /// Whether every file is read before: what a disk has lost shows now or never.
    pub(super) read: bool,
    /// Whether digests of all files are made, which reads them, too.
    pub(super) digest: bool,
    /// Signals that end it as long as nothing is named.
    pub(super) signals: Option<&'a Deferred>,
}

/// What shall name the layer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target<'a> {
    /// A new snapshot.
    Name(&'a SnapshotName),
    /// Head, which was at this layer before.
    Head(Option<LayerId>),
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// A layer was made and named.
    Made,
    /// Nothing had changed, so the target names the layer that the run was started from.
    Named,
    /// Nothing had changed, and head was there already.
    Nothing,
}

/// A layer with a name.
#[derive(Debug)]
pub(super) struct Committed {
    pub(super) layer: LayerId,
    pub(super) news: News,
    /// Entries that were committed.
    pub(super) files: u64,
    /// Bytes of their files.
    pub(super) own_bytes: u64,
}

/// What the walk of an upper found.
#[derive(Serialize, Deserialize)]
struct Found {
    totals: Totals,
    /// Whether there is anything to commit.
    changed: bool,
    /// What the disk cannot hold.
    remembered: Vec<Remembered>,
}

/// Validates the upper, publishes it and names it; where nothing changed, no layer is made and the target
/// names the parent. What is left of the run is to be discarded.
///
/// # Errors
/// Conflict if the target has moved meanwhile; what must not be in a layer; a signal that has come; what the system
/// calls say. The run then is as it was.
pub(super) fn commit(job: &Commit<'_>) -> Result<Committed> {
    let upper = Upper::open(job.store, job.run, job.record)?;
    let map = &job.record.id_map;
    let manifest = match job.digest {
        true => Some(job.run.begin_manifest()?),
        // What a commit has left that failed may not be true any more.
        false => job.run.drop_manifest().map(|()| None)?,
    };
    let memory = Memory::of_run(job.store, job.run, job.record, job.journal)?;
    job.go_on()?;
    let found = ids::inside_unless(job.signals, Entry::Map(map), Powers::Files, || {
        look(job, &upper, memory.as_ref(), manifest.as_ref())
    })?;
    drop(upper);
    if !found.changed {
        return job.without_layer();
    }
    let remembered = owners::file(&found.remembered)?;
    let (lock, beneath, staged) = job.beneath()?;
    let layer = job.layer_record(beneath, found.totals)?;
    if manifest.is_some() {
        job.run.end_manifest(&layer, remembered.as_deref())?;
    }
    let done = job.publish(&lock, &layer, remembered.as_deref(), staged.as_ref());
    drop(lock);
    if let Some(staged) = staged {
        staged.discard(job.store);
    }
    done?;
    let LayerRecord { id, files, own_bytes, .. } = layer;
    Ok(Committed { layer: id, news: News::Made, files, own_bytes })
}

/// The part that touches files of the upper, inside. What need not be in a layer leaves the upper first; then
/// what is left is measured, and that decides.
fn look(
    job: &Commit<'_>,
    upper: &Upper<'_>,
    memory: Option<&Memory>,
    manifest: Option<&OwnedFd>,
) -> Result<Found> {
    upper.settle()?;
    if job.read && !job.digest {
        read_all(upper.dir())?;
    }
    let totals = measure(upper.dir())?;
    let changed = totals.files > 0 || !is_fresh(upper.dir())?;
    if let Some(file) = manifest.filter(|_| changed) {
        seal::write_whole(upper.dir(), file)?;
    }
    let remembered = match memory.filter(|_| changed) {
        Some(memory) => memory.gather(upper.dir(), &owners::beneath(upper.layers()))?,
        None => Vec::new(),
    };
    Ok(Found { totals, changed, remembered })
}

impl Commit<'_> {
    fn go_on(&self) -> Result<()> {
        ids::unless_ended(self.signals)
    }

    /// What the layer is mounted on, and the store lock that keeps all of it. A chain that has no room for
    /// one more is folded, unless another snapshot has a fold layer that serves.
    fn beneath(&self) -> Result<(SharedLock, Vec<LayerId>, Option<Staged>)> {
        let Some(plan) = self.store.fold_plan(self.parent)? else {
            return Ok((self.store.lock_shared()?, self.parent.mount.clone(), None));
        };
        let lock = self.store.lock_shared()?;
        // Damage elsewhere in the box is not for a commit to find.
        let found = self.store.find_fold(&self.record.box_name, &plan).unwrap_or_default();
        if let Some(fold) = found {
            return Ok((lock, plan.mount(fold), None));
        }
        drop(lock);
        let staged = fold::stage(self.store, self.record, &plan, self.signals)?;
        match self.store.lock_shared() {
            Ok(lock) => Ok((lock, plan.mount(staged.layer()), Some(staged))),
            Err(fault) => {
                staged.discard(self.store);
                Err(fault)
            }
        }
    }

    /// Publishes the layer, after the fold layer that it is mounted on if that is new, and names it. All or
    /// nothing.
    fn publish(
        &self,
        lock: &SharedLock,
        layer: &LayerRecord,
        remembered: Option<&[u8]>,
        staged: Option<&Staged>,
    ) -> Result<()> {
        let (store, run) = (self.store, self.run);
        staged.map_or(Ok(()), |staged| staged.publish(store, lock))?;
        let go_on = || self.go_on();
        let done =
            store.publish_unless(lock, run, layer, remembered, run.dir(), &go_on).and_then(|id| {
                self.name(lock, &id, Some(id)).or_else(|fault| {
                    store.take_back(lock, run, &id)?;
                    Err(fault)
                })
            });
        if let (Err(_), Some(staged)) = (&done, staged) {
            staged.take_back(store, lock);
        }
        done
    }

    fn layer_record(&self, mut mount: Vec<LayerId>, totals: Totals) -> Result<LayerRecord> {
        let id = LayerId::random()?;
        mount.push(id);
        Ok(LayerRecord {
            id,
            parent: Some(self.parent.id),
            depth: self.parent.depth + 1,
            mount,
            folds: Vec::new(),
            created: Timestamp::now(),
            argv: self.record.argv.clone(),
            exit: self.exit,
            files: totals.files,
            own_bytes: totals.bytes,
            diff_id: None,
            unmapped: 0,
        })
    }

    /// Names the parent: what was to be committed is the parent's own content.
    fn without_layer(&self) -> Result<Committed> {
        let layer = self.parent.id;
        let done = |news| Committed { layer, news, files: 0, own_bytes: 0 };
        // Head is at the parent, or was moved on by others meanwhile; neither is our concern.
        if matches!(self.target, Target::Head(old) if old == Some(layer)) {
            return Ok(done(News::Nothing));
        }
        let lock = self.store.lock_shared()?;
        self.name(&lock, &layer, None)?;
        Ok(done(News::Named))
    }

    /// Moves the target to `layer`; `made` is for the log.
    fn name(&self, lock: &SharedLock, layer: &LayerId, made: Option<LayerId>) -> Result<()> {
        let entry = LogEntry {
            new: Some(*layer),
            argv: self.record.argv.clone(),
            layer: made,
            ..LogEntry::new(self.action)
        };
        let home = self.store.open_box(&self.record.box_name)?;
        // It may have been removed and made again, with other ids, since the run began.
        home.require_owners(&self.record.id_map, &format!("run {}", self.record.run))?;
        home.update(lock, |state| {
            // From here on it is done.
            self.go_on()?;
            match self.target {
                Target::Name(name) => {
                    state.set(name, layer, Expected::Absent, None)?;
                    state.log(LogEntry { name: Some(name.clone()), ..entry });
                }
                Target::Head(old) => {
                    state.set_head(layer, old.map_or(Expected::Absent, Expected::Layer))?;
                    state.log(LogEntry { old, ..entry });
                }
            }
            Ok(())
        })
    }
}

fn read_all(upper: BorrowedFd<'_>) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    walk(upper, &mut |visit: &Visit<'_>| {
        if visit.kind() == FileType::RegularFile && visit.stat.st_size > 0 {
            let path = String::from_utf8_lossy(visit.path);
            let file = open_file(visit.dir, visit.name).context("open file", &path)?;
            while retry_on_intr(|| read(&file, &mut buffer)).context("read file", &path)? > 0 {}
        }
        Ok(Descend::Yes)
    })
}
