//! Layers: the directory, the record, and what lies beside the tree.

use rustix::fs::FileType;

use super::boxes::last_part;
use super::{Remedy, Survey, Surveyed, rebuild};
use crate::fault::{Kind, Result};
use crate::store::{LayerId, LayerRecord, Store, layout};
use crate::tree::owners;

/// What lies in the directory of a layer.
const KNOWN: [&str; 4] = ["fs", "layer.json", "manifest", "owners"];

impl Store {
    pub(super) fn look_at_layers(&self, survey: &mut Survey) -> Result<()> {
        if survey.unread.contains(layout::LAYERS) {
            return Ok(());
        }
        self.strays(survey, layout::LAYERS, |entry| entry.parse::<LayerId>().is_ok())?;
        let mut broken = Vec::new();
        for id in self.layers().unwrap_or_default() {
            match self.look_at_layer(survey, id, &mut broken) {
                // What the disk cannot read: the directory of the layer.
                Err(fault) if fault.kind == Kind::Damaged => {
                    let why = last_part(&fault.message);
                    survey.record(Some(id), &layout::layer(&id), &why, Remedy::Layer(id));
                    survey.layers.insert(id, Surveyed { record: None, sealed: false });
                }
                other => other?,
            }
        }
        self.rebuild_records(survey, broken);
        self.look_at_parents(survey);
        Ok(())
    }

    fn look_at_layer(
        &self,
        survey: &mut Survey,
        id: LayerId,
        broken: &mut Vec<(LayerId, String)>,
    ) -> Result<()> {
        let path = layout::layer(&id);
        // Named, and given back to its run meanwhile.
        let Some(stat) = self.look(&path)? else { return Ok(()) };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            survey.record(Some(id), &path, "it is no directory", Remedy::Layer(id));
            return Ok(());
        }
        self.own_folder(survey, &path)?;
        self.look_beside_tree(survey, &id)?;
        let record = match self.layer(&id) {
            Ok(record) => Some(record),
            Err(fault) if matches!(fault.kind, Kind::Damaged | Kind::NotFound) => {
                broken.push((id, last_part(&fault.message)));
                None
            }
            Err(fault) => return Err(fault),
        };
        self.look_at_seal(survey, &id, record.as_ref())?;
        survey.layers.insert(id, Surveyed { record, sealed: self.is_sealed(&id) });
        Ok(())
    }

    fn look_beside_tree(&self, survey: &mut Survey, id: &LayerId) -> Result<()> {
        let tree = layout::tree(id);
        let kind = self.look(&tree)?.map(|stat| FileType::from_raw_mode(stat.st_mode));
        if kind != Some(FileType::Directory) {
            let why = if kind.is_none() { "the tree is missing" } else { "it is no directory" };
            survey.record(Some(*id), &tree, why, Remedy::Layer(*id));
        }
        for file in [layout::layer_record(id), layout::owners(id), layout::manifest(id)] {
            self.own_file_if_any(survey, &file)?;
        }
        self.strays(survey, &layout::layer(id), |entry| KNOWN.contains(&entry))?;
        let bytes = self.layer_owners(id).unwrap_or_default();
        if let Some(Err(fault)) = bytes.map(|bytes| owners::read(&mut &bytes[..])) {
            let why = last_part(&fault.message);
            survey.record(Some(*id), &layout::owners(id), &why, Remedy::Layer(*id));
        }
        Ok(())
    }

    /// The manifest must be whole, and its record the one beside it.
    fn look_at_seal(
        &self,
        survey: &mut Survey,
        id: &LayerId,
        record: Option<&LayerRecord>,
    ) -> Result<()> {
        match self.manifest(id) {
            Ok(Some(manifest)) if record.is_some_and(|record| *record != manifest.record) => {
                let why = "it is not what it was when the digests were made";
                let remedy = Remedy::Rewrite(manifest.record);
                survey.record(Some(*id), &layout::layer_record(id), why, remedy);
            }
            Ok(_) => {}
            Err(fault) if fault.kind == Kind::Damaged => {
                let why = last_part(&fault.message);
                survey.record(Some(*id), &layout::manifest(id), &why, Remedy::Remove);
            }
            Err(fault) => return Err(fault),
        }
        Ok(())
    }

    /// Records that cannot be read are made from a manifest, or from what lies on top.
    fn rebuild_records(&self, survey: &mut Survey, broken: Vec<(LayerId, String)>) {
        for (id, why) in broken {
            let sealed = self.manifest(&id).ok().flatten().map(|manifest| manifest.record);
            let rebuilt = sealed.or_else(|| rebuild::from_others(&id, survey));
            let remedy = rebuilt.clone().map_or(Remedy::Layer(id), Remedy::Rewrite);
            survey.record(Some(id), &layout::layer_record(&id), &why, remedy);
            if let Some(found) = survey.layers.get_mut(&id) {
                found.record = rebuilt;
            }
        }
    }

    /// Records must agree with those of their parents.
    fn look_at_parents(&self, survey: &mut Survey) {
        let all: Vec<_> = survey.layers.values().filter_map(|found| found.record.clone()).collect();
        for record in &all {
            if let Some(why) = contradiction(record, survey) {
                let file = layout::layer_record(&record.id);
                survey.record(Some(record.id), &file, &why, Remedy::Layer(record.id));
            }
        }
    }
}

/// What a record says against that of its parent, if that is there.
fn contradiction(record: &LayerRecord, survey: &Survey) -> Option<String> {
    let parent = match record.parent {
        // Its place in a chain is that of the last of those it stands for.
        _ if !record.folds.is_empty() => return None,
        None if record.depth == 0 => return None,
        None => return Some(format!("it has no parent and the depth {}", record.depth)),
        Some(parent) => survey.layers.get(&parent)?.record.as_ref()?,
    };
    if record.depth != parent.depth + 1 {
        return Some(format!("depth is {}, its parent's is {}", record.depth, parent.depth));
    }
    // Only commits that came after a fold mount it.
    let plain = [record, parent].iter().all(|one| one.mount.len() == one.depth as usize + 1);
    let beneath = record.mount.split_last().map(|(_, beneath)| beneath);
    (plain && beneath != Some(&parent.mount)).then(|| "it mounts not what its parent does".into())
}
