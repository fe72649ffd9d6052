//! Snapshots (one small file each), head and current: moved by compare-and-swap under the lock of the box.
//!
//! [`Box_::update`] is the only way to move anything. What a closure stages is written in this order: all
//! new refs as temporary files, each synced; their renames; removals; fsync of `refs/`; then head and
//! current, which are one file; then the log. A crash in between leaves each single file old or new; a
//! failure takes back what was new.

mod revert;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::lock::SharedLock;
use super::{Box_, BoxName, LayerId, LogEntry, SnapshotName, Store, file, json_line, layout};
use crate::fault::{Context, Fault, Kind, Result};

/// What must be there for a move to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Nothing.
    Absent,
    /// This layer.
    Layer(LayerId),
}

/// A snapshot: a name for a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotRef {
    /// Its name.
    pub name: SnapshotName,
    /// The layer it stands for.
    pub layer: LayerId,
    /// When the name was given.
    pub created: Timestamp,
    /// What the user said about it.
    pub message: Option<String>,
}

/// The file of a ref.
#[derive(Serialize, Deserialize)]
struct RefFile {
    layer: LayerId,
    created: Timestamp,
    #[serde(default)]
    message: Option<String>,
}

/// The file `head`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    #[serde(default)]
    pub(super) head: Option<LayerId>,
    #[serde(default)]
    pub(super) current: Option<LayerId>,
}

impl Store {
    pub(super) fn box_ref(
        &self,
        name: &BoxName,
        snapshot: &SnapshotName,
    ) -> Result<Option<SnapshotRef>> {
        let found = self.read_record::<RefFile>(&layout::reference(name, snapshot))?;
        Ok(found.map(|RefFile { layer, created, message }| SnapshotRef {
            name: snapshot.clone(),
            layer,
            created,
            message,
        }))
    }

    pub(super) fn box_refs(&self, name: &BoxName) -> Result<Vec<SnapshotRef>> {
        let folder = layout::refs(name);
        let mut refs = Vec::new();
        for file in self.names(&folder)?.iter().filter(|file| !file.starts_with('.')) {
            let snapshot = self.own_name(&folder, file)?;
            // One that was removed since we read the directory is gone, and that is all.
            refs.extend(self.box_ref(name, &snapshot)?);
        }
        Ok(refs)
    }

    pub(super) fn box_head(&self, name: &BoxName) -> Result<Head> {
        Ok(self.read_record(&layout::head(name))?.unwrap_or_default())
    }
}

impl Box_<'_> {
    /// All snapshots, by name.
    pub fn refs(&self) -> Result<Vec<SnapshotRef>> {
        self.store.box_refs(self.name())
    }

    /// A snapshot, if there is one of this name.
    pub fn get(&self, snapshot: &SnapshotName) -> Result<Option<SnapshotRef>> {
        self.store.box_ref(self.name(), snapshot)
    }

    /// The layer that a run starts from.
    pub fn head(&self) -> Result<Option<LayerId>> {
        Ok(self.store.box_head(self.name())?.head)
    }

    /// The layer that `clean` returns head to.
    pub fn current(&self) -> Result<Option<LayerId>> {
        Ok(self.store.box_head(self.name())?.current)
    }

    /// Moves things in one hold of the lock of the box: what the closure stages is written if it returns
    /// `Ok`, and nothing is if it does not. The shared lock keeps gc from taking a layer before it is named.
    ///
    /// # Errors
    /// What the closure says; not-found if the box was removed meanwhile; what writing says.
    pub fn update<T>(
        &self,
        _lock: &SharedLock,
        change: impl FnOnce(&mut State<'_>) -> Result<T>,
    ) -> Result<T> {
        self.store.require_writable()?;
        let _held = self.store.lock_box(self.name())?;
        let head = self.store.box_head(self.name())?;
        let mut state = State {
            store: self.store,
            name: self.name(),
            old: head,
            head,
            refs: BTreeMap::new(),
            changed: revert::Changed::default(),
            entries: Vec::new(),
        };
        let value = change(&mut state)?;
        state.write()?;
        Ok(value)
    }

    /// Lets a snapshot stand for a layer, alone in one [`Box_::update`].
    ///
    /// # Errors
    /// Conflict if it is not as expected.
    pub fn set(
        &self,
        lock: &SharedLock,
        snapshot: &SnapshotName,
        new: &LayerId,
        expected: Expected,
        message: Option<String>,
    ) -> Result<()> {
        self.update(lock, |state| state.set(snapshot, new, expected, message))
    }

    /// Removes the name of a snapshot and says what it stood for, alone in one [`Box_::update`].
    ///
    /// # Errors
    /// Not-found if there is none.
    pub fn remove(&self, lock: &SharedLock, snapshot: &SnapshotName) -> Result<LayerId> {
        self.update(lock, |state| state.remove(snapshot))
    }

    /// Moves head, alone in one [`Box_::update`].
    ///
    /// # Errors
    /// Conflict if it is not as expected.
    pub fn set_head(&self, lock: &SharedLock, new: &LayerId, expected: Expected) -> Result<()> {
        self.update(lock, |state| state.set_head(new, expected))
    }

    /// Moves current, alone in one [`Box_::update`].
    ///
    /// # Errors
    /// Conflict if it is not as expected.
    pub fn set_current(&self, lock: &SharedLock, new: &LayerId, expected: Expected) -> Result<()> {
        self.update(lock, |state| state.set_current(new, expected))
    }
}

