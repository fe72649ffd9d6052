//! Garbage collection: mark what is needed, move the rest to the trash, all under the exclusive store lock.
//!
//! Nothing is moved before everything is marked: if what is needed cannot be told (a damaged ref, record or
//! head), nothing is removed at all.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use super::failpoint::step;
use super::mark::Marked;
use super::reap::{Corpse, Fate};
use super::{LayerId, RunId, Store, file, layout};
use crate::fault::{Context, Result};

/// How gc works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GcOptions {
    /// Only say what would be removed.
    pub dry_run: bool,
    /// How long to wait for others to give up the store lock.
    pub wait: Duration,
    /// For how long a log entry keeps the layers it names, so that `undo` can take it back; for as long as
    /// its box says if none.
    pub undo: Option<Duration>,
    /// How old a scaffold must be that no run uses.
    pub cache: Duration,
}

impl Default for GcOptions {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 60 * 60);
        Self { dry_run: false, wait: Duration::from_secs(5), undo: None, cache: day }
    }
}

/// What gc moved to the trash, or would.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Collected {
    /// Layers, oldest first.
    pub layers: Vec<LayerId>,
    /// Killed runs.
    pub runs: Vec<RunId>,
    /// The bytes of the files of these layers, by their records: an estimate.
    pub freed: u64,
    /// Whether nothing was done.
    pub dry_run: bool,
}

impl Store {
    /// Moves dead layers, killed runs and what was never finished to the trash, which the caller then
    /// empties ([`Store::trash`]).
    ///
    /// # Errors
    /// Busy if others held the store lock all the time; damaged if what is needed cannot be told: then
    /// nothing was moved.
    pub fn gc(&self, options: &GcOptions) -> Result<Collected> {
        self.require_writable()?;
        let _lock = self.lock_exclusive(options.wait)?;
        if !options.dry_run {
            self.settle_all()?;
        }
        let mut marked = Marked::new(self)?;
        let mut scaffolds = BTreeSet::new();
        let dead = self.mark_runs(&mut marked, &mut scaffolds)?;
        marked.mark_boxes(options.undo)?;
        let layers: Vec<_> = marked.present.difference(&marked.living).copied().collect();
        let bytes = |id| self.layer(id).map_or(0, |record| record.own_bytes);
        let collected = Collected {
            freed: layers.iter().map(bytes).sum(),
            runs: dead.iter().map(|corpse| corpse.id).collect(),
            layers,
            dry_run: options.dry_run,
        };
        if !options.dry_run {
            self.sweep(&collected, &dead)?;
            self.sweep_cache(&scaffolds, options.cache)?;
            self.sweep_caches()?;
            self.sweep_unfinished()?;
        }
        Ok(collected)
    }

    /// Marks what runs need, and returns the dead ones. Nobody can be making a run: that takes the store lock.
    fn mark_runs(
        &self,
        marked: &mut Marked<'_>,
        scaffolds: &mut BTreeSet<String>,
    ) -> Result<Vec<Corpse>> {
        let mut dead = Vec::new();
        for name in self.names(layout::RUNS)? {
            let record = match self.fate(&name, Duration::ZERO)? {
                Fate::Live(Some(record)) | Fate::Kept(record) => record,
                // It is being removed: whoever makes a run holds the store lock until it has a record.
                Fate::Live(None) | Fate::Gone => continue,
                Fate::Dead(corpse) => {
                    dead.push(corpse);
                    continue;
                }
            };
            let file = format!("{}/{name}/{}", layout::RUNS, layout::RUN_RECORD);
            for layer in record.chain.iter().copied().chain(record.layer) {
                marked.mark_one(layer, &file)?;
            }
            scaffolds.extend(record.scaffold);
        }
        Ok(dead)
    }

    fn sweep(&self, collected: &Collected, dead: &[Corpse]) -> Result<()> {
        for corpse in dead {
            self.bury(corpse)?;
        }
        // A layer before its parents: what a crash leaves never names a layer that is gone.
        for id in collected.layers.iter().rev() {
            step("gc.layer", || self.to_trash(&layout::layer(id), &format!("layer-{id}")))
                .context("remove layer", id)?;
        }
        Ok(())
    }

    fn sweep_cache(&self, used: &BTreeSet<String>, age: Duration) -> Result<()> {
        for name in self.names(layout::CACHE)? {
            let path = format!("{}/{name}", layout::CACHE);
            let candidate = name.starts_with(layout::SCAFFOLD) && !used.contains(&name);
            if candidate && self.is_older(&path, age).unwrap_or(false) {
                let trash = format!("cache-{}", LayerId::random()?);
                step("gc.cache", || self.to_trash(&path, &trash))
                    .context("remove from cache", &name)?;
            }
        }
        Ok(())
    }

    /// What killed commands have left of boxes and refs: whoever makes these holds the store lock.
    fn sweep_unfinished(&self) -> Result<()> {
        for name in self.names(layout::BOXES)? {
            let path = format!("{}/{name}", layout::BOXES);
            if name.starts_with(layout::UNFINISHED) {
                let trash = format!("box-{}", LayerId::random()?);
                step("gc.temp", || self.to_trash(&path, &trash)).context("remove box", &name)?;
                continue;
            }
            for folder in [path.clone(), format!("{path}/refs")] {
                let unfinished = self.names(&folder)?;
                for file in unfinished.iter().filter(|file| file.starts_with(layout::UNFINISHED)) {
                    let file = format!("{folder}/{file}");
                    step("gc.temp", || file::unlink(self.dir(), &file))
                        .context("remove file", self.show(&file))?;
                }
            }
        }
        Ok(())
    }
}

impl Collected {
    /// Whether there was nothing to do.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty() && self.runs.is_empty()
    }
}
