//! Makes a layer of what a kept or killed run has left.

use std::os::fd::AsFd;

use rustix::fs::FileType;
use rustix::io::{read, retry_on_intr};
use serde::Serialize;

use crate::fault::{Context, Fault, Result};
use crate::ids::{self, Entry, Powers};
use crate::store::{
    BoxName, Expected, LayerId, LogEntry, Run, RunId, RunRecord, SharedLock, SnapshotName, Store,
};
use crate::tree::dir::open_file;
use crate::tree::{Descend, Totals, Visit, measure, walk};

use super::run::layer_record;
use super::snapshot::refuse_taken;

/// How much is read at once.
const CHUNK: usize = 1 << 20;

/// A run that is a snapshot now.
#[derive(Debug, Serialize)]
pub struct Recovered {
    /// The run, which is gone.
    pub run: RunId,
    /// The box it ran in.
    #[serde(rename = "box")]
    pub box_name: BoxName,
    /// The new snapshot.
    pub name: SnapshotName,
    /// Its layer.
    pub layer: LayerId,
    /// Entries of the layer.
    pub files: u64,
    /// Bytes of its files.
    pub own_bytes: u64,
}

/// Makes the upper of a run that has ended a snapshot of its box. Every file is read once more; what the
/// kernel could not write before the run ended cannot be known any more.
///
/// # Errors
/// Not found without the run; busy while it lives; conflict if the name is taken. The run then stays as it
/// was.
pub fn recover(store: &Store, id: &RunId, name: &SnapshotName) -> Result<Recovered> {
    let (mut run, record) = store.open_run(id)?;
    refuse_taken(store, &record.box_name, name)?;
    let answer = save(store, &run, &record, name);
    match answer {
        Ok(recovered) => {
            run.discard(store)?;
            Ok(recovered)
        }
        Err(fault) => {
            // Else the next command would take what was killed for trash.
            run.mark_kept(&record)?;
            Err(fault)
        }
    }
}

fn save(store: &Store, run: &Run, record: &RunRecord, name: &SnapshotName) -> Result<Recovered> {
    let parent = record.layer.ok_or_else(|| {
        Fault::conflict(format!("recover run: {}: it had not started from a layer", record.run))
    })?;
    ids::check(&record.id_map)?;
    let upper = run.fs_dir()?;
    let totals = ids::inside(Entry::Map(&record.id_map), Powers::Files, || totals(upper.as_fd()))?;
    let lock = store.lock_shared()?;
    let layer = layer_record(&store.layer(&parent)?, &record.argv, record.exit, totals)?;
    let id = store.publish(&lock, run, &layer, None, run.dir())?;
    if let Err(fault) = take_name(store, &lock, record, name, &id) {
        store.take_back(&lock, run, &id)?;
        return Err(fault);
    }
    Ok(Recovered {
        run: record.run,
        box_name: record.box_name.clone(),
        name: name.clone(),
        layer: id,
        files: layer.files,
        own_bytes: layer.own_bytes,
    })
}

fn take_name(
    store: &Store,
    lock: &SharedLock,
    record: &RunRecord,
    name: &SnapshotName,
    layer: &LayerId,
) -> Result<()> {
    store.open_box(&record.box_name)?.update(lock, |state| {
        state.set(name, layer, Expected::Absent, None)?;
        state.log(LogEntry {
            new: Some(*layer),
            name: Some(name.clone()),
            argv: record.argv.clone(),
            layer: Some(*layer),
            ..LogEntry::new("recover")
        });
        Ok(())
    })
}

/// Validates and counts, and reads every file: what a disk has lost shows now or never.
fn totals(upper: std::os::fd::BorrowedFd<'_>) -> Result<Totals> {
    let mut buffer = vec![0; CHUNK];
    walk(upper, &mut |visit: &Visit<'_>| {
        if visit.kind() == FileType::RegularFile && visit.stat.st_size > 0 {
            let path = String::from_utf8_lossy(visit.path);
            let file = open_file(visit.dir, visit.name).context("open file", &path)?;
            while retry_on_intr(|| read(&file, &mut buffer)).context("read file", &path)? > 0 {}
        }
        Ok(Descend::Yes)
    })?;
    measure(upper)
}
