//! From what was filled in, or what another box has already, to a box with its first names.

use jiff::Timestamp;

use super::fill::Filled;
use super::{Initialised, Job, POSTINIT};
use crate::fault::{Kind, Result};
use crate::ids::IdMap;
use crate::store::{
    BoxName, BoxRecord, BoxSettings, Expected, FirstLayer, LayerId, LayerRecord, LogEntry, Run,
    SharedLock, SnapshotName,
};

impl Initialised {
    /// That nothing was done to a box whose head, or first layer, is this one.
    pub(super) fn nothing(job: &Job<'_>, layer: LayerId, map: &IdMap) -> Self {
        Self {
            box_name: job.name().clone(),
            source: job.source.to_string(),
            created: false,
            refreshed: None,
            layer,
            shared_with: None,
            id_map: map.clone(),
            totals: None,
            remembered: 0,
            ids_refused: None,
        }
    }
}

impl Job<'_> {
    /// Makes the box and its layer, all in one hold of the store lock.
    pub(super) fn settle(&self, run: &Run, map: &IdMap, filled: Filled) -> Result<Initialised> {
        let first = FirstLayer { layer: LayerId::random()?, stamp: self.stamp_after()? };
        let layer = first.layer;
        let lock = self.store.lock_shared()?;
        // The box first: of two that fill it at the same time the second has made no layer yet.
        match self.store.create_box(&lock, self.record(map, first)) {
            Err(fault) if fault.kind == Kind::Conflict => {
                drop(lock);
                return self.there()?.ok_or(fault);
            }
            made => drop(made?),
        }
        let published = self
            .publish(&lock, run, &filled, layer)
            .and_then(|()| self.named(&lock, run, layer, || self.take_names(&lock, &layer)));
        match published {
            Ok(()) => Ok(Initialised {
                created: true,
                totals: Some(filled.totals),
                remembered: filled.remembered.len(),
                ..Initialised::nothing(self, layer, map)
            }),
            Err(fault) => {
                self.store.remove_box(&lock, self.name()).ok();
                Err(fault)
            }
        }
    }

    /// Makes a layer without a parent of what was filled in.
    pub(super) fn publish(
        &self,
        lock: &SharedLock,
        run: &Run,
        filled: &Filled,
        id: LayerId,
    ) -> Result<()> {
        let record = LayerRecord {
            id,
            parent: None,
            depth: 0,
            mount: vec![id],
            folds: Vec::new(),
            created: Timestamp::now(),
            argv: Vec::new(),
            exit: None,
            files: filled.totals.files,
            own_bytes: filled.totals.bytes,
            diff_id: None,
            unmapped: filled.totals.unmapped,
        };
        let owners = filled.owners()?;
        self.store.publish(lock, run, &record, owners.as_deref(), run.dir()).map(drop)
    }

    /// Names a layer that was just published, or gives it back to its run.
    pub(super) fn named<T>(
        &self,
        lock: &SharedLock,
        run: &Run,
        layer: LayerId,
        name: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        name().inspect_err(|_| {
            self.store.take_back(lock, run, &layer).ok();
        })
    }

    /// What a new box says of itself.
    fn record(&self, map: &IdMap, first: FirstLayer) -> BoxRecord {
        BoxRecord {
            name: self.name().clone(),
            id_map: map.clone(),
            source: self.source.to_string(),
            identity: self.identity.clone(),
            created: Timestamp::now(),
            first: Some(first),
            settings: BoxSettings::default(),
        }
    }

    /// The stamp of the source, if it is still the one from before it was read.
    pub(super) fn stamp_after(&self) -> Result<Option<String>> {
        let now = self.source.stamp()?;
        Ok(self.stamp.clone().filter(|before| Some(before) == now.as_ref()))
    }

    /// A box whose first layer is one that another box has made of the same archive; `None` if there is no
    /// such box.
    pub(super) fn share(&self, map: &IdMap) -> Result<Option<Initialised>> {
        let lock = self.store.lock_shared()?;
        let Some((donor, first)) = self.donor(map, None)? else { return Ok(None) };
        let layer = first.layer;
        match self.store.create_box(&lock, self.record(map, first)) {
            Err(fault) if fault.kind == Kind::Conflict => {
                drop(lock);
                return self.there()?.ok_or(fault).map(Some);
            }
            made => drop(made?),
        }
        if let Err(fault) = self.take_names(&lock, &layer) {
            self.store.remove_box(&lock, self.name()).ok();
            return Err(fault);
        }
        Ok(Some(Initialised {
            created: true,
            shared_with: Some(donor),
            ..Initialised::nothing(self, layer, map)
        }))
    }

    /// A box that has made a layer, other than `but`, of this very content with owners that are the same on
    /// disk. To be called, and the layer named, in one hold of the store lock.
    pub(super) fn donor(
        &self,
        map: &IdMap,
        but: Option<LayerId>,
    ) -> Result<Option<(BoxName, FirstLayer)>> {
        let Some(stamp) = &self.stamp else { return Ok(None) };
        for (_, name) in self.store.box_entries()? {
            // A box that is damaged or just being removed has nothing to give.
            let Ok(record) = name.and_then(|name| self.store.box_record(&name)) else { continue };
            let Some(first) = record.first.filter(|first| first.stamp.as_ref() == Some(stamp))
            else {
                continue;
            };
            let fits = record.identity == self.identity && record.id_map.same_owners(map);
            if fits && Some(first.layer) != but && self.store.layer(&first.layer).is_ok() {
                return Ok(Some((record.name, first)));
            }
        }
        Ok(None)
    }

    fn take_names(&self, lock: &SharedLock, id: &LayerId) -> Result<()> {
        let name: SnapshotName = POSTINIT.parse()?;
        self.store.open_box(self.name())?.update(lock, |state| {
            state.set(&name, id, Expected::Absent, None)?;
            state.set_head(id, Expected::Absent)?;
            state.set_current(id, Expected::Absent)?;
            state.log(LogEntry {
                new: Some(*id),
                name: Some(name.clone()),
                layer: Some(*id),
                ..LogEntry::new("init")
            });
            Ok(())
        })
    }
}
