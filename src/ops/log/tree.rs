//! The layers of a box as a tree.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use jiff::Timestamp;
use serde::Serialize;

use crate::fault::Result;
use crate::store::{Box_, LayerId, LogEntry, SnapshotName, Store};

/// A layer of a box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Its id.
    pub layer: LayerId,
    /// The layer beneath.
    pub parent: Option<LayerId>,
    /// The snapshots that name it, by name.
    pub names: Vec<SnapshotName>,
    /// Whether it is head.
    pub head: bool,
    /// Whether it is current.
    pub current: bool,
    /// When it was made; none if gc has removed it.
    pub created: Option<Timestamp>,
    /// The command that made it; empty for one that was imported.
    pub argv: Vec<String>,
    /// Bytes of its own files.
    pub own_bytes: u64,
    /// Whether gc has removed it.
    pub gone: bool,
}

/// All layers that the box knows and those beneath them: children before their parents, else the newest
/// first. What only the log knows and is gone is left out.
pub(super) fn layers(
    store: &Store,
    open: &Box_<'_>,
    log: &[LogEntry],
    limit: Option<usize>,
) -> Result<Vec<Node>> {
    let mut names: BTreeMap<LayerId, Vec<SnapshotName>> = BTreeMap::new();
    for found in open.refs()? {
        names.entry(found.layer).or_default().push(found.name);
    }
    let (head, current) = (open.head()?, open.current()?);
    let mut tips: BTreeSet<LayerId> = names.keys().copied().chain(head).chain(current).collect();
    for layer in log.iter().flat_map(LogEntry::layers).collect::<BTreeSet<_>>() {
        if store.has_layer(&layer)? {
            tips.insert(layer);
        }
    }
    let mut nodes: BTreeMap<LayerId, Node> = BTreeMap::new();
    let mut open: Vec<LayerId> = tips.into_iter().collect();
    while let Some(layer) = open.pop() {
        if nodes.contains_key(&layer) {
            continue;
        }
        let mut node = read(store, layer)?;
        node.names = names.remove(&layer).unwrap_or_default();
        (node.head, node.current) = (head == Some(layer), current == Some(layer));
        open.extend(node.parent);
        nodes.insert(layer, node);
    }
    let mut sorted = in_order(nodes);
    sorted.truncate(limit.unwrap_or(usize::MAX));
    Ok(sorted)
}

fn read(store: &Store, layer: LayerId) -> Result<Node> {
    let mut node = Node {
        layer,
        parent: None,
        names: Vec::new(),
        head: false,
        current: false,
        created: None,
        argv: Vec::new(),
        own_bytes: 0,
        gone: true,
    };
    if store.has_layer(&layer)? {
        let record = store.layer(&layer)?;
        node.parent = record.parent;
        node.created = Some(record.created);
        node.argv = record.argv;
        node.own_bytes = record.own_bytes;
        node.gone = false;
    }
    Ok(node)
}

fn in_order(mut nodes: BTreeMap<LayerId, Node>) -> Vec<Node> {
    let mut children: BTreeMap<LayerId, usize> = BTreeMap::new();
    for parent in nodes.values().filter_map(|node| node.parent) {
        *children.entry(parent).or_default() += 1;
    }
    let key = |node: &Node| (node.created, node.layer);
    let mut ready: BinaryHeap<_> =
        nodes.values().filter(|node| !children.contains_key(&node.layer)).map(key).collect();
    let mut sorted = Vec::with_capacity(nodes.len());
    while let Some((_, layer)) = ready.pop() {
        let Some(node) = nodes.remove(&layer) else { continue };
        if let Some(parent) = node.parent {
            let left = children.entry(parent).or_default();
            *left = left.saturating_sub(1);
            if *left == 0 {
                ready.extend(nodes.get(&parent).map(key));
            }
        }
        sorted.push(node);
    }
    sorted
}
