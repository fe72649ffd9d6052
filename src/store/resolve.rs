//! From what the user typed to a layer.

use std::collections::BTreeSet;

use super::name::escaped;
use super::{BoxName, LayerId, SnapshotName, Store};
use crate::fault::{Fault, Kind, Result};

/// An id may be cut to this many letters.
const SHORTEST_PREFIX: usize = 4;

/// What a text stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The box.
    pub box_name: BoxName,
    /// The snapshot, if it was named; none for `head`, `current` and ids.
    pub name: Option<SnapshotName>,
    /// The layer.
    pub layer: LayerId,
}

impl Store {
    /// Resolves `NAME`, `BOX/NAME`, `head`, `current` or the start of a layer's id (4 letters or more, of a
    /// layer that the box knows), in this order of preference: an exact name wins. For a name this is one
    /// file to read. Hold the shared lock until what is built on the answer is recorded.
    ///
    /// # Errors
    /// Usage if it cannot be a name; not-found, also for the id of a layer that was folded away; conflict if
    /// more than one id starts so.
    pub fn resolve(&self, default_box: &BoxName, spec: &str) -> Result<Resolved> {
        let (box_name, spec) = match spec.split_once('/') {
            Some((box_name, spec)) => (box_name.parse()?, spec),
            None => (default_box.clone(), spec),
        };
        let answer = |name, layer| Resolved { box_name: box_name.clone(), name, layer };
        if matches!(spec, "head" | "current") {
            let head = self.box_head(&box_name)?;
            let layer = if spec == "head" { head.head } else { head.current };
            return match layer {
                Some(layer) => Ok(answer(None, layer)),
                None => Err(self.unknown_in(&box_name, spec)),
            };
        }
        let name: SnapshotName = spec.parse()?;
        if let Some(found) = self.box_ref(&box_name, &name)? {
            return Ok(answer(Some(name), found.layer));
        }
        match self.by_prefix(&box_name, spec)? {
            Some(layer) => Ok(answer(None, layer)),
            None => Err(self.unknown_in(&box_name, spec)),
        }
    }

    fn by_prefix(&self, box_name: &BoxName, spec: &str) -> Result<Option<LayerId>> {
        if spec.len() < SHORTEST_PREFIX {
            return Ok(None);
        }
        let present = self.layers()?.into_iter();
        let mut fitting: BTreeSet<_> = present.filter(|id| id.as_str().starts_with(spec)).collect();
        if fitting.is_empty() {
            return Ok(None);
        }
        // Layers of another box have owners of another map: they are not for this one.
        let known = self.known_layers(box_name)?;
        fitting.retain(|id| known.contains(id));
        // Of what a fold layer stands for now, only later layers can be opened.
        let mut folded = Ok(None);
        fitting.retain(|id| match self.openable(id) {
            Err(fault) if fault.kind == Kind::NotFound => {
                folded = Err(fault);
                false
            }
            // Damage is told by whoever opens it.
            _ => true,
        });
        match fitting.len() {
            0 => folded,
            1 => Ok(fitting.pop_first()),
            count => {
                let message =
                    format!("resolve snapshot: {spec}: {count} layers have ids that start so");
                Err(Fault::conflict(message)
                    .hint("give more letters: `sandbox list --json` shows ids in full"))
            }
        }
    }

    /// The layers beneath the snapshots, head and current of a box, and those in its log.
    fn known_layers(&self, box_name: &BoxName) -> Result<BTreeSet<LayerId>> {
        let head = self.box_head(box_name)?;
        let tips = self.box_refs(box_name)?.into_iter().map(|found| found.layer);
        let tips: BTreeSet<_> = tips.chain(head.head).chain(head.current).collect();
        let mut known: BTreeSet<_> = self
            .box_log(box_name)?
            .iter()
            .flat_map(|entry| entry.layers().collect::<Vec<_>>())
            .collect();
        for tip in tips {
            known.extend(self.layer(&tip)?.mount);
        }
        Ok(known)
    }

    /// Why a name could not be resolved: there is no such box, or no such snapshot in it.
    fn unknown_in(&self, box_name: &BoxName, spec: &str) -> Fault {
        match self.box_record(box_name) {
            Err(fault) => fault,
            Ok(_) => unknown(box_name, spec),
        }
    }
}

/// There is no such snapshot.
pub(super) fn unknown(box_name: &BoxName, spec: &str) -> Fault {
    let spec = escaped(spec);
    Fault::not_found(format!("resolve snapshot: {spec}: there is none in box {box_name}"))
        .hint(format!("`sandbox list --box {box_name}` shows all"))
}
