//! The store: layers, snapshots that name them, boxes, runs, and who may remove what.
//!
//! `docs/format.md` is the specification of what lies on disk. A [`Store`] holds a descriptor of its
//! directory; all names beneath are relative to it, are made of validated parts only, and never lead
//! through the tree of a layer.
//!
//! # Locks, in the order they are taken
//! 1. the store lock ([`SharedLock`], [`ExclusiveLock`]): shared for moments, by whoever makes something
//!    reachable; exclusive while [`Store::gc`] decides what is dead;
//! 2. the lock of one box, inside [`Box_::update`];
//! 3. the lock of one run, held by its supervisor for its whole life.
//!
//! # Durability
//! A layer is on disk, whole, before its name appears ([`Store::publish`]); a ref is on disk before the
//! command that moved it ends ([`Box_::update`]). Nothing else is synced: what is lost of a run by a power
//! cut was never promised.

mod boxes;
mod budget;
mod caches;
mod discard;
mod ended;
pub(crate) mod failpoint;
mod file;
mod fold;
mod format;
mod fsck;
mod gc;
mod id;
mod journal;
mod keep;
mod layer;
mod layout;
mod listing;
mod lock;
mod log;
mod manifest;
mod mark;
mod name;
mod nest;
mod open;
pub mod place;
mod publish;
mod reap;
mod record;
mod refs;
mod remains;
mod resolve;
mod runs;
mod settle;
mod spare;
mod stay;
mod trash;
mod usage;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{StatVfsMountFlags, fstatvfs, fsync, renameat};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use boxes::{Box_, BoxRecord, BoxSettings, FirstLayer};
pub use budget::{Budget, Limit, Load};
pub use caches::Cache;
pub use discard::Discarded;
pub use ended::{ENDED_AGE, EndedRun, MOST_ENDED};
pub(crate) use failpoint::reached;
pub use fold::FoldPlan;
pub use fsck::{Action, Damage, DamageKind, Finding, Note, Remedy, Survey, Surveyed};
pub use gc::{Collected, GcOptions};
pub use id::{LayerId, MoveId, RunId};
pub use layer::{LayerRecord, LayerSize, LayerSizes};
pub use listing::{Listed, Listings};
pub use lock::{ExclusiveLock, SharedLock};
pub use log::{LogEntry, Moved, Pair, RefMoved};
pub use manifest::Manifest;
pub use name::{BoxName, RESERVED, RunName, SnapshotName};
pub use nest::{Claim, Claims, Lent, claimed_owners, take_tree};
pub use refs::{Expected, RefRecord, SnapshotRef, State};
pub use resolve::Resolved;
pub use runs::{Made, Run, RunRecord, RunState};
pub use stay::{Found, NameLock};
pub use trash::{Emptied, Trash};
pub use usage::Part;

use crate::fault::{Context, Fault, Result, is_of_the_disk};

/// An open store.
#[derive(Debug)]
pub struct Store {
    dir: OwnedFd,
    path: PathBuf,
    /// The effective uid that opened it, who owns everything that is ours.
    owner: u32,
    writable: bool,
    /// Whether what it lies on can hold the upper of an overlay.
    holds_uppers: bool,
    /// Whether a newer sandbox has added files that this one does not know, and that are no harm.
    ignores_strays: bool,
    /// Of a store inside a run: the layers that are those of the store around it.
    outer: Option<BTreeSet<LayerId>>,
    /// How long to wait for a lock.
    patience: Duration,
}

impl Store {
    /// The directory of the store: a descriptor made with `O_PATH`.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// The directory of what can be made again, open for reading.
    ///
    /// # Errors
    /// Damaged if it is not there; what openat(2) says.
    pub fn cache_dir(&self) -> Result<OwnedFd> {
        match file::open_dir(self.dir(), layout::CACHE) {
            Err(Errno::NOENT) => Err(self.lost("open directory", layout::CACHE)),
            other => other.context("open directory", self.show(layout::CACHE)),
        }
    }

    /// The path it was opened by, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How long to wait for whoever holds a lock before it is busy. Five seconds if nobody says otherwise:
    /// locks are held for milliseconds.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Whether it lies on a file system, or a mount of one, that nobody here can write to.
    pub fn is_read_only(&self) -> bool {
        fstatvfs(&self.dir).is_ok_and(|system| system.f_flag.contains(StatVfsMountFlags::RDONLY))
    }

    /// The path of something in the store, for messages.
    fn show(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    /// Refuses to change a store that a newer sandbox has marked as readable only, and one that nothing but lowers can be
    /// taken from.
    fn require_writable(&self) -> Result<()> {
        self.require_uppers()?;
        if self.writable {
            return Ok(());
        }
        let path = self.path.display();
        Err(Fault::failed(format!(
            "change store: {path}: written by a newer sandbox, this one may only read it"
        ))
        .hint("upgrade sandbox, or choose another place with --base-dir"))
    }

    /// Reads a record; `None` if there is no such file.
    fn read_record<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        self.record_in(self.dir(), name, || name.to_owned())
    }

    /// The same by its name in an open directory, for whoever reads thousands of one: what it is called in the
    /// store is only asked for a message.
    fn record_in<T: DeserializeOwned>(
        &self,
        dir: BorrowedFd<'_>,
        name: &str,
        full: impl Fn() -> String,
    ) -> Result<Option<T>> {
        match file::read_small(dir, name, file::RECORD_LIMIT) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(record) => Ok(Some(record)),
                Err(_) => self.parse_record(&full(), &bytes).map(Some),
            },
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => {
                let fault = Fault::errno("read record", self.show(&full()), errno);
                let ours = matches!(errno, Errno::LOOP | Errno::FBIG | Errno::ISDIR);
                match ours || is_of_the_disk(errno) {
                    true => Err(Fault::damaged(fault.message)),
                    false => Err(fault),
                }
            }
        }
    }

    fn parse_record<T: DeserializeOwned>(&self, name: &str, bytes: &[u8]) -> Result<T> {
        serde_json::from_slice(bytes)
            .map_err(|error| Fault::damaged(format!("read record: {}: {error}", self.show(name))))
    }

    /// Makes a file with this content, syncs it, and puts it in the place of another one, durably.
    fn replace_durably(&self, folder: &str, name: &str, bytes: &[u8]) -> Result<(), Errno> {
        let dir = file::open_dir(self.dir(), folder)?;
        let new = format!("{}{name}", layout::UNFINISHED);
        let file = file::create(dir.as_fd(), &new)?;
        file::write_all(&file, bytes)?;
        fsync(&file)?;
        renameat(&dir, &new, &dir, name)?;
        fsync(&dir)
    }

    /// What of ours is not there, though it is made with the store and with its box.
    fn lost(&self, what: &str, name: &str) -> Fault {
        let shown = self.show(name);
        Fault::damaged(format!("{what}: {shown}: it is missing"))
            .hint("`sandbox fsck --repair` makes it again, if it cannot be brought back")
    }

    /// The names in a directory of the store; an absent one has none.
    fn names(&self, folder: &str) -> Result<Vec<String>> {
        match file::open_dir(self.dir(), folder).and_then(|dir| file::names(dir.as_fd())) {
            Err(Errno::NOENT) => Ok(Vec::new()),
            other => other.context("read directory", self.show(folder)),
        }
    }
}

/// A record as the bytes of its file: one line of JSON.
fn json_line(record: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(record)
        .map_err(|error| Fault::failed(format!("write record: as json: {error}")))?;
    bytes.push(b'\n');
    Ok(bytes)
}
