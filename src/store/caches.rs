//! Persistent caches: directories of a box that its runs share, and that outlive them.
//!
//! `cache/box-BOX/NAME/` is ours and holds `lock` and `fs/`, which is the payload's own. Who uses it holds
//! the lock shared, for the whole life of the run; who removes it takes the lock exclusively, without
//! waiting, and renames the wrapper into the trash with the lock in it. So a cache is never emptied beneath
//! a run. (The wrapper and not `fs` is renamed, for the reason told in `publish`.)

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, FlockOperation, Gid, Mode, OFlags, RenameFlags, Uid, chmodat, chownat, flock, fstat,
    mkdirat, openat, renameat_with, statat,
};
use rustix::io::{Errno, retry_on_intr};

use super::failpoint::step;
use super::file::{self, PRIVATE_DIR, PRIVATE_FILE};
use super::lock::SharedLock;
use super::{BoxName, LayerId, SnapshotName, Store, layout};
use crate::fault::{Context, Fault, Result};
use crate::ids::IdMap;

/// How often a cache that others remove meanwhile is made again.
const TRIES: usize = 16;

/// What a payload finds at first.
const ROOT_MODE: Mode = Mode::from_raw_mode(0o755);

/// A cache that nobody removes for as long as this is held.
#[derive(Debug)]
pub struct Cache {
    dir: OwnedFd,
    lock: OwnedFd,
    path: String,
}

impl Cache {
    /// The directory with its content, as a path beneath base_dir.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The path of a cache of this name, be it there or not.
    pub fn place(box_name: &BoxName, name: &SnapshotName) -> String {
        format!("{}/{}", layout::cache(box_name, name), layout::CACHE_FS)
    }

    /// Lets others use it, too, while it is looked at.
    ///
    /// # Errors
    /// What flock(2) says.
    pub fn share(&self) -> Result<()> {
        retry_on_intr(|| flock(&self.lock, FlockOperation::LockShared))
            .context("lock cache", &self.path)
    }

    /// The same, as a place (`O_PATH`); `None` if it was never finished.
    ///
    /// # Errors
    /// What openat(2) says.
    pub fn fs_dir(&self) -> Result<Option<OwnedFd>> {
        match file::open_place(self.dir.as_fd(), layout::CACHE_FS) {
            Err(Errno::NOENT) => Ok(None),
            other => other.map(Some).context("open cache", &self.path),
        }
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        // Not by closing alone: a child forked meanwhile shares it.
        flock(&self.lock, FlockOperation::Unlock).ok();
    }
}

