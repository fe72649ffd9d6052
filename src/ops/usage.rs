//! What entries of the store take on disk: what is ours outside, the rest in the user namespace of whose it is.

use std::os::fd::AsFd;

use crate::fault::Result;
use crate::ids::{self, Entry, IdMap, Powers};
use crate::store::{LayerId, Store};
use crate::tree::usage::{Usage, usage};

use super::layermaps::LayerMaps;

/// How many entries one child measures: each costs up to three descriptors.
const BATCH: usize = 64;

/// The maps of the boxes and runs of a store.
///
/// # Errors
/// Damaged if a record cannot be read.
pub(super) fn maps(store: &Store) -> Result<LayerMaps> {
    let mut needs: Vec<(IdMap, Vec<LayerId>)> = Vec::new();
    for record in store.boxes()? {
        let opened = store.open_box(&record.name)?;
        let named = opened.refs()?.into_iter().map(|found| found.layer);
        let mut layers = Vec::new();
        for tip in named.chain(opened.head()?).chain(opened.current()?) {
            layers.extend(store.layer(&tip)?.mount);
        }
        needs.push((record.id_map, layers));
    }
    needs.extend(store.runs()?.into_iter().map(|(run, _)| (run.id_map, run.chain)));
    Ok(LayerMaps::new(needs.iter().map(|(map, layers)| (map, layers.clone()))))
}

/// Measures entries of the store, given as paths beneath it.
///
/// # Errors
/// Host or conflict if no map that fits can be made here; what the system says.
pub(super) fn measure(store: &Store, maps: &mut LayerMaps, paths: &[String]) -> Result<Vec<Usage>> {
    let mut all = vec![Usage::default(); paths.len()];
    for (map, places) in maps.group_paths(store, paths)? {
        ids::check(&map)?;
        for batch in places.chunks(BATCH) {
            let mut parts = Vec::new();
            for place in batch {
                parts.push(store.part(&paths[*place])?);
            }
            let foreign = parts.iter().any(|part| !part.foreign.is_empty());
            let inside = || {
                let measured = parts.iter().map(|part| {
                    let mut sum = Usage::default();
                    for tree in &part.foreign {
                        sum.merge(&usage(tree.as_fd())?);
                    }
                    Ok(sum)
                });
                measured.collect::<Result<Vec<Usage>>>()
            };
            let measured = match foreign {
                true => ids::inside(Entry::Map(&map), Powers::Files, inside)?,
                false => vec![Usage::default(); parts.len()],
            };
            for ((place, part), mut usage) in batch.iter().zip(&parts).zip(measured) {
                usage.bytes += part.own;
                all[*place] = usage;
            }
        }
    }
    Ok(all)
}
