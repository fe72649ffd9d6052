//! What gc is going to remove, found while others go on working.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::io::Errno;

use super::GcOptions;
use super::watch::{Changed, Watch};
use crate::fault::{Context, Result};
use crate::store::failpoint::step;
use crate::store::mark::Marked;
use crate::store::reap::{Corpse, Fate};
use crate::store::{LayerId, SharedLock, Store, file, layout};

/// An unfinished entry of the cache is of a process that died when it is so old.
const STALE: Duration = Duration::from_secs(60 * 60);

/// What was found: all of it was of no use when it was looked at. Records of layers never change and ids are
/// never used again, so only a name or a run can make one of these layers live; of these only what has
/// changed must be read again.
pub(super) struct Plan<'s> {
    store: &'s Store,
    marked: Marked<'s>,
    watch: Watch<'s>,
    undo: Option<Duration>,
    /// Layers that nothing needed.
    pub(super) layers: BTreeSet<LayerId>,
    /// Scaffolds and filters that are old, unfinished entries: as paths.
    pub(super) cache: Vec<String>,
    /// Boxes that were never finished: as paths.
    pub(super) boxes: Vec<String>,
    /// Files that were never finished: as paths.
    pub(super) files: Vec<String>,
}

impl<'s> Plan<'s> {
    /// Marks and looks, under the shared lock.
    ///
    /// # Errors
    /// Damaged if what is needed cannot be told.
    pub(super) fn new(store: &'s Store, _lock: &SharedLock, options: &GcOptions) -> Result<Self> {
        let mut plan = Self {
            store,
            marked: Marked::new(store)?,
            watch: Watch::new(store),
            undo: options.undo,
            layers: BTreeSet::new(),
            cache: Vec::new(),
            boxes: Vec::new(),
            files: Vec::new(),
        };
        for name in store.box_names()? {
            plan.watch.look_at_box(&name);
            plan.marked.mark_box(&name, options.undo)?;
        }
        plan.layers = plan.marked.dead();
        plan.look_at_cache(options.cache)?;
        plan.look_at_unfinished()?;
        Ok(plan)
    }

    /// Under the exclusive lock: takes out what has found a use since, and gives the runs that are dead, with
    /// their locks.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub(super) fn check(&mut self) -> Result<Vec<Corpse>> {
        match self.watch.changed() {
            Changed::Perhaps => self.marked.mark_boxes(self.undo)?,
            Changed::These { whole, moves, refs } => {
                for name in whole {
                    self.watch.look_at_box(&name);
                    self.marked.mark_box(&name, self.undo)?;
                }
                for name in moves {
                    self.marked.mark_moves(&name, self.undo)?;
                }
                for (name, snapshot) in refs {
                    self.marked.mark_ref(&name, &snapshot)?;
                }
            }
        }
        let (dead, scaffolds) = self.look_at_runs()?;
        let living = &self.marked.living;
        self.layers.retain(|layer| !living.contains(layer));
        self.cache.retain(|path| !scaffolds.contains(path));
        Ok(dead)
    }

    /// Marks what runs need, and gives the dead ones, and the scaffolds of the others as paths.
    pub(super) fn look_at_runs(&mut self) -> Result<(Vec<Corpse>, BTreeSet<String>)> {
        let (mut dead, mut scaffolds) = (Vec::new(), BTreeSet::new());
        for name in self.store.names(layout::RUNS)? {
            let record = match self.store.fate(&name, Duration::ZERO)? {
                Fate::Live(Some(record)) | Fate::Kept(record) | Fate::Left(record) => record,
                // It is being removed: whoever makes a run holds the store lock until it has a record.
                Fate::Live(None) | Fate::Gone => continue,
                Fate::Dead(corpse) => {
                    dead.push(corpse);
                    continue;
                }
            };
            let file = format!("{}/{name}/{}", layout::RUNS, layout::RUN_RECORD);
            for layer in record.chain.iter().copied().chain(record.layer) {
                self.marked.mark_one(layer, &file)?;
            }
            // What it was lent, and what is on its way in: not all of that need be there.
            if let Some(lent) = &record.nest {
                self.marked.living.extend(lent.layers.iter().chain(lent.taken.values()));
            }
            scaffolds.extend(record.scaffold.map(|name| format!("{}/{name}", layout::CACHE)));
        }
        self.cache.extend(dead.iter().flat_map(|corpse| self.store.lost_with(&corpse.id)));
        // Some are found in two ways. Sorted, a record still comes before its log.
        self.cache.sort_unstable();
        self.cache.dedup();
        let living = &self.marked.living;
        self.layers.retain(|layer| !living.contains(layer));
        Ok((dead, scaffolds))
    }

    fn look_at_cache(&mut self, age: Duration) -> Result<()> {
        for name in self.store.names(layout::CACHE)? {
            let path = format!("{}/{name}", layout::CACHE);
            let limit = match name.as_str() {
                name if name.starts_with(layout::SCAFFOLD) => age,
                name if name.starts_with(layout::SPARE) => age,
                _ if path == layout::LISTING => age,
                // Of another profile, kernel or library; one that is used is made again now and then.
                name if name.starts_with(layout::SECCOMP) => age.saturating_mul(30),
                name if name.starts_with('.') => age.min(STALE),
                _ => continue,
            };
            if self.store.is_older(&path, limit).unwrap_or(false) {
                self.cache.push(path);
            }
        }
        self.cache.extend(self.store.stale_ended()?);
        Ok(())
    }

    /// What killed commands have left of boxes and refs: whoever makes these holds the store lock, so that what
    /// has such a name under the exclusive one is nobody's.
    fn look_at_unfinished(&mut self) -> Result<()> {
        for name in self.store.names(layout::BOXES)? {
            let path = format!("{}/{name}", layout::BOXES);
            if name.starts_with(layout::UNFINISHED) {
                self.boxes.push(path);
                continue;
            }
            for folder in [path.clone(), format!("{path}/refs")] {
                let names = self.store.names(&folder).unwrap_or_default();
                let unfinished = names.iter().filter(|file| file.starts_with(layout::UNFINISHED));
                self.files.extend(unfinished.map(|file| format!("{folder}/{file}")));
            }
        }
        Ok(())
    }

    /// All but the layers, under the exclusive lock. Gives the bytes on disk of what is gone at once.
    pub(super) fn sweep_rest(&mut self, dead: &[Corpse]) -> Result<u64> {
        for corpse in dead {
            self.store.bury(corpse)?;
        }
        for (paths, kind, name) in
            [(&mut self.cache, "cache", "gc.cache"), (&mut self.boxes, "box", "gc.temp")]
        {
            for path in paths.drain(..) {
                let trash = format!("{kind}-{}", LayerId::random()?);
                let moved = step(name, || self.store.to_trash(&path, &trash));
                absent_is_fine(moved).context("remove", self.store.show(&path))?;
            }
        }
        let mut bytes = 0;
        for path in self.files.drain(..) {
            bytes += self.store.part(&path)?.own;
            step("gc.temp", || file::unlink(self.store.dir(), &path))
                .context("remove file", self.store.show(&path))?;
        }
        self.store.sweep_caches()?;
        Ok(bytes)
    }
}

/// Another gc, or whoever made it, was faster.
pub(super) fn absent_is_fine(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}
