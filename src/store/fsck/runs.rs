//! Runs: those that were kept must be whole; those that live may be in the middle of anything.

use rustix::fs::{FileType, FlockOperation};

use super::boxes::last_part;
use super::{Remedy, Survey};
use crate::fault::Result;
use crate::store::{RunId, RunState, Store, layout};

impl Store {
    pub(super) fn look_at_runs(&self, survey: &mut Survey) -> Result<()> {
        if survey.unread.contains(layout::RUNS) {
            return Ok(());
        }
        self.strays(survey, layout::RUNS, |entry| entry.parse::<RunId>().is_ok())?;
        for entry in self.names(layout::RUNS).unwrap_or_default() {
            if let Ok(id) = entry.parse() {
                self.look_at_run(survey, &id)?;
            }
        }
        Ok(())
    }

    fn look_at_run(&self, survey: &mut Survey, id: &RunId) -> Result<()> {
        let path = layout::run(id);
        // It may be on its way out. It belongs to root inside, by a map that its box may have taken along.
        if let Some(stat) = self.look(&path)? {
            survey.mode(&path, &stat, 0o700);
        }
        // A shared lock: others who only look do not take each other for the supervisor.
        let probe = match self.probe(&path, FlockOperation::NonBlockingLockShared) {
            Ok(probe) => probe,
            Err(fault) => {
                let kind = self.look(&path)?.map(|stat| FileType::from_raw_mode(stat.st_mode));
                if let Some(kind) = kind {
                    // Whether it lives or was kept is not known of a directory: it is not taken away.
                    let remedy = match kind {
                        FileType::Directory => Remedy::None,
                        _ => Remedy::Remove,
                    };
                    survey.record(None, &path, &last_part(&fault.message), remedy);
                }
                return Ok(());
            }
        };
        // Without a lock it is being made or removed, or the reaper's.
        let Some(mut probe) = probe else { return Ok(()) };
        let live = probe.lock.is_none();
        let file = format!("{path}/{}", layout::RUN_RECORD);
        self.own_file_if_any(survey, &file)?;
        match probe.take_record() {
            Ok(Some(record)) if record.run != *id => {
                survey.record(None, &file, "it is of another run", Remedy::Run(*id));
            }
            Ok(Some(record)) if live || record.state == RunState::Kept || self.is_left(&record) => {
                let tree = format!("{path}/{}", layout::LAYER_FS);
                if !live && self.look(&tree)?.is_none() {
                    survey.note(&tree, "is a layer already: the run is removed, or gets it back");
                }
                survey.runs.push((record, live));
            }
            Ok(Some(_)) => survey.note(&path, "was killed: the next command removes it"),
            Ok(None) => {}
            Err(fault) => {
                let remedy = if live { Remedy::None } else { Remedy::Run(*id) };
                survey.record(None, &file, &last_part(&fault.message), remedy);
            }
        }
        Ok(())
    }
}
