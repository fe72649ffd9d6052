//! A run directory that is empty again, put aside for the next run of the same ids.
//!
//! Most runs change nothing. To remove the directories at the end of each and to make them anew for the
//! next one is work for the disk on the path of every command, and on some disks (`discard`, no journal) a
//! wait for each. So the directory goes to `cache/` as it is. An upper is never used twice, only what stands
//! around it: whoever takes the directory exchanges upper and work directory for others that the run before has made
//! in it. While its own command runs it makes such for the one after in place of the used ones.
//!
//! Whoever takes it takes its lock first; whoever puts it aside keeps the lock until nothing of his run
//! lives any more.

use std::os::fd::AsFd;

use rustix::fs::{
    AtFlags, FlockOperation, Gid, Mode, OFlags, RenameFlags, Uid, chmodat, chownat, flock, fstat,
    mkdirat, openat, renameat_with, statat,
};
use rustix::io::{Errno, retry_on_intr};
use rustix::time::{ClockId, clock_gettime};

use super::discard::trash_name;
use super::failpoint::step;
use super::file::{self, PRIVATE_DIR};
use super::runs::ROOT_MODE;
use super::{Run, RunId, Store, layout};
use crate::ids::IdMap;

/// All that a spare directory holds, sorted: with what was made for the next run, and without.
const READY: [&str; 6] = [
    layout::RUN_RECORD_NEW,
    layout::LAYER,
    layout::LOCK,
    layout::NEXT_FS,
    layout::NEXT_WORK,
    layout::WORK,
];
const USED: [&str; 3] = [layout::LAYER, layout::LOCK, layout::WORK];

/// What a run's directory has for the run after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: it was made for this one.
    None,
    /// Perhaps the upper and the work directory of the run before.
    Used,
    /// An upper and a work directory that nobody has used.
    Ready,
}

impl Store {
    /// A run in the spare directory, if there is one that nobody else takes. Whatever is wrong with it, a
    /// fresh one will do.
    ///
    /// # Errors
    /// Only if it stands under the name of the run by now, and cannot be moved away.
    pub(super) fn take_spare(&self, id: RunId, map: &IdMap) -> Result<Option<Run>, Errno> {
        let Ok(mut run) = self.try_take_spare(id, map) else { return Ok(None) };
        if run.renew(self, map).is_ok() {
            run.next = Next::Used;
            return Ok(Some(run));
        }
        // Not under this id, which will have a run yet.
        self.spare_to_trash(&layout::run(&id))?;
        Ok(None)
    }

    fn spare_to_trash(&self, name: &str) -> Result<(), Errno> {
        let trash = trash_name(&RunId::random().map_err(|_| Errno::IO)?);
        step("spare.trash", || self.to_trash(name, &trash))
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
        // What a power cut has left of it may be anything: without a journal, the disk has the renames in any order.
        if held.st_ctime < booted() {
            self.spare_to_trash(&spare)?;
            return Err(Errno::STALE);
        }
        step("spare.take", || {
            let name = layout::run(&id);
            renameat_with(self.dir(), &spare, self.dir(), &name, RenameFlags::NOREPLACE)
        })?;
        // From here on whoever finds it finds the remains of a run: nobody takes for new what was used.
        Ok(Run { id, dir, lock, recorded: false, kept: false, next: Next::None })
    }

    /// Makes ready, in the directory of a run, what the next one needs of it, if it is a spare one. To be called when there
    /// is nothing else to do; without it the directory is not used again.
    pub fn prepare_next(&self, run: &mut Run, map: &IdMap) {
        if run.next == Next::Used && run.make_next(self, map).is_ok() {
            run.next = Next::Ready;
        }
    }
}

