//! Takes in what a sandbox inside a run has made: its new snapshots become snapshots of the run's box.
//!
//! The payload of the run owned the store inside, so nothing it says is believed. It is only looked at once the
//! run is over and nothing lives that could change it meanwhile. Names and parents are checked, ids are drawn
//! anew (an old one could stand in a log here), chains follow from the parents, trees are validated and counted
//! as those of a run are. All of it comes in, or nothing.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use jiff::Timestamp;
use serde::Serialize;

mod look;

use look::{Tree, look};

use super::commit::fold::{self, Staged};
use super::owners;
use crate::fault::{Fault, Kind, Result};
use crate::ids::{self, Entry, Powers};
use crate::store::{
    BoxName, Claim, Claims, Expected, LayerId, LayerRecord, Lent, LogEntry, Run, RunId, RunRecord,
    SharedLock, SnapshotName, Store,
};
use crate::sys::signal::Deferred;
use crate::tree::Totals;

/// What was taken in.
#[derive(Debug, Serialize)]
pub struct Adopted {
    /// The run.
    pub run: RunId,
    /// Its box.
    #[serde(rename = "box")]
    pub box_name: BoxName,
    /// The snapshots that are new here.
    pub snapshots: Vec<TakenIn>,
    /// What was made inside and stays out, one line each.
    pub left: Vec<String>,
}

/// A snapshot that was taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TakenIn {
    /// Its name here.
    pub name: SnapshotName,
    /// Its name inside.
    pub inside: SnapshotName,
    /// Its layer.
    pub layer: LayerId,
}

/// Takes in what is left of the store inside a run that is over; its own changes stay for `recover`.
///
/// # Errors
/// Not-found without the run; busy while it lives; conflict if it has no such store, or if a name is taken:
/// `prefix` and a dash are put before all of them. Nothing was taken in then, and it can be tried again.
pub fn adopt(store: &Store, id: &RunId, prefix: Option<&SnapshotName>) -> Result<Adopted> {
    let (mut run, mut record) = store.open_run(id).map_err(|fault| match fault.kind {
        Kind::Busy => fault.hint(format!(
            "what it makes inside is taken in when it ends with 0; to end it: `sandbox stop {id}`"
        )),
        _ => fault,
    })?;
    if record.nest.is_none() {
        return Err(Fault::conflict(format!("adopt run: {id}: no sandbox could run inside it"))
            .hint("only a run with --nest has a store of its own"));
    }
    // Else the next command would take what was killed for trash.
    run.mark_kept(&record)?;
    ids::check(&record.id_map)?;
    let adopted = take_in(store, &mut run, &mut record, prefix, None)?;
    // It is done: the names are given. What cannot be thrown away now goes with the run.
    store.discard_nest(&run).ok();
    run.keep(&RunRecord { nest: None, ..record }).ok();
    Ok(adopted)
}

/// The same for whoever holds the run, whose record says of the store inside it. What is on its way is noted in
/// `record`: with that it can be tried again. A signal of these ends it as long as nothing is named.
pub(super) fn take_in(
    store: &Store,
    run: &mut Run,
    record: &mut RunRecord,
    prefix: Option<&SnapshotName>,
    signals: Option<&Deferred>,
) -> Result<Adopted> {
    let (id, box_name) = (record.run, record.box_name.clone());
    let mut adopted = Adopted { run: id, box_name, snapshots: Vec::new(), left: Vec::new() };
    let (Some(nest), Some(lent)) = (run.nest()?, record.nest.clone()) else { return Ok(adopted) };
    let map = record.id_map.clone();
    let claims = ids::inside_unless(signals, Entry::Map(&map), Powers::Files, || {
        Claims::read(nest.as_fd(), &record.box_name, &lent)
    })?;
    let wanted = wanted(&claims, &lent, prefix, &mut adopted.left)?;
    if wanted.is_empty() {
        return Ok(adopted);
    }
    let mut job = Job { store, claims, lent, wanted, order: Vec::new(), signals };
    job.put_in_order();
    job.refuse_taken(record)?;
    job.draw_ids()?;
    record.nest = Some(job.lent.clone());
    run.note_taken(record)?;
    let trees = job.fetch(run, record, nest.as_fd())?;
    adopted.snapshots = job.publish(run, record, &trees)?;
    Ok(adopted)
}

/// A name inside that is to be one here.
#[derive(Debug)]
struct Wanted {
    inside: SnapshotName,
    name: SnapshotName,
    /// Its layer inside.
    layer: LayerId,
    message: Option<String>,
}

