//! Which layers live: those that a ref, a head or a young log entry names, with the chains they are mounted
//! with, and the chains of runs.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::{BoxName, LayerId, SnapshotName, Store, layout};
use crate::fault::{Fault, Result};

/// The layers that are needed.
pub(super) struct Marked<'s> {
    store: &'s Store,
    pub(super) living: BTreeSet<LayerId>,
    /// Those whose whole chain was marked.
    chains: BTreeSet<LayerId>,
    /// Those that exist: what only a log names may be gone, and then nobody misses it.
    pub(super) present: BTreeSet<LayerId>,
}

impl<'s> Marked<'s> {
    /// Nothing marked yet.
    pub(super) fn new(store: &'s Store) -> Result<Self> {
        let present = store.layers()?.into_iter().collect();
        Ok(Self { store, living: BTreeSet::new(), chains: BTreeSet::new(), present })
    }

    /// Marks all that the boxes need. Log entries count for as long as `undo`, else as their box says.
    ///
    /// # Errors
    /// Damaged, naming the file, if what a box needs cannot be told.
    pub(super) fn mark_boxes(&mut self, undo: Option<Duration>) -> Result<()> {
        for name in self.store.box_names()? {
            self.mark_box(&name, undo)?;
        }
        Ok(())
    }

    /// The same for one box, which may be gone.
    pub(super) fn mark_box(&mut self, name: &BoxName, undo: Option<Duration>) -> Result<()> {
        for found in self.store.box_refs(name)? {
            let file = layout::reference(name, &found.name);
            self.mark(found.layer, &file)?;
        }
        self.mark_moves(name, undo)
    }

    /// One name, which may be gone.
    pub(super) fn mark_ref(&mut self, name: &BoxName, snapshot: &SnapshotName) -> Result<()> {
        match self.store.box_ref(name, snapshot)? {
            Some(found) => self.mark(found.layer, &layout::reference(name, snapshot)),
            None => Ok(()),
        }
    }

    /// Head, current, and what the log keeps.
    pub(super) fn mark_moves(&mut self, name: &BoxName, undo: Option<Duration>) -> Result<()> {
        let head = self.store.box_head(name)?;
        for layer in [head.head, head.current].into_iter().flatten() {
            self.mark(layer, &layout::head(name))?;
        }
        let now = Timestamp::now();
        // A box whose record cannot be read keeps all: nobody can say how long it wanted to.
        let of_box = || self.store.box_record(name).map(|record| record.settings.undo_age());
        let undo = undo.unwrap_or_else(|| of_box().unwrap_or(Duration::MAX));
        for entry in self.store.box_log(name)? {
            let age = entry.age(now);
            for layer in entry.layers_before().filter(|_| age < undo) {
                self.mark_if_whole(layer, &layout::log(name))?;
            }
        }
        Ok(())
    }

    /// Marks the chain of a layer that the file `by` names. What the members of that chain were once mounted
    /// with is not needed for it: a fold layer may stand for some of that now.
    fn mark(&mut self, layer: LayerId, by: &str) -> Result<()> {
        if !self.chains.insert(layer) {
            return Ok(());
        }
        if !self.is_there(layer) {
            return Err(self.missing(layer, by));
        }
        let record = self.store.layer(&layer)?;
        let file = layout::layer_record(&layer);
        record.mount.into_iter().try_for_each(|member| self.mark_one(member, &file))
    }

    /// Marks one member of a chain that the file `by` records.
    pub(super) fn mark_one(&mut self, layer: LayerId, by: &str) -> Result<()> {
        if !self.is_there(layer) {
            return Err(self.missing(layer, by));
        }
        self.living.insert(layer);
        Ok(())
    }

    /// Whether a layer exists: when all were listed, or since then.
    fn is_there(&self, layer: LayerId) -> bool {
        self.present.contains(&layer) || self.store.layer(&layer).is_ok()
    }

    /// The layers that were listed and that nothing needs.
    pub(super) fn dead(&self) -> BTreeSet<LayerId> {
        let store = self.store;
        let dead = self.present.difference(&self.living).copied();
        // Those of the store around this one are not ours to remove.
        dead.filter(|layer| !store.is_outer(layer)).collect()
    }

    /// Marks the chain of a layer that only a log names, if it can still be opened. Another gc may have taken
    /// it since all were listed.
    fn mark_if_whole(&mut self, layer: LayerId, log: &str) -> Result<()> {
        if self.store.has_layer(&layer)?
            && self.store.layer(&layer)?.mount.into_iter().all(|member| self.is_there(member))
        {
            self.mark(layer, log)?;
        }
        Ok(())
    }

    fn missing(&self, layer: LayerId, by: &str) -> Fault {
        let by = self.store.show(by);
        Fault::damaged(format!("follow chain: {by}: layer {layer} is missing"))
    }
}
