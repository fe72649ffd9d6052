//! Makes a layer of what a kept or killed run has left.

use serde::Serialize;

use super::adopt::take_in;
use super::commit::{Commit, News, Target, commit};
use super::snapshot::refuse_taken;
use crate::fault::{Fault, Result};
use crate::ids;
use crate::store::{BoxName, LayerId, Run, RunId, RunRecord, SnapshotName, Store};
use crate::tree::meta::MARK;

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
    /// Whether the run had changed anything; if not, its layer is the one it was started from.
    pub changed: bool,
    /// Entries that were recovered.
    pub files: u64,
    /// Bytes of their files.
    pub own_bytes: u64,
}

/// Makes the upper of a run that has ended a snapshot of its box. Every file is read once more; what the
/// kernel could not write before the run ended cannot be known any more.
///
/// # Errors
/// Not found without the run; busy while it lives; conflict if the name is taken. The run then stays as it
/// was.
pub fn recover(store: &Store, id: &RunId, name: &SnapshotName) -> Result<Recovered> {
    let (mut run, mut record) = store.open_run(id)?;
    // A run in which a layer was being made, not a command: of no use, and left to the reaper.
    let parent = record.layer.ok_or_else(|| {
        Fault::conflict(format!("recover run: {id}: it had not started from a layer"))
    })?;
    let answer = refuse_taken(store, &record.box_name, name)
        .and_then(|()| adopt_first(store, &mut run, &mut record))
        .and_then(|()| save(store, &run, &record, parent, name));
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

/// The run goes when it is a snapshot, and what a sandbox inside it has made would go with it.
fn adopt_first(store: &Store, run: &mut Run, record: &mut RunRecord) -> Result<()> {
    if record.nest.is_some() {
        ids::check(&record.id_map)?;
        run.mark_kept(record)?;
        take_in(store, run, record, None, None)?;
        record.nest = None;
    }
    Ok(())
}

fn save(
    store: &Store,
    run: &Run,
    record: &RunRecord,
    parent: LayerId,
    name: &SnapshotName,
) -> Result<Recovered> {
    ids::check(&record.id_map)?;
    let made = commit(&Commit {
        store,
        run,
        record,
        parent: &store.layer(&parent)?,
        target: Target::Name(name),
        action: "recover",
        exit: record.exit,
        // Its own may have been lost with the supervisor: whatever has the attribute counts.
        journal: MARK,
        read: true,
        // Every file is read anyway.
        digest: true,
        signals: None,
    })?;
    Ok(Recovered {
        run: record.run,
        box_name: record.box_name.clone(),
        name: name.clone(),
        layer: made.layer,
        changed: made.news == News::Made,
        files: made.files,
        own_bytes: made.own_bytes,
    })
}
