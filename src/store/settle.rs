//! A kept run becomes a layer ([`Store::publish`]) and then gets a name. Between the two its changes hang on
//! nothing that gc knows: if the process is killed there, the run must get them back.
//!
//! So the run first says which layer it becomes, by the symlink `becomes`: one system call, no data that a
//! power cut could take.

use rustix::fs::{AtFlags, RenameFlags, readlinkat, renameat_with, statat, symlinkat};
use rustix::io::Errno;

use super::failpoint::step;
use super::{LayerId, LogEntry, Run, RunRecord, RunState, Store, file, layout};
use crate::fault::{Context, Kind, Result};

impl Run {
    /// Says durably enough that this run, which was kept, becomes this layer.
    pub(super) fn announce(&self, layer: &LayerId) -> Result<(), Errno> {
        step("publish.becomes", || {
            file::unlink(self.dir(), layout::RUN_BECOMES)?;
            symlinkat(layer.as_str(), self.dir(), layout::RUN_BECOMES)
        })
    }
}

impl Store {
    /// Gives kept runs back what they were about to become when somebody killed it. Under the exclusive lock.
    pub(super) fn settle_all(&self) -> Result<()> {
        for name in self.names(layout::RUNS)? {
            let place = format!("{}/{name}", layout::RUNS);
            if !self.is_there(&format!("{place}/{}", layout::RUN_BECOMES))? {
                continue;
            }
            // A held lock: somebody is at it just now, or died a moment ago. A record that cannot be read:
            // gc tells.
            let operation = rustix::fs::FlockOperation::NonBlockingLockExclusive;
            let Some(mut probe) = self.probe(&place, operation)? else { continue };
            if probe.lock.is_none() {
                continue;
            }
            if let Ok(Some(record)) = probe.take_record() {
                self.settle(&record)?;
            }
        }
        Ok(())
    }

    /// Whether a kept run has what it was kept for, if need be again. The caller holds its lock, and the
    /// store lock.
    pub(super) fn settle(&self, record: &RunRecord) -> Result<bool> {
        let run = layout::run(&record.run);
        let (wrapper, becomes) =
            (format!("{run}/{}", layout::LAYER), format!("{run}/{}", layout::RUN_BECOMES));
        if record.state != RunState::Kept
            || self.is_there(&format!("{run}/{}", layout::LAYER_FS))?
        {
            return Ok(true);
        }
        let layer = match readlinkat(self.dir(), &becomes, Vec::new()) {
            Ok(target) => target.to_str().ok().and_then(|target| target.parse::<LayerId>().ok()),
            Err(Errno::NOENT) => None,
            other => return other.map(|_| false).context("read link", self.show(&becomes)),
        };
        let lost = match layer {
            // A wrapper without an upper: somebody was about to discard it.
            _ if self.is_there(&wrapper)? => None,
            Some(layer) if !self.is_named(record, layer)? => Some(layer),
            _ => None,
        };
        let returned = match lost.map(|layer| {
            let (dir, flags) = (self.dir(), RenameFlags::NOREPLACE);
            step("settle.rename", || {
                renameat_with(dir, layout::layer(&layer), dir, &wrapper, flags)
            })
        }) {
            None | Some(Err(Errno::NOENT)) => false,
            Some(other) => other.map(|()| true).context("give back layer to run", record.run)?,
        };
        step("settle.unlink", || file::unlink(self.dir(), &becomes))
            .context("remove link", self.show(&becomes))?;
        Ok(returned)
    }

    /// Whether a layer that was made of a run has got its name: then the run is done with.
    fn is_named(&self, record: &RunRecord, layer: LayerId) -> Result<bool> {
        let name = &record.box_name;
        match self.box_record(name) {
            Err(fault) if fault.kind == Kind::NotFound => return Ok(false),
            other => drop(other?),
        }
        let head = self.box_head(name)?;
        let named = self.box_refs(name)?.iter().any(|found| found.layer == layer)
            || [head.head, head.current].contains(&Some(layer));
        if named {
            return Ok(true);
        }
        // It had a name if that has been taken away since. A line that only says where a name goes may have
        // been written by a command that was killed before it went there; old ones were written after it.
        let log = self.box_log(name)?;
        let told = |entry: &LogEntry| match entry.id {
            Some(_) => entry.layers_before().any(|id| id == layer),
            None => entry.layers().any(|id| id == layer),
        };
        Ok(log.iter().any(told) || self.is_mounted_on(layer)?)
    }

    /// Whether another layer stands on this one. One that cannot be read might: then nothing is settled.
    fn is_mounted_on(&self, layer: LayerId) -> Result<bool> {
        for id in self.layers()? {
            if id != layer && self.layer(&id)?.mount.contains(&layer) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether there is anything of this name in the store.
    pub(super) fn is_there(&self, name: &str) -> Result<bool> {
        match statat(self.dir(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno).context("look at", self.show(name)),
        }
    }
}
