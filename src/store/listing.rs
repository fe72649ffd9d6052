//! What the boxes had for names when all of them were listed last.
//!
//! To list ten thousand snapshots is to read twenty thousand small files, and nearly all boxes are as they were the
//! last time. So what was read is kept in one file of the cache, each box with the time at which the directory of its
//! names was changed (st_ctime). The kernel sets that whenever a name is given, moved or taken away, for each of these
//! is a new entry; layers never change. Nothing but a listing is made from it, and the file may be removed at any time.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, statat};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::{BoxName, LayerId, SnapshotName, Store, file, layout};
use crate::fault::{Context, Result};

/// A name, and what a listing tells of its layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The name.
    pub name: SnapshotName,
    /// Its layer.
    pub layer: LayerId,
    /// When the name was given.
    pub created: Timestamp,
    /// What was said about it.
    pub message: Option<String>,
    /// Whether it can be removed only by `snapshot --unprotect`.
    pub protected: bool,
    /// How many layers are beneath its own by `parent`.
    pub depth: u32,
    /// The bytes of the files of its own layer.
    pub own_bytes: u64,
}

/// Inode number and time of change (seconds, nanoseconds) of the directory of a box's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp(u64, i64, u64);

/// Two changes within one tick of the clock (10 ms at most) have the same time. A stamp that is older than this, in
/// seconds, will not be that of a later change.
const SETTLED: i64 = 2;

/// More than a million names.
const LARGEST: usize = 256 << 20;

/// What was read, by the names of boxes.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Listings {
    /// Of which start of the machine: after a power cut a file system without a journal may have any of its parts.
    boot: String,
    boxes: BTreeMap<BoxName, (Stamp, Vec<Listed>)>,
    /// What is to be known the next time: of the boxes that there are now.
    #[serde(skip)]
    next: BTreeMap<BoxName, (Stamp, Vec<Listed>)>,
    /// The layers that are there. One that somebody has taken away is for whoever reads the files to tell.
    #[serde(skip)]
    there: BTreeSet<LayerId>,
    #[serde(skip)]
    changed: bool,
}

impl Listings {
    /// The names of a box, if its directory is as it was.
    pub fn of(&mut self, name: &BoxName, stamp: Option<Stamp>) -> Option<Vec<Listed>> {
        let (known, listed) = self.boxes.remove(name)?;
        let all_there = || listed.iter().all(|one| self.there.contains(&one.layer));
        (Some(known) == stamp && all_there()).then_some(listed)
    }

    /// Keeps what a box has, if its directory had this stamp, and had settled, before that was `read`.
    pub fn add(&mut self, name: &BoxName, settled: Option<Stamp>, listed: &[Listed], read: bool) {
        if let Some(stamp) = settled {
            self.next.insert(name.clone(), (stamp, listed.to_vec()));
            self.changed |= read;
        }
    }
}

impl Store {
    /// What is known from the last time; nothing, if that cannot be read or trusted.
    pub fn listings(&self) -> Listings {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let known = || {
            let bytes = file::read_small(self.dir(), layout::LISTING, LARGEST).ok()?;
            let known: Listings = serde_json::from_slice(&bytes).ok()?;
            let there = self.layers().ok()?.into_iter().collect();
            (known.boot == boot).then_some(Listings { there, ..known })
        };
        known().unwrap_or(Listings { boot, ..Listings::default() })
    }

    /// The stamp of the names of a box; none if they are not there, or were changed only now.
    pub fn names_stamp(&self, name: &BoxName) -> Option<Stamp> {
        let now = clock_gettime(ClockId::RealtimeCoarse).tv_sec;
        let stat = statat(self.dir(), layout::refs(name), AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let settled = stat.st_ctime < now - SETTLED;
        settled.then_some(Stamp(stat.st_ino, stat.st_ctime, stat.st_ctime_nsec))
    }

    /// Keeps what was read for the next time, if that is worth it. It is only a saving: that a disk is full or read-only is
    /// no fault.
    pub fn keep_listings(&self, mut listings: Listings) {
        // What is left was of boxes that are gone.
        let gone = !listings.boxes.is_empty();
        if (listings.changed || gone) && !listings.boot.is_empty() {
            listings.boxes = std::mem::take(&mut listings.next);
            self.write_listings(&listings).ok();
        }
    }

    fn write_listings(&self, listings: &Listings) -> Result<()> {
        self.require_writable()?;
        let bytes = super::json_line(listings)?;
        let temporary = format!("{}/.listing.{}", layout::CACHE, std::process::id());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        let new = openat(self.dir(), &temporary, flags | OFlags::CLOEXEC, mode)
            .context("create", &temporary)?;
        let whole = file::write_all(&new, &bytes).ok();
        let dir = self.dir();
        let there = whole.and_then(|()| renameat(dir, &temporary, dir, layout::LISTING).ok());
        if there.is_none() {
            file::unlink(self.dir(), &temporary).ok();
        }
        Ok(())
    }
}
