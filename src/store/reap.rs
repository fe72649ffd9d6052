//! What killed runs leave: found by a lock that nobody holds, moved to the trash. What one leaves that stayed is nobody's to
//! see at once, so it lies there for a while.

use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FlockOperation, fstat, statat};
use rustix::io::Errno;

use super::discard::trash_name;
use super::failpoint::step;
use super::runs::Probe;
use super::{RunId, RunRecord, RunState, Store, file, layout};
use crate::fault::{Context, Fault, Result};

/// A run without a lock is being made or removed for this long; then its maker is dead.
const GRACE: Duration = Duration::from_secs(10);

/// What a dead run has left that stayed is left for so long since that was first seen.
const LEFT_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Whether a kept run has what it was kept for, or [`Store::settle`] has to find out. Without either it has
/// become a layer.
fn holds_something(run: &OwnedFd) -> bool {
    let is_there =
        |name| !matches!(statat(run, name, AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT));
    // Not only the wrapper: who discards a run takes the upper first.
    is_there(layout::LAYER_FS) || is_there(layout::RUN_BECOMES)
}

/// What an entry of `runs/` is.
pub(super) enum Fate {
    /// Its supervisor lives; without a record it is just being made or removed.
    Live(Option<RunRecord>),
    /// It was kept.
    Kept(RunRecord),
    /// It stayed, and its supervisor is dead: it is left for who recovers it.
    Left(RunRecord),
    /// Its supervisor is dead; we hold its lock, if it has one.
    Dead(Corpse),
    /// It is not there any more.
    Gone,
}

/// The remains of a run.
pub(super) struct Corpse {
    pub(super) id: RunId,
    name: String,
    /// `None` if there is no lock in it (any more).
    probe: Option<Probe>,
}

impl Corpse {
    /// Where it lies, beneath the base directory.
    pub(super) fn path(&self) -> &str {
        &self.name
    }
}

impl Store {
    /// Moves what killed runs have left to the trash, and says how many there were. Safe against runs that
    /// are being made, and against other reapers. A run whose record cannot be read is left alone, since it
    /// may be one that was kept; so is, for a week, one that stayed.
    ///
    /// # Errors
    /// What the system calls say.
    pub fn reap(&self) -> Result<usize> {
        let mut count = 0;
        for name in self.names(layout::RUNS)? {
            match self.fate(&name, GRACE) {
                Ok(Fate::Dead(corpse)) => count += usize::from(self.bury(&corpse)?),
                Ok(Fate::Left(record)) => self.note_dead(&record.run),
                Ok(_) => {}
                // gc and fsck tell; here it would only stand in the way of another command.
                Err(_) => {}
            }
        }
        Ok(count)
    }

    /// What the entry `name` of `runs/` is. One that is not finished counts as dead after `grace`.
    ///
    /// # Errors
    /// Damaged if it has a record that cannot be read.
    pub(super) fn fate(&self, name: &str, grace: Duration) -> Result<Fate> {
        let finished = name.strip_prefix(layout::UNFINISHED);
        let id: RunId = self.own_name(layout::RUNS, finished.unwrap_or(name))?;
        let name = format!("{}/{name}", layout::RUNS);
        if finished.is_some() && !self.is_older(&name, grace)? {
            return Ok(Fate::Live(None));
        }
        let Some(mut probe) = self.probe(&name, FlockOperation::NonBlockingLockExclusive)? else {
            return match self.is_older(&name, grace) {
                Ok(true) => Ok(Fate::Dead(Corpse { id, name, probe: None })),
                Ok(false) => Ok(Fate::Live(None)),
                Err(_) => Ok(Fate::Gone),
            };
        };
        if probe.lock.is_none() {
            return Ok(Fate::Live(probe.take_record()?));
        }
        match &probe.record {
            Ok(Some(record))
                if record.state == RunState::Kept
                    && holds_something(&probe.dir)
                    // How it ended is left when nothing of it is to be kept any more.
                    && self.ended_run(&id).is_none() =>
            {
                Ok(Fate::Kept(record.clone()))
            }
            Ok(Some(record)) if self.is_left(record) => Ok(Fate::Left(record.clone())),
            Ok(_) => Ok(Fate::Dead(Corpse { id, name, probe: Some(probe) })),
            Err(fault) => Err(fault.clone()),
        }
    }

    /// Whether a run that is dead stayed, and is left for now to whoever wants to recover it: nobody has seen it die. One that is
    /// over, or a layer, is only on its way out.
    pub fn is_left(&self, record: &RunRecord) -> bool {
        let (id, run) = (record.run, layout::run(&record.run));
        let has = |name: &str| !self.is_absent(&format!("{run}/{name}"));
        record.layer.is_some()
            && has(layout::LAYER_FS)
            && (has(layout::RUN_LOG) || !self.is_absent(&layout::ended_log(&id)))
            && self.ended_run(&id).is_none()
            && !self.is_older(&format!("{run}/{}", layout::RUN_DEAD), LEFT_AGE).unwrap_or(false)
    }

    /// From when on the time of a dead run counts. Without it, it counts from the next time.
    fn note_dead(&self, id: &RunId) {
        let name = format!("{}/{}", layout::run(id), layout::RUN_DEAD);
        if self.is_absent(&name) {
            file::create(self.dir(), &name).ok();
        }
    }

    /// Moves a dead run to the trash; says whether it was still there.
    pub(super) fn bury(&self, corpse: &Corpse) -> Result<bool> {
        if let Some(probe) = &corpse.probe {
            // We hold the lock, but perhaps of one that another reaper has moved away.
            let held = fstat(&probe.dir).context("reap run", corpse.id)?;
            match statat(self.dir(), &corpse.name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(named) if (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino) => {}
                Ok(_) | Err(Errno::NOENT) => return Ok(false),
                Err(errno) => return Err(Fault::errno("reap run", corpse.id, errno)),
            }
        }
        match step("reap.trash", || self.to_trash(&corpse.name, &trash_name(&corpse.id))) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(Fault::errno("reap run", corpse.id, errno)),
        }
    }

    /// Whether something was last changed longer ago than `grace`; or so much later than now, because the clock
    /// was set back since: nobody is at it, and it would stay until the clock is there again.
    pub(super) fn is_older(&self, name: &str, grace: Duration) -> Result<bool> {
        let stat = statat(self.dir(), name, AtFlags::SYMLINK_NOFOLLOW)
            .context("look at", self.show(name))?;
        let changed = Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or_default());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(grace.is_zero() || now.abs_diff(changed) > grace)
    }
}
