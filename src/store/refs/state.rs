//! What a move changes, before it is written.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use super::{Expected, Head, RefRecord, SnapshotRef};
use crate::fault::{Fault, Kind, Result};
use crate::store::log::{LogEntry, Moved, Pair, RefMoved, lines, parse};
use crate::store::{Box_, BoxName, LayerId, MoveId, SnapshotName, Store, resolve};

/// A box whose lock is held: what is there, and what shall be.
#[derive(Debug)]
pub struct State<'s> {
    pub(super) store: &'s Store,
    pub(super) name: &'s BoxName,
    pub(super) open: &'s Box_<'s>,
    /// The lock of the box.
    _held: OwnedFd,
    pub(super) old: Head,
    pub(super) head: Head,
    pub(super) refs: BTreeMap<SnapshotName, Staged>,
    pub(super) entry: Option<LogEntry>,
}

/// A name that is given, moved or taken away.
#[derive(Debug)]
pub(super) struct Staged {
    /// What it stands for, if that can be told.
    pub(super) old: Option<RefRecord>,
    /// Whether there is a file of this name, readable or not.
    pub(super) there: bool,
    /// Whether that file cannot be read: then it is written anew, or goes, whatever the log says of it.
    pub(super) broken: bool,
    /// What it shall stand for; none if it shall not be there.
    pub(super) new: Option<RefRecord>,
}

impl Staged {
    /// Whether there is anything to write.
    pub(super) fn is_change(&self) -> bool {
        self.broken || self.old != self.new || self.there != self.new.is_some()
    }
}

impl<'s> State<'s> {
    pub(super) fn new(open: &'s Box_<'s>, held: OwnedFd, head: Head) -> Self {
        Self {
            store: open.store,
            name: open.name(),
            open,
            _held: held,
            old: head,
            head,
            refs: BTreeMap::new(),
            entry: None,
        }
    }

    /// A snapshot, as it will be.
    pub fn get(&self, snapshot: &SnapshotName) -> Result<Option<SnapshotRef>> {
        let Some(staged) = self.refs.get(snapshot) else {
            return self.store.box_ref(self.name, snapshot);
        };
        Ok(staged.new.clone().map(|RefRecord { layer, created, message, protected }| SnapshotRef {
            name: snapshot.clone(),
            layer,
            created,
            message,
            protected,
        }))
    }

