//! Takes names away from layers, or gives them others; throws kept runs away.

use serde::Serialize;

use crate::fault::Result;
use crate::store::{BoxName, LayerId, LogEntry, Run, RunId, SnapshotName, Store};

use super::snapshot::taken;

/// A name that is gone.
#[derive(Debug, Serialize)]
pub struct Removed {
    /// The name.
    pub name: SnapshotName,
    /// What it stood for; none if its file could not be read.
    pub layer: Option<LayerId>,
}

/// Removes names, also `postinit` and the current one. The layers stay as long as a head, another name, a
/// run or a layer on top needs them; `gc` takes the rest.
///
/// # Errors
/// Not found if one of the names is not there, conflict if one is protected; then none is removed.
pub fn rm(store: &Store, box_name: &BoxName, names: &[SnapshotName]) -> Result<Vec<Removed>> {
    let lock = store.lock_shared()?;
    store.open_box(box_name)?.update(&lock, |state| {
        let mut removed: Vec<Removed> = Vec::with_capacity(names.len());
        for name in names {
            // Twice on one command line is once.
            if removed.iter().all(|known| known.name != *name) {
                removed.push(Removed { name: name.clone(), layer: state.remove(name)? });
            }
        }
        state.log(LogEntry::new("rm"));
        Ok(removed)
    })
}

/// Runs that have ended, held until they are thrown away: what they changed is lost then.
#[derive(Debug)]
pub struct Ended {
    runs: Vec<Run>,
    /// Those of which only the log and how they ended are left.
    over: Vec<RunId>,
}

impl Ended {
    /// Takes hold of all of them, by name or id.
    ///
    /// # Errors
    /// Not found if one is not there, busy if one goes on or somebody works with it; then none is held.
    pub fn hold(store: &Store, words: &[String]) -> Result<Self> {
        let mut held = Self { runs: Vec::with_capacity(words.len()), over: Vec::new() };
        for word in words {
            if let Some(ended) = store.find_ended(word) {
                held.over.push(ended.run);
                continue;
            }
            let run = store.run_id(word)?;
            // Twice on one command line is once.
            if held.runs.iter().all(|known| known.id() != run) {
                held.runs.push(store.open_to_discard(&run)?);
            }
        }
        held.over.sort_unstable();
        held.over.dedup();
        Ok(held)
    }

    /// Throws them away. They do not come back.
    ///
    /// # Errors
    /// What renaming them to the trash says; those before it are gone.
    pub fn discard(self, store: &Store) -> Result<Vec<RunId>> {
        let discard = |run: Run| Ok((run.id(), run.discard(store)?).0);
        let gone: Result<Vec<RunId>> = self.runs.into_iter().map(discard).collect();
        self.over.iter().try_for_each(|run| store.forget_ended(run))?;
        Ok([gone?, self.over].concat())
    }
}

/// A name that is another one now.
#[derive(Debug, Serialize)]
pub struct Renamed {
    /// The box.
    #[serde(rename = "box")]
    pub box_name: BoxName,
    /// The name before.
    pub old: SnapshotName,
    /// The name now.
    pub name: SnapshotName,
    /// What it stands for.
    pub layer: LayerId,
}

/// Gives a snapshot another name. Its time, message and protection stay.
///
/// # Errors
/// Not found if there is no `old`; conflict if there is a `new`.
pub fn rename(
    store: &Store,
    box_name: &BoxName,
    old: &SnapshotName,
    new: &SnapshotName,
) -> Result<Renamed> {
    let lock = store.lock_shared()?;
    store.open_box(box_name)?.update(&lock, |state| {
        let found = state.require(old)?;
        if old != new {
            if state.get(new)?.is_some() {
                return Err(taken(box_name, new));
            }
            state.take(old)?;
            state.put(new, found.record())?;
        }
        let layer = found.layer;
        state.log(LogEntry {
            name: Some(new.clone()),
            old: Some(layer),
            new: Some(layer),
            ..LogEntry::new("rename")
        });
        Ok(Renamed { box_name: box_name.clone(), old: old.clone(), name: new.clone(), layer })
    })
}
