//! All about one snapshot.

use jiff::Timestamp;
use serde::Serialize;

use crate::fault::{Kind, Result};
use crate::ids::IdMap;
use crate::store::{BoxName, LayerId, SnapshotName, Store};

/// A snapshot, its layer, and the box it is in.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// The name it was asked for by, if it was by a name.
    pub name: Option<SnapshotName>,
    /// Its layer.
    pub layer: LayerId,
    /// The layer beneath.
    pub parent: Option<LayerId>,
    /// All layers it is made of, the base first.
    pub chain: Vec<LayerId>,
    /// When the layer was made.
    pub created: Timestamp,
    /// The command that made it.
    pub argv: Vec<String>,
    /// That command's exit code.
    pub exit: Option<i32>,
    /// Entries of the layer itself.
    pub files: u64,
    /// Bytes of the files of the layer itself.
    pub own_bytes: u64,
    /// Entries of the layer itself whose owner or device the disk cannot hold.
    pub remembered: u64,
    /// The box's map.
    pub id_map: IdMap,
    /// What the box was filled from.
    pub source: String,
}

/// Everything about the snapshot that `spec` names.
///
/// # Errors
/// Not found if nothing is named so; damaged if it, or a layer beneath it, is not there.
pub fn show(store: &Store, box_name: &BoxName, spec: &str) -> Result<Shown> {
    let _lock = store.lock_shared()?;
    let found = store.resolve(box_name, spec)?;
    let record = match store.openable(&found.layer) {
        // Folded away: no longer to be opened, and its record is there yet.
        Err(fault) if fault.kind == Kind::NotFound => store.layer(&found.layer)?,
        opened => opened?,
    };
    let owners = store.layer_owners(&found.layer)?.unwrap_or_default();
    let remembered = owners.iter().filter(|byte| **byte == b'\n').count();
    let home = store.box_record(&found.box_name)?;
    Ok(Shown {
        name: found.name,
        layer: found.layer,
        parent: record.parent,
        chain: record.mount,
        created: record.created,
        argv: record.argv,
        exit: record.exit,
        files: record.files,
        own_bytes: record.own_bytes,
        remembered: remembered as u64,
        id_map: home.id_map,
        source: home.source,
    })
}
