//! Snapshots (one small file each), head and current: moved by compare-and-swap under the lock of the box.
//!
//! [`Box_::update`] is the only way to move anything: a closure stages changes on a [`State`], which then
//! writes them. A crash in between leaves each single file old or new; a failure takes back what was new.
//! What was before stands in the log, and [`State::undo`] brings it back.

mod state;
mod undo;
mod write;

use std::os::fd::{AsFd, BorrowedFd};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use state::State;

use super::lock::SharedLock;
use super::{Box_, BoxName, LayerId, SnapshotName, Store, file, layout};
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
    /// Whether the name stays until the user takes this away.
    pub protected: bool,
}

/// The file of a ref; also what the log says of a name before and after a move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefRecord {
    /// The layer it stands for.
    pub layer: LayerId,
    /// When the name was given.
    pub created: Timestamp,
    /// What the user said about it.
    #[serde(default)]
    pub message: Option<String>,
    /// Whether the name stays until the user takes this away.
    #[serde(default)]
    pub protected: bool,
}

impl RefRecord {
    /// A name that is given now.
    pub fn new(layer: LayerId, message: Option<String>) -> Self {
        Self { layer, created: Timestamp::now(), message, protected: false }
    }
}

impl SnapshotRef {
    /// All but the name.
    pub fn record(&self) -> RefRecord {
        RefRecord {
            layer: self.layer,
            created: self.created,
            message: self.message.clone(),
            protected: self.protected,
        }
    }
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
        self.ref_in(self.dir(), &layout::reference(name, snapshot), name, snapshot)
    }

    /// The snapshot whose file is `file` in an open directory.
    fn ref_in(
        &self,
        dir: BorrowedFd<'_>,
        file: &str,
        name: &BoxName,
        snapshot: &SnapshotName,
    ) -> Result<Option<SnapshotRef>> {
        let full = || layout::reference(name, snapshot);
        let found = self.record_in::<RefRecord>(dir, file, full).map_err(|fault| {
            hint_at(fault, || {
                format!("`sandbox fsck --repair` or `sandbox rm {snapshot} --box {name}` takes the name away; `sandbox log --box {name}` says what it stood for")
            })
        })?;
        Ok(found.map(|RefRecord { layer, created, message, protected }| SnapshotRef {
            name: snapshot.clone(),
            layer,
            created,
            message,
            protected,
        }))
    }

    pub(super) fn box_refs(&self, name: &BoxName) -> Result<Vec<SnapshotRef>> {
        let folder = layout::refs(name);
        let Some(dir) = self.open_refs(name)? else { return Ok(Vec::new()) };
        let files = file::names(dir.as_fd()).context("read directory", self.show(&folder))?;
        let mut refs = Vec::with_capacity(files.len());
        for file in files.iter().filter(|file| !file.starts_with('.')) {
            let snapshot = self.own_name(&folder, file)?;
            // One that was removed since we read the directory is gone, and that is all.
            refs.extend(self.ref_in(dir.as_fd(), file, name, &snapshot)?);
        }
        Ok(refs)
    }

    pub(super) fn box_head(&self, name: &BoxName) -> Result<Head> {
        let head = self.read_record(&layout::head(name)).map_err(|fault| {
            hint_at(fault, || {
                format!("set it again: `sandbox rollback NAME --box {name}`, or to what can be told: `sandbox fsck --repair`")
            })
        })?;
        Ok(head.unwrap_or_default())
    }
}

/// The way out of damage.
fn hint_at(fault: Fault, hint: impl FnOnce() -> String) -> Fault {
    match fault.kind {
        Kind::Damaged => fault.hint(hint()),
        _ => fault,
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
        let (state, value) = self.stage(Damage::Refuse, change)?;
        state.write()?;
        Ok(value)
    }

    /// As [`Box_::update`], also if the file `head` is damaged: for moves that set both of what it says.
    ///
    /// # Errors
    /// As [`Box_::update`].
    pub fn mend<T>(
        &self,
        _lock: &SharedLock,
        change: impl FnOnce(&mut State<'_>) -> Result<T>,
    ) -> Result<T> {
        let (state, value) = self.stage(Damage::Ignore, change)?;
        state.write()?;
        Ok(value)
    }

    /// What a closure for [`Box_::update`] would do and say; nothing is written.
    ///
    /// # Errors
    /// As [`Box_::update`].
    pub fn rehearse<T>(
        &self,
        _lock: &SharedLock,
        change: impl FnOnce(&mut State<'_>) -> Result<T>,
    ) -> Result<T> {
        Ok(self.stage(Damage::Refuse, change)?.1)
    }

    fn stage<T>(
        &self,
        damage: Damage,
        change: impl FnOnce(&mut State<'_>) -> Result<T>,
    ) -> Result<(State<'_>, T)> {
        self.store.require_writable()?;
        let held = self.store.lock_box(self.name())?;
        let head = match (self.store.box_head(self.name()), damage) {
            (Err(fault), Damage::Ignore) if fault.kind == Kind::Damaged => Head::default(),
            (head, _) => head?,
        };
        let mut state = State::new(self, held, head);
        let value = change(&mut state)?;
        Ok((state, value))
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

    /// Removes the name of a snapshot and says what it stood for, alone in one [`Box_::update`]; errors as
    /// [`State::remove`].
    pub fn remove(&self, lock: &SharedLock, snapshot: &SnapshotName) -> Result<Option<LayerId>> {
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

/// What a damaged `head` means to a move.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Refuse,
    Ignore,
}
