//! What a run that stayed leaves when it is over, for those who ask later: its log, and how it ended.

use jiff::Timestamp;

use super::Finished;
use super::stay::Staying;
use crate::fault::Fault;
use crate::run::outcome::OURS;
use crate::store::{EndedRun, Run, RunRecord, Store};

/// A run before its directory goes.
#[derive(Debug)]
pub(super) struct Leaving<'a> {
    pub(super) store: &'a Store,
    pub(super) record: &'a RunRecord,
    /// What makes it one that stays, if it is one.
    pub(super) staying: Option<&'a Staying>,
}

impl Leaving<'_> {
    /// The command has ended, and its changes were dealt with. `reason` is why we ended it. That nothing could be left is
    /// one message more: it ended as it did.
    pub(super) fn finished(&self, run: &Run, finished: &mut Finished, reason: Option<&str>) {
        let ended = EndedRun {
            exit: finished.code,
            reason: reason.map(str::to_owned),
            messages: finished.messages.clone(),
            committed: finished.committed,
            ..self.ended(finished.fault.as_ref())
        };
        finished.messages.extend(self.leave(run, &ended));
    }

    /// The sandbox has failed beneath its command.
    pub(super) fn failed(&self, run: &Run, fault: &Fault) {
        self.leave(run, &self.ended(Some(fault)));
    }

    fn ended(&self, fault: Option<&Fault>) -> EndedRun {
        let record = self.record.clone();
        EndedRun {
            run: record.run,
            name: record.name,
            box_name: record.box_name,
            from: record.from,
            argv: record.argv,
            started: record.started,
            ended: Timestamp::now(),
            exit: OURS,
            reason: None,
            messages: Vec::new(),
            fault: fault.cloned(),
            committed: None,
        }
    }

    /// Of a run whose command never began whoever started it has heard all there is.
    fn leave(&self, run: &Run, ended: &EndedRun) -> Option<String> {
        self.staying.filter(|staying| staying.has_begun())?;
        let left = run.leave_ended(self.store, ended);
        left.err().map(|fault| format!("its log is not left for later: {fault}"))
    }
}