/// A box whose lock is held: what is there, and what shall be.
#[derive(Debug)]
pub struct State<'s> {
    store: &'s Store,
    name: &'s BoxName,
    old: Head,
    head: Head,
    /// What is staged; `None` is a removal.
    refs: BTreeMap<SnapshotName, Option<SnapshotRef>>,
    changed: revert::Changed,
    entries: Vec<LogEntry>,
}

impl State<'_> {
    /// A snapshot, as it will be.
    pub fn get(&self, snapshot: &SnapshotName) -> Result<Option<SnapshotRef>> {
        match self.refs.get(snapshot) {
            Some(staged) => Ok(staged.clone()),
            None => self.store.box_ref(self.name, snapshot),
        }
    }

    /// Head, as it will be.
    pub fn head(&self) -> Option<LayerId> {
        self.head.head
    }

    /// Current, as it will be.
    pub fn current(&self) -> Option<LayerId> {
        self.head.current
    }

    /// Lets a snapshot stand for a layer.
    ///
    /// # Errors
    /// Conflict if it is not as expected; not-found if there is no such layer.
    pub fn set(
        &mut self,
        snapshot: &SnapshotName,
        new: &LayerId,
        expected: Expected,
        message: Option<String>,
    ) -> Result<()> {
        let found = self.get(snapshot)?.map(|found| found.layer);
        check(&format!("snapshot {snapshot}"), found, expected)?;
        self.require_layer(new)?;
        let name = snapshot.clone();
        let moved = SnapshotRef { name, layer: *new, created: Timestamp::now(), message };
        self.refs.insert(snapshot.clone(), Some(moved));
        Ok(())
    }

    /// Removes the name of a snapshot and says what it stood for.
    ///
    /// # Errors
    /// Not-found if there is none.
    pub fn remove(&mut self, snapshot: &SnapshotName) -> Result<LayerId> {
        let Some(found) = self.get(snapshot)? else {
            return Err(super::resolve::unknown(self.name, snapshot.as_str()));
        };
        self.refs.insert(snapshot.clone(), None);
        Ok(found.layer)
    }

    /// Moves head; errors as [`State::set`].
    pub fn set_head(&mut self, new: &LayerId, expected: Expected) -> Result<()> {
        check("head", self.head.head, expected)?;
        self.require_layer(new)?;
        self.head.head = Some(*new);
        Ok(())
    }

    /// Moves current; errors as [`State::set`].
    pub fn set_current(&mut self, new: &LayerId, expected: Expected) -> Result<()> {
        check("current", self.head.current, expected)?;
        self.require_layer(new)?;
        self.head.current = Some(*new);
        Ok(())
    }

    /// Adds a line to the log of the box.
    pub fn log(&mut self, entry: LogEntry) {
        self.entries.push(entry);
    }

    /// A name opens whole, always: it is given only to what does so now.
    fn require_layer(&self, layer: &LayerId) -> Result<()> {
        match self.store.openable(layer) {
            Err(fault) if fault.kind == Kind::NotFound => {
                let why = fault.message.trim_start_matches("open layer: ");
                Err(Fault { message: format!("name layer: {why}"), ..fault })
            }
            other => other.map(drop),
        }
    }

    fn write(mut self) -> Result<()> {
        let written = self.write_all();
        let changed = std::mem::take(&mut self.changed);
        if written.is_ok() {
            changed.forget(self.store);
        } else {
            changed.revert(self.store);
            self.remove_temporaries();
        }
        written
    }

    fn write_all(&mut self) -> Result<()> {
        self.write_refs()?;
        self.write_head()?;
        if self.entries.is_empty() {
            return Ok(());
        }
        self.store.append_log(self.name, &self.entries)
    }

    fn write_refs(&mut self) -> Result<()> {
        if self.refs.is_empty() {
            return Ok(());
        }
        let refs = std::mem::take(&mut self.refs);
        let written = self.write_each(&refs);
        self.refs = refs;
        written?;
        self.store.sync_folder("ref.fsync", &layout::refs(self.name))
    }

    /// All new refs on disk before the first of them is visible.
    fn write_each(&mut self, refs: &BTreeMap<SnapshotName, Option<SnapshotRef>>) -> Result<()> {
        for (snapshot, staged) in refs {
            let Some(staged) = staged else { continue };
            let SnapshotRef { layer, created, message, .. } = staged.clone();
            let bytes = json_line(&RefFile { layer, created, message })?;
            let steps = ["ref.temp", "ref.temp.fsync"];
            self.store
                .write_durably(steps, &temporary(self.name, snapshot), &bytes)
                .context("write snapshot", snapshot)?;
        }
        // New names before old ones go: a crash between leaves a name too many, never one too few.
        for place in [true, false] {
            for (snapshot, _) in refs.iter().filter(|(_, staged)| staged.is_some() == place) {
                let (name, aside) =
                    (layout::reference(self.name, snapshot), temporary(self.name, snapshot));
                if place {
                    self.put_in_place("ref.rename", &aside, name)
                        .context("write snapshot", snapshot)?;
                } else {
                    self.put_aside("ref.remove", name, aside)
                        .context("remove snapshot", snapshot)?;
                }
            }
        }
        Ok(())
    }

    fn write_head(&mut self) -> Result<()> {
        if self.head == self.old {
            return Ok(());
        }
        let bytes = json_line(&self.head)?;
        let (new, name) = (new_head(self.name), layout::head(self.name));
        self.store
            .write_durably(["head.temp", "head.temp.fsync"], &new, &bytes)
            .and_then(|()| self.put_in_place("head.rename", &new, name))
            .context("move head", self.name)?;
        self.store.sync_folder("head.fsync", &layout::boxed(self.name))
    }

    /// What was written and did not get to its place. Best effort.
    fn remove_temporaries(&self) {
        for snapshot in self.refs.keys() {
            file::unlink(self.store.dir(), &temporary(self.name, snapshot)).ok();
        }
        file::unlink(self.store.dir(), &new_head(self.name)).ok();
    }
}

/// As [`temporary`], for head.
fn new_head(name: &BoxName) -> String {
    format!("{}/{}head", layout::boxed(name), layout::UNFINISHED)
}

/// Under the lock of the box one name is enough; a stale one is written over, and swept by gc.
fn temporary(name: &BoxName, snapshot: &SnapshotName) -> String {
    format!("{}/{}{snapshot}", layout::refs(name), layout::UNFINISHED)
}

fn check(what: &str, found: Option<LayerId>, expected: Expected) -> Result<()> {
    match (found, expected) {
        (None, Expected::Absent) => Ok(()),
        (Some(found), Expected::Layer(wished)) if found == wished => Ok(()),
        (Some(_), Expected::Absent) => Err(Fault::conflict(format!("move {what}: exists already"))
            .hint("choose another name, or remove it with `sandbox rm NAME`")),
        (Some(found), Expected::Layer(_)) => {
            Err(Fault::conflict(format!("move {what}: was moved meanwhile: it is {found} now"))
                .hint("look at `sandbox list` and try again"))
        }
        (None, Expected::Layer(_)) => {
            Err(Fault::conflict(format!("move {what}: was removed meanwhile"))
                .hint("look at `sandbox list` and try again"))
        }
    }
}
