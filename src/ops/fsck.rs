//! Looks for damage, and mends it.
//!
//! The store looks at everything of ours ([`crate::store::Survey`]); here the trees of layers are looked at,
//! inside the user namespace: what must not be in one, the counts of the record, and, where there are digests,
//! every file. Trees are read without any lock: a layer is moved away before the first of its files is
//! removed, so what was found counts only if the layer is still in its place afterwards.

mod lost;
mod trees;

use std::time::Duration;

use serde::Serialize;

use crate::fault::{Fault, Result};
use crate::store::{Action, BoxName, Damage, LayerId, Note, Remedy, Store, Survey};

use super::layermaps::LayerMaps;
use super::seal;

pub(super) use trees::{Found, look_into};

/// What to do.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request {
    /// Mend what can be mended.
    pub repair: bool,
    /// Make digests of layers that have none.
    pub seal: bool,
    /// Look into the tree of this layer only.
    pub layer: Option<LayerId>,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whether the store is whole, after the repair if there was one.
    pub ok: bool,
    /// What was found.
    pub damage: Vec<Damage>,
    /// What is of no harm.
    pub notes: Vec<Note>,
    /// How many layers there are.
    pub layers: usize,
    /// How many of them have digests.
    pub sealed: usize,
    /// What was done about it.
    pub repaired: Vec<Action>,
}

/// Checks the store. Names of snapshots in the report are those of box `home`, or `BOX/NAME`.
///
/// # Errors
/// Not found for a layer that is not there; host or conflict if the id map of a layer cannot be made here;
/// busy for a repair while others hold the store for longer than `wait`. Damage is no error.
pub fn fsck(store: &Store, home: &BoxName, request: Request, wait: Duration) -> Result<Report> {
    let mut survey = look(store, request.layer)?;
    survey.tell_who_needs_it(home);
    let mut damage = damage_of(&survey);
    let mut ok = damage.is_empty();
    let mut repaired = Vec::new();
    if request.repair && !ok {
        let boxes = lost::boxes(store, &survey)?;
        repaired = store.repair(&survey, &boxes, wait)?;
        survey = look(store, request.layer)?;
        ok = survey.findings.is_empty();
    }
    if request.seal {
        let wanted = |id: &LayerId| request.layer.is_none_or(|layer| layer == *id);
        let known = survey.findings.len();
        seal::all(store, &mut survey, &wanted)?;
        // To make digests all is read, for the first time perhaps.
        if survey.findings.len() > known {
            survey.tell_who_needs_it(home);
            let new = damage_of(&survey).into_iter().filter(|one| !damage.contains(one));
            let new: Vec<_> = new.collect();
            damage.extend(new);
            ok = false;
        }
    }
    Ok(Report {
        ok,
        damage,
        notes: std::mem::take(&mut survey.notes),
        layers: survey.layers.len(),
        sealed: survey.layers.values().filter(|layer| layer.sealed).count(),
        repaired,
    })
}

fn damage_of(survey: &Survey) -> Vec<Damage> {
    survey.findings.iter().map(|one| one.damage.clone()).collect()
}

/// Everything that can be found.
fn look(store: &Store, only: Option<LayerId>) -> Result<Survey> {
    let mut survey = store.survey()?;
    let unknown = |id: &LayerId| survey.is_all_read() && !survey.layers.contains_key(id);
    if let Some(id) = only.filter(unknown) {
        return Err(Fault::not_found(format!("check layer: {id}: there is no such layer"))
            .hint("`sandbox show` tells the layers of a snapshot"));
    }
    let ids: Vec<_> =
        survey.layers.keys().copied().filter(|id| only.is_none_or(|o| o == *id)).collect();
    for (map, layers) in maps(&survey).group(store, &ids)? {
        for found in look_into(store, &map, &layers)? {
            judge(&mut survey, found);
        }
    }
    Ok(survey)
}

/// Which map the layers of a survey are of.
pub(super) fn maps(survey: &Survey) -> LayerMaps {
    LayerMaps::new(survey.needs().into_iter())
}

/// What was found in one tree becomes damage.
fn judge(survey: &mut Survey, found: Found) {
    let Found { layer, files, bytes, damage, .. } = found;
    for one in damage {
        survey.add_tree_damage(layer, &one.path, one.kind, &one.detail);
    }
    // A record that is made anew from others knows the tree only now.
    for finding in &mut survey.findings {
        if let Remedy::Rewrite(record) = &mut finding.remedy
            && record.id == layer
            && record.files == 0
        {
            (record.files, record.own_bytes) = (files, bytes);
        }
    }
}
