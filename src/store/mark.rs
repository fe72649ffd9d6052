//! Which layers live: what a ref, a head, a young log entry or a run names, and all beneath it.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::{BoxName, LayerId, Store, layout};
use crate::fault::{Fault, Kind, Result};

/// The layers that are needed, found by following chains.
pub(super) struct Marked<'s> {
    store: &'s Store,
    pub(super) living: BTreeSet<LayerId>,
    /// Those that exist: what only a log names may be gone, and then nobody misses it.
    pub(super) present: BTreeSet<LayerId>,
}

impl<'s> Marked<'s> {
    /// Nothing marked yet.
    pub(super) fn new(store: &'s Store) -> Result<Self> {
        let present = store.layers()?.into_iter().collect();
        Ok(Self { store, living: BTreeSet::new(), present })
    }

    /// Marks all that the boxes need.
    ///
    /// # Errors
    /// Damaged, naming the file, if what a box needs cannot be told.
    pub(super) fn mark_boxes(&mut self, undo: Duration) -> Result<()> {
        for name in self.store.box_names()? {
            self.mark_box(&name, undo)?;
        }
        Ok(())
    }

    fn mark_box(&mut self, name: &BoxName, undo: Duration) -> Result<()> {
        for found in self.store.box_refs(name)? {
            let file = layout::reference(name, &found.name);
            self.mark(found.layer, &file)?;
        }
        let head = self.store.box_head(name)?;
        for layer in [head.head, head.current].into_iter().flatten() {
            self.mark(layer, &layout::head(name))?;
        }
        let now = Timestamp::now();
        for entry in self.store.box_log(name)? {
            let age = Duration::try_from(now.duration_since(entry.time)).unwrap_or_default();
            for layer in entry.layers().filter(|_| age < undo) {
                if self.present.contains(&layer) {
                    self.mark(layer, &layout::log(name))?;
                }
            }
        }
        Ok(())
    }

    /// Marks a layer that the file `by` needs, and all that it needs itself.
    pub(super) fn mark(&mut self, layer: LayerId, by: &str) -> Result<()> {
        let mut open = vec![(layer, by.to_owned())];
        while let Some((layer, by)) = open.pop() {
            if self.living.contains(&layer) {
                continue;
            }
            let record = self.store.layer(&layer).map_err(|fault| match fault.kind {
                Kind::NotFound => {
                    let by = self.store.show(&by);
                    Fault::damaged(format!("follow chain: {by}: layer {layer} is missing"))
                }
                _ => fault,
            })?;
            self.living.insert(layer);
            let file = layout::layer_record(&layer);
            open.extend(record.mount.into_iter().chain(record.parent).map(|id| (id, file.clone())));
        }
        Ok(())
    }
}
