//! What is left of a run that stayed, when it is over and neither kept nor dead: its log, and how it ended.
//!
//! Both are files of `cache/`, where who knows nothing of them lets them be. The record is what makes them be
//! there; without one, or a directory of the run, a log is what a killed process has left. They are not synced: a
//! power cut may take how a run ended that was over anyway.

use std::os::fd::OwnedFd;
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::{AtFlags, renameat, statat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::failpoint::step;
use super::{BoxName, LayerId, Run, RunId, RunName, Store, file, json_line, layout};
use crate::fault::{Context, Fault, Result};

/// So many are left at most.
pub const MOST_ENDED: usize = 20;

/// They are left for so long.
pub const ENDED_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How a run that stayed ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedRun {
    /// Its id.
    pub run: RunId,
    /// Its name, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<RunName>,
    /// The box it ran in.
    #[serde(rename = "box")]
    pub box_name: BoxName,
    /// What it was started from.
    pub from: String,
    /// Its command.
    pub argv: Vec<String>,
    /// When it was started.
    pub started: Timestamp,
    /// When it was over.
    pub ended: Timestamp,
    /// The exit code that `run` would have had.
    pub exit: u8,
    /// Why we ended it, in a word, if we did.
    #[serde(default)]
    pub reason: Option<String>,
    /// What there was to say.
    #[serde(default)]
    pub messages: Vec<String>,
    /// What went wrong on our side.
    #[serde(default)]
    pub fault: Option<Fault>,
    /// The layer that was committed.
    #[serde(default)]
    pub committed: Option<LayerId>,
}

impl EndedRun {
    /// The fault of asking it for something that only a run can do that is still there.
    pub fn over(&self) -> Fault {
        let (id, exit) = (self.run, self.exit);
        let word = self.name.as_ref().map_or_else(|| id.to_string(), ToString::to_string);
        Fault::not_found(format!("ask run: {id}: it has ended with exit code {exit}")).hint(format!(
            "`sandbox logs {word}` shows what it has written, `sandbox wait {word}` how it ended"
        ))
    }
}

impl Run {
    /// Leaves the log of the run and how it ended in the store, before the run itself goes, and takes away what
    /// other runs have left too many or too long. A step that is not taken leaves the run as it was, or
    /// without its log.
    ///
    /// # Errors
    /// What the system calls say.
    pub fn leave_ended(&self, store: &Store, record: &EndedRun) -> Result<()> {
        let id = self.id();
        let temporary = layout::ended_temporary(&id);
        let left = json_line(record).and_then(|bytes| {
            self.leave(store, &temporary, &bytes).context("leave log of run", id)
        });
        if left.is_err() {
            step("ended.unlink", || file::unlink(store.dir(), &temporary)).ok();
        }
        left.and_then(|()| store.trim_ended())
    }

    fn leave(&self, store: &Store, temporary: &str, bytes: &[u8]) -> Result<(), Errno> {
        // What needs space comes first.
        step("ended.temp", || file::write_small(store.dir(), temporary, bytes))?;
        let log = layout::ended_log(&self.id());
        step("ended.log", || renameat(self.dir(), layout::RUN_LOG, store.dir(), &log))?;
        let name = layout::ended_record(&self.id());
        step("ended.rename", || renameat(store.dir(), temporary, store.dir(), &name))
    }
}

impl Store {
    /// All runs that are over and have left something, the one that ended last at the end. One whose record cannot
    /// be read is left out.
    ///
    /// # Errors
    /// What reading the directory says.
    pub fn ended_runs(&self) -> Result<Vec<EndedRun>> {
        let names = self.names(layout::CACHE)?;
        let ids = names.iter().filter_map(|name| id_of(name, layout::ENDED_RECORD));
        let mut all: Vec<EndedRun> = ids.filter_map(|id| self.ended_run(&id)).collect();
        all.sort_by_key(|one| (one.ended, one.run));
        Ok(all)
    }

    /// How this run ended, if that was left.
    pub fn ended_run(&self, id: &RunId) -> Option<EndedRun> {
        let name = layout::ended_record(id);
        let bytes = file::read_small(self.dir(), &name, file::RECORD_LIMIT).ok()?;
        let record: EndedRun = serde_json::from_slice(&bytes).ok()?;
        (record.run == *id).then_some(record)
    }

    /// The log that a run has left, open for reading.
    pub(super) fn ended_log(&self, id: &RunId) -> Result<OwnedFd, Errno> {
        file::open_file(self.dir(), &layout::ended_log(id))
    }

    /// Takes away what a run has left.
    ///
    /// # Errors
    /// What unlinkat(2) says.
    pub fn forget_ended(&self, id: &RunId) -> Result<()> {
        self.require_writable()?;
        // The record first: without it there is nothing.
        [layout::ended_record(id), layout::ended_log(id)]
            .iter()
            .try_for_each(|name| step("ended.unlink", || file::unlink(self.dir(), name)))
            .context("forget run", id)
    }

    /// Takes away what runs of this name have left: another one has it now.
    ///
    /// # Errors
    /// As [`Store::ended_runs`] and [`Store::forget_ended`].
    pub fn forget_ended_of(&self, name: &RunName) -> Result<()> {
        let all = self.ended_runs()?;
        let mut named = all.iter().filter(|one| one.name.as_ref() == Some(name));
        named.try_for_each(|one| self.forget_ended(&one.run))
    }

    /// Takes away what is left of too many runs, or for too long.
    fn trim_ended(&self) -> Result<()> {
        for path in self.stale_ended()? {
            step("ended.unlink", || file::unlink(self.dir(), &path))
                .context("remove", self.show(&path))?;
        }
        Ok(())
    }

    /// The files of which [`Store::trim_ended`] is, each record before its log.
    pub(super) fn stale_ended(&self) -> Result<Vec<String>> {
        let names = self.names(layout::CACHE)?;
        let mut left = Vec::new();
        for id in names.iter().filter_map(|name| id_of(name, layout::ENDED_RECORD)) {
            let path = layout::ended_record(&id);
            // By the file and not by what it says: of one that cannot be read, too.
            match statat(self.dir(), &path, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => left.push(((stat.st_mtime, stat.st_mtime_nsec), id)),
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(Fault::errno("look at", self.show(&path), errno)),
            }
        }
        left.sort_unstable();
        let many = left.len().saturating_sub(MOST_ENDED);
        let mut paths = Vec::new();
        for (at, (_, id)) in left.iter().enumerate() {
            let path = layout::ended_record(id);
            if at < many || self.is_older(&path, ENDED_AGE).unwrap_or(false) {
                paths.extend([path, layout::ended_log(id)]);
            }
        }
        for name in &names {
            let begun = id_of(name, "").filter(|id| self.is_absent(&layout::run(id)));
            paths.extend(begun.map(|id| layout::ended_temporary(&id)));
            let log = id_of(name, layout::ENDED_LOG).filter(|id| self.is_lost_log(id));
            paths.extend(log.map(|id| layout::ended_log(&id)));
        }
        Ok(paths)
    }

    /// Whether a log is of a run that was killed before it had left its record. In this order: a run has left that
    /// before its directory goes.
    fn is_lost_log(&self, id: &RunId) -> bool {
        self.is_absent(&layout::run(id)) && self.is_absent(&layout::ended_record(id))
    }

    /// The same of a run whose remains are about to go: its files without a record.
    pub(super) fn lost_with(&self, dead: &RunId) -> Vec<String> {
        let mut lost = vec![layout::ended_temporary(dead)];
        if self.is_absent(&layout::ended_record(dead)) {
            lost.push(layout::ended_log(dead));
        }
        lost.retain(|path| !self.is_absent(path));
        lost
    }

    pub(super) fn is_absent(&self, path: &str) -> bool {
        matches!(statat(self.dir(), path, AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT))
    }
}

/// The run of which a file of `cache/` is that ends so; nothing is the end of a record that is not whole.
fn id_of(name: &str, ending: &str) -> Option<RunId> {
    let name = if ending.is_empty() { name.strip_prefix('.')? } else { name };
    name.strip_prefix(layout::ENDED)?.strip_suffix(ending)?.parse().ok()
}