fn wanted(
    claims: &Claims,
    lent: &Lent,
    prefix: Option<&SnapshotName>,
    left: &mut Vec<String>,
) -> Result<Vec<Wanted>> {
    let mut all = Vec::new();
    for (inside, (layer, message)) in &claims.names {
        if lent.names.contains_key(inside) {
            left.push(format!("{inside}: was moved inside, and stays here as it is"));
            continue;
        }
        let name = match prefix {
            Some(prefix) => format!("{prefix}-{inside}").parse()?,
            None => inside.clone(),
        };
        all.push(Wanted { inside: inside.clone(), name, layer: *layer, message: message.clone() });
    }
    if let Some(head) = claims.head
        && !claims.names.values().any(|(layer, _)| *layer == head)
    {
        left.push("head: what was kept inside has no name there, and stays out".to_owned());
    }
    Ok(all)
}

struct Job<'s> {
    store: &'s Store,
    claims: Claims,
    lent: Lent,
    wanted: Vec<Wanted>,
    /// The layers to take in by their ids inside, each after the one it was made on.
    order: Vec<LayerId>,
    signals: Option<&'s Deferred>,
}

/// What is published until it is named.
#[derive(Default)]
struct New {
    layers: Vec<LayerId>,
    /// Fold layers beneath them.
    folds: Vec<Staged>,
}

