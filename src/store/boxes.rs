//! Boxes: made whole by one rename, removed whole by one rename.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::{FlockOperation, Mode, OFlags, RenameFlags};
use rustix::fs::{fstat, fsync, mkdirat, openat, renameat_with, statat};
use rustix::io::{Errno, retry_on_intr};
use serde::{Deserialize, Serialize};

use super::failpoint::step;
use super::file::{self, PRIVATE_DIR};
use super::lock::SharedLock;
use super::{BoxName, LayerId, SnapshotName, Store, json_line, layout};
use crate::fault::{Context, Fault, Kind, Result};
use crate::ids::IdMap;

/// For how long the log keeps a move, unless the box says otherwise.
const UNDO_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How many bytes the log may have, unless the box says otherwise.
const UNDO_SIZE: u64 = 1 << 20;

/// What the user has set for all runs in a box: the defaults of flags that are not given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BoxSettings {
    /// The profile of its runs: the name of a built-in one, or a file.
    pub profile: Option<String>,
    /// Variables, as `NAME=VALUE`.
    pub env: Vec<String>,
    /// `USER[:GROUP]`, as for `run --user`.
    pub user: Option<String>,
    /// Binds, as for `run --bind`, with absolute sources.
    pub binds: Vec<String>,
    /// Paths inside that are copied up before a command starts; files, or directories with all files in them.
    pub copy_up: Vec<String>,
    /// When rpm's databases are copied up, as for `run --touch-rpmdb`.
    pub touch_rpmdb: Option<String>,
    /// For how many seconds the log keeps a move, so that it can be taken back.
    pub undo_age: Option<u64>,
    /// How many bytes the log may grow to before its oldest moves go.
    pub undo_size: Option<u64>,
    /// After how many seconds `init` makes the first layer anew.
    pub max_age: Option<u64>,
}

impl BoxSettings {
    /// For how long a move can be taken back: what is set, or a week.
    pub fn undo_age(&self) -> Duration {
        self.undo_age.map_or(UNDO_AGE, Duration::from_secs)
    }

    /// How many bytes the log may have: what is set, or a mebibyte, which is about two thousand moves.
    pub fn undo_size(&self) -> u64 {
        self.undo_size.unwrap_or(UNDO_SIZE)
    }
}

/// What `box.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoxRecord {
    /// The name of the box.
    pub name: BoxName,
    /// The ids that own what lies in its layers.
    pub id_map: IdMap,
    /// What it was filled from, as text for people.
    pub source: String,
    /// Changes when the source is another one.
    pub identity: String,
    /// When it was made.
    pub created: Timestamp,
    /// The layer that was last made of the source.
    #[serde(default)]
    pub first: Option<FirstLayer>,
    /// The defaults of its runs.
    #[serde(default)]
    pub settings: BoxSettings,
}

/// A layer that was made of a source. It may be gone: nothing is kept for being named here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstLayer {
    /// The layer.
    pub layer: LayerId,
    /// Changes whenever the content of the source may have; none if that cannot be told.
    #[serde(default)]
    pub stamp: Option<String>,
}

/// An open box. (`Box` is taken.)
#[derive(Debug)]
pub struct Box_<'s> {
    pub(super) store: &'s Store,
    pub(super) record: BoxRecord,
}

impl Box_<'_> {
    /// Its record.
    pub fn record(&self) -> &BoxRecord {
        &self.record
    }

    /// Its name.
    pub fn name(&self) -> &BoxName {
        &self.record.name
    }

    /// The names of all snapshots, sorted, without what they stand for.
    ///
    /// # Errors
    /// What reading the directory says; damaged for an entry that is none of ours.
    pub fn snapshot_names(&self) -> Result<Vec<SnapshotName>> {
        let folder = layout::refs(self.name());
        let names = match self.store.open_refs(self.name())? {
            Some(dir) => {
                file::names(dir.as_fd()).context("read directory", self.store.show(&folder))?
            }
            None => Vec::new(),
        };
        let names = names.iter().filter(|name| !name.starts_with('.'));
        names.map(|name| self.store.own_name(&folder, name)).collect()
    }

    /// Refuses files that were made with `map` and belong to `whose`, if other owners lie on disk there for
    /// the ids inside than in this box: nothing may be built of both.
    ///
    /// # Errors
    /// Conflict, if any id differs.
    pub fn require_owners(&self, map: &IdMap, whose: &str) -> Result<()> {
        let own = &self.record.id_map;
        if own.same_owners(map) {
            return Ok(());
        }
        Err(Fault::conflict(format!(
            "use layer: {whose}: its files belong to the ids of another map ({}) than those of box {} ({})",
            map.mode,
            self.name(),
            own.mode
        )))
    }
}

