//! A layer of the store inside a run becomes one of this store, in the same order as one that a run has made
//! itself ([`Store::publish`]): its tree goes into a wrapper of ours, and that is renamed when all is on disk.
//!
//! Of a run that was kept nothing may be lost by a crash in between. Its record says before which layer gets
//! which id ([`super::Lent::taken`]): gc leaves those alone, and who tries again goes on from there.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, RenameFlags, Uid, chownat, fsync, mkdirat, renameat_with, syncfs};
use rustix::io::Errno;

use super::super::failpoint::step;
use super::super::file::{self, PRIVATE_DIR};
use super::claims::{folder, strange};
use crate::fault::{Context, Fault, Result};
use crate::ids::IdMap;
use crate::store::{LayerId, LayerRecord, Run, RunRecord, SharedLock, Store, json_line, layout};

/// The largest file of remembered owners.
const LARGEST: usize = 64 << 20;

/// Moves the tree of a layer of `nest` into a wrapper of ours, if it is not there yet, and opens it. To be called
/// inside. `reached` is told before the move.
///
/// # Errors
/// Failed if it is not a tree; what the system calls say.
pub fn take_tree(
    nest: BorrowedFd<'_>,
    layer: &LayerId,
    stage: BorrowedFd<'_>,
    reached: &mut dyn FnMut(&'static str) -> Result<(), Errno>,
) -> Result<OwnedFd> {
    if folder(stage, &["fs"])?.is_none() {
        let from = folder(nest, &[layout::LAYERS, layer.as_str()])?
            .ok_or_else(|| strange("a layer", layer.as_str()))?;
        reached("adopt.move")
            .and_then(|()| renameat_with(&from, "fs", stage, "fs", RenameFlags::NOREPLACE))
            .context("fetch the tree of layer", layer)?;
    }
    folder(stage, &["fs"])?.ok_or_else(|| strange("a tree", layer.as_str()))
}

/// What a layer of `nest` says that it remembers of owners; none if it says nothing. To be called inside.
///
/// # Errors
/// Failed if it is not a file; what the system calls say.
pub fn claimed_owners(nest: BorrowedFd<'_>, layer: &LayerId) -> Result<Option<Vec<u8>>> {
    let dir = folder(nest, &[layout::LAYERS, layer.as_str()])?;
    let Some(dir) = dir else { return Ok(None) };
    match file::read_small(dir.as_fd(), "owners", LARGEST) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::LOOP | Errno::FBIG | Errno::ISDIR | Errno::NXIO) => {
            Err(strange("a file of owners", "owners"))
        }
        Err(errno) => Err(Fault::errno("read inner store", "owners", errno)),
    }
}

impl Run {
    /// Writes which layers are on their way in; durably, if the run is kept.
    ///
    /// # Errors
    /// What writing says.
    pub fn note_taken(&mut self, record: &RunRecord) -> Result<()> {
        if self.kept { self.mark_kept(record) } else { self.write_record(record) }
    }

    /// The store inside it, open for reading, if it has one.
    ///
    /// # Errors
    /// What openat(2) says.
    pub fn nest(&self) -> Result<Option<OwnedFd>> {
        match file::open_dir(self.dir(), layout::NEST) {
            Ok(dir) => Ok(Some(dir)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Fault::errno("open the inner store of run", self.id, errno)),
        }
    }

    /// A wrapper for a layer that is taken in, as a place (`O_PATH`), made if it is not there yet.
    ///
    /// # Errors
    /// What the system calls say.
    pub fn stage_taken(&self, map: &IdMap, layer: &LayerId) -> Result<OwnedFd> {
        let name = layout::taken(layer);
        let (uid, gid) = map.root_owner();
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        step("adopt.stage", || {
            match mkdirat(self.dir(), &name, PRIVATE_DIR) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
            // As a layer of a run: that of root inside.
            chownat(self.dir(), &name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            file::open_place(self.dir(), &name)
        })
        .context("make a place for layer", layer)
    }
}

impl Store {
    /// Waits until all that the run and those inside it have written is on disk.
    ///
    /// # Errors
    /// What syncfs(2) says.
    pub fn sync_taken(&self, run: &Run) -> Result<()> {
        step("adopt.syncfs", || syncfs(run.dir())).context("write layers to disk", run.id)
    }

    /// Makes a staged layer, whose tree is validated and on disk, one of this store. The caller then names it,
    /// under the same hold of the lock.
    ///
    /// # Errors
    /// What the system calls say; the layer then is staged as before.
    pub fn publish_taken(
        &self,
        _lock: &SharedLock,
        run: &Run,
        record: &LayerRecord,
        remembered: Option<&[u8]>,
    ) -> Result<()> {
        self.require_writable()?;
        let (staged, name) = (layout::taken(&record.id), layout::layer(&record.id));
        let wrapper = file::open_dir(run.dir(), &staged).context("open layer", record.id)?;
        write_beside(&wrapper, &json_line(record)?, remembered)
            .context("write record of layer", record.id)?;
        let layers = file::open_dir(self.dir(), layout::LAYERS);
        let layers = layers.context("open", self.show(layout::LAYERS))?;
        step("adopt.rename", || {
            renameat_with(run.dir(), &staged, self.dir(), &name, RenameFlags::NOREPLACE)
        })
        .context("publish layer", record.id)?;
        let synced = step("adopt.layers.fsync", || fsync(&layers));
        if synced.is_err() {
            let flags = RenameFlags::NOREPLACE;
            renameat_with(self.dir(), &name, run.dir(), &staged, flags).ok();
        }
        synced.context("publish layer", record.id)
    }

    /// Gives back a layer that was just published and gets no name after all.
    ///
    /// # Errors
    /// What renameat2(2) says; it then stays for as long as the record of the run names it.
    pub fn take_back_taken(&self, _lock: &SharedLock, run: &Run, layer: &LayerId) -> Result<()> {
        let flags = RenameFlags::NOREPLACE;
        step("adopt.back", || {
            let name = layout::layer(layer);
            renameat_with(self.dir(), name, run.dir(), layout::taken(layer), flags)
        })
        .context("take back layer", layer)
    }

    /// Throws the store inside a run away.
    ///
    /// # Errors
    /// What renameat2(2) says.
    pub fn discard_nest(&self, run: &Run) -> Result<()> {
        let trash = format!("nest-{}", LayerId::random()?);
        let nest = format!("{}/{}", layout::run(&run.id), layout::NEST);
        match step("adopt.trash", || self.to_trash(&nest, &trash)) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Fault::errno("discard the inner store of run", run.id, errno)),
        }
    }
}

/// The files beside the tree, in a wrapper of ours.
fn write_beside(wrapper: &OwnedFd, record: &[u8], remembered: Option<&[u8]>) -> Result<(), Errno> {
    step("adopt.owners", || match remembered {
        Some(owners) => {
            file::write_small(wrapper.as_fd(), "owners", owners)?;
            fsync(file::open_file(wrapper.as_fd(), "owners")?)
        }
        // Of an earlier try.
        None => file::unlink(wrapper.as_fd(), "owners"),
    })?;
    let file = step("adopt.record.create", || file::create(wrapper.as_fd(), "layer.json"))?;
    step("adopt.record.write", || file::write_all(&file, record))?;
    step("adopt.record.fsync", || fsync(&file))?;
    step("adopt.layer.fsync", || fsync(wrapper))
}