impl Store {
    /// A cache of a box, made if there is none: empty, and owned by root inside.
    ///
    /// # Errors
    /// What the system calls say.
    pub fn use_cache(
        &self,
        _lock: &SharedLock,
        box_name: &BoxName,
        name: &SnapshotName,
        map: &IdMap,
    ) -> Result<Cache> {
        self.require_writable()?;
        let made = || -> Result<Option<Cache>, Errno> {
            for dir in [layout::caches(box_name), layout::cache(box_name, name)] {
                match step("cache.make", || mkdirat(self.dir(), &dir, PRIVATE_DIR)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno),
                }
            }
            let held = self.hold(box_name, name, FlockOperation::LockShared)?;
            if let Some(cache) = &held {
                self.fill_cache(cache, map)?;
            }
            Ok(held)
        };
        for _ in 0..TRIES {
            match made() {
                // Removed by somebody between two of these steps.
                Ok(None) | Err(Errno::NOENT) => {}
                other => {
                    return other
                        .context("make cache", name)?
                        .ok_or_else(|| Fault::failed(format!("make cache: {name}: is gone")));
                }
            }
        }
        Err(Fault::busy(format!("make cache: {name}: somebody removes it again and again")))
    }

    /// Puts `fs` in place, whole: a crash in between must not leave one that the payload cannot write to.
    fn fill_cache(&self, cache: &Cache, map: &IdMap) -> Result<(), Errno> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        match statat(&cache.dir, layout::CACHE_FS, flags) {
            Err(Errno::NOENT) => {}
            other => return other.map(drop),
        }
        let new = format!("{}{}", layout::UNFINISHED, LayerId::random().map_err(|_| Errno::IO)?);
        step("cache.fs", || {
            mkdirat(&cache.dir, &new, PRIVATE_DIR)?;
            // Whatever the umask is.
            chmodat(&cache.dir, &new, ROOT_MODE, AtFlags::empty())
        })?;
        let (uid, gid) = map.root_owner();
        if uid != self.owner {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            step("cache.chown", || chownat(&cache.dir, &new, uid, gid, flags))?;
        }
        let name = layout::CACHE_FS;
        let placed = step("cache.rename", || {
            renameat_with(&cache.dir, &new, &cache.dir, name, RenameFlags::NOREPLACE)
        });
        if placed.is_err() {
            file::rmdir(cache.dir.as_fd(), &new).ok();
        }
        match placed {
            // Another run was faster.
            Err(Errno::EXIST) => Ok(()),
            other => other,
        }
    }

    /// The names of the caches of a box; also of one that is not there.
    ///
    /// # Errors
    /// What reading the directory says; damaged for an entry that is none of ours.
    pub fn cache_names(&self, box_name: &BoxName) -> Result<Vec<SnapshotName>> {
        let folder = layout::caches(box_name);
        self.names(&folder)?.iter().map(|name| self.own_name(&folder, name)).collect()
    }

    /// Takes a cache for oneself: `None` if there is none (any more).
    ///
    /// # Errors
    /// Busy while a run uses it.
    pub fn hold_cache(&self, box_name: &BoxName, name: &SnapshotName) -> Result<Option<Cache>> {
        match self.hold(box_name, name, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::WOULDBLOCK) => {
                Err(Fault::busy(format!("remove cache: {name} of box {box_name}: a run uses it"))
                    .hint("wait for the run to end, or the same again with --wait"))
            }
            other => other.context("lock cache", name),
        }
    }

    /// Moves a cache to the trash.
    ///
    /// # Errors
    /// What renameat2(2) says.
    pub fn remove_cache(&self, _lock: &SharedLock, cache: Cache) -> Result<()> {
        self.require_writable()?;
        let wrapper = cache.path.rsplit_once('/').map_or("", |(wrapper, _)| wrapper).to_owned();
        self.bury_cache(&wrapper).context("remove cache", &wrapper)?;
        // The last of a box takes the folder with it.
        if let Some((folder, _)) = wrapper.rsplit_once('/') {
            file::rmdir(self.dir(), folder).ok();
        }
        Ok(())
    }

    fn bury_cache(&self, wrapper: &str) -> Result<(), Errno> {
        let trash =
            format!("{}{}", layout::TRASHED_CACHE, LayerId::random().map_err(|_| Errno::IO)?);
        step("cache.trash", || self.to_trash(wrapper, &trash))
    }

    /// The caches of boxes that are gone, as paths.
    pub(super) fn lost_caches(&self) -> Result<Vec<String>> {
        let mut lost = Vec::new();
        for folder in self.names(layout::CACHE)? {
            let Some(Ok(box_name)) = folder.strip_prefix(layout::CACHES).map(str::parse) else {
                continue;
            };
            let there = statat(self.dir(), layout::boxed(&box_name), AtFlags::SYMLINK_NOFOLLOW);
            if matches!(there, Err(Errno::NOENT)) {
                lost.push(format!("{}/{folder}", layout::CACHE));
            }
        }
        Ok(lost)
    }

    /// The caches of boxes that are not there: a box was removed while a run made one. To be called under
    /// the exclusive store lock.
    pub(super) fn sweep_caches(&self) -> Result<()> {
        for folder in self.names(layout::CACHE)? {
            let Some(Ok(box_name)) = folder.strip_prefix(layout::CACHES).map(str::parse) else {
                continue;
            };
            let there = statat(self.dir(), layout::boxed(&box_name), AtFlags::SYMLINK_NOFOLLOW);
            if !matches!(there, Err(Errno::NOENT)) {
                continue;
            }
            for name in self.cache_names(&box_name)? {
                // One that a run still uses goes the next time.
                if let Ok(Some(cache)) = self.hold_cache(&box_name, &name) {
                    let wrapper = layout::cache(&box_name, &name);
                    self.bury_cache(&wrapper).context("remove cache", &wrapper)?;
                    drop(cache);
                }
            }
            file::rmdir(self.dir(), &layout::caches(&box_name)).ok();
        }
        Ok(())
    }

    fn hold(
        &self,
        box_name: &BoxName,
        name: &SnapshotName,
        operation: FlockOperation,
    ) -> Result<Option<Cache>, Errno> {
        let wrapper = layout::cache(box_name, name);
        let dir = file::open_dir(self.dir(), &wrapper)?;
        let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || retry_on_intr(|| openat(&dir, layout::LOCK, flags, PRIVATE_FILE));
        let lock = step("cache.lock", open)?;
        retry_on_intr(|| flock(&lock, operation))?;
        let path = Cache::place(box_name, name);
        let cache = Cache { dir, lock, path };
        // Somebody may have moved it to the trash while we waited.
        let held = fstat(&cache.dir)?;
        match statat(self.dir(), &wrapper, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(named) if (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino) => {
                Ok(Some(cache))
            }
            Ok(_) | Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}
