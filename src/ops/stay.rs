//! Working with runs that stay: each is found in the store and asked on its socket.

use crate::fault::{Fault, Result};
use crate::run::supervisor::ask::Line;
use crate::store::{RunRecord, RunState, Store};

/// A connection to the live run of this name or id.
///
/// # Errors
/// Not-found if there is none, or it does not live; conflict if it was started by `run` or `shell`.
pub fn line(store: &Store, word: &str) -> Result<Line> {
    let (record, state) = store.find_run(word)?;
    if state == RunState::Running {
        return Ok(Line::new(record.run, store.connect_run(&record.run)?));
    }
    Err(over(&record, state))
}

/// The fault of asking a run that does not live.
fn over(record: &RunRecord, state: RunState) -> Fault {
    let how = if state == RunState::Kept { "has ended" } else { "was killed" };
    let id = record.run;
    Fault::not_found(format!("ask run: {id}: it {how}"))
        .hint(format!("`sandbox recover {id} --as NAME` makes a snapshot of what it has left"))
}
