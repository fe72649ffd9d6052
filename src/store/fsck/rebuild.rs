//! Records that are lost, from what other records tell.

use jiff::Timestamp;

use super::Survey;
use crate::store::{LayerId, LayerRecord};

/// The record of a layer, from that of one that stands on it: the chain, and so parent and depth, are
/// certain. The command that made it is not known any more, and what is in it has to be counted. None if
/// nothing stands on it, or if folds make the chain uncertain.
pub(super) fn from_others(id: &LayerId, survey: &Survey) -> Option<LayerRecord> {
    let all = survey.layers.values().filter_map(|found| found.record.as_ref());
    let above = all.into_iter().find(|record| {
        record.mount.contains(id) && record.mount.len() == record.depth as usize + 1
    })?;
    let place = above.mount.iter().position(|layer| layer == id)?;
    Some(LayerRecord {
        id: *id,
        parent: place.checked_sub(1).and_then(|below| above.mount.get(below)).copied(),
        depth: u32::try_from(place).ok()?,
        mount: above.mount.get(..=place)?.to_vec(),
        folds: Vec::new(),
        created: id.created().unwrap_or(Timestamp::UNIX_EPOCH),
        argv: Vec::new(),
        exit: None,
        files: 0,
        own_bytes: 0,
        diff_id: None,
        unmapped: 0,
    })
}
