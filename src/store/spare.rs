//! A run directory that is empty again, put aside for the next run of the same ids.
//!
//! Most runs change nothing. To remove four directories at the end of each and to make them anew for the
//! next one is work for the disk on the path of every command, and on some disks (`discard`, no journal) a
//! wait for each. So the directory goes to `cache/` once nothing of the run is left in it: an upper is
//! never used twice, only what stands around it.
//!
//! Whoever takes it takes its lock first; whoever puts it aside keeps the lock until nothing of his run
//! lives any more.

use std::os::fd::AsFd;

use rustix::fs::{
    AtFlags, FlockOperation, Gid, Mode, OFlags, RenameFlags, Uid, chmodat, chownat, flock, fstat,
    mkdirat, openat, renameat_with, statat,
};
use rustix::io::{Errno, retry_on_intr};

use super::discard::WORK_IN_WORK;
use super::failpoint::step;
use super::file;
use super::runs::ROOT_MODE;
use super::{Run, RunId, Store, layout};
use crate::ids::IdMap;

/// All that a spare directory holds.
const CONTENT: [&str; 3] = [layout::LAYER, layout::LOCK, layout::WORK];

impl Store {
    /// A run in the spare directory, if there is one that nobody else takes. Whatever is wrong with it, a
    /// fresh one will do.
    pub(super) fn take_spare(&self, id: RunId, map: &IdMap) -> Option<Run> {
        self.try_take_spare(id, map).ok()
    }

    fn try_take_spare(&self, id: RunId, map: &IdMap) -> Result<Run, Errno> {
        let (uid, gid) = map.root_owner();
        let spare = layout::spare(uid, gid);
        let dir = file::open_dir(self.dir(), &spare)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = retry_on_intr(|| openat(&dir, layout::LOCK, flags, Mode::empty()))?;
        retry_on_intr(|| flock(&lock, FlockOperation::NonBlockingLockExclusive))?;
        // Somebody may have taken it, and put another one aside, before we had the lock.
        let (held, named) = (fstat(&dir)?, statat(self.dir(), &spare, AtFlags::SYMLINK_NOFOLLOW)?);
        if (held.st_dev, held.st_ino) != (named.st_dev, named.st_ino) {
            return Err(Errno::STALE);
        }
        step("spare.work", || file::rmdir(dir.as_fd(), WORK_IN_WORK))?;
        step("spare.fs", || {
            match mkdirat(&dir, layout::LAYER_FS, ROOT_MODE) {
                // Whoever took it before was killed. (A symlink would lead the mode elsewhere: CVE-2021-26910.)
                Err(Errno::EXIST) => drop(file::open_place(dir.as_fd(), layout::LAYER_FS)?),
                made => made?,
            }
            chmodat(&dir, layout::LAYER_FS, ROOT_MODE, AtFlags::empty())?;
            if uid == self.owner {
                return Ok(());
            }
            let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            chownat(&dir, layout::LAYER_FS, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
        })?;
        let flags = RenameFlags::NOREPLACE;
        step("spare.take", || {
            renameat_with(self.dir(), &spare, self.dir(), layout::run(&id), flags)
        })?;
        Ok(Run { id, dir, lock, recorded: false, kept: false })
    }
}

impl Run {
    /// Puts the directory aside, whose upper is gone and in whose work directory there is the empty one of overlayfs
    /// at most. Fails if it holds anything else, or if there is a spare one already.
    pub(super) fn put_aside(&self, store: &Store) -> Result<(), Errno> {
        step("spare.record", || file::unlink(self.dir(), layout::RUN_RECORD))?;
        let names = |name| file::names(file::open_dir(self.dir(), name)?.as_fd());
        let clean = file::names(self.dir())? == CONTENT
            && names(layout::LAYER)?.is_empty()
            && match &names(layout::WORK)?[..] {
                [] => true,
                [one] => one == layout::WORK && names(WORK_IN_WORK)?.is_empty(),
                _ => false,
            };
        if !clean {
            return Err(Errno::NOTEMPTY);
        }
        let owner = fstat(&self.dir)?;
        let spare = layout::spare(owner.st_uid, owner.st_gid);
        step("spare.put", || {
            let flags = RenameFlags::NOREPLACE;
            renameat_with(store.dir(), layout::run(&self.id), store.dir(), &spare, flags)
        })
    }
}
