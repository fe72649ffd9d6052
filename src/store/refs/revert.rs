//! What a move that failed half-way has changed goes back, so that nothing names a layer that its maker
//! then takes back. It needs no space: the disk may be full.

use rustix::fs::{RenameFlags, renameat, renameat_with};
use rustix::io::Errno;

use super::State;
use crate::store::{file, layout};

impl State<'_> {
    /// Puts the new head in place; the old one lies under the temporary name meanwhile.
    pub(super) fn exchange_head(&self, new: &str) -> Result<(), Errno> {
        let (dir, name) = (self.store.dir(), layout::head(self.name));
        match renameat_with(dir, new, dir, &name, RenameFlags::EXCHANGE) {
            // There is none yet, or the file system cannot exchange.
            Err(Errno::NOENT | Errno::INVAL) => renameat(dir, new, dir, &name),
            other => other,
        }
    }

    /// After success: the old head goes. Best effort, gc removes what stays.
    pub(super) fn forget(&self) {
        if self.head != self.old {
            file::unlink(self.store.dir(), &self.new_head()).ok();
        }
    }

    /// After a failure: the old head comes back, and names that were not there go. Best effort on a disk
    /// that has just failed.
    pub(super) fn revert(&self) {
        let dir = self.store.dir();
        if self.head != self.old {
            let (new, name) = (self.new_head(), layout::head(self.name));
            let moved = self.store.box_head(self.name).is_ok_and(|now| now == self.head);
            if moved {
                renameat(dir, &new, dir, &name).ok();
            } else {
                file::unlink(dir, &new).ok();
            }
        }
        for snapshot in &self.fresh {
            file::unlink(dir, &layout::reference(self.name, snapshot)).ok();
        }
    }

    pub(super) fn new_head(&self) -> String {
        format!("{}/{}head", layout::boxed(self.name), layout::UNFINISHED)
    }
}
