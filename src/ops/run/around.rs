//! What is done for a run at the moments when its supervisor has nothing else to do.

use rustix::process::Pid;

use super::resolve::Base;
use super::status::Status;
use super::{After, RunOptions};
use crate::fault::Result;
use crate::isolate::lost::Lost;
use crate::ops::trash;
use crate::run::launch::Moments;
use crate::run::outcome::Ended;
use crate::run::weaker::Weaker;
use crate::store::{Run, RunRecord, SharedLock, Store};

/// The directory of a run, from before its making to its end.
#[derive(Debug)]
pub(super) struct Around<'a> {
    store: &'a Store,
    lock: Option<SharedLock>,
    base: &'a Base,
    options: &'a RunOptions,
    record: &'a RunRecord,
    run: Option<Run>,
    gone: bool,
    tidy: bool,
    status: Status,
    lost: Vec<Lost>,
}

impl<'a> Around<'a> {
    /// Of a run that is still to be made, or of a kept one. The lock is held until its record is written.
    pub(super) fn new(
        store: &'a Store,
        lock: SharedLock,
        base: &'a Base,
        options: &'a RunOptions,
        record: &'a RunRecord,
        run: Option<Run>,
    ) -> Self {
        let (lock, status) = (Some(lock), Status::default());
        Self {
            store,
            lock,
            base,
            options,
            record,
            run,
            gone: false,
            tidy: false,
            status,
            lost: Vec::new(),
        }
    }

    /// The same with somebody who is told what happens.
    pub(super) fn telling(self, status: Status) -> Self {
        Self { status, ..self }
    }

    /// The run, if there is one, and whether its directory is removed already.
    pub(super) fn into_run(self) -> (Option<Run>, bool) {
        (self.run, self.gone)
    }

    /// What the host refused.
    pub(super) fn lost(&mut self) -> Vec<Lost> {
        std::mem::take(&mut self.lost)
    }

    /// Whether the store was seen to have no trash since the command ended.
    pub(super) fn is_tidy(&self) -> bool {
        self.tidy
    }

    fn is_dropped(&self, ended: Ended) -> bool {
        let keeps = if ended.success() {
            self.options.after != After::Discard
        } else {
            self.options.keep_on_failure
        };
        !keeps
            && self.options.ask.is_none()
            && self.options.kept_run.is_none()
            && self.options.outs.is_empty()
    }
}

impl Moments for Around<'_> {
    fn ready(&mut self) -> Result<()> {
        let Some(lock) = self.lock.take() else { return Ok(()) };
        if self.run.is_none() {
            let mut fresh = self.store.new_run_of(&lock, &self.base.id_map, self.record.run)?;
            let written = fresh.write_record(self.record);
            self.run = Some(fresh);
            written?;
        }
        // The record names the layers that the run needs: gc knows them from here on.
        Ok(())
    }

    fn born(&mut self, child: Pid) {
        self.status.started(self.record.run, child);
    }

    fn weaker(&mut self, weaker: Weaker) {
        let lost = weaker.lost();
        if let Some(warn) = self.options.warn {
            warn(&lost.line());
        }
        self.lost.push(lost);
    }

    /// Where nothing was written and nothing is kept, the directory goes while the kernel takes the overlay
    /// down: nobody is left who could miss it. Whatever is in the way is left for the proper discard.
    fn ended(&mut self, ended: Ended) {
        self.status.exited(ended);
        if self.is_dropped(ended)
            && let Some(run) = &self.run
        {
            self.gone = run.remove_empty(self.store);
            // What every command looks for at its end; a failure shows there, too.
            self.tidy = self.gone && trash::is_tidy(self.store).unwrap_or(false);
        }
    }
}
