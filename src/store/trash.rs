//! The trash: what is to be removed, in two steps.
//!
//! The files of a layer are removed inside the user namespace of the store's ids ([`Trash::empty`]): they
//! may belong to ids that are not ours, beneath directories of mode 0000. The directories around them are
//! ours and are removed outside ([`Trash::finish`]). Where inside root is the owner of the store, one
//! process may do both. The directories to empty are opened outside, as places, so that the namespace
//! needs no way to them.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Dir, FlockOperation, flock, fstat, statat, unlinkat};
use rustix::io::{Errno, retry_on_intr};

use super::failpoint::step;
use super::{Store, file, layout};
use crate::fault::{Context, Fault, Result};
use crate::tree::usage::on_disk;

/// How many entries one [`Trash`] holds: each costs up to three descriptors.
const BATCH: usize = 64;

/// Directories of ours lie no deeper than this beneath an entry.
const DEPTH: u32 = 4;

/// Trash that nobody else empties, for as long as this (or a fork of it) is open.
#[derive(Debug)]
pub struct Trash {
    dir: OwnedFd,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    /// The directories whose content is not ours.
    foreign: Vec<OwnedFd>,
    /// What these take on disk themselves, in bytes, as they were before they were emptied.
    bytes: u64,
}

/// What became of a [`Trash`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Emptied {
    /// How many entries are gone.
    pub entries: usize,
    /// Bytes on disk that this gave back, but for what [`Trash::empty`] has removed.
    pub bytes: u64,
}

impl Store {
    /// Takes hold of the trash: up to 64 entries, so go on until there is none, or [`Trash::finish`] says 0.
    /// `None` if it is empty or somebody else is emptying it.
    ///
    /// # Errors
    /// What the system calls say.
    pub fn trash(&self) -> Result<Option<Trash>> {
        let shown = || self.show(layout::TRASH);
        let dir = file::open_dir(self.dir(), layout::TRASH).context("open trash", shown())?;
        // Look first: hot when there is none, and a lock for nothing would hide the trash from others.
        if file::is_empty(dir.as_fd()).context("read trash", shown())? {
            return Ok(None);
        }
        match retry_on_intr(|| flock(&dir, FlockOperation::NonBlockingLockExclusive)) {
            Err(Errno::WOULDBLOCK) => return Ok(None),
            other => other.context("lock trash", shown())?,
        }
        let names = file::names(dir.as_fd()).context("read trash", shown())?;
        let mut entries = Vec::new();
        for name in names.into_iter().take(BATCH) {
            let foreign = open_foreign(dir.as_fd(), &name).context("open trash", &name)?;
            let sizes = foreign.iter().map(|dir| fstat(dir).map(|stat| on_disk(&stat)));
            let bytes = sizes.sum::<Result<u64, Errno>>().context("look at trash", &name)?;
            entries.push(Entry { name, foreign, bytes });
        }
        Ok((!entries.is_empty()).then_some(Trash { dir, entries }))
    }

    /// How many entries wait in the trash, whoever empties it.
    pub fn trash_pending(&self) -> Result<usize> {
        Ok(self.trash_names()?.len())
    }

    /// The names of these entries; none is used twice.
    pub fn trash_names(&self) -> Result<Vec<String>> {
        self.names(layout::TRASH)
    }
}

impl Trash {
    /// How many entries it holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Never true: see [`Store::trash`].
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether [`Trash::empty`] has nothing to do, so that no user namespace is needed.
    pub fn is_ours(&self) -> bool {
        self.entries.iter().all(|entry| {
            entry.foreign.iter().all(|dir| {
                let dir = file::open_dir(dir.as_fd(), ".");
                dir.and_then(|dir| file::is_empty(dir.as_fd())).unwrap_or(false)
            })
        })
    }

