//! The end of a run whose changes nobody wants.
//!
//! An empty upper is removed at once, by name and without a user namespace, because only what overlayfs
//! itself leaves has to go with it. Anything else is renamed to the trash.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FlockOperation, RenameFlags, chmodat, renameat_with};
use rustix::io::Errno;

use super::failpoint::step;
use super::file::{self, PRIVATE_DIR};
use super::spare::Next;
use super::{Run, RunId, Store, layout};
use crate::fault::{Context, Kind, Result};

/// What overlayfs leaves in a work directory: directories of mode 0000, outermost first.
const LEFT_IN_WORK: [&str; 3] = ["work", "work/incompat", "work/incompat/volatile"];

/// The mark of a `volatile` mount, an empty file in the innermost of them (overlayfs.rst, "Volatile mount").
const MARK: &str = "work/incompat/volatile/dirty";

/// Where a discarded run went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Discarded {
    /// It is gone.
    Gone,
    /// It lies in the trash under this name, to be emptied: [`Store::trash`].
    Trash(String),
}

impl Store {
    /// Opens an ended run to throw it away, also one whose record cannot be read any more: nothing but to remove it can be
    /// done with that, and no other run has to go for it.
    ///
    /// # Errors
    /// As [`Store::open_run`].
    pub fn open_to_discard(&self, id: &RunId) -> Result<Run> {
        let fault = match self.open_run(id) {
            Err(fault) if fault.kind == Kind::Damaged => fault,
            opened => return opened.map(|(run, _)| run),
        };
        let operation = FlockOperation::NonBlockingLockExclusive;
        let Some(mut probe) = self.probe(&layout::run(id), operation)? else { return Err(fault) };
        // Somebody has it open who may mend it.
        let Some(lock) = probe.lock.take() else { return Err(fault) };
        let dir = file::open_dir(probe.dir.as_fd(), ".").context("open run", id)?;
        Ok(Run { id: *id, dir, lock, recorded: true, kept: true, next: Next::None })
    }
}

impl Run {
    /// Removes the run, or moves it to the trash. Its overlay must be unmounted.
    ///
    /// # Errors
    /// What the system calls say; the remains are reaped later.
    pub fn discard(self, store: &Store) -> Result<Discarded> {
        if self.remove(store).is_ok() {
            return Ok(Discarded::Gone);
        }
        let name = trash_name(&self.id);
        step("discard.trash", || store.to_trash(&layout::run(&self.id), &name))
            .context("discard run", self.id)?;
        Ok(Discarded::Trash(name))
    }

    /// Removes the run if nothing was written to its upper, and says whether it did; its directory may be
    /// put aside for another run, once the lock is free. What it has begun and could not end is for
    /// [`Run::discard`]. Its overlay may still be on its way down.
    pub fn remove_empty(&self, store: &Store) -> bool {
        self.put_aside(store).or_else(|_| self.remove(store)).is_ok()
    }

    fn remove(&self, store: &Store) -> Result<(), Errno> {
        // This decides: it fails if the upper holds anything, and nothing has been touched then.
        step("discard.fs", || file::rmdir(self.dir(), layout::LAYER_FS))?;
        step("discard.work", || {
            self.empty_work(layout::WORK)?;
            file::rmdir(self.dir(), layout::WORK)
        })?;
        step("discard.layer", || {
            match file::rmdir(self.dir(), layout::LAYER) {
                Err(Errno::NOTEMPTY) => {}
                other => return other,
            }
            // A commit that failed half-way has left its record.
            file::unlink(self.dir(), layout::LAYER_RECORD)?;
            file::unlink(self.dir(), layout::LAYER_OWNERS)?;
            file::unlink(self.dir(), layout::LAYER_MANIFEST)?;
            file::rmdir(self.dir(), layout::LAYER)
        })?;
        step("discard.record", || file::unlink(self.dir(), layout::RUN_RECORD))?;
        // The lock last: without it a reaper lets the directory alone for a while.
        step("discard.lock", || file::unlink(self.dir(), layout::LOCK))?;
        let name = layout::run(&self.id);
        step("discard.run", || match file::rmdir(store.dir(), &name) {
            Err(Errno::NOTEMPTY) => self.remove_rest(store, &name),
            other => other,
        })
    }

    /// What only some runs have.
    fn remove_rest(&self, store: &Store, name: &str) -> Result<(), Errno> {
        self.empty_work(layout::NEXT_WORK)?;
        file::rmdir(self.dir(), layout::NEXT_WORK)?;
        file::rmdir(self.dir(), layout::NEXT_FS)?;
        file::unlink(self.dir(), layout::RUN_RECORD_NEW)?;
        file::unlink(self.dir(), layout::RUN_DEAD)?;
        file::unlink(self.dir(), layout::RUN_LOG)?;
        file::unlink(self.dir(), layout::RUN_JOURNAL)?;
        file::unlink(self.dir(), layout::RUN_SOCKET)?;
        file::unlink(self.dir(), layout::RUN_BECOMES)?;
        file::rmdir(self.dir(), layout::NEST)?;
        file::rmdir(store.dir(), name)
    }

    /// Opens to their owner the directories that overlayfs has left in a work directory.
    pub(super) fn open_work(&self, work: &str) -> Result<(), Errno> {
        // Nobody but the kernel and we can name anything in here: there is no symlink to follow. Where it
        // is not ours (a range of ids), we are root and need no permission.
        for name in LEFT_IN_WORK {
            match chmodat(self.dir(), format!("{work}/{name}"), PRIVATE_DIR, AtFlags::empty()) {
                Ok(()) | Err(Errno::PERM) => {}
                Err(Errno::NOENT) => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Removes what overlayfs has left in a work directory.
    pub(super) fn empty_work(&self, work: &str) -> Result<(), Errno> {
        self.open_work(work)?;
        file::unlink(self.dir(), &format!("{work}/{MARK}"))?;
        LEFT_IN_WORK
            .iter()
            .rev()
            .try_for_each(|name| file::rmdir(self.dir(), &format!("{work}/{name}")))
    }
}

impl Store {
    /// Moves something of the store to the trash.
    pub(super) fn to_trash(&self, name: &str, trash: &str) -> Result<(), Errno> {
        let trash = format!("{}/{trash}", layout::TRASH);
        renameat_with(self.dir(), name, self.dir(), &trash, RenameFlags::NOREPLACE)
    }
}

/// The name of a run in the trash: ids are never reused, so this is free.
pub(super) fn trash_name(id: &RunId) -> String {
    format!("run-{id}")
}
