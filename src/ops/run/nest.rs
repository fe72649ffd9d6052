//! The end of a run with a store inside: what was made there is taken in.

use super::stay::Said;
use super::{After, Finished, RunOptions};
use crate::fault::{Fault, Kind, Result};
use crate::ids;
use crate::isolate::lost::Lost;
use crate::ops::adopt;
use crate::run::outcome::Ended;
use crate::store::{Run, RunRecord, Store};
use crate::sys::signal::Deferred;

/// The protections that the flag costs.
pub(super) fn given_up(options: &RunOptions) -> Vec<Lost> {
    if !options.nest {
        return Vec::new();
    }
    let proc = "--nest: nothing in /proc is hidden or read-only, else a sandbox inside could have none of its own";
    let owners = "--nest: owners that the id map cannot hold are not remembered of this command, but of those in a \
                  sandbox inside";
    vec![Lost::new("masked-proc", proc), Lost::new("owners", owners)]
}

/// How a run ended that may have a store inside.
#[derive(Debug)]
pub(super) struct End<'a> {
    pub(super) store: &'a Store,
    pub(super) options: &'a RunOptions,
    /// What somebody has said since about a run that stays.
    pub(super) said: Option<&'a Said>,
    pub(super) ended: Ended,
    /// Whether nobody else holds what is to be taken in.
    pub(super) held: &'a Result<()>,
    /// Whether a result could not be copied out.
    pub(super) out_failed: bool,
    /// Signals that end it as long as nothing is named.
    pub(super) signals: &'a Deferred,
}

impl End<'_> {
    /// Takes it in after success, or where somebody wants what the command changed all the same. Of a run that
    /// goes on being kept it waits for `adopt`.
    ///
    /// # Errors
    /// What taking it in says; the run is kept then, with all that it has.
    pub(super) fn adopt(
        &self,
        run: &mut Run,
        record: &mut RunRecord,
        finished: &mut Finished,
    ) -> Result<()> {
        if record.nest.is_none() {
            return Ok(());
        }
        if !self.is_wanted() {
            finished.messages.extend(self.goes());
            return Ok(());
        }
        if self.out_failed && self.said.is_none() {
            let line = "nothing taken in from inside: a result could not be copied out";
            finished.messages.push(line.to_owned());
            return Ok(());
        }
        let signals = Some(self.signals);
        let held = self.held.clone().and_then(|()| ids::unless_ended(signals));
        match held.and_then(|()| adopt::take_in(self.store, run, record, None, signals)) {
            Ok(adopted) => {
                let told =
                    |one: &adopt::TakenIn| format!("{} -> {}: made inside", one.name, one.layer);
                finished.messages.extend(adopted.snapshots.iter().map(told));
                finished.messages.extend(adopted.left);
                finished.adopted = adopted.snapshots;
                // From here on it is a run like any other; what is left inside goes with it.
                record.nest = None;
                Ok(())
            }
            Err(fault) if self.signals.heard().is_some() => {
                finished.messages.push(format!("nothing taken in from inside: {}", fault.message));
                Ok(())
            }
            Err(fault) => Err(rescue(run, record, self.ended, fault)),
        }
    }

    fn is_wanted(&self) -> bool {
        let after = self.said.map_or(&self.options.after, |said| &said.after);
        let success = self.ended.success();
        match after {
            After::Discard => success && self.said.is_none() && self.options.kept_run.is_none(),
            _ => success || self.said.is_some(),
        }
    }

    /// The line for what goes with a command that failed.
    fn goes(&self) -> Option<String> {
        let kept = self.options.keep_on_failure || self.options.kept_run.is_some();
        let code = self.ended.exit_code();
        let line = || format!("nothing taken in from inside: the command ended with {code}");
        (!self.ended.success() && !kept).then(line)
    }
}

/// Nothing is lost: whoever knows the way out can take it in later.
fn rescue(run: &mut Run, record: &RunRecord, ended: Ended, fault: Fault) -> Fault {
    let exit = Some(i32::from(ended.exit_code()));
    if run.mark_kept(&RunRecord { exit, ..record.clone() }).is_err() {
        return fault;
    }
    let id = run.id();
    let again = if fault.kind == Kind::Conflict { " --as PREFIX" } else { "" };
    Fault {
        hint: Some(format!(
            "the run is kept: `sandbox adopt {id}{again}` takes in what was made inside, `sandbox recover {id} --as NAME` \
             what it changed itself"
        )),
        ..fault
    }
}
