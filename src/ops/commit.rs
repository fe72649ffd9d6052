//! From the upper of a run that has ended to a layer with a name: the end of `run --commit` and `--keep`, and
//! of `recover`.

use std::os::fd::{AsFd, BorrowedFd};

use jiff::Timestamp;
use rustix::fs::FileType;
use rustix::io::{read, retry_on_intr};

use crate::fault::{Context, Fault, Result};
use crate::ids::{self, Entry, Powers};
use crate::store::{
    Expected, LayerId, LayerRecord, LogEntry, Run, RunRecord, SharedLock, SnapshotName, Store,
};
use crate::tree::dir::open_file;
use crate::tree::{Descend, Totals, Visit, measure, walk};

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
    /// Whether every file is read before: what a disk has lost shows now or never.
    pub(super) read: bool,
}

/// What shall name the layer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target<'a> {
    /// A new snapshot.
    Name(&'a SnapshotName),
    /// Head, which was at this layer before.
    Head(Option<LayerId>),
}

/// A layer with a name.
#[derive(Debug)]
pub(super) struct Committed {
    pub(super) layer: LayerId,
    /// Entries of the layer.
    pub(super) files: u64,
    /// Bytes of its files.
    pub(super) own_bytes: u64,
}

/// Validates the upper, publishes it and names it. What is left of the run is to be discarded.
///
/// # Errors
/// Conflict if the target has moved meanwhile; what must not be in a layer; what the system calls say. The
/// run then is as it was.
pub(super) fn commit(job: &Commit<'_>) -> Result<Committed> {
    let upper = job.run.fs_dir()?;
    let totals = ids::inside(Entry::Map(&job.record.id_map), Powers::Files, || {
        if job.read {
            read_all(upper.as_fd())?;
        }
        measure(upper.as_fd())
    })?;
    let layer = job.layer_record(totals)?;
    let lock = job.store.lock_shared()?;
    job.store.publish(&lock, job.run, &layer, None, job.run.dir())?;
    if let Err(fault) = job.name(&lock, &layer.id) {
        job.store.take_back(&lock, job.run, &layer.id)?;
        return Err(fault);
    }
    Ok(Committed { layer: layer.id, files: layer.files, own_bytes: layer.own_bytes })
}

impl Commit<'_> {
    fn layer_record(&self, totals: Totals) -> Result<LayerRecord> {
        let id = LayerId::random()?;
        let mut mount = self.parent.mount.clone();
        mount.push(id);
        if mount.len() > 400 {
            return Err(Fault::failed(format!(
                "commit: {}: the chain has 400 layers already",
                self.parent.id
            ))
            .hint("start a new box from it: `sandbox init NAME --from DIRECTORY`"));
        }
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

    fn name(&self, lock: &SharedLock, layer: &LayerId) -> Result<()> {
        let entry = LogEntry {
            new: Some(*layer),
            argv: self.record.argv.clone(),
            layer: Some(*layer),
            ..LogEntry::new(self.action)
        };
        self.store.open_box(&self.record.box_name)?.update(lock, |state| {
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
