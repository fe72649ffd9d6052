//! What is done for a run at the moments when its supervisor has nothing else to do.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::process::Pid;

use super::resolve::Base;
use super::status::Status;
use super::stay::Staying;
use super::{After, RunOptions};
use crate::fault::Result;
use crate::isolate::lost::Lost;
use crate::ops::trash;
use crate::run::disk;
use crate::run::moments::{Moments, Order};
use crate::run::outcome::Ended;
use crate::run::supervisor::Held;
use crate::run::weaker::Weaker;
use crate::store::{Made, Run, RunRecord, SharedLock, Store};

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
    /// PID 1, until somebody is told of it.
    child: Option<Pid>,
    lost: Vec<Lost>,
    lent: u64,
    made: Vec<Made>,
    setup: Duration,
    staying: Option<&'a mut Staying>,
    /// Whether it has no directory; what it stands on is kept by the lock.
    fleeting: bool,
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
            lent: 0,
            made: Vec::new(),
            setup: Duration::ZERO,
            staying: None,
            child: None,
            fleeting: false,
        }
    }

    /// The same without a directory in the store.
    pub(super) fn fleeting(self, fleeting: bool) -> Self {
        Self { fleeting, ..self }
    }

    fn tell_started(&mut self) {
        if let Some(child) = self.child.take() {
            self.status.started(self.record.run, child);
        }
    }

    /// The same with somebody who is told what happens.
    pub(super) fn telling(self, status: Status) -> Self {
        Self { status, ..self }
    }

    /// The same of a run that stays.
    pub(super) fn staying(self, staying: Option<&'a mut Staying>) -> Self {
        Self { staying, ..self }
    }

    /// The run, if there is one, and whether its directory is removed already.
    pub(super) fn into_run(self) -> (Option<Run>, bool) {
        (self.run, self.gone)
    }

    /// What the host refused.
    pub(super) fn lost(&mut self) -> Vec<Lost> {
        std::mem::take(&mut self.lost)
    }

    /// The places of mounts that were made in the upper.
    pub(super) fn made(&mut self) -> Vec<Made> {
        std::mem::take(&mut self.made)
    }

    /// The bytes on disk that it had for a store inside before the command began, if these count.
    pub(super) fn lent(&self) -> u64 {
        self.lent
    }

    /// From when the run was asked for until its command was let go; nothing if it never was.
    pub(super) fn setup(&self) -> Duration {
        self.setup
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
            && self.staying.is_none()
            && self.options.ask.is_none()
            && self.options.kept_run.is_none()
            && self.options.outs.is_empty()
            && !self.options.nest
    }
}

impl Moments for Around<'_> {
    fn ready(&mut self) -> Result<()> {
        if self.fleeting {
            return Ok(());
        }
        let Some(lock) = self.lock.take() else { return Ok(()) };
        if self.run.is_none() {
            let name = self.record.name.as_ref();
            let _named = name.map(|name| self.store.claim_run_name(name)).transpose()?;
            let mut fresh = self.store.new_run_of(&lock, &self.base.id_map, self.record.run)?;
            let written = fresh
                .write_record(self.record)
                .and_then(|()| self.store.make_nest(&lock, &fresh, self.record));
            self.run = Some(fresh);
            written?;
        }
        // The record names the layers that the run needs: gc knows them from here on.
        drop(lock);
        if let (Some(run), Some(_)) = (&self.run, self.options.limits.disk) {
            self.lent = disk::size_of_nest(run.dir(), &self.base.id_map)?;
        }
        match (&mut self.staying, &self.run) {
            (Some(staying), Some(run)) => staying.serve(run),
            _ => Ok(()),
        }
    }

    fn begun(&mut self) {
        self.setup = self.options.begun.elapsed();
    }

    fn meanwhile(&mut self) {
        let dropped = self.is_dropped(Ended::Code(0));
        let Some(run) = &mut self.run else { return };
        if self.options.keep_on_failure && self.options.kept_run.is_none() {
            // Else what is left of it is a dead run's, as without the flag.
            run.keep_if_killed(self.record).ok();
        } else if dropped {
            // The directory of any other run is not used again.
            self.store.prepare_next(run, &self.base.id_map);
        }
    }

    fn executing(&mut self) -> Result<()> {
        self.tell_started();
        if let (Some(name), Some(_)) = (&self.record.name, &self.staying) {
            // The name is of this one from now on. (Else the one that ended last is found by it.)
            self.store.forget_ended_of(name).ok();
        }
        self.staying.as_deref_mut().map_or(Ok(()), Staying::executing)
    }

    fn made(&mut self, place: &Path, levels: u32) {
        // Without a text it has no place in a record, and stays in the upper.
        if let Some(path) = place.to_str() {
            self.made.push(Made { path: path.to_owned(), levels });
        }
    }

    fn held(&mut self, what: Held, fd: OwnedFd) {
        if let Some(staying) = &mut self.staying {
            staying.held(what, fd);
        }
    }

    fn terminal(&mut self, master: OwnedFd) -> Option<OwnedFd> {
        match &mut self.staying {
            Some(staying) => {
                staying.terminal(master);
                None
            }
            None => Some(master),
        }
    }

    fn waits_for(&self) -> Option<BorrowedFd<'_>> {
        self.staying.as_deref().and_then(Staying::waits_for)
    }

    fn called(&mut self) -> Result<Vec<Order>> {
        match &mut self.staying {
            Some(staying) => staying.called(self.store, self.base, self.options),
            None => Ok(Vec::new()),
        }
    }

    fn born(&mut self, child: Pid) {
        self.child = Some(child);
    }

    fn weaker(&mut self, weaker: Weaker) {
        let lost = weaker.lost();
        // A payload's process that is made twice says it twice.
        if self.lost.contains(&lost) {
            return;
        }
        if let Some(warn) = self.options.warn {
            warn(&lost.line());
        }
        self.lost.push(lost);
    }

    /// Where nothing was written and nothing is kept, the directory goes while the kernel takes the overlay
    /// down: nobody is left who could miss it. Whatever is in the way is left for the proper discard.
    fn ended(&mut self, ended: Ended) {
        // The end of a short command may be heard before its beginning.
        self.tell_started();
        self.status.exited(ended);
        if self.is_dropped(ended)
            && let Some(run) = &mut self.run
        {
            if self.options.keep_on_failure {
                run.drop_if_killed(self.record).ok();
            }
            self.gone = run.remove_empty(self.store);
            // What every command looks for at its end; a failure shows there, too.
            self.tidy = self.gone && trash::is_tidy(self.store).unwrap_or(false);
        }
    }
}
