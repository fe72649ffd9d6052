//! The first layer of a box made anew: the source is read again, and `postinit` stands for what it holds now.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::fill::Filled;
use super::{Initialised, Job, POSTINIT};
use crate::fault::{Fault, Result};
use crate::ids::{self, IdMap};
use crate::store::{
    BoxRecord, Expected, FirstLayer, LayerId, LogEntry, Run, SharedLock, SnapshotName,
};

/// What a refresh has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Refreshed {
    /// What `postinit` stood for before; none if there was no such name.
    pub old: Option<LayerId>,
    /// Whether head stood there, too, and went with it.
    pub head_moved: bool,
}

/// A box whose first layer is to be made anew.
#[derive(Debug)]
pub(super) struct Stale {
    record: BoxRecord,
    postinit: Option<LayerId>,
}

impl Job<'_> {
    /// The box, if it was asked to be made anew or is too old.
    ///
    /// # Errors
    /// Conflict if `postinit` is no first layer any more: what somebody has named so is not taken away.
    pub(super) fn stale(&self) -> Result<Option<Stale>> {
        let opened = self.store.open_box(self.name())?;
        let record = opened.record().clone();
        let postinit = opened.get(&postinit()?)?;
        if !self.request.refresh {
            let limit = record.settings.max_age.map(Duration::from_secs);
            let Some(limit) = self.request.max_age.or(limit) else { return Ok(None) };
            let made = postinit.as_ref().map(|found| found.created);
            if !made.is_none_or(|made| is_older(made, limit)) {
                return Ok(None);
            }
            // What is there holds just what the archive holds.
            let layer = postinit.as_ref().map(|found| found.layer);
            let first = record.first.as_ref();
            if self.stamp.is_some()
                && first.is_some_and(|it| it.stamp == self.stamp && Some(it.layer) == layer)
            {
                return Ok(None);
            }
        }
        if let Some(found) = &postinit
            && self.store.layer(&found.layer)?.parent.is_some()
        {
            let (name, layer) = (self.name(), found.layer);
            return Err(Fault::conflict(format!(
                "init box {name}: {POSTINIT} is not what init made: it is {layer}"
            ))
            .hint(format!("give it another name: `sandbox rename --box {name} {POSTINIT} NAME`")));
        }
        if let Some(found) = postinit.as_ref().filter(|found| found.protected) {
            let name = self.name();
            return Err(Fault::conflict(format!("init box {name}: {} is protected", found.name))
                .hint(format!("`sandbox snapshot --box {name} --unprotect {POSTINIT}`")));
        }
        Ok(Some(Stale { record, postinit: postinit.map(|found| found.layer) }))
    }

    /// Makes the first layer anew and moves the names. All of it is one move.
    ///
    /// # Errors
    /// Whatever reading the source says; conflict if `postinit` has moved meanwhile. The box then is as it
    /// was.
    pub(super) fn refresh(&self, stale: &Stale) -> Result<Initialised> {
        let map = &stale.record.id_map;
        ids::check(map)?;
        match self.refresh_shared(stale)? {
            Some(done) => Ok(done),
            None => self.in_a_run(map, |run, filled| self.refreshed(stale, run, filled)),
        }
    }

    /// With a layer that another box has made of the same content.
    fn refresh_shared(&self, stale: &Stale) -> Result<Option<Initialised>> {
        let lock = self.store.lock_shared()?;
        let map = &stale.record.id_map;
        let Some((donor, first)) = self.donor(map, stale.postinit)? else { return Ok(None) };
        let layer = first.layer;
        let refreshed = self.move_names(&lock, first, stale)?;
        Ok(Some(Initialised { shared_with: Some(donor), ..told(self, layer, map, refreshed) }))
    }

    fn refreshed(&self, stale: &Stale, run: &Run, filled: Filled) -> Result<Initialised> {
        let first = FirstLayer { layer: LayerId::random()?, stamp: self.stamp_after()? };
        let (layer, map) = (first.layer, &stale.record.id_map);
        let lock = self.store.lock_shared()?;
        self.publish(&lock, run, &filled, layer)?;
        let refreshed = self.named(&lock, run, layer, || self.move_names(&lock, first, stale))?;
        Ok(Initialised {
            totals: Some(filled.totals),
            remembered: filled.remembered.len(),
            ..told(self, layer, map, refreshed)
        })
    }

    /// `postinit` moves, and head and current if they stood with it.
    fn move_names(&self, lock: &SharedLock, first: FirstLayer, stale: &Stale) -> Result<Refreshed> {
        let (layer, old) = (first.layer, stale.postinit);
        let mut opened = self.store.open_box(self.name())?;
        opened.require_owners(&stale.record.id_map, &format!("box {}", self.name()))?;
        // Before the names: it is true of the layer whether they move or not.
        opened.set_first(lock, first)?;
        let expected = old.map_or(Expected::Absent, Expected::Layer);
        opened.update(lock, |state| {
            state.set(&postinit()?, &layer, expected, None)?;
            let head_moved = old.is_some() && state.head() == old;
            if head_moved {
                state.set_head(&layer, expected)?;
            }
            if old.is_some() && state.current() == old {
                state.set_current(&layer, expected)?;
            }
            state.log(LogEntry {
                old,
                new: Some(layer),
                name: Some(postinit()?),
                layer: Some(layer),
                ..LogEntry::new("init")
            });
            Ok(Refreshed { old, head_moved })
        })
    }
}

fn told(job: &Job<'_>, layer: LayerId, map: &IdMap, refreshed: Refreshed) -> Initialised {
    Initialised { refreshed: Some(refreshed), ..Initialised::nothing(job, layer, map) }
}

fn postinit() -> Result<SnapshotName> {
    POSTINIT.parse()
}

/// Somebody may have set the clock: what was made a moment later than now is not old, but what was made in
/// another year would never be.
fn is_older(made: Timestamp, limit: Duration) -> bool {
    Timestamp::now().duration_since(made).unsigned_abs() > limit
}
