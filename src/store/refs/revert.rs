//! What a move that failed half-way has changed goes back, so that nothing names a layer that its maker
//! then takes back, and no name is gone that a failed command was to remove. It needs no space: the disk may
//! be full.
//!
//! What was there lies under the temporary name until the move is done, and returns from there by rename.

use rustix::fs::{RenameFlags, renameat, renameat_with};
use rustix::io::Errno;

use super::State;
use crate::store::failpoint::step;
use crate::store::{Store, file};

/// The files that a move has changed so far, in this order.
#[derive(Debug, Default)]
pub(super) struct Changed(Vec<(String, Before)>);

/// What a name stood for.
#[derive(Debug)]
enum Before {
    Nothing,
    /// A file that lies under this name now.
    Aside(String),
    /// A file that is gone, on a file system that cannot exchange two.
    Lost,
}

impl State<'_> {
    /// Puts the new file `new` in place; the old one takes its name.
    pub(super) fn put_in_place(&mut self, at: &str, new: &str, name: String) -> Result<(), Errno> {
        let dir = self.store.dir();
        let before =
            step(at, || match renameat_with(dir, new, dir, &name, RenameFlags::EXCHANGE) {
                Ok(()) => Ok(Before::Aside(new.to_owned())),
                Err(Errno::NOENT) => renameat(dir, new, dir, &name).map(|()| Before::Nothing),
                Err(Errno::INVAL) => renameat(dir, new, dir, &name).map(|()| Before::Lost),
                Err(errno) => Err(errno),
            })?;
        self.changed.0.push((name, before));
        Ok(())
    }

    /// Removes a file; it lies under the name `aside` meanwhile.
    pub(super) fn put_aside(&mut self, at: &str, name: String, aside: String) -> Result<(), Errno> {
        let dir = self.store.dir();
        match step(at, || renameat(dir, &name, dir, &aside)) {
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        }
        self.changed.0.push((name, Before::Aside(aside)));
        Ok(())
    }
}

impl Changed {
    /// After success: the old files go. Best effort, gc removes what stays.
    pub(super) fn forget(&self, store: &Store) {
        for (_, before) in &self.0 {
            if let Before::Aside(old) = before {
                file::unlink(store.dir(), old).ok();
            }
        }
    }

    /// After a failure: the old files come back, and those that were not there go. Best effort on a disk
    /// that has just failed.
    pub(super) fn revert(&self, store: &Store) {
        let dir = store.dir();
        for (name, before) in self.0.iter().rev() {
            match before {
                Before::Nothing => file::unlink(dir, name).ok(),
                Before::Aside(old) => renameat(dir, old, dir, name).ok(),
                Before::Lost => None,
            };
        }
    }
}
