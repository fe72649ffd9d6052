//! Taking back the last move: what the log says was before comes back, if what is there is what the log says
//! the move made.
//!
//! Moves are taken back from the newest on. An undo is an entry of the log, too, which names the move it
//! took back, so the next one goes further back. Entries are written before what they tell of, so a kill may
//! have prevented a move: one of which nothing was done is passed over, one that was cut off half-way is
//! taken back, and an undo that was cut off has taken nothing back. To tell, each entry is compared with what
//! was there when it was the newest: from what is there now, the newer ones are wound back.

use std::collections::{BTreeMap, BTreeSet};

use super::{Head, RefRecord, SnapshotRef, State};
use crate::fault::{Fault, Kind, Result};
use crate::store::log::{LogEntry, Pair, RefMoved, lines, parse};
use crate::store::{LayerId, MoveId, SnapshotName};

/// What is there, compared with one thing that a move changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Before,
    After,
    /// Neither: something moved it that the log does not know.
    Elsewhere,
}

/// How much of a move was done.
#[derive(Debug, PartialEq, Eq)]
enum Done {
    Nothing,
    Part,
    All,
    /// It cannot be told: this is neither as before nor as after.
    Unknown(String),
}

/// What was there after an entry: what is there now, wound back.
struct Then<'a> {
    state: &'a State<'a>,
    head: Head,
    /// Names that newer entries have touched.
    refs: BTreeMap<SnapshotName, Option<RefRecord>>,
}

impl State<'_> {
    /// Stages what was before the newest move that was not taken back yet, and says which move that is.
    ///
    /// # Errors
    /// Not-found if the log has none any more, or if gc has taken a layer that is needed; conflict if what
    /// the move made was moved by something that the log does not know.
    pub fn undo(&mut self) -> Result<LogEntry> {
        let entry = self.last_move()?;
        for one in &entry.refs {
            if let Some(old) = &one.old {
                self.require_old(&entry, &old.layer)?;
            }
            self.stage(&one.name, one.old.clone())?;
        }
        for pair in [entry.head, entry.current].into_iter().flatten() {
            pair.old.map_or(Ok(()), |layer| self.require_old(&entry, &layer))?;
        }
        self.head.head = entry.head.map_or(self.head.head, |pair| pair.old);
        self.head.current = entry.current.map_or(self.head.current, |pair| pair.old);
        self.log(LogEntry { name: entry.name.clone(), undoes: entry.id, ..LogEntry::new("undo") });
        Ok(entry)
    }

    fn last_move(&self) -> Result<LogEntry> {
        let bytes = self.store.log_bytes(self.name)?;
        let mut undone: BTreeSet<MoveId> = BTreeSet::new();
        let mut then = Then { state: self, head: self.head, refs: BTreeMap::new() };
        for entry in lines(&bytes).rev().filter_map(parse) {
            let Some(id) = entry.id else { break };
            if entry.head.is_some_and(|head| head.old.is_none()) {
                // The first move of a box: before it there was nothing.
                break;
            }
            if undone.contains(&id) {
                then.wind_back(&entry);
                continue;
            }
            match (then.done(&entry)?, entry.undoes) {
                (Done::All, Some(taken_back)) => {
                    undone.insert(taken_back);
                    then.wind_back(&entry);
                }
                (Done::Unknown(_), Some(taken_back)) => drop(undone.insert(taken_back)),
                (Done::Nothing, _) | (Done::Part, Some(_)) => {}
                (Done::All | Done::Part, None) => return Ok(entry),
                (Done::Unknown(what), None) => return Err(self.elsewhere(&entry, &what)),
            }
        }
        let name = self.name;
        Err(Fault::not_found(format!("undo: box {name}: its log has no move to take back"))
            .hint(format!("`sandbox log --box {name}` shows what was moved")))
    }

    fn elsewhere(&self, entry: &LogEntry, what: &str) -> Fault {
        let (action, time, name) = (&entry.action, entry.time, self.name);
        Fault::conflict(format!(
            "undo: {action} of {time:.0}: {what} was moved since by something that the log does not know"
        ))
        .hint(format!("look at `sandbox log --box {name}`, and move it by hand: `sandbox rollback ID`"))
    }

    fn require_old(&self, entry: &LogEntry, layer: &LayerId) -> Result<()> {
        let gone = || {
            let (action, time) = (&entry.action, entry.time);
            let name = self.name;
            Fault::not_found(format!("undo: {action} of {time:.0}: layer {layer} is gone"))
                .hint(format!("undo goes no further back than `gc --all`, `fsck --repair` or the box's undo_age let it; \
                    by hand: `sandbox log --box {name}`, `sandbox rollback ID --box {name}`"))
        };
        // That a layer is gone which only the log names is no damage.
        if !self.store.has_layer(layer)? {
            return Err(gone());
        }
        self.require_layer(layer).map_err(|fault| match fault.kind {
            Kind::NotFound => gone(),
            _ => fault,
        })
    }
}

impl Then<'_> {
    fn done(&self, entry: &LogEntry) -> Result<Done> {
        let mut sides = Vec::with_capacity(entry.refs.len() + 2);
        for one in &entry.refs {
            sides.push((one.name.as_str(), side(&self.name(one)?, &one.old, &one.new)));
        }
        let Head { head, current } = self.head;
        for (what, pair, now) in [("head", entry.head, head), ("current", entry.current, current)] {
            sides.extend(pair.map(|Pair { old, new }| (what, side(&now, &old, &new))));
        }
        if let Some((what, _)) = sides.iter().find(|(_, side)| *side == Side::Elsewhere) {
            return Ok(Done::Unknown((*what).to_owned()));
        }
        let after = sides.iter().filter(|(_, side)| *side == Side::After).count();
        Ok(match after {
            0 => Done::Nothing,
            some if some == sides.len() => Done::All,
            _ => Done::Part,
        })
    }

    fn name(&self, one: &RefMoved) -> Result<Option<RefRecord>> {
        if let Some(known) = self.refs.get(&one.name) {
            return Ok(known.clone());
        }
        match self.state.get(&one.name) {
            Ok(now) => Ok(now.as_ref().map(SnapshotRef::record)),
            // Undo brings back what was before the damage, too.
            Err(fault) if fault.kind == Kind::Damaged => Ok(one.new.clone()),
            Err(fault) => Err(fault),
        }
    }

    fn wind_back(&mut self, entry: &LogEntry) {
        self.refs.extend(entry.refs.iter().map(|one| (one.name.clone(), one.old.clone())));
        self.head.head = entry.head.map_or(self.head.head, |pair| pair.old);
        self.head.current = entry.current.map_or(self.head.current, |pair| pair.old);
    }
}

/// A move that changed nothing of this is as before.
fn side<T: PartialEq>(now: &Option<T>, old: &Option<T>, new: &Option<T>) -> Side {
    if now == old {
        Side::Before
    } else if now == new {
        Side::After
    } else {
        Side::Elsewhere
    }
}
