//! Back to a snapshot: `rollback` and `clean`.

use serde::Serialize;

use crate::fault::{Fault, Result};
use crate::store::{BoxName, Expected, LayerId, LogEntry, State, Store};

use super::snapshot::make_current;

/// Where head is now.
#[derive(Debug, Serialize)]
pub struct Moved {
    /// The box.
    #[serde(rename = "box")]
    pub box_name: BoxName,
    /// Head before.
    pub old: Option<LayerId>,
    /// Head now.
    pub head: LayerId,
    /// Whether head or current moved at all.
    pub changed: bool,
}

/// Lets head and current be what `spec` names: a snapshot, the beginning of the id of a layer that the box
/// knows, `head` or `current`. Runs that go on are not touched.
///
/// # Errors
/// Not found for what is not there; conflict for a snapshot of another box.
pub fn rollback(store: &Store, box_name: &BoxName, spec: &str) -> Result<Moved> {
    let lock = store.lock_shared()?;
    // It sets all that the file `head` says: so it is the way out if that is damaged.
    store.open_box(box_name)?.mend(&lock, |state| {
        let found = store.resolve(box_name, spec)?;
        if found.box_name != *box_name {
            return Err(Fault::conflict(format!(
                "roll back: {spec}: it is a snapshot of box {}, not of {box_name}",
                found.box_name
            ))
            .hint(format!(
                "give it a name here first: `sandbox run -b {box_name} --from {spec} --commit NAME -- true`"
            )));
        }
        let moved = moved(state, box_name, found.layer, state.current() != Some(found.layer));
        move_head(state, &found.layer)?;
        make_current(state, &found.layer)?;
        state.log(LogEntry { name: found.name, ..LogEntry::new("rollback") });
        Ok(moved)
    })
}

/// Lets head be current again: what was kept since has no name any more.
///
/// # Errors
/// Not found without the box, or if it has no current layer.
pub fn clean(store: &Store, box_name: &BoxName) -> Result<Moved> {
    let lock = store.lock_shared()?;
    store.open_box(box_name)?.update(&lock, |state| {
        let current = state.current().ok_or_else(|| {
            Fault::not_found(format!("clean: box {box_name}: it has no current snapshot"))
                .hint(format!("choose one: `sandbox rollback NAME --box {box_name}`"))
        })?;
        let moved = moved(state, box_name, current, false);
        move_head(state, &current)?;
        state.log(LogEntry::new("clean"));
        Ok(moved)
    })
}

fn moved(state: &State<'_>, box_name: &BoxName, head: LayerId, too: bool) -> Moved {
    let old = state.head();
    Moved { box_name: box_name.clone(), old, head, changed: too || old != Some(head) }
}

fn move_head(state: &mut State<'_>, layer: &LayerId) -> Result<()> {
    let old = state.head().map_or(Expected::Absent, Expected::Layer);
    state.set_head(layer, old)
}