    /// A snapshot that must be there.
    ///
    /// # Errors
    /// Not-found if there is none.
    pub fn require(&self, snapshot: &SnapshotName) -> Result<SnapshotRef> {
        self.get(snapshot)?.ok_or_else(|| resolve::unknown(self.name, snapshot.as_str()))
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
    /// Conflict if it is not as expected, or is protected; damaged if the layer is missing, not-found if it is only
    /// a part of others.
    pub fn set(
        &mut self,
        snapshot: &SnapshotName,
        new: &LayerId,
        expected: Expected,
        message: Option<String>,
    ) -> Result<()> {
        let found = self.get(snapshot)?;
        check(&format!("snapshot {snapshot}"), found.as_ref().map(|found| found.layer), expected)?;
        if let Some(found) = &found {
            refuse_protected("move", self.name, found)?;
        }
        self.put(snapshot, RefRecord::new(*new, message))
    }

    /// Lets a snapshot be this, whatever it was before, protected or not.
    ///
    /// # Errors
    /// As [`State::set`] of the layer.
    pub fn put(&mut self, snapshot: &SnapshotName, new: RefRecord) -> Result<()> {
        self.require_layer(&new.layer)?;
        self.stage(snapshot, Some(new))
    }

    /// Removes the name of a snapshot and says what it stood for. One whose file cannot be read can be
    /// removed, too.
    ///
    /// # Errors
    /// Not-found if there is none; conflict if it is protected.
    pub fn remove(&mut self, snapshot: &SnapshotName) -> Result<Option<LayerId>> {
        let layer = match self.get(snapshot) {
            Ok(None) => return Err(resolve::unknown(self.name, snapshot.as_str())),
            Ok(Some(found)) => {
                refuse_protected("remove", self.name, &found)?;
                Some(found.layer)
            }
            Err(fault) if fault.kind == Kind::Damaged => None,
            Err(fault) => return Err(fault),
        };
        self.stage(snapshot, None)?;
        Ok(layer)
    }

    /// Takes a name away, protected or not, if it is there: to give it back as another one.
    pub fn take(&mut self, snapshot: &SnapshotName) -> Result<()> {
        self.stage(snapshot, None)
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

    /// Says what the move is, for the log of the box: one entry a move. What it changes is added by itself;
    /// a move that changes nothing is not logged.
    pub fn log(&mut self, entry: LogEntry) {
        self.entry = Some(entry.shortened());
    }

    /// What is staged so far.
    pub fn moved(&self) -> Vec<Moved> {
        self.filled(LogEntry::new("")).moved()
    }

    pub(super) fn stage(&mut self, snapshot: &SnapshotName, new: Option<RefRecord>) -> Result<()> {
        if let Some(staged) = self.refs.get_mut(snapshot) {
            staged.new = new;
            return Ok(());
        }
        let (old, there, broken) = match self.store.box_ref(self.name, snapshot) {
            Ok(found) => (found.as_ref().map(SnapshotRef::record), found.is_some(), false),
            Err(fault) if fault.kind == Kind::Damaged => (self.last_known(snapshot), true, true),
            Err(fault) => return Err(fault),
        };
        self.refs.insert(snapshot.clone(), Staged { old, there, broken, new });
        Ok(())
    }

    /// What a name whose file cannot be read stood for by the log: so that `undo` brings it back, and does not
    /// go on to what was before.
    fn last_known(&self, snapshot: &SnapshotName) -> Option<RefRecord> {
        let bytes = self.store.log_bytes(self.name).ok()?;
        let mut moves = lines(&bytes).rev().filter_map(parse).flat_map(|entry| entry.refs);
        let newest = moves.find(|moved| moved.name == *snapshot);
        newest.and_then(|moved| moved.new).filter(|known| self.require_layer(&known.layer).is_ok())
    }

    /// The names that really change.
    pub(super) fn changed(&self) -> impl Iterator<Item = (&SnapshotName, &Staged)> {
        self.refs.iter().filter(|(_, staged)| staged.is_change())
    }

    /// The entry with an id and all that undo needs.
    pub(super) fn finished(&self, entry: LogEntry) -> Result<LogEntry> {
        Ok(LogEntry { id: Some(MoveId::random()?), ..self.filled(entry) })
    }

    fn filled(&self, mut entry: LogEntry) -> LogEntry {
        let pair = |old, new| (old != new).then_some(Pair { old, new });
        entry.head = pair(self.old.head, self.head.head);
        entry.current = pair(self.old.current, self.head.current);
        let moved = self.changed().map(|(name, staged)| RefMoved {
            name: name.clone(),
            old: staged.old.clone(),
            new: staged.new.clone(),
        });
        entry.refs = moved.collect();
        let said = match entry.refs.as_slice() {
            [only] => {
                entry.name = entry.name.or_else(|| Some(only.name.clone()));
                Some(only.layers())
            }
            _ => entry.head.or(entry.current),
        };
        if let Some(Pair { old, new }) = said {
            entry.old = entry.old.or(old);
            entry.new = entry.new.or(new);
        }
        entry
    }

    /// A name opens whole, always: it is given only to what does so now.
    pub(super) fn require_layer(&self, layer: &LayerId) -> Result<()> {
        match self.store.openable(layer) {
            Err(fault) if fault.kind == Kind::NotFound => {
                let why = fault.message.trim_start_matches("open layer: ");
                Err(Fault { message: format!("name layer: {why}"), ..fault })
            }
            other => other.map(drop),
        }
    }
}

fn refuse_protected(what: &str, box_name: &BoxName, found: &SnapshotRef) -> Result<()> {
    let name = &found.name;
    if !found.protected {
        return Ok(());
    }
    Err(Fault::conflict(format!("{what} snapshot: {name}: it is protected")).hint(format!(
        "take that away first: `sandbox snapshot {name} --unprotect --box {box_name}`"
    )))
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
