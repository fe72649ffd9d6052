//! Where a run begins and what becomes of it if it does not: its record, before there is a directory for it.

use jiff::Timestamp;

use super::RunOptions;
use super::leave::Leaving;
use super::resolve::{Base, Settings, distinct, remembers};
use super::stay::Staying;
use crate::fault::{Fault, Result};
use crate::store::{Run, RunId, RunRecord, RunState, Store};

/// The sandbox has failed, mostly before the command began: a fresh run is of no use, a kept one stays as it was.
pub(super) fn abandon(
    run: Run,
    options: &RunOptions,
    leaving: &Leaving<'_>,
    fault: &Fault,
) -> Result<()> {
    if options.kept_run.is_some() {
        return Ok(());
    }
    leaving.failed(&run, fault);
    super::finish::discard(leaving.store, run)
}

/// The record of a run: a fresh one, whose directory is still to be made, or a kept one, which is taken.
pub(super) fn claim(
    store: &Store,
    base: &Base,
    settings: &mut Settings,
    options: &RunOptions,
    started: Timestamp,
    stay: Option<&Staying>,
) -> Result<(RunRecord, Option<Run>)> {
    if let Some(kept) = &options.kept_run {
        let (mut run, record) = store.open_run(&kept.parse()?)?;
        let record = RunRecord {
            pid: std::process::id(),
            fault: None,
            scaffold: settings.scaffold.clone().ok(),
            copy_up: distinct(settings.copy_up_paths.iter().chain(&record.copy_up)),
            plain: record.plain && !remembers(&settings.profile, &base.id_map, options),
            ..record
        };
        // On disk it stays kept: its lock says that it runs, and a kill must not make it a dead one.
        run.mark_kept(&record)?;
        super::finish::reopen(&run, &base.id_map)?;
        return Ok((record, Some(run)));
    }
    let record = RunRecord {
        run: RunId::random()?,
        name: stay.and_then(Staying::name).cloned(),
        box_name: base.box_name.clone(),
        from: base.from.clone(),
        layer: Some(base.layer.id),
        chain: base.layer.mount.clone(),
        scaffold: settings.scaffold.clone().ok(),
        id_map: base.id_map.clone(),
        argv: settings.argv.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
        copy_up: settings.copy_up_paths.clone(),
        plain: !remembers(&settings.profile, &base.id_map, options),
        made: Vec::new(),
        nest: settings.lent.take(),
        started,
        pid: std::process::id(),
        state: RunState::Running,
        exit: None,
        fault: None,
    };
    Ok((record, None))
}