impl Job<'_> {
    fn put_in_order(&mut self) {
        for wanted in &self.wanted {
            let mut chain = Vec::new();
            let mut next = wanted.layer;
            // A circle ends, too: what is in the chain already is not added again.
            while let Some(claim) = self.claims.layers.get(&next)
                && !self.order.contains(&next)
                && !chain.contains(&next)
            {
                chain.push(next);
                next = claim.parent;
            }
            self.order.extend(chain.into_iter().rev());
        }
    }

    /// Which layer here stands for one inside.
    fn here(&self, inside: &LayerId) -> LayerId {
        self.lent.taken.get(inside).copied().unwrap_or(*inside)
    }

    /// Names that are here already, unless an earlier try has given them.
    fn refuse_taken(&self, record: &RunRecord) -> Result<()> {
        let home = self.store.open_box(&record.box_name)?;
        home.require_owners(&record.id_map, &format!("run {}", record.run))?;
        for wanted in &self.wanted {
            let found = home.get(&wanted.name)?;
            if found.is_some_and(|found| found.layer != self.here(&wanted.layer)) {
                return Err(taken(&wanted.name, &record.run));
            }
        }
        Ok(())
    }

    fn draw_ids(&mut self) -> Result<()> {
        for layer in &self.order {
            if !self.lent.taken.contains_key(layer) {
                self.lent.taken.insert(*layer, LayerId::random()?);
            }
        }
        Ok(())
    }

    /// Puts the trees into wrappers of ours and looks at every file in them, inside. Those that an earlier try has
    /// brought all the way are there.
    fn fetch(
        &self,
        run: &Run,
        record: &RunRecord,
        nest: BorrowedFd<'_>,
    ) -> Result<BTreeMap<LayerId, Tree>> {
        let mut stages: Vec<(LayerId, OwnedFd)> = Vec::new();
        for layer in &self.order {
            if !self.store.has_layer(&self.here(layer))? {
                stages.push((*layer, run.stage_taken(&record.id_map, &self.here(layer))?));
            }
        }
        ids::inside_unless(self.signals, Entry::Map(&record.id_map), Powers::Files, || {
            let look = |(layer, stage): &(LayerId, OwnedFd)| {
                let tree = look(nest, layer, stage.as_fd(), record).map_err(|fault| Fault {
                    message: format!("adopt layer {layer}: {}", fault.message),
                    ..fault
                })?;
                Ok((*layer, tree))
            };
            stages.iter().map(look).collect()
        })
    }

    /// Makes the layers layers of this store, and names them. All or nothing.
    fn publish(
        &self,
        run: &Run,
        record: &RunRecord,
        trees: &BTreeMap<LayerId, Tree>,
    ) -> Result<Vec<TakenIn>> {
        ids::unless_ended(self.signals)?;
        self.store.sync_taken(run)?;
        ids::unless_ended(self.signals)?;
        let lock = self.store.lock_shared()?;
        let mut new = New::default();
        let named =
            self.bring(&lock, run, record, trees, &mut new).and_then(|()| self.name(&lock, record));
        if named.is_err() {
            // What stays is named by the record of the run, and found by the next try.
            for layer in new.layers.iter().rev() {
                self.store.take_back_taken(&lock, run, layer).ok();
            }
            new.folds.iter().rev().for_each(|fold| fold.take_back(self.store, &lock));
        }
        drop(lock);
        new.folds.into_iter().for_each(|fold| fold.discard(self.store));
        named
    }

    /// Publishes the layers that are not here yet, each after what it is mounted on. Only what was said of their
    /// parents, time and command counts.
    fn bring(
        &self,
        lock: &SharedLock,
        run: &Run,
        record: &RunRecord,
        trees: &BTreeMap<LayerId, Tree>,
        new: &mut New,
    ) -> Result<()> {
        let mut made: BTreeMap<LayerId, LayerRecord> = BTreeMap::new();
        for inside in &self.order {
            let (id, claim) = (self.here(inside), &self.claims.layers[inside]);
            let Some(tree) = trees.get(inside) else {
                made.insert(id, self.store.layer(&id)?);
                continue;
            };
            let parent = match made.get(&self.here(&claim.parent)) {
                Some(parent) => parent.clone(),
                None => self.parent(&claim.parent)?,
            };
            let beneath = self.beneath(lock, record, &parent, new)?;
            let layer = layer_record(id, claim, (&parent, beneath), record, tree.totals);
            let remembered = owners::file(&tree.remembered)?;
            self.store.publish_taken(lock, run, &layer, remembered.as_deref())?;
            new.layers.push(id);
            made.insert(id, layer);
        }
        Ok(())
    }

    /// What a layer on this parent is mounted on. A chain that has no room for one more is folded, as by a commit: all
    /// of it is here by now.
    fn beneath(
        &self,
        lock: &SharedLock,
        record: &RunRecord,
        parent: &LayerRecord,
        new: &mut New,
    ) -> Result<Vec<LayerId>> {
        let Some(plan) = self.store.fold_plan(parent)? else { return Ok(parent.mount.clone()) };
        if let Some(fold) = new.folds.iter().find(|fold| fold.is_of(&plan)) {
            return Ok(plan.mount(fold.layer()));
        }
        // Damage elsewhere in the box is not for this to find.
        if let Some(fold) = self.store.find_fold(&record.box_name, &plan).unwrap_or_default() {
            return Ok(plan.mount(fold));
        }
        let fold = fold::stage(self.store, record, &plan, self.signals)?;
        let published = fold.publish(self.store, lock);
        let mount = plan.mount(fold.layer());
        new.folds.push(fold);
        published.map(|()| mount)
    }

    /// A layer that was lent, and that others can be made on.
    fn parent(&self, layer: &LayerId) -> Result<LayerRecord> {
        if !self.lent.layers.contains(layer) {
            // A circle of layers that stand on one another.
            return Err(Fault::failed(format!(
                "adopt layer: {layer}: its chain does not end in a layer of this store"
            )));
        }
        self.store.openable(layer)
    }

    fn name(&self, lock: &SharedLock, record: &RunRecord) -> Result<Vec<TakenIn>> {
        let home = self.store.open_box(&record.box_name)?;
        home.require_owners(&record.id_map, &format!("run {}", record.run))?;
        let mut entry = LogEntry { argv: record.argv.clone(), ..LogEntry::new("adopt") };
        if let [one] = &self.wanted[..] {
            let layer = Some(self.here(&one.layer));
            entry = LogEntry { name: Some(one.name.clone()), new: layer, layer, ..entry };
        }
        home.update(lock, |state| {
            ids::unless_ended(self.signals)?;
            let mut named = Vec::new();
            for wanted in &self.wanted {
                let layer = self.here(&wanted.layer);
                match state.get(&wanted.name)? {
                    Some(found) if found.layer == layer => {}
                    Some(_) => return Err(taken(&wanted.name, &record.run)),
                    None => {
                        let message = wanted.message.clone();
                        state.set(&wanted.name, &layer, Expected::Absent, message)?;
                    }
                }
                let (name, inside) = (wanted.name.clone(), wanted.inside.clone());
                named.push(TakenIn { name, inside, layer });
            }
            state.log(entry);
            Ok(named)
        })
    }
}

fn layer_record(
    id: LayerId,
    claim: &Claim,
    (parent, mut mount): (&LayerRecord, Vec<LayerId>),
    record: &RunRecord,
    totals: Totals,
) -> LayerRecord {
    mount.push(id);
    let now = Timestamp::now();
    let possible = (record.started..=now).contains(&claim.created);
    LayerRecord {
        id,
        parent: Some(parent.id),
        depth: parent.depth + 1,
        mount,
        folds: Vec::new(),
        created: if possible { claim.created } else { now },
        argv: claim.argv.clone(),
        exit: claim.exit,
        files: totals.files,
        own_bytes: totals.bytes,
        diff_id: None,
        unmapped: 0,
    }
}

fn taken(name: &SnapshotName, run: &RunId) -> Fault {
    Fault::conflict(format!("adopt run: {run}: snapshot {name} exists already"))
        .hint(format!("`sandbox adopt {run} --as PREFIX` takes them in as PREFIX-NAME"))
}
