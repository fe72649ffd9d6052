//! How much a store may hold: `settings.json`, and how full it is.
//!
//! Without a size of its own the budget is that of the file system, in blocks and inodes; with one it is for
//! the layers, by what their records say. Nothing is walked: this is asked before every commit.

use rustix::fs::fstatvfs;
use serde::{Deserialize, Serialize};

use super::failpoint::step;
use super::{Store, layout};
use crate::fault::{Context, Fault, Result};

/// What holds for the whole store.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Settings {
    budget: Budget,
}

/// How much a store may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Budget {
    /// Bytes of all layers together; the size of the file system if none.
    pub size: Option<u64>,
    /// From this percentage on a commit says so.
    pub warn: u8,
    /// From this percentage on there are no commits; never, if it is 100 or more.
    pub refuse: u8,
}

impl Default for Budget {
    fn default() -> Self {
        Self { size: None, warn: 75, refuse: 90 }
    }
}

/// How full a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Load {
    /// Of the budget, rounded down; more than 100 if it is exceeded.
    pub percent: u64,
    /// Of what.
    pub of: Limit,
}

/// What runs out first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// The size that was set.
    Size,
    /// The blocks of the file system.
    Blocks,
    /// The inodes of the file system.
    Inodes,
}

impl Store {
    /// The budget that was set, or the default.
    ///
    /// # Errors
    /// Damaged if the file is not what we wrote.
    pub fn budget(&self) -> Result<Budget> {
        Ok(self.read_record::<Settings>(layout::SETTINGS)?.unwrap_or_default().budget)
    }

    /// Sets the budget, durably.
    ///
    /// # Errors
    /// Usage if the percentages make no sense; what the system calls say.
    pub fn set_budget(&self, budget: &Budget) -> Result<()> {
        self.require_writable()?;
        if budget.warn > budget.refuse || budget.size == Some(0) {
            return Err(Fault::usage(format!(
                "set budget: warn at {} %, refuse at {} %: it would refuse before it warns",
                budget.warn, budget.refuse
            )));
        }
        let bytes = super::json_line(&Settings { budget: *budget })?;
        step("settings.write", || self.replace_durably(".", layout::SETTINGS, &bytes))
            .context("write settings", self.show(layout::SETTINGS))
    }

    /// How full the store is, by this budget.
    ///
    /// # Errors
    /// What the system calls say; damaged if a record cannot be read.
    pub fn load(&self, budget: &Budget) -> Result<Load> {
        if let Some(size) = budget.size {
            return Ok(Load { percent: percent(self.recorded_bytes()?, size), of: Limit::Size });
        }
        // As df(1) counts: what is kept for root is not there for anybody.
        let dir = super::file::open_dir(self.dir(), ".");
        let stat = dir.and_then(|dir| fstatvfs(&dir)).context("look at", self.path.display())?;
        let used = stat.f_blocks.saturating_sub(stat.f_bfree);
        let blocks = percent(used, used + stat.f_bavail);
        let inodes = percent(stat.f_files.saturating_sub(stat.f_ffree), stat.f_files);
        Ok(match inodes > blocks {
            true => Load { percent: inodes, of: Limit::Inodes },
            false => Load { percent: blocks, of: Limit::Blocks },
        })
    }

    /// The bytes of the files of all layers, by their records. The files of a fold layer are those of the
    /// layers it stands for, as long as one of these is there.
    fn recorded_bytes(&self) -> Result<u64> {
        let layers = self.layers()?;
        let mut bytes: u64 = 0;
        for id in &layers {
            let record = self.layer(id)?;
            if !record.folds.iter().any(|folded| layers.binary_search(folded).is_ok()) {
                bytes = bytes.saturating_add(record.own_bytes);
            }
        }
        Ok(bytes)
    }
}

/// A file system may say that it has none at all.
fn percent(used: u64, whole: u64) -> u64 {
    (u128::from(used) * 100).checked_div(u128::from(whole)).unwrap_or(0) as u64
}