    /// Removes the content of layers and uppers. To be called inside the user namespace, with capabilities
    /// over its files. `remove` removes a tree by the directory that holds it and its name.
    ///
    /// # Errors
    /// The first failure; the rest is removed nevertheless.
    pub fn empty(
        &self,
        remove: &mut dyn FnMut(BorrowedFd<'_>, &OsStr) -> Result<()>,
    ) -> Result<()> {
        let mut verdict = Ok(());
        for entry in &self.entries {
            for foreign in &entry.foreign {
                let emptied = empty_one(foreign, &entry.name, remove);
                verdict = verdict.and(emptied);
            }
        }
        verdict
    }

    /// Removes what is ours of the entries whose content is gone, and says how many are gone with it. Others
    /// stay for the next time.
    ///
    /// # Errors
    /// What the system calls say, but for permissions: inside a range of ids this is not ours to remove.
    pub fn finish(self) -> Result<Emptied> {
        let mut emptied = Emptied::default();
        for entry in &self.entries {
            match step("trash.own", || finish_one(self.dir.as_fd(), &entry.name)) {
                Ok(bytes) => {
                    emptied.entries += 1;
                    emptied.bytes += entry.bytes + bytes;
                }
                Err(Errno::NOTEMPTY | Errno::ACCESS | Errno::PERM) => {}
                Err(errno) => return Err(Fault::errno("empty trash", &entry.name, errno)),
            }
        }
        // Given up here and not by closing alone, because a forked remover may still share it.
        flock(&self.dir, FlockOperation::Unlock).ok();
        Ok(emptied)
    }
}

/// The directories in an entry whose content is not ours, as paths in it.
pub(super) fn foreign_names(entry: &str) -> &'static [&'static str] {
    match entry.split_once('-') {
        Some(("run", _)) => &layout::FOREIGN_IN_RUN,
        Some(("layer", _)) => &["fs"],
        Some(("boxcache", _)) => &[layout::CACHE_FS],
        Some(("box", _)) => &[],
        _ => &["."],
    }
}

fn open_foreign(trash: BorrowedFd<'_>, entry: &str) -> Result<Vec<OwnedFd>, Errno> {
    let mut foreign = Vec::new();
    for name in foreign_names(entry) {
        match file::open_place(trash, &format!("{entry}/{name}")) {
            Ok(dir) => foreign.push(dir),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(foreign)
}

fn empty_one(
    foreign: &OwnedFd,
    entry: &str,
    remove: &mut dyn FnMut(BorrowedFd<'_>, &OsStr) -> Result<()>,
) -> Result<()> {
    let dir = step("trash.foreign", || file::open_dir(foreign.as_fd(), "."))
        .context("empty trash", entry)?;
    // All names first: what a directory stream gives while entries vanish differs by filesystem.
    let mut names = Vec::new();
    for item in Dir::read_from(&dir).context("empty trash", entry)? {
        let item = item.context("empty trash", entry)?;
        let name = OsStr::from_bytes(item.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push(OsString::from(name));
        }
    }
    let mut verdict = Ok(());
    for name in names {
        let removed = remove(dir.as_fd(), &name);
        verdict = verdict.and(removed);
    }
    verdict
}

/// Removes an entry of which only what is ours is left, and says what that took on disk.
fn finish_one(trash: BorrowedFd<'_>, entry: &str) -> Result<u64, Errno> {
    for name in foreign_names(entry).iter().filter(|name| **name != ".") {
        match file::rmdir(trash, &format!("{entry}/{name}")) {
            Ok(()) | Err(Errno::NOTDIR) => {}
            Err(errno) => return Err(errno),
        }
    }
    let mut bytes = 0;
    if foreign_names(entry) == ["."] {
        match file::rmdir(trash, entry) {
            Err(Errno::NOTDIR) => remove_own(trash, entry, 0, &mut bytes)?,
            other => other?,
        }
    } else {
        remove_own(trash, entry, DEPTH, &mut bytes)?;
    }
    Ok(bytes)
}

fn remove_own(
    parent: BorrowedFd<'_>,
    name: &str,
    depth: u32,
    bytes: &mut u64,
) -> Result<(), Errno> {
    let stat = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        stat => stat?,
    };
    // unlink(2) of a directory is EISDIR on Linux, and EPERM by POSIX.
    match unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) if depth > 0 => {
            let dir = file::open_dir(parent, name)?;
            for inner in file::names(dir.as_fd())? {
                remove_own(dir.as_fd(), &inner, depth - 1, bytes)?;
            }
            file::rmdir(parent, name)?;
        }
        other => other?,
    }
    *bytes += on_disk(&stat);
    Ok(())
}
