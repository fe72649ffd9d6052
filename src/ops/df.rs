//! What takes space in a store, as du(1) counts it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::fault::Result;
use crate::store::{BoxName, Budget, LayerId, Load, RunState, SnapshotName, Store};
use crate::tree::usage::Usage;

use super::usage::{maps, measure};

/// Bytes on disk. `total` is `layers`, `trash`, `runs`, `cache` and `records` together: what lies in two of
/// these counts in the first one.
#[derive(Debug, Serialize)]
pub struct Space {
    /// The boxes asked for, by name.
    pub boxes: Vec<BoxSpace>,
    /// The store.
    pub total: u64,
    /// All layers, with their records.
    pub layers: u64,
    /// Of these, what gc would free at once, were it not for `undo`.
    pub unused: u64,
    /// What waits to be removed.
    pub trash: u64,
    /// What runs have changed so far.
    pub runs: u64,
    /// Caches of boxes, and what can be made again at any time.
    pub cache: u64,
    /// Boxes, names, logs, and the directories of the store.
    pub records: u64,
    /// How much it may hold.
    pub budget: Budget,
    /// How full it is by that.
    pub load: Load,
}

/// One box.
#[derive(Debug, Serialize)]
pub struct BoxSpace {
    /// Its name.
    #[serde(rename = "box")]
    pub box_name: BoxName,
    /// By name.
    pub snapshots: Vec<SnapshotSpace>,
}

/// One snapshot. `own` and `shared` together are its whole chain.
#[derive(Debug, Serialize)]
pub struct SnapshotSpace {
    /// Its name.
    pub name: SnapshotName,
    /// Its layer alone.
    pub own: u64,
    /// The layers beneath.
    pub shared: u64,
    /// What goes if this name alone goes: what no other name, head or run needs.
    pub reclaimable: u64,
}

/// A snapshot and its chain.
type Named = (BoxName, SnapshotName, Vec<LayerId>);

/// How many things need a layer.
type Needs = BTreeMap<LayerId, usize>;

/// Measures the whole store, and tells of one box or of all.
///
/// # Errors
/// Not found without the box; damaged if a record cannot be read; host or conflict if an id map cannot be
/// made here.
pub fn df(store: &Store, only: Option<&BoxName>) -> Result<Space> {
    // Held throughout: gc must not take away what is being measured.
    let _lock = store.lock_shared()?;
    if let Some(name) = only {
        store.open_box(name)?;
    }
    let mut layers = store.layers()?;
    // What is lent takes its space in the store around this one.
    layers.retain(|id| !store.is_outer(id));
    let mut maps = maps(store)?;
    let paths: Vec<String> = layers.iter().map(|id| format!("layers/{id}")).collect();
    let measured = measure(store, &mut maps, &paths)?;
    let by_layer: BTreeMap<LayerId, Usage> = layers.iter().copied().zip(measured).collect();
    let (names, needs) = names(store)?;
    let mut sum = Sum::default();
    let of_layers = sum.add(by_layer.values());
    let mut others = [0; 3];
    for (bytes, folder) in others.iter_mut().zip(["trash", "runs", "cache"]) {
        let measured = measure(store, &mut maps, &store.parts(folder)?)?;
        *bytes = sum.add(measured.iter());
    }
    let unused = layers.iter().filter(|id| !needs.contains_key(*id)).copied().collect();
    let [trash, runs, cache] = others;
    let records = store.frame()?;
    let budget = store.budget()?;
    let mut boxes: BTreeMap<BoxName, Vec<SnapshotSpace>> = BTreeMap::new();
    for record in store.boxes()? {
        boxes.insert(record.name, Vec::new());
    }
    for (box_name, name, chain) in &names {
        let space = space_of(name, chain, &by_layer, &needs);
        boxes.entry(box_name.clone()).or_default().push(space);
    }
    boxes.retain(|name, _| only.is_none_or(|only| only == name));
    let boxes = boxes.into_iter().map(|(box_name, snapshots)| BoxSpace { box_name, snapshots });
    Ok(Space {
        boxes: boxes.collect(),
        total: of_layers + trash + runs + cache + records,
        layers: of_layers,
        unused: together(&by_layer, &unused).freed(),
        trash,
        runs,
        cache,
        records,
        budget,
        load: store.load(&budget)?,
    })
}

/// All snapshots with their chains, and how many things need each layer.
fn names(store: &Store) -> Result<(Vec<Named>, Needs)> {
    let (mut names, mut needs) = (Vec::new(), Needs::new());
    let mut need = |chain: &[LayerId]| {
        let chain: BTreeSet<_> = chain.iter().collect();
        chain.into_iter().for_each(|id| *needs.entry(*id).or_default() += 1);
    };
    for record in store.boxes()? {
        let opened = store.open_box(&record.name)?;
        for found in opened.refs()? {
            let chain = store.layer(&found.layer)?.mount;
            need(&chain);
            names.push((record.name.clone(), found.name, chain));
        }
        for tip in opened.head()?.into_iter().chain(opened.current()?) {
            need(&store.layer(&tip)?.mount);
        }
    }
    for (run, state) in store.runs()? {
        if state != RunState::Dead || store.is_left(&run) {
            let lent =
                run.nest.iter().flat_map(|lent| lent.layers.iter().chain(lent.taken.values()));
            need(&run.chain.iter().chain(lent).copied().collect::<Vec<_>>());
        }
    }
    Ok((names, needs))
}

fn space_of(
    name: &SnapshotName,
    chain: &[LayerId],
    by_layer: &BTreeMap<LayerId, Usage>,
    needs: &Needs,
) -> SnapshotSpace {
    let own = chain.last().and_then(|id| by_layer.get(id)).map_or(0, Usage::total);
    let whole = together(by_layer, &chain.iter().copied().collect()).total();
    let alone = chain.iter().filter(|id| needs.get(*id) == Some(&1)).copied().collect();
    SnapshotSpace {
        name: name.clone(),
        own,
        shared: whole.saturating_sub(own),
        reclaimable: together(by_layer, &alone).freed(),
    }
}

fn together(by_layer: &BTreeMap<LayerId, Usage>, layers: &BTreeSet<LayerId>) -> Usage {
    let mut sum = Usage::default();
    for id in layers {
        by_layer.get(id).into_iter().for_each(|usage| sum.merge(usage));
    }
    sum
}

/// Inodes that were counted already.
#[derive(Default)]
struct Sum(BTreeSet<u64>);

impl Sum {
    /// The bytes of these that were not counted before.
    fn add<'a>(&mut self, all: impl Iterator<Item = &'a Usage>) -> u64 {
        let mut bytes = 0;
        for usage in all {
            bytes += usage.bytes;
            for (inode, linked) in &usage.linked {
                bytes += if self.0.insert(*inode) { linked.bytes } else { 0 };
            }
        }
        bytes
    }
}