impl Store {
    /// Makes a box without snapshots.
    ///
    /// # Errors
    /// Conflict if there is one of this name.
    pub fn create_box(&self, _lock: &SharedLock, record: BoxRecord) -> Result<Box_<'_>> {
        self.require_writable()?;
        let unfinished = format!("{}/{}{}", layout::BOXES, layout::UNFINISHED, LayerId::random()?);
        let name = layout::boxed(&record.name);
        let made = self.fill_box(&unfinished, &record).and_then(|()| {
            let (dir, flags) = (self.dir(), RenameFlags::NOREPLACE);
            match step("box.rename", || renameat_with(dir, &unfinished, dir, &name, flags)) {
                Err(Errno::EXIST) => {
                    Err(Fault::conflict(format!("create box: {}: exists already", record.name))
                        .hint("choose another name"))
                }
                other => other.context("create box", &record.name),
            }
        });
        if let Err(fault) = made {
            self.remove_unfinished_box(&unfinished);
            return Err(fault);
        }
        if let Err(fault) = self.sync_folder("box.fsync", layout::BOXES) {
            // Who is told that there is none must find none.
            renameat_with(self.dir(), &name, self.dir(), &unfinished, RenameFlags::NOREPLACE).ok();
            self.remove_unfinished_box(&unfinished);
            return Err(fault);
        }
        Ok(Box_ { store: self, record })
    }

    fn fill_box(&self, unfinished: &str, record: &BoxRecord) -> Result<()> {
        let bytes = json_line(record)?;
        step("box.make", || mkdirat(self.dir(), unfinished, PRIVATE_DIR))
            .context("create box", &record.name)?;
        step("box.fill", || {
            let dir = file::open_dir(self.dir(), unfinished)?;
            mkdirat(&dir, "refs", PRIVATE_DIR)?;
            file::write_small(dir.as_fd(), "lock", b"")?;
            let file = file::create(dir.as_fd(), "box.json")?;
            file::write_all(&file, &bytes)?;
            fsync(&file)?;
            fsync(&dir)
        })
        .context("create box", &record.name)
    }

    fn remove_unfinished_box(&self, unfinished: &str) {
        // Best effort: gc removes what stays.
        for name in ["lock", "box.json"] {
            file::unlink(self.dir(), &format!("{unfinished}/{name}")).ok();
        }
        file::rmdir(self.dir(), &format!("{unfinished}/refs")).ok();
        file::rmdir(self.dir(), unfinished).ok();
    }

    /// The record of a box, in three system calls.
    ///
    /// # Errors
    /// Not-found if there is no such box.
    pub fn box_record(&self, name: &BoxName) -> Result<BoxRecord> {
        let file = layout::box_record(name);
        let read = self.read_record::<BoxRecord>(&file).map_err(|fault| match fault.kind {
            Kind::Damaged => fault.hint(way_out(name)),
            _ => fault,
        })?;
        let Some(record) = read else {
            return Err(no_box(name));
        };
        if record.name != *name {
            let file = self.show(&file);
            let fault = Fault::damaged(format!("read record: {file}: it is of another box"));
            return Err(fault.hint(way_out(name)));
        }
        Ok(record)
    }

    /// Opens a box; errors as [`Store::box_record`].
    pub fn open_box(&self, name: &BoxName) -> Result<Box_<'_>> {
        Ok(Box_ { store: self, record: self.box_record(name)? })
    }

    /// The records of all boxes, by name.
    pub fn boxes(&self) -> Result<Vec<BoxRecord>> {
        self.box_names()?.iter().map(|name| self.box_record(name)).collect()
    }

    /// The names of all boxes, whatever state they are in.
    pub(super) fn box_names(&self) -> Result<Vec<BoxName>> {
        self.box_entries()?.into_iter().map(|(_, name)| name).collect()
    }

    /// What lies where boxes are, by name, for those who go on beside damage: each directory, and the box
    /// that it is.
    ///
    /// # Errors
    /// What reading the directory says; damaged if there is none: no box is not the same.
    pub fn box_entries(&self) -> Result<Vec<(String, Result<BoxName>)>> {
        let names = match self.names(layout::BOXES)? {
            names if names.is_empty() && !self.is_there(layout::BOXES)? => {
                return Err(self.lost("read directory", layout::BOXES));
            }
            names => names.into_iter().filter(|name| !name.starts_with('.')),
        };
        let own = |name: String| {
            let parsed = self.own_name(layout::BOXES, &name);
            (name, parsed)
        };
        Ok(names.map(own).collect())
    }

    /// The directory of the snapshots of a box; none if the box is gone.
    ///
    /// # Errors
    /// Damaged if only the directory is gone: what it named is not to be taken for garbage.
    pub(super) fn open_refs(&self, name: &BoxName) -> Result<Option<OwnedFd>> {
        let folder = layout::refs(name);
        match file::open_dir(self.dir(), &folder) {
            Err(Errno::NOENT) if self.is_there(&layout::boxed(name))? => {
                Err(self.lost("read directory", &folder))
            }
            Err(Errno::NOENT) => Ok(None),
            other => other.context("read directory", self.show(&folder)).map(Some),
        }
    }

    /// A name that we find in a folder of ours and that must be one that we gave.
    pub(super) fn own_name<T: std::str::FromStr>(&self, folder: &str, name: &str) -> Result<T> {
        name.parse().map_err(|_| {
            let folder = self.show(folder);
            let name = name.escape_default();
            Fault::damaged(format!("read directory: {folder}: holds something foreign: {name}"))
        })
    }

    /// Removes a box with all its snapshots and its log; its layers stay until gc.
    ///
    /// # Errors
    /// Not-found if there is no such box.
    pub fn remove_box(&self, lock: &SharedLock, name: &BoxName) -> Result<()> {
        self.remove_box_if(lock, name, || Ok(()))
    }

    /// The same, if `check` has nothing against it while nobody else changes the box.
    ///
    /// # Errors
    /// What `check` says; as [`Store::remove_box`].
    pub fn remove_box_if(
        &self,
        _lock: &SharedLock,
        name: &BoxName,
        check: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        self.require_writable()?;
        let _held = self.lock_box(name)?;
        check()?;
        let id = LayerId::random()?;
        let (boxed, aside) =
            (layout::boxed(name), format!("{}/{}{id}", layout::BOXES, layout::UNFINISHED));
        let (dir, flags) = (self.dir(), RenameFlags::NOREPLACE);
        step("box.remove", || renameat_with(dir, &boxed, dir, &aside, flags))
            .context("remove box", name)?;
        if let Err(fault) = self.sync_folder("box.fsync", layout::BOXES) {
            // Who is told that it failed must find it; in the trash somebody might be emptying it already.
            renameat_with(dir, &aside, dir, &boxed, flags).ok();
            return Err(fault);
        }
        // Best effort: gc removes what is not finished.
        self.to_trash(&aside, &format!("box-{id}")).ok();
        Ok(())
    }

    /// Takes the lock of a box; it is given up when the descriptor is closed.
    ///
    /// # Errors
    /// Busy if others hold it for longer than the store has patience; not-found if the box is gone.
    pub(super) fn lock_box(&self, name: &BoxName) -> Result<OwnedFd> {
        let gone = || no_box(name);
        let file = layout::box_lock(name);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = match retry_on_intr(|| openat(self.dir(), &file, flags, Mode::empty())) {
            // Boxes come and go with their lock.
            Err(Errno::NOENT) if self.is_there(&layout::box_record(name))? => {
                return Err(self.lost("lock box", &file));
            }
            Err(Errno::NOENT) => return Err(gone()),
            other => other.context("lock box", name)?,
        };
        let operation = FlockOperation::NonBlockingLockExclusive;
        self.flock_patiently(&lock, operation, &format!("box {name}"))?;
        // Somebody may have removed the box while we waited.
        let held = fstat(&lock).context("lock box", name)?;
        match statat(self.dir(), &file, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
            Ok(named) if (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino) => Ok(lock),
            Ok(_) | Err(Errno::NOENT) => Err(gone()),
            Err(errno) => Err(Fault::errno("lock box", name, errno)),
        }
    }

    /// Makes the names in a directory of the store durable.
    pub(super) fn sync_folder(&self, name: &str, folder: &str) -> Result<()> {
        file::open_dir(self.dir(), folder)
            .and_then(|dir| step(name, || fsync(&dir)))
            .context("write directory to disk", self.show(folder))
    }
}

fn no_box(name: &BoxName) -> Fault {
    Fault::not_found(format!("open box: {name}: there is no such box"))
        .hint(format!("fill it first: `sandbox init {name} --from SOURCE`"))
}

/// What to do about a box whose record cannot be read.
fn way_out(name: &BoxName) -> String {
    format!(
        "`sandbox fsck --repair` makes it again; to give it up: `sandbox scrub {name} --all --force`"
    )
}
