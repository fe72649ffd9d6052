//! A run whose changes must not be lost: its record says so.

use super::{Run, RunRecord, RunState, json_line};
use crate::fault::{Context, Result};

impl Run {
    /// Keeps what the run changed: writes the record as [`RunState::Kept`], durably, and gives up the lock.
    pub fn keep(mut self, record: &RunRecord) -> Result<()> {
        self.mark_kept(record)?;
        self.unlock();
        Ok(())
    }

    /// As [`Run::keep`], and stays the holder of the lock, for a commit that failed and may be tried again.
    pub fn mark_kept(&mut self, record: &RunRecord) -> Result<()> {
        let kept = RunRecord { state: RunState::Kept, ..record.clone() };
        self.replace_record(&json_line(&kept)?, true).context("keep run", self.id)?;
        self.recorded = true;
        self.kept = true;
        Ok(())
    }

    /// Writes the record so that the run counts as kept if its supervisor is killed: its lock says that it lives. Not durably,
    /// for after a power cut nobody knows what its upper holds.
    pub fn keep_if_killed(&mut self, record: &RunRecord) -> Result<()> {
        let kept = RunRecord { state: RunState::Kept, ..record.clone() };
        self.replace_record(&json_line(&kept)?, false).context("write record of run", self.id)?;
        self.kept = true;
        Ok(())
    }

    /// The reverse: there is nothing to be kept any more.
    pub fn drop_if_killed(&mut self, record: &RunRecord) -> Result<()> {
        self.replace_record(&json_line(record)?, false).context("write record of run", self.id)?;
        self.kept = false;
        Ok(())
    }
}
