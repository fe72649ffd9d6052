//! The boxes of a store, and all about one.

use std::os::fd::AsFd;

use jiff::Timestamp;
use rustix::fs::{Mode as Permissions, OFlags, openat};
use serde::Serialize;

use crate::fault::{Context, Fault, Kind, Result};
use crate::ids::{self, Entry, IdMap, Mode, Powers};
use crate::store::{BoxName, BoxSettings, Cache, LayerId, RunId, RunState, SnapshotName, Store};
use crate::tree::{Descend, Visit, walk};

/// All boxes of a store.
#[derive(Debug, Serialize)]
pub struct Overview {
    /// Those that can be read, by name.
    pub boxes: Vec<Summary>,
    /// Those that cannot.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<Damage>,
}

/// A box in one line.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Its name.
    pub name: BoxName,
    /// How many snapshots it has.
    pub snapshots: usize,
    /// The layer that a run starts from.
    pub head: Option<LayerId>,
    /// How it maps ids.
    pub ids: Mode,
    /// What it was filled from.
    pub source: String,
    /// When it was made.
    pub created: Timestamp,
}

/// A box that cannot be read; the others can.
#[derive(Debug, Serialize)]
pub struct Damage {
    /// The name of its directory.
    #[serde(rename = "box")]
    pub box_name: String,
    /// What is wrong.
    pub error: Fault,
}

/// All boxes. One that is damaged is told beside the others.
///
/// # Errors
/// What reading the directory of boxes says.
pub fn list(store: &Store) -> Result<Overview> {
    let _lock = store.lock_shared()?;
    let mut all = Overview { boxes: Vec::new(), damaged: Vec::new() };
    for (box_name, name) in store.box_entries()? {
        match name.and_then(|name| summary(store, &name)) {
            Ok(summary) => all.boxes.push(summary),
            // It was removed since we read the directory.
            Err(fault) if fault.kind == Kind::NotFound => {}
            Err(error) => all.damaged.push(Damage { box_name, error }),
        }
    }
    Ok(all)
}

fn summary(store: &Store, name: &BoxName) -> Result<Summary> {
    let opened = store.open_box(name)?;
    let record = opened.record();
    Ok(Summary {
        name: name.clone(),
        snapshots: opened.snapshot_names()?.len(),
        head: opened.head()?,
        ids: record.id_map.mode,
        source: record.source.clone(),
        created: record.created,
    })
}

/// All about a box.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// Its name.
    pub name: BoxName,
    /// What it was filled from.
    pub source: String,
    /// Changes when the source is another one.
    pub identity: String,
    /// When it was made.
    pub created: Timestamp,
    /// Its map.
    pub id_map: IdMap,
    /// How many snapshots it has.
    pub snapshots: usize,
    /// The layer that a run starts from.
    pub head: Option<LayerId>,
    /// The layer that `clean` returns head to.
    pub current: Option<LayerId>,
    /// The defaults of its runs.
    pub settings: BoxSettings,
    /// Its persistent caches.
    pub caches: Vec<CacheSize>,
    /// Its runs.
    pub runs: Vec<BoxRun>,
}

/// A persistent cache.
#[derive(Debug, Serialize)]
pub struct CacheSize {
    /// Its name.
    pub name: SnapshotName,
    /// Whether a run uses it now.
    pub in_use: bool,
    /// Entries in it; unknown while it is in use, and on a machine that cannot make the box's id map.
    pub files: Option<u64>,
    /// Bytes on disk; unknown as `files`.
    pub bytes: Option<u64>,
}

/// A run of a box.
#[derive(Debug, Serialize)]
pub struct BoxRun {
    /// Its id.
    pub run: RunId,
    /// Whether it goes on, or was kept.
    pub state: RunState,
}

/// Everything about a box.
///
/// # Errors
/// Not found if it is not there; damaged if one of its files is.
pub fn show(store: &Store, box_name: &BoxName) -> Result<Shown> {
    let lock = store.lock_shared()?;
    let opened = store.open_box(box_name)?;
    let record = opened.record().clone();
    let (snapshots, head, current) =
        (opened.snapshot_names()?.len(), opened.head()?, opened.current()?);
    let runs = runs(store, box_name)?;
    // To measure a cache takes long; nobody needs to wait for it.
    drop(lock);
    Ok(Shown {
        snapshots,
        head,
        current,
        runs,
        caches: caches(store, box_name, &record.id_map)?,
        name: record.name,
        source: record.source,
        identity: record.identity,
        created: record.created,
        id_map: record.id_map,
        settings: record.settings,
    })
}

/// The runs of a box that go on, were kept or are left to be recovered, oldest first; without those whose record is damaged, which `fsck`
/// tells.
pub(super) fn runs(store: &Store, box_name: &BoxName) -> Result<Vec<BoxRun>> {
    let all = store.readable_runs()?.into_iter();
    let own = all.filter(|(record, state)| {
        let there = *state != RunState::Dead || store.is_left(record);
        record.box_name == *box_name && there && record.layer.is_some()
    });
    Ok(own.map(|(record, state)| BoxRun { run: record.run, state }).collect())
}

fn caches(store: &Store, box_name: &BoxName, map: &IdMap) -> Result<Vec<CacheSize>> {
    let mut sizes = Vec::new();
    let mut held = Vec::new();
    for name in store.cache_names(box_name)? {
        let mut size = CacheSize { name, in_use: false, files: None, bytes: None };
        match store.hold_cache(box_name, &size.name) {
            Ok(Some(cache)) => {
                cache.share()?;
                held.push((sizes.len(), cache));
            }
            Ok(None) => continue,
            Err(_) => size.in_use = true,
        }
        sizes.push(size);
    }
    // Its size is a thing to know, not a reason to fail.
    for ((at, _), (files, bytes)) in held.iter().zip(measured(&held, map).unwrap_or_default()) {
        sizes[*at].files = Some(files);
        sizes[*at].bytes = Some(bytes);
    }
    Ok(sizes)
}

/// Entries and bytes of each, by one look from inside the box's user namespace.
fn measured(held: &[(usize, Cache)], map: &IdMap) -> Result<Vec<(u64, u64)>> {
    if held.is_empty() {
        return Ok(Vec::new());
    }
    let places = held.iter().map(|(_, cache)| cache.fs_dir()).collect::<Result<Vec<_>>>()?;
    let measure = || places.iter().map(|place| place.as_ref().map_or(Ok((0, 0)), size)).collect();
    ids::inside(Entry::Map(map), Powers::Files, measure)
}

fn size(place: &impl AsFd) -> Result<(u64, u64)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = openat(place, ".", flags, Permissions::empty()).context("open", "a cache")?;
    let (mut files, mut blocks) = (0, 0);
    walk(dir.as_fd(), &mut |visit: &Visit<'_>| {
        files += 1;
        blocks += u64::try_from(visit.stat.st_blocks).unwrap_or_default();
        Ok(Descend::Yes)
    })?;
    Ok((files, blocks * 512))
}
