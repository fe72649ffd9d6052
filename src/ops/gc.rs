//! Gives back the space of what nothing needs.

use std::time::Duration;

use crate::fault::Result;
use crate::store::{Collected, GcOptions, Store};
use crate::tree::usage::Usage;

use super::trash;
use super::usage::{maps, measure};

/// What to collect.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request {
    /// Only say what would be removed.
    pub dry_run: bool,
    /// Also the layers that only the log of a box keeps, so that a move can be taken back.
    pub all: bool,
}

/// Moves dead runs and layers to the trash and empties it, all of it, also what lay there before. `freed`
/// then are the bytes on disk that are free again; in a dry run those that would be, by the same measure.
///
/// # Errors
/// Busy, before anything was done, if others hold the store for longer than `wait`; damaged if it cannot
/// be told what is needed.
pub fn gc(store: &Store, request: Request, wait: Duration) -> Result<Collected> {
    let mut options = GcOptions { wait, dry_run: request.dry_run, ..GcOptions::default() };
    if request.all {
        options.undo = Some(Duration::ZERO);
    }
    let collected = store.gc(&options)?;
    if request.dry_run {
        let mut all = Usage::default();
        for usage in measure(store, &mut maps(store)?, &collected.paths)? {
            all.merge(&usage);
        }
        return Ok(Collected { freed: all.freed(), ..collected });
    }
    Ok(Collected { freed: collected.freed + trash::empty(store)?, ..collected })
}
