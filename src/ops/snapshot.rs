//! Names for layers.

use crate::fault::{Fault, Result};
use crate::store::{BoxName, Expected, LayerId, LogEntry, SnapshotName, Store};

/// Names the head of a box and makes it current. No layer is made: several names may stand for one.
///
/// # Errors
/// Conflict if the name is taken; not found without a box or a head.
pub fn snapshot(store: &Store, box_name: &BoxName, name: &SnapshotName) -> Result<LayerId> {
    let lock = store.lock_shared()?;
    store.open_box(box_name)?.update(&lock, |state| {
        if state.get(name)?.is_some() {
            return Err(taken(name));
        }
        let head = state.head().ok_or_else(|| no_head(box_name))?;
        let old = state.current();
        state.set(name, &head, Expected::Absent, None)?;
        state.set_current(&head, old.map_or(Expected::Absent, Expected::Layer))?;
        state.log(LogEntry {
            old: Some(head),
            new: Some(head),
            old_current: old,
            name: Some(name.clone()),
            ..LogEntry::new("snapshot")
        });
        Ok(head)
    })
}

/// Refuses a name that a snapshot of the box has already, before anything is done for it.
///
/// # Errors
/// Conflict if it is taken; not found without the box.
pub fn refuse_taken(store: &Store, box_name: &BoxName, name: &SnapshotName) -> Result<()> {
    match store.open_box(box_name)?.get(name)? {
        None => Ok(()),
        Some(_) => Err(taken(name)),
    }
}

fn taken(name: &SnapshotName) -> Fault {
    Fault::conflict(format!("snapshot {name}: exists already"))
        .hint(format!("choose another name, or remove it first: `sandbox rm {name}`"))
}

/// A box without a head has not been filled.
pub(super) fn no_head(box_name: &BoxName) -> Fault {
    Fault::not_found(format!("box {box_name}: has no head"))
        .hint(format!("`sandbox init {box_name} --from SOURCE`"))
}