impl Run {
    /// An upper and a work directory that nobody has used.
    fn renew(&self, store: &Store, map: &IdMap) -> Result<(), Errno> {
        // If somebody made a symlink of it, nothing is exchanged with what it leads to (CVE-2021-26910).
        let layer = file::open_place(self.dir(), layout::LAYER)?;
        let exchange = RenameFlags::EXCHANGE;
        let work = step("spare.swap.work", || {
            renameat_with(&self.dir, layout::NEXT_WORK, &self.dir, layout::WORK, exchange)
        });
        let swapped = work.and_then(|()| {
            step("spare.swap.fs", || {
                renameat_with(&self.dir, layout::NEXT_FS, &layer, "fs", exchange)
            })
        });
        match swapped {
            // There was no run before it that could make them; or a file system that cannot exchange.
            Err(Errno::NOENT | Errno::INVAL) => {
                step("spare.work", || self.empty_work(layout::WORK))?;
                step("spare.fs", || {
                    file::rmdir(self.dir(), layout::LAYER_FS)?;
                    self.make(store, map, layout::LAYER_FS, ROOT_MODE)
                })
            }
            other => other,
        }
    }

    fn make_next(&self, store: &Store, map: &IdMap) -> Result<(), Errno> {
        step("spare.clean", || {
            self.empty_work(layout::NEXT_WORK)?;
            file::rmdir(self.dir(), layout::NEXT_FS)
        })?;
        step("spare.next", || {
            match self.make(store, map, layout::NEXT_WORK, PRIVATE_DIR) {
                Err(Errno::EXIST) => {}
                made => made?,
            }
            self.make(store, map, layout::NEXT_FS, ROOT_MODE)?;
            drop(file::create(self.dir(), layout::RUN_RECORD_NEW)?);
            Ok(())
        })
    }

    /// Makes a directory of root inside, with this mode whatever the umask is.
    fn make(&self, store: &Store, map: &IdMap, name: &str, mode: Mode) -> Result<(), Errno> {
        mkdirat(&self.dir, name, mode)?;
        chmodat(&self.dir, name, mode, AtFlags::empty())?;
        let (uid, gid) = map.root_owner();
        if uid == store.owner {
            return Ok(());
        }
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        chownat(&self.dir, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Puts the directory aside, if its upper is empty and in its work directory there is at most that of overlayfs,
    /// which may still be on its way down. Fails if it holds anything else, or if there is a spare one already.
    pub(super) fn put_aside(&self, store: &Store) -> Result<(), Errno> {
        let content: &[&str] = match self.next {
            Next::None => &USED,
            Next::Used => return Err(Errno::NOTEMPTY),
            Next::Ready => &READY,
        };
        let names = |name| file::names(file::open_dir(self.dir(), name)?.as_fd());
        let (owner, upper) = (fstat(&self.dir)?, file::open_dir(self.dir(), layout::LAYER_FS)?);
        let root = fstat(&upper)?;
        // Whoever may not write to a directory may not exchange it for another one, either.
        let given = Mode::from_raw_mode(root.st_mode) == ROOT_MODE && root.st_uid == owner.st_uid;
        let unused = given
            && file::is_empty(upper.as_fd())?
            && names(layout::LAYER)? == ["fs"]
            && names(layout::WORK)?.iter().all(|name| name == "work");
        if !unused {
            return Err(Errno::NOTEMPTY);
        }
        // Or whoever removes the whole store by rm(1) could not.
        step("spare.open", || self.open_work(layout::WORK))?;
        step("spare.record", || file::unlink(self.dir(), layout::RUN_RECORD))?;
        if file::names(self.dir())? != content {
            return Err(Errno::NOTEMPTY);
        }
        let spare = layout::spare(owner.st_uid, owner.st_gid);
        step("spare.put", || {
            let flags = RenameFlags::NOREPLACE;
            renameat_with(store.dir(), layout::run(&self.id), store.dir(), &spare, flags)
        })
    }
}

/// When the machine was started, in seconds since 1970, by its clock of now.
fn booted() -> i64 {
    let seconds = |clock| clock_gettime(clock).tv_sec;
    seconds(ClockId::Realtime) - seconds(ClockId::Boottime)
}
