//! Takes back the last move of a box.

use jiff::Timestamp;
use serde::Serialize;

use crate::fault::Result;
use crate::store::{BoxName, Moved, Store};

/// What was taken back.
#[derive(Debug, Serialize)]
pub struct Undone {
    /// The box.
    #[serde(rename = "box")]
    pub box_name: BoxName,
    /// What the move was.
    pub action: String,
    /// When it was.
    pub time: Timestamp,
    /// Its command inside, if it was a run.
    pub argv: Vec<String>,
    /// What moves by taking it back: names, head, current.
    pub changes: Vec<Moved>,
    /// Whether nothing was done.
    pub dry_run: bool,
}

/// Brings back what was before the last move that was not taken back yet: head, current, names with their
/// times, messages and protection. Again goes further back. In a dry run only says what it would do.
///
/// # Errors
/// Not found if the log has no such move any more, or gc has taken what it needs; conflict if what the move
/// made was moved since by something that the log does not know.
pub fn undo(store: &Store, box_name: &BoxName, dry_run: bool) -> Result<Undone> {
    let lock = store.lock_shared()?;
    let open = store.open_box(box_name)?;
    let undo = |state: &mut crate::store::State<'_>| {
        let entry = state.undo()?;
        Ok(Undone {
            box_name: box_name.clone(),
            action: entry.action,
            time: entry.time,
            argv: entry.argv,
            changes: state.moved(),
            dry_run,
        })
    };
    if dry_run { open.rehearse(&lock, undo) } else { open.update(&lock, undo) }
}
