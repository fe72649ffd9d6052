//! Is what a run is to start from what it was? Looked at before, when somebody asks for it.

use crate::fault::{Fault, Result, printable};
use crate::ids::IdMap;
use crate::store::{LayerId, LayerRecord, Store};

use super::fsck::look_into;

/// Checks every layer of a chain: its record, what may be in it, its counts and, if it has digests, every file.
///
/// # Errors
/// Damaged, naming the first path that is not what it was and the snapshots that need it; host or conflict
/// if the map cannot be made here.
pub(super) fn chain(store: &Store, top: &LayerRecord, map: &IdMap) -> Result<()> {
    for id in &top.mount {
        store.layer(id)?;
        store.manifest(id)?;
    }
    for found in look_into(store, map, &top.mount)? {
        let Some(first) = found.damage.first() else { continue };
        let path = printable(&String::from_utf8_lossy(&first.path));
        let more = match found.damage.len() - 1 {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        let names = names(store, &found.layer)?;
        let needed = if names.is_empty() { "no snapshot".to_owned() } else { names.join(", ") };
        return Err(Fault::damaged(format!(
            "verify: layer {}: /{path}: {}{more}; needed by {needed}",
            found.layer, first.detail
        )));
    }
    Ok(())
}

/// The snapshots that need a layer, as `BOX/NAME`.
fn names(store: &Store, layer: &LayerId) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for record in store.boxes()? {
        for found in store.open_box(&record.name)?.refs()? {
            if store.layer(&found.layer).is_ok_and(|one| one.mount.contains(layer)) {
                names.push(format!("{}/{}", record.name, found.name));
            }
        }
    }
    Ok(names)
}
