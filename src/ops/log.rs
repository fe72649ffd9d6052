//! What was done to a box, and the tree of its layers.

mod tree;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

pub use tree::Node;

use crate::fault::Result;
use crate::store::{BoxName, LayerId, LogEntry, MoveId, Moved, SnapshotName, Store};

/// What to list.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request {
    /// No more than so many, the newest.
    pub limit: Option<usize>,
    /// The layers instead of the moves.
    pub graph: bool,
}

/// The log of a box.
#[derive(Debug, Serialize)]
pub struct Log {
    /// The box.
    #[serde(rename = "box")]
    pub box_name: BoxName,
    /// The moves, the newest first.
    pub entries: Vec<Entry>,
    /// The layers, children before their parents, the newest first; none unless asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<Node>>,
    /// Lines of the log that are damaged and left out.
    pub unreadable: usize,
}

/// A move.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// When.
    pub time: Timestamp,
    /// The command that moved something.
    pub action: String,
    /// What the name, else head, else current was before; none if several names were moved.
    pub old: Option<LayerId>,
    /// What it is after.
    pub new: Option<LayerId>,
    /// The snapshot that was moved, or moved to, if it was one.
    pub name: Option<SnapshotName>,
    /// The command inside, of a run.
    pub argv: Vec<String>,
    /// The layer that was made, if one was.
    pub layer: Option<LayerId>,
    /// Which move it is.
    #[serde(rename = "move")]
    pub id: Option<MoveId>,
    /// Whether an undo has taken it back.
    pub undone: bool,
    /// The move that it took back, of an undo.
    pub undoes: Option<Undoes>,
    /// All that it moved: names, head, current.
    pub changes: Vec<Moved>,
    /// Those of these layers that gc has removed since.
    pub gone: Vec<LayerId>,
}

/// A move that was taken back.
#[derive(Debug, Clone, Serialize)]
pub struct Undoes {
    /// Which one.
    #[serde(rename = "move")]
    pub id: MoveId,
    /// What it was, as long as the log knows it.
    pub action: Option<String>,
}

/// The log, the newest move first, and with `graph` the layers that names, head, current and the log know,
/// down to the first.
///
/// # Errors
/// Not found without the box; damaged if what a snapshot or a layer is cannot be read.
pub fn log(store: &Store, box_name: &BoxName, request: Request) -> Result<Log> {
    let _lock = store.lock_shared()?;
    let open = store.open_box(box_name)?;
    let (all, unreadable) = open.log_and_damage()?;
    let layers = match request.graph {
        true => Some(tree::layers(store, &open, &all, request.limit)?),
        false => None,
    };
    let actions: BTreeMap<MoveId, &str> =
        all.iter().filter_map(|entry| Some((entry.id?, entry.action.as_str()))).collect();
    let undone: BTreeSet<MoveId> = all.iter().filter_map(|entry| entry.undoes).collect();
    let limit = request.limit.unwrap_or(usize::MAX);
    let mut entries = Vec::with_capacity(all.len().min(limit));
    for entry in all.iter().rev().take(limit) {
        entries.push(told(store, entry, &actions, &undone)?);
    }
    Ok(Log { box_name: box_name.clone(), entries, layers, unreadable })
}

fn told(
    store: &Store,
    entry: &LogEntry,
    actions: &BTreeMap<MoveId, &str>,
    undone: &BTreeSet<MoveId>,
) -> Result<Entry> {
    let mut gone = Vec::new();
    for layer in entry.layers().collect::<BTreeSet<_>>() {
        if !store.has_layer(&layer)? {
            gone.push(layer);
        }
    }
    let undoes = entry
        .undoes
        .map(|id| Undoes { id, action: actions.get(&id).map(|action| (*action).to_owned()) });
    Ok(Entry {
        time: entry.time,
        action: entry.action.clone(),
        old: entry.old,
        new: entry.new,
        name: entry.name.clone(),
        argv: entry.argv.clone(),
        layer: entry.layer,
        id: entry.id,
        undone: entry.id.is_some_and(|id| undone.contains(&id)),
        undoes,
        changes: entry.moved(),
        gone,
    })
}
