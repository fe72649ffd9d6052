//! Records of boxes that have lost theirs: from the id map of others and the owner of what lies in them.

use jiff::Timestamp;
use rustix::fs::{AtFlags, statat};

use crate::fault::Result;
use crate::ids::IdMap;
use crate::ops::layermaps::candidates;
use crate::store::{BoxRecord, BoxSettings, Remedy, Store, Survey};

/// A record for each box of the survey that needs one and whose map can be told. The settings, and what it
/// was filled from, are lost.
pub(super) fn boxes(store: &Store, survey: &Survey) -> Result<Vec<BoxRecord>> {
    let mut made = Vec::new();
    for finding in &survey.findings {
        let Remedy::Box(name) = &finding.remedy else { continue };
        let mut runs = survey.runs.iter().map(|(run, _)| run);
        let of_run = runs.find(|run| run.box_name == *name).map(|run| run.id_map.clone());
        let map = of_run.or_else(|| {
            let others = survey.boxes.iter().map(|one| one.id_map.clone());
            others.chain(candidates()).find(|map| fits(store, survey, name.as_str(), map))
        });
        made.extend(map.map(|id_map| BoxRecord {
            first: None,
            name: name.clone(),
            id_map,
            source: "unknown: the record was lost".to_owned(),
            identity: String::new(),
            created: Timestamp::now(),
            settings: BoxSettings::default(),
        }));
    }
    Ok(made)
}

/// Whether root inside owns the root directory of a layer of the box; any map does for a box without one.
fn fits(store: &Store, survey: &Survey, name: &str, map: &IdMap) -> bool {
    let mut owners = survey.layers_of(name).into_iter().filter_map(|layer| {
        let path = format!("layers/{layer}/fs");
        let stat = statat(store.dir(), &path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some((stat.st_uid, stat.st_gid))
    });
    let first = owners.next();
    first.is_none_or(|owner| owner == map.root_owner()) || owners.any(|one| one == map.root_owner())
}
