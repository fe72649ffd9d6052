//! A staged move to disk.
//!
//! 1. all new refs and the new head as temporary files, each synced: what needs space is done now;
//! 2. the line in the log: it says what was before, so that a move that is cut off half-way can be undone,
//!    too; one that a kill prevents altogether leaves its line, which undo passes over;
//! 3. renames of refs, fsync of `refs/`; rename of head and current, which are one file, fsync.
//!
//! What was there lies under the temporary names until the end: a failure brings it back without needing
//! space, so that nothing names a layer that its maker then takes back.

use rustix::fs::{AtFlags, RenameFlags, renameat, renameat_with, statat};
use rustix::io::Errno;

use super::State;
use super::state::Staged;
use crate::fault::{Context, Result};
use crate::store::failpoint::step;
use crate::store::log::OpenLog;
use crate::store::{SnapshotName, file, json_line, layout};

impl State<'_> {
    /// Writes what is staged: all of it, or nothing if it fails.
    pub(super) fn write(self) -> Result<()> {
        if self.changed().next().is_none() && self.head == self.old {
            return Ok(());
        }
        let mut log = None;
        let written = self.write_all(&mut log);
        if written.is_ok() {
            self.forget();
            if let Some(log) = log {
                log.trim(&self.open.record.settings);
            }
        } else {
            self.revert();
            if let Some(log) = log {
                log.cut();
            }
        }
        written
    }

    fn write_all<'a>(&'a self, log: &mut Option<OpenLog<'a>>) -> Result<()> {
        for (snapshot, staged) in self.changed() {
            if let Some(new) = &staged.new {
                let bytes = json_line(new)?;
                let steps = ["ref.temp", "ref.temp.fsync"];
                match self.store.write_durably(steps, &self.temporary(snapshot), &bytes) {
                    Err(Errno::NOENT) => {
                        return Err(self.store.lost("write snapshot", &layout::refs(self.name)));
                    }
                    written => written.context("write snapshot", snapshot)?,
                }
            }
        }
        if self.head != self.old {
            let bytes = json_line(&self.head)?;
            self.store
                .write_durably(["head.temp", "head.temp.fsync"], &self.new_head(), &bytes)
                .context("move head", self.name)?;
        }
        self.write_log(log)?;
        self.move_refs()?;
        self.move_head()
    }

    /// On a full disk names can be taken away without a line, so that there is a way to free some space:
    /// then undo does not know of it.
    fn write_log<'a>(&'a self, log: &mut Option<OpenLog<'a>>) -> Result<()> {
        let Some(entry) = &self.entry else { return Ok(()) };
        let line = json_line(&self.finished(entry.clone())?)?;
        let log = log.insert(self.store.open_log(self.name)?);
        match log.append(line) {
            Err(Errno::NOSPC | Errno::DQUOT) if self.only_removes() => {
                log.cut();
                Ok(())
            }
            other => other.context("append to log", log.shown()),
        }
    }

    fn only_removes(&self) -> bool {
        self.head == self.old && self.changed().all(|(_, staged)| staged.new.is_none())
    }

    fn move_refs(&self) -> Result<()> {
        if self.changed().next().is_none() {
            return Ok(());
        }
        // New names before old ones go: a crash between leaves a name too many, never one too few.
        for (snapshot, _) in self.changed().filter(|(_, staged)| staged.new.is_some()) {
            let (new, name) = (self.temporary(snapshot), layout::reference(self.name, snapshot));
            step("ref.rename", || self.exchange(&new, &name))
                .context("write snapshot", snapshot)?;
        }
        for (snapshot, _) in self.changed().filter(|(_, staged)| staged.new.is_none()) {
            let (dir, new) = (self.store.dir(), self.temporary(snapshot));
            let name = layout::reference(self.name, snapshot);
            step("ref.remove", || renameat(dir, &name, dir, &new))
                .context("remove snapshot", snapshot)?;
        }
        self.store.sync_folder("ref.fsync", &layout::refs(self.name))
    }

    fn move_head(&self) -> Result<()> {
        if self.head == self.old {
            return Ok(());
        }
        step("head.rename", || self.exchange(&self.new_head(), &layout::head(self.name)))
            .context("move head", self.name)?;
        self.store.sync_folder("head.fsync", &layout::boxed(self.name))
    }

    /// Puts a new file in place; the old one lies under the temporary name meanwhile.
    fn exchange(&self, new: &str, name: &str) -> Result<(), Errno> {
        let dir = self.store.dir();
        match renameat_with(dir, new, dir, name, RenameFlags::EXCHANGE) {
            // There is none yet, or the file system cannot exchange.
            Err(Errno::NOENT | Errno::INVAL) => renameat(dir, new, dir, name),
            other => other,
        }
    }

    /// After success: what was there goes. Best effort, gc removes what stays.
    fn forget(&self) {
        if self.head != self.old {
            file::unlink(self.store.dir(), &self.new_head()).ok();
        }
        for (snapshot, _) in self.changed().filter(|(_, staged)| staged.there) {
            file::unlink(self.store.dir(), &self.temporary(snapshot)).ok();
        }
    }

    /// After a failure: what was there comes back, and what was not goes. Best effort on a disk that has
    /// just failed. What has been done is found by looking: a call that failed may have done its work.
    fn revert(&self) {
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
        for (snapshot, staged) in self.changed() {
            let (new, name) = (self.temporary(snapshot), layout::reference(self.name, snapshot));
            if !staged.there {
                file::unlink(dir, &name).ok();
                file::unlink(dir, &new).ok();
            } else if self.is_moved(snapshot, staged) {
                renameat(dir, &new, dir, &name).ok();
            } else if staged.new.is_some() {
                file::unlink(dir, &new).ok();
            }
        }
    }

    /// Whether a name that was there is what it was to become.
    fn is_moved(&self, snapshot: &SnapshotName, staged: &Staged) -> bool {
        match &staged.new {
            Some(new) => {
                let now = self.store.box_ref(self.name, snapshot);
                now.is_ok_and(|now| now.is_some_and(|now| now.record() == *new))
            }
            None => {
                let name = layout::reference(self.name, snapshot);
                let now = statat(self.store.dir(), name, AtFlags::SYMLINK_NOFOLLOW);
                now.is_err_and(|errno| errno == Errno::NOENT)
            }
        }
    }

    fn new_head(&self) -> String {
        format!("{}/{}head", layout::boxed(self.name), layout::UNFINISHED)
    }

    /// Under the lock of the box one name is enough; a stale one is written over, and swept by gc.
    fn temporary(&self, snapshot: &SnapshotName) -> String {
        format!("{}/{}{snapshot}", layout::refs(self.name), layout::UNFINISHED)
    }
}
