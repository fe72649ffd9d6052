//! Owners that a user namespace cannot name.
//!
//! Inside one, an owner that is not in its map is shown as the overflow id 65534, whoever it is (user_namespaces(7)). So whoever
//! is about to read a tree inside looks at it outside first, and takes along what would not be seen.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;

use rustix::fs::{Access, AtFlags, FileType, Stat, accessat, fstat};

use super::walk::{Descend, Visit, walk};
use crate::fault::{Context, Result};
use crate::ids::IdMap;

/// How the kernel shows an id that has no number in this user namespace, unless an administrator chose
/// another (/proc/sys/kernel/overflowuid).
pub const OVERFLOW_ID: u32 = 65_534;

/// User and group, where they are not seen inside; of who has no number outside either, [`NOBODY_KNOWS`].
type Owner = (Option<u32>, Option<u32>);

/// Stands for an owner that nobody here has a number for; no id (`chown(2)` takes it for "as it is").
pub(super) const NOBODY_KNOWS: u32 = u32::MAX;

/// The owners of a tree that are not seen inside, by device and inode number.
#[derive(Debug, Default)]
pub struct Strangers(HashMap<(u64, u64), Owner>);

/// From where a tree will be seen.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The ids of that namespace.
    pub map: &'a IdMap,
    /// Whether it is seen through a mount that shows X of this namespace as X of that one.
    pub shifted: bool,
    /// Whether 65534 is an id here, and not the overflow id of this namespace, too.
    pub initial: bool,
}

impl Seen<'_> {
    fn uid(&self, id: u32) -> bool {
        if self.shifted { self.map.holds_uid(id) } else { self.map.shows_uid(id) }
    }

    fn gid(&self, id: u32) -> bool {
        if self.shifted { self.map.holds_gid(id) } else { self.map.shows_gid(id) }
    }
}

impl Strangers {
    /// Those of `tree`, its root included. A directory that may not be searched out here is passed over.
    ///
    /// # Errors
    /// What the system says, naming the path.
    pub fn of(tree: BorrowedFd<'_>, seen: Seen<'_>) -> Result<Self> {
        let mut found = Self::default();
        let stat = fstat(tree).context("look at", "/")?;
        found.note(&stat, seen);
        walk(tree, &mut |visit: &Visit<'_>| {
            found.note(visit.stat, seen);
            let searched = Access::READ_OK | Access::EXEC_OK;
            let may_enter = visit.kind() != FileType::Directory
                || accessat(visit.dir, visit.name, searched, AtFlags::EACCESS).is_ok();
            Ok(if may_enter { Descend::Yes } else { Descend::No })
        })?;
        Ok(found)
    }

    fn note(&mut self, stat: &Stat, seen: Seen<'_>) {
        let hidden = |id: u32, is_seen: bool| match id {
            OVERFLOW_ID if !seen.initial => Some(NOBODY_KNOWS),
            id => (!is_seen).then_some(id),
        };
        let owner = (
            hidden(stat.st_uid, seen.uid(stat.st_uid)),
            hidden(stat.st_gid, seen.gid(stat.st_gid)),
        );
        if owner != (None, None) {
            self.0.insert((stat.st_dev, stat.st_ino), owner);
        }
    }

    /// The true owner of what looks like this inside, user and group each if it is a stranger's.
    pub(super) fn owner(&self, stat: &Stat) -> Owner {
        self.0.get(&(stat.st_dev, stat.st_ino)).copied().unwrap_or_default()
    }
}
