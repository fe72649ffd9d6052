//! Takes names away from layers.

use serde::Serialize;

use crate::fault::Result;
use crate::store::{BoxName, LayerId, LogEntry, SnapshotName, Store};

/// A name that is gone.
#[derive(Debug, Serialize)]
pub struct Removed {
    /// The name.
    pub name: SnapshotName,
    /// What it stood for.
    pub layer: LayerId,
}

/// Removes names, also `postinit` and the current one. The layers stay as long as a head, another name, a
/// run or a layer on top needs them; `gc` takes the rest.
///
/// # Errors
/// Not found if one of the names is not there; then none is removed.
pub fn rm(store: &Store, box_name: &BoxName, names: &[SnapshotName]) -> Result<Vec<Removed>> {
    let lock = store.lock_shared()?;
    store.open_box(box_name)?.update(&lock, |state| {
        let mut removed: Vec<Removed> = Vec::with_capacity(names.len());
        for name in names {
            // Twice on one command line is once.
            if removed.iter().any(|known| known.name == *name) {
                continue;
            }
            let layer = state.remove(name)?;
            state.log(LogEntry {
                old: Some(layer),
                name: Some(name.clone()),
                ..LogEntry::new("rm")
            });
            removed.push(Removed { name: name.clone(), layer });
        }
        Ok(removed)
    })
}
