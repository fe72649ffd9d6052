//! The trees of layers, looked at inside the user namespace, a few dozen at a time.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use crate::fault::{Fault, Kind, Result};
use crate::ids::{self, Entry, IdMap, Powers};
use crate::store::{DamageKind, LayerId, LayerRecord, Store};
use crate::tree::manifest::{How, compare, read_lines};
use crate::tree::measure::examine;
use crate::tree::path;

/// How many trees one child looks at: each costs a descriptor.
const BATCH: usize = 64;

/// What was found in one tree.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::ops) struct Found {
    pub(in crate::ops) layer: LayerId,
    pub(in crate::ops) files: u64,
    pub(in crate::ops) bytes: u64,
    pub(in crate::ops) damage: Vec<InTree>,
}

/// One path of it.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::ops) struct InTree {
    #[serde(flatten, with = "path")]
    pub(in crate::ops) path: Vec<u8>,
    pub(in crate::ops) kind: DamageKind,
    pub(in crate::ops) detail: String,
}

/// What there is to know of a layer before its tree is looked at.
struct Candidate {
    layer: LayerId,
    tree: OwnedFd,
    record: Option<LayerRecord>,
    lines: Option<Vec<u8>>,
    /// Damage of what lies beside the tree.
    beside: Vec<InTree>,
}

/// Looks into the trees of these layers, whose owners are of this map.
///
/// # Errors
/// Host or conflict if the map cannot be made here; what the system says but of the disk itself.
pub(in crate::ops) fn look_into(
    store: &Store,
    map: &IdMap,
    layers: &[LayerId],
) -> Result<Vec<Found>> {
    ids::check(map)?;
    let mut all = Vec::new();
    for batch in layers.chunks(BATCH) {
        let mut candidates = Vec::new();
        for layer in batch {
            candidates.extend(candidate(store, layer)?);
        }
        let found: Vec<Result<Found>> = ids::inside(Entry::Map(map), Powers::Files, || {
            Ok(candidates.iter().map(one).collect())
        })?;
        for (found, candidate) in found.into_iter().zip(&candidates) {
            // Or gc has moved it away meanwhile, and its files are being removed: no failure either.
            if store.is_tree_of(&candidate.tree, &candidate.layer)? {
                all.push(found?);
            }
        }
    }
    Ok(all)
}

fn candidate(store: &Store, layer: &LayerId) -> Result<Option<Candidate>> {
    let tree = match store.layer_tree(layer) {
        Ok(Some(tree)) => tree,
        Ok(None) => return Ok(None),
        // Told of with the records.
        Err(fault) if fault.kind == Kind::Damaged => return Ok(None),
        Err(fault) => return Err(fault),
    };
    let record = store.layer(layer).ok();
    let mut beside = Vec::new();
    let mut lines = None;
    // One that cannot be read is told of with the records.
    if let Some(manifest) = store.manifest(layer).ok().flatten() {
        let why = match store.fits_owners(layer, &manifest) {
            Ok(true) => None,
            Ok(false) => Some("remembered owners are not what they were"),
            Err(fault) if fault.kind == Kind::Damaged => Some("remembered owners cannot be read"),
            Err(fault) => return Err(fault),
        };
        beside.extend(why.map(|why| in_tree(b"", DamageKind::Metadata, why)));
        lines = Some(manifest.lines);
    }
    Ok(Some(Candidate { layer: *layer, tree, record, lines, beside }))
}

fn in_tree(path: &[u8], kind: DamageKind, detail: &str) -> InTree {
    InTree { path: path.to_vec(), kind, detail: detail.to_owned() }
}

/// One tree. Runs inside.
fn one(candidate: &Candidate) -> Result<Found> {
    let tree = candidate.tree.as_fd();
    let (totals, refused) = examine(tree).map_err(|fault| of_layer(&candidate.layer, fault))?;
    let (files, bytes) = (totals.files, totals.bytes);
    let mut found = Found { layer: candidate.layer, files, bytes, damage: Vec::new() };
    found
        .damage
        .extend(candidate.beside.iter().map(|one| in_tree(&one.path, one.kind, &one.detail)));
    let unread = refused.iter().any(|one| one.unread);
    for one in refused {
        match (one.unread, &candidate.lines) {
            // With digests all is read again, and told of then.
            (true, Some(_)) => {}
            (true, None) => found.damage.push(in_tree(&one.path, DamageKind::Content, &one.why)),
            (false, _) => found.damage.push(in_tree(&one.path, DamageKind::Metadata, &one.why)),
        }
    }
    match &candidate.lines {
        Some(lines) => content(tree, lines, &mut found)?,
        // What cannot be read is not counted.
        None if unread => {}
        // Without digests this is all there is: which path it is cannot be told.
        None => counts(candidate.record.as_ref(), &mut found),
    }
    Ok(found)
}

fn of_layer(layer: &LayerId, fault: Fault) -> Fault {
    Fault { message: format!("check layer {layer}: {}", fault.message), ..fault }
}

fn content(tree: BorrowedFd<'_>, lines: &[u8], found: &mut Found) -> Result<()> {
    for one in compare(tree, read_lines(lines)?)? {
        let kind = match one.how {
            How::Missing => DamageKind::Missing,
            How::Extra => DamageKind::Extra,
            How::Content => DamageKind::Content,
            How::Metadata => DamageKind::Metadata,
        };
        found.damage.push(InTree { path: one.path, kind, detail: one.detail });
    }
    Ok(())
}

fn counts(record: Option<&LayerRecord>, found: &mut Found) {
    let Some(record) = record else { return };
    let kind = match found.files.cmp(&record.files) {
        std::cmp::Ordering::Less => DamageKind::Missing,
        std::cmp::Ordering::Greater => DamageKind::Extra,
        std::cmp::Ordering::Equal if found.bytes != record.own_bytes => DamageKind::Content,
        std::cmp::Ordering::Equal => return,
    };
    let detail = format!(
        "{} entries and {} bytes, the record says {} and {}",
        found.files, found.bytes, record.files, record.own_bytes
    );
    found.damage.push(in_tree(b"", kind, &detail));
}
