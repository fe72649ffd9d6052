//! The record of a box is replaced whole: written beside the old one, synced, exchanged with it.

use rustix::fs::{RenameFlags, fsync, renameat_with};
use rustix::io::Errno;

use super::failpoint::step;
use super::lock::SharedLock;
use super::{Box_, BoxRecord, BoxSettings, FirstLayer, Store, file, json_line, layout};
use crate::fault::{Context, Result};

impl Box_<'_> {
    /// Changes the defaults of the runs of this box, durably, and gives what the closure gives. It sees what
    /// is there now; a change to the same is not written.
    ///
    /// # Errors
    /// What the closure says, and then nothing was changed; not-found if the box was removed meanwhile; what
    /// writing says.
    pub fn update_settings<T>(
        &mut self,
        lock: &SharedLock,
        change: impl FnOnce(&mut BoxSettings) -> Result<T>,
    ) -> Result<T> {
        self.rewrite(lock, |record| change(&mut record.settings))
    }

    /// Says which layer was last made of the source of this box, durably.
    ///
    /// # Errors
    /// As [`Box_::update_settings`].
    pub fn set_first(&mut self, lock: &SharedLock, first: FirstLayer) -> Result<()> {
        self.rewrite(lock, |record| {
            record.first = Some(first);
            Ok(())
        })
    }

    fn rewrite<T>(
        &mut self,
        _lock: &SharedLock,
        change: impl FnOnce(&mut BoxRecord) -> Result<T>,
    ) -> Result<T> {
        self.store.require_writable()?;
        let _held = self.store.lock_box(self.name())?;
        let old = self.store.box_record(self.name())?;
        let mut new = old.clone();
        let value = change(&mut new)?;
        if new != old {
            self.replace(&new)?;
        }
        self.record = new;
        Ok(value)
    }

    fn replace(&self, record: &BoxRecord) -> Result<()> {
        let (store, name) = (self.store, self.name());
        let temporary = layout::new_box_record(name);
        let steps = ["box.record.temp", "box.record.temp.fsync"];
        store
            .write_durably(steps, &temporary, &json_line(record)?)
            .context("write record of box", name)?;
        let file = layout::box_record(name);
        let (dir, flags) = (store.dir(), RenameFlags::EXCHANGE);
        step("box.record.rename", || renameat_with(dir, &temporary, dir, &file, flags))
            .context("write record of box", name)?;
        let synced = store.sync_folder("box.record.fsync", &layout::boxed(name));
        if synced.is_err() {
            // Who is told that it failed must find the old one.
            renameat_with(dir, &temporary, dir, &file, flags).ok();
        }
        file::unlink(store.dir(), &temporary).ok();
        synced
    }
}

impl Store {
    /// Makes a file with this content and waits until it is on disk.
    pub(super) fn write_durably(
        &self,
        steps: [&str; 2],
        name: &str,
        bytes: &[u8],
    ) -> Result<(), Errno> {
        let file = step(steps[0], || {
            let file = file::create(self.dir(), name)?;
            file::write_all(&file, bytes)?;
            Ok(file)
        })?;
        step(steps[1], || fsync(&file))
    }
}
