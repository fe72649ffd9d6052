//! Chains that have become too long to mount: which layers a fold layer is to stand for, and who has one
//! already.
//!
//! The base of a box stays what it is, and the newest layers stay too; what lies between becomes one layer.
//! So a fold costs what was changed since the box was filled, and diffs of recent snapshots see single
//! layers.

use super::{BoxName, LayerId, LayerRecord, Store};
use crate::fault::{Fault, Kind, Result};

/// The most layers that a new layer is mounted with, itself included. With as many a run starts in not much more than the
/// time of one from three layers: each is a mount more, and is looked into for each name that is new.
const LONGEST: usize = 64;

/// The most that may be wished for. overlayfs takes 500 lowers; a run adds one of its own.
const MOST: usize = 400;

/// Of as many layers one is left as it is.
const NEWEST: usize = 8;

/// The fewest that leave something to fold.
const SHORTEST: usize = 4;

/// In a store inside a run a chain may be so many times as long: what was lent cannot be folded there, since no hard
/// link leads to another mount, and is when the new layers are taken in.
const LONGER_INSIDE: usize = 5;

/// A hidden variable of the environment, for tests: fold earlier, or later.
const LONGEST_VARIABLE: &str = "SANDBOX_LONGEST_CHAIN";

/// What a fold layer is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoldPlan {
    /// The layer that it will lie on: the base of the box.
    pub ground: LayerId,
    /// The layers to merge, lowest first.
    pub layers: Vec<LayerId>,
    /// The layers that will lie on it, lowest first.
    pub rest: Vec<LayerId>,
    /// What it stands for: `layers`, with those that are fold layers themselves replaced by what they stand
    /// for.
    pub folds: Vec<LayerId>,
}

impl FoldPlan {
    /// The chain with this fold layer in it.
    pub fn mount(&self, fold: LayerId) -> Vec<LayerId> {
        [self.ground, fold].into_iter().chain(self.rest.iter().copied()).collect()
    }
}

impl Store {
    /// What has to be folded before one more layer can be made on top of `parent`; none if nothing has.
    ///
    /// # Errors
    /// Damaged, if a layer of the chain cannot be read; conflict in a store inside a run, if what was lent would have
    /// to be folded.
    pub fn fold_plan(&self, parent: &LayerRecord) -> Result<Option<FoldPlan>> {
        let longest = longest();
        if parent.mount.len() < longest {
            return Ok(None);
        }
        let kept = (longest / NEWEST).max(1);
        let (old, rest) = parent.mount.split_at(parent.mount.len() - kept);
        let (ground, layers) = old
            .split_first()
            .ok_or_else(|| Fault::damaged(format!("fold chain: {}: it has no base", parent.id)))?;
        if layers.iter().any(|id| self.is_outer(id)) {
            if parent.mount.len() < (longest * LONGER_INSIDE).min(MOST) {
                return Ok(None);
            }
            return Err(Fault::conflict(format!(
                "fold chain: {}: it has {} layers, and those of the store around cannot be folded in here",
                parent.id,
                parent.mount.len()
            ))
            .hint("end the command around with 0: what was made so far is taken in, and folded there"));
        }
        let mut folds = Vec::new();
        for id in layers {
            folds.extend(self.stands_for(id)?);
        }
        Ok(Some(FoldPlan { ground: *ground, layers: layers.to_vec(), rest: rest.to_vec(), folds }))
    }

    /// The layers that a layer of a chain stands for: itself, or those that it folds.
    ///
    /// # Errors
    /// Damaged, if it cannot be read.
    pub fn stands_for(&self, id: &LayerId) -> Result<Vec<LayerId>> {
        let record = self.layer(id).map_err(|fault| match fault.kind {
            Kind::NotFound => Fault { kind: Kind::Damaged, ..fault },
            _ => fault,
        })?;
        Ok(if record.folds.is_empty() { vec![*id] } else { record.folds })
    }

    /// The fold layer that another snapshot of this box has for the same layers. It stays as long as the
    /// shared lock is held.
    ///
    /// # Errors
    /// What reading the box says.
    pub fn find_fold(&self, box_name: &BoxName, plan: &FoldPlan) -> Result<Option<LayerId>> {
        let head = self.box_head(box_name)?;
        let named = self.box_refs(box_name)?.into_iter().map(|found| found.layer);
        for layer in named.chain(head.head).chain(head.current) {
            let chain = self.layer(&layer)?.mount;
            let [ground, second, ..] = chain[..] else { continue };
            if ground == plan.ground && self.stands_for(&second)? == plan.folds {
                return Ok(Some(second));
            }
        }
        Ok(None)
    }
}

fn longest() -> usize {
    let wished = std::env::var(LONGEST_VARIABLE).ok().and_then(|text| text.parse().ok());
    wished.unwrap_or(LONGEST).clamp(SHORTEST, MOST)
}
