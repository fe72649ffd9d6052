//! The snapshots of a box.

use jiff::Timestamp;
use serde::Serialize;

use super::boxes::Damage;
use crate::fault::{Kind, Result};
use crate::store::{
    Box_, BoxName, LayerId, LayerSizes, Listed, Listings, SnapshotName, SnapshotRef, Store,
};

/// A box and its snapshots.
#[derive(Debug, Serialize)]
pub struct Listing {
    /// The box.
    #[serde(rename = "box")]
    pub box_name: BoxName,
    /// The layer that a run starts from.
    pub head: Option<LayerId>,
    /// The layer that is starred.
    pub current: Option<LayerId>,
    /// By time, then by name.
    pub snapshots: Vec<Snapshot>,
}

/// One name.
#[derive(Debug, Serialize)]
pub struct Snapshot {
    /// The name.
    pub name: SnapshotName,
    /// The layer it stands for.
    pub layer: LayerId,
    /// When the name was given.
    pub created: Timestamp,
    /// What was said about it.
    pub message: Option<String>,
    /// Whether the name can be removed and moved only after `snapshot --unprotect`.
    pub protected: bool,
    /// Whether its layer is the current one.
    pub current: bool,
    /// How many layers it is made of.
    pub depth: u32,
    /// Bytes of the files of its own layer.
    pub own_bytes: u64,
}

/// The snapshots of a box, the oldest first. Reads one record a snapshot.
///
/// # Errors
/// Not found for a box that is not there; damaged for a name whose layer is not there.
pub fn list(store: &Store, box_name: &BoxName) -> Result<Listing> {
    let _lock = store.lock_shared()?;
    let open = store.open_box(box_name)?;
    listing(&open, read(&open, &store.layer_sizes()?)?)
}

/// The snapshots of all boxes.
#[derive(Debug, Serialize)]
pub struct Everything {
    /// Those that can be read, by name.
    pub boxes: Vec<Listing>,
    /// Those that cannot.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<Damage>,
}

/// The snapshots of all boxes. One that is damaged is told beside the others. Of a box whose names are as they were when
/// all boxes were listed before, no name and no layer is read again.
///
/// # Errors
/// What reading the directory of boxes says.
pub fn list_all(store: &Store) -> Result<Everything> {
    let _lock = store.lock_shared()?;
    let sizes = store.layer_sizes()?;
    let mut known = store.listings();
    let mut all = Everything { boxes: Vec::new(), damaged: Vec::new() };
    for (box_name, name) in store.box_entries()? {
        match name.and_then(|name| of_box(store, &sizes, &mut known, &name)) {
            Ok(listing) => all.boxes.push(listing),
            // It was removed since we read the directory.
            Err(fault) if fault.kind == Kind::NotFound => {}
            Err(error) => all.damaged.push(Damage { box_name, error }),
        }
    }
    store.keep_listings(known);
    Ok(all)
}

fn of_box(
    store: &Store,
    sizes: &LayerSizes<'_>,
    known: &mut Listings,
    box_name: &BoxName,
) -> Result<Listing> {
    let open = store.open_box(box_name)?;
    // Before they are read: what changes meanwhile changes it.
    let stamp = store.names_stamp(box_name);
    let (listed, is_new) = match known.of(box_name, stamp) {
        Some(listed) => (listed, false),
        None => (read(&open, sizes)?, true),
    };
    known.add(box_name, stamp, &listed, is_new);
    listing(&open, listed)
}

/// Reads the names of a box, and of their layers what a listing tells.
fn read(open: &Box_<'_>, sizes: &LayerSizes<'_>) -> Result<Vec<Listed>> {
    let with_size = |entry: SnapshotRef| {
        let size = sizes.of(&entry.layer)?;
        Ok(Listed {
            name: entry.name,
            layer: entry.layer,
            created: entry.created,
            message: entry.message,
            protected: entry.protected,
            depth: size.depth,
            own_bytes: size.own_bytes,
        })
    };
    open.refs()?.into_iter().map(with_size).collect()
}

fn listing(open: &Box_<'_>, listed: Vec<Listed>) -> Result<Listing> {
    let (head, current) = (open.head()?, open.current()?);
    let snapshot = |one: Listed| Snapshot {
        current: current.as_ref() == Some(&one.layer),
        name: one.name,
        layer: one.layer,
        created: one.created,
        message: one.message,
        protected: one.protected,
        depth: one.depth,
        own_bytes: one.own_bytes,
    };
    let mut snapshots: Vec<_> = listed.into_iter().map(snapshot).collect();
    snapshots.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
    Ok(Listing { box_name: open.name().clone(), head, current, snapshots })
}
