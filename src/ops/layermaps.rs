//! Which id map the owners in a layer are of. Layers do not say: it is that of the boxes and runs that need
//! them.

use std::collections::BTreeMap;

use rustix::fs::{AtFlags, statat};

use crate::fault::Result;
use crate::ids::{self, IdMap, Mode};
use crate::store::{LayerId, Store};

/// The maps of a store.
#[derive(Debug)]
pub(super) struct LayerMaps {
    known: Vec<IdMap>,
    /// Places in `known`.
    needed: BTreeMap<LayerId, usize>,
}

impl LayerMaps {
    /// Maps and what needs them: `(map, layers)`, in the order of preference.
    pub(super) fn new<'a>(needs: impl Iterator<Item = (&'a IdMap, Vec<LayerId>)>) -> Self {
        let mut maps = Self { known: Vec::new(), needed: BTreeMap::new() };
        for (map, layers) in needs {
            let place = maps.place(map);
            for layer in layers {
                maps.needed.entry(layer).or_insert(place);
            }
        }
        maps
    }

    fn place(&mut self, map: &IdMap) -> usize {
        let same = self.known.iter().position(|known| known.same_owners(map));
        same.unwrap_or_else(|| {
            self.known.push(map.clone());
            self.known.len() - 1
        })
    }

    /// Puts layers together that one map holds. One that nothing needs goes where the owner of its root
    /// directory is 0 inside; else to the first map there is.
    ///
    /// # Errors
    /// If there is no box and no run, what making a map says.
    pub(super) fn group(
        &mut self,
        store: &Store,
        layers: &[LayerId],
    ) -> Result<Vec<(IdMap, Vec<LayerId>)>> {
        let mut groups: BTreeMap<usize, Vec<LayerId>> = BTreeMap::new();
        for layer in layers {
            let place = match self.needed.get(layer) {
                Some(place) => *place,
                None => self.guess(store, &format!("layers/{layer}"))?,
            };
            groups.entry(place).or_default().push(*layer);
        }
        Ok(groups.into_iter().map(|(place, all)| (self.known[place].clone(), all)).collect())
    }

    /// The same for entries of the store, which are given and returned by their place in `paths`.
    ///
    /// # Errors
    /// As [`LayerMaps::group`].
    pub(super) fn group_paths(
        &mut self,
        store: &Store,
        paths: &[String],
    ) -> Result<Vec<(IdMap, Vec<usize>)>> {
        let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (number, path) in paths.iter().enumerate() {
            let layer = path.strip_prefix("layers/").and_then(|id| id.parse().ok());
            let place = match layer.and_then(|layer: LayerId| self.needed.get(&layer)) {
                Some(place) => *place,
                None => self.guess(store, path)?,
            };
            groups.entry(place).or_default().push(number);
        }
        Ok(groups.into_iter().map(|(place, all)| (self.known[place].clone(), all)).collect())
    }

    /// The owner of what a payload may have made decides, if there is a choice.
    fn guess(&mut self, store: &Store, path: &str) -> Result<usize> {
        if self.known.len() == 1 {
            return Ok(0);
        }
        let look = |path: &str| statat(store.dir(), path, AtFlags::SYMLINK_NOFOLLOW).ok();
        let stat = ["/fs", "/layer/fs", ""].iter().find_map(|rest| look(&format!("{path}{rest}")));
        let owner = stat.map(|stat| (stat.st_uid, stat.st_gid));
        if let Some(place) = self.known.iter().position(|map| Some(map.root_owner()) == owner) {
            return Ok(place);
        }
        if !self.known.is_empty() {
            return Ok(0);
        }
        let map = candidates().find(|map| Some(map.root_owner()) == owner);
        let map = map.map_or_else(|| ids::choose(None), Ok)?;
        Ok(self.place(&map))
    }
}

/// The maps that this user can make here, tried out when they are asked for.
pub(super) fn candidates() -> impl Iterator<Item = IdMap> {
    [Mode::Subuid, Mode::Range, Mode::Identity, Mode::Single]
        .into_iter()
        .filter_map(|mode| ids::choose(Some(mode)).ok())
}
