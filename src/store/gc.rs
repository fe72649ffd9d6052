//! Garbage collection: mark what is needed, move the rest to the trash.
//!
//! What can take long is done under the shared lock, while others work: all names are read and all chains
//! marked ([`plan`]). Under the exclusive lock only what has changed meanwhile is read again ([`watch`]), and
//! what still nothing needs is moved. What has become garbage in between stays for the next time.
//!
//! Nothing is moved before everything is marked: if what is needed cannot be told (a damaged ref, record or
//! head), nothing is removed at all.

mod plan;
mod watch;

use std::time::{Duration, Instant};

use serde::Serialize;

use super::failpoint::step;
use super::{LayerId, RunId, Store, layout};
use crate::fault::{Context, Result};

use plan::{Plan, absent_is_fine};

/// For how long layers are moved in one hold of the exclusive lock.
const HOLD: Duration = Duration::from_millis(20);

/// How many layers are moved between two looks at the clock.
const CHECK_CLOCK: u32 = 16;

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
    /// The bytes on disk of what is gone; what was moved to the trash is for the caller to add.
    pub freed: u64,
    /// Whether nothing was done.
    pub dry_run: bool,
    /// Of a dry run: all that would be emptied, beneath the base directory.
    #[serde(skip)]
    pub paths: Vec<String>,
    /// For how long the exclusive lock was held at most.
    #[serde(skip)]
    pub longest_hold: Duration,
    /// How often it was taken.
    #[serde(skip)]
    pub holds: u32,
}

impl Store {
    /// Moves dead layers, killed runs and what was never finished to the trash, which the caller then
    /// empties ([`Store::trash`]).
    ///
    /// # Errors
    /// Busy if others held the store lock all the time; damaged if what is needed cannot be told: then
    /// nothing was moved.
    pub fn gc(&self, options: &GcOptions) -> Result<Collected> {
        self.gc_after(options, || ())
    }

    /// The same; `meanwhile` is what others do between the two holds of the lock.
    pub(super) fn gc_after(
        &self,
        options: &GcOptions,
        meanwhile: impl FnOnce(),
    ) -> Result<Collected> {
        self.require_writable()?;
        let lock = self.lock_shared()?;
        let mut plan = Plan::new(self, &lock, options)?;
        if options.dry_run {
            return self.foresee(plan);
        }
        drop(lock);
        meanwhile();
        self.carry_out(&mut plan, options)
    }

    /// What a gc would do now.
    fn foresee(&self, mut plan: Plan<'_>) -> Result<Collected> {
        let (dead, scaffolds) = plan.look_at_runs()?;
        plan.cache.retain(|path| !scaffolds.contains(path));
        let runs: Vec<_> = dead.iter().map(|corpse| corpse.id).collect();
        let mut paths: Vec<String> = dead.iter().map(|corpse| corpse.path().to_owned()).collect();
        paths.extend(plan.layers.iter().map(layout::layer));
        paths.extend([plan.cache, plan.boxes, plan.files, self.lost_caches()?].concat());
        let trash = self.names(layout::TRASH)?.into_iter();
        paths.extend(trash.map(|name| format!("{}/{name}", layout::TRASH)));
        let layers = plan.layers.into_iter().collect();
        Ok(Collected { layers, runs, dry_run: true, paths, ..Collected::default() })
    }

    /// Moves what is planned. Each hold of the exclusive lock is short; after each everything that can have
    /// changed is looked at again.
    fn carry_out(&self, plan: &mut Plan<'_>, options: &GcOptions) -> Result<Collected> {
        let mut collected = Collected::default();
        let mut first = true;
        loop {
            let lock = self.lock_exclusive(options.wait)?;
            let begun = Instant::now();
            if first {
                self.settle_all()?;
            }
            let dead = plan.check()?;
            if first {
                collected.freed = plan.sweep_rest(&dead)?;
                collected.runs = dead.iter().map(|corpse| corpse.id).collect();
                first = false;
            }
            drop(dead);
            let mut moved = 0;
            while let Some(id) = plan.layers.pop_last() {
                // The younger first: what a crash leaves never names a layer that is gone.
                let trash = format!("layer-{id}");
                let gone = step("gc.layer", || self.to_trash(&layout::layer(&id), &trash));
                match gone {
                    Ok(()) => collected.layers.push(id),
                    other => absent_is_fine(other).context("remove layer", id)?,
                }
                moved += 1;
                if moved % CHECK_CLOCK == 0 && begun.elapsed() >= HOLD {
                    break;
                }
            }
            drop(lock);
            collected.longest_hold = collected.longest_hold.max(begun.elapsed());
            collected.holds += 1;
            if plan.layers.is_empty() {
                break;
            }
        }
        collected.layers.reverse();
        Ok(collected)
    }
}

impl Collected {
    /// Whether there was nothing to do.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty() && self.runs.is_empty()
    }
}
