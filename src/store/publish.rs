//! From the upper of a run to a layer, such that no crash shows a part of one.
//!
//! 1. syncfs: the files of the layer are on disk;
//! 2. the record is written and synced, then the directory that names it;
//! 3. the wrapper `layer/`, which is ours and 0700, is renamed into `layers/`. (Not `fs`: to move a
//!    directory to another parent its `..` is rewritten, which asks for write permission on it, and the
//!    payload may have taken that away);
//! 4. `layers/` is synced. From here on a ref may name the layer.

use std::os::fd::BorrowedFd;

use rustix::fs::{RenameFlags, fsync, renameat_with, syncfs};
use rustix::io::Errno;

use super::failpoint::step;
use super::{LayerId, LayerRecord, Run, SharedLock, Store, file, json_line, layout};
use crate::fault::{Context, Fault, Result};

impl Store {
    /// Makes the upper of a run a layer; the caller then moves a ref to it, under the same hold of the lock.
    /// `remembered` becomes the file `owners`. `sync` is a descriptor of the store's filesystem that was
    /// opened before the run ([`Run::dir`]), so that a write-back error of the run is reported here.
    ///
    /// The upper must be unmounted and validated. What is left of the run is to be discarded.
    ///
    /// # Errors
    /// What the system calls say. The run then is as it was: it may be kept, published again or discarded.
    pub fn publish(
        &self,
        lock: &SharedLock,
        run: &Run,
        record: &LayerRecord,
        remembered: Option<&[u8]>,
        sync: BorrowedFd<'_>,
    ) -> Result<LayerId> {
        self.publish_unless(lock, run, record, remembered, sync, &|| Ok(()))
    }

    /// The same if `go_on` says so, which is asked before what may take long and after it.
    ///
    /// # Errors
    /// As [`Store::publish`], and those of `go_on`.
    pub fn publish_unless(
        &self,
        _lock: &SharedLock,
        run: &Run,
        record: &LayerRecord,
        remembered: Option<&[u8]>,
        sync: BorrowedFd<'_>,
        go_on: &dyn Fn() -> Result<()>,
    ) -> Result<LayerId> {
        self.require_writable()?;
        if !record.is_sound() {
            let id = record.id;
            return Err(Fault::failed(format!(
                "publish layer: {id}: is not the last of its chain"
            )));
        }
        let bytes = json_line(record)?;
        // A commit of a kept run that failed may have left one that is not true any more.
        if remembered.is_some() || run.kept {
            step("publish.owners", || match remembered {
                Some(owners) => file::write_small(run.dir(), layout::LAYER_OWNERS, owners),
                None => file::unlink(run.dir(), layout::LAYER_OWNERS),
            })
            .context("write owners of layer", record.id)?;
        }
        go_on()?;
        step("publish.syncfs", || syncfs(sync)).context("write layer to disk", record.id)?;
        go_on()?;
        write_record(run, &bytes).context("write record of layer", record.id)?;
        if run.kept {
            run.announce(&record.id).context("publish layer", record.id)?;
        }
        self.move_in(run, &record.id).context("publish layer", record.id)?;
        Ok(record.id)
    }

    /// Gives a layer that was just published, and that nothing names, back to its run: the ref that was
    /// to name it has moved meanwhile. The run may then be kept. Under the same hold of the lock.
    ///
    /// # Errors
    /// What renameat2(2) says; the layer then stays until gc.
    pub fn take_back(&self, _lock: &SharedLock, run: &Run, id: &LayerId) -> Result<()> {
        let flags = RenameFlags::NOREPLACE;
        step("publish.back", || {
            renameat_with(self.dir(), layout::layer(id), run.dir(), layout::LAYER, flags)
        })
        .context("take back layer", id)
    }

    fn move_in(&self, run: &Run, id: &LayerId) -> Result<(), Errno> {
        let name = layout::layer(id);
        let layers = file::open_dir(self.dir(), layout::LAYERS)?;
        step("publish.rename", || {
            renameat_with(run.dir(), layout::LAYER, self.dir(), &name, RenameFlags::NOREPLACE)
        })?;
        let synced = step("publish.layers.fsync", || fsync(&layers));
        if synced.is_err() {
            // Nothing names it yet: give it back to the run, which may still be kept.
            let flags = RenameFlags::NOREPLACE;
            renameat_with(self.dir(), &name, run.dir(), layout::LAYER, flags).ok();
        }
        synced
    }
}

fn write_record(run: &Run, bytes: &[u8]) -> Result<(), Errno> {
    let record = step("publish.record.create", || file::create(run.dir(), layout::LAYER_RECORD))?;
    step("publish.record.write", || file::write_all(&record, bytes))?;
    step("publish.record.fsync", || fsync(&record))?;
    let wrapper = file::open_dir(run.dir(), layout::LAYER)?;
    step("publish.layer.fsync", || fsync(&wrapper))
}
