//! `run` and `shell`: resolve, execute, then commit or discard.

mod around;
mod binds;
pub(super) mod checks;
mod claim;
mod cwd;
mod defaults;
mod dry;
mod finish;
pub(super) mod journal;
mod leave;
pub mod limits;
mod mounts;
mod nest;
pub mod network;
mod options;
mod out;
mod report;
mod resolve;
mod status;
mod stay;
mod who;

use std::os::fd::OwnedFd;

use jiff::Timestamp;
use nix::sys::signal::Signal;
use rustix::io::Errno;

pub use dry::{DryRun, plan};
pub use options::{After, Ask, Bind, Net, RunOptions};

pub(crate) use self::stay::Birth;
pub use self::stay::Stay;
pub use crate::rootfs::copy_up::TouchRpmdb;
pub use crate::rootfs::plan::{BindMode, Memory};
pub use crate::run::spec::Upper;

use self::stay::Staying;
use crate::fault::{Context, Fault, Result};
use crate::ops::adopt::TakenIn;
use crate::run::explain::{self, Told};
use crate::run::launch;
use crate::run::outcome::OURS;
use crate::store::{BoxName, LayerId, RunId, Store};
use crate::sys::signal::{self, Blocked, Deferred};

pub(super) use resolve::candidates;

/// Adds to `options` what makes the working directory part of a shell, which then starts in it.
///
/// # Errors
/// A line for a person: why that directory is not bound by itself, and how it can be.
pub fn bring_cwd(store: &Store, options: &mut RunOptions) -> Result<(), String> {
    match cwd::binds(store) {
        Ok(binds) => {
            let start = binds.first().map(|bind| bind.target.clone());
            options.workdir = options.workdir.take().or(start);
            options.binds.splice(0..0, binds);
            Ok(())
        }
        Err(why) => Err(format!(
            "the working directory is not bound: {why}; if you want it inside: --bind .:/mnt:rw"
        )),
    }
}

/// How it ended.
#[derive(Debug)]
pub struct Finished {
    /// Our exit code.
    pub code: u8,
    /// Lines for a person.
    pub messages: Vec<String>,
    /// Why the command could not be started, if that is the command's own fault: not found, not executable.
    pub fault: Option<Fault>,
    /// The run.
    pub run: RunId,
    /// Whether its upper is still there, to be opened by its id.
    pub kept: bool,
    /// The layer that was committed: a new one, or, where nothing had changed, the one that got the name.
    pub committed: Option<LayerId>,
    /// The snapshots that a sandbox inside has made and that were taken in.
    pub adopted: Vec<TakenIn>,
    /// Whether there was no trash in the store at its end.
    pub tidy: bool,
}

/// Runs a command, and commits or discards what it changed.
///
/// # Errors
/// A fault for everything of ours: nothing was run, or (the message says so) the command ran and its
/// changes could not be committed. A command that cannot be found or executed is no fault: its exit code
/// and message are in [`Finished`].
///
/// From the command's end on the signals that end a process wait, also when this has returned: what is told is
/// what has happened. [`may_be_ended`] is the end of that.
pub fn run(store: &Store, box_name: &BoxName, options: RunOptions) -> Result<Finished> {
    let report = report::Report::open(options.report.as_deref())?;
    let status = status::Status::open(options.status_fd, &options.preserve_fds)?;
    let mut signals = None;
    let answer = checks::may_keep(store, box_name, &options)
        .and_then(|()| execute(store, box_name, &options, &report, status, None, &mut signals))
        .map_err(|fault| checks::or_in_memory(store, &options, fault));
    if let Err(fault) = &answer {
        status.failed(fault);
    }
    let written = report.write(&answer);
    signals.into_iter().for_each(Deferred::to_the_end);
    written?;
    answer.map(|(finished, _)| finished)
}

/// Lets the signals that end a process do so again: for who has told how a run ended, and does something else now.
pub fn may_be_ended() {
    signal::unblock(&ENDING);
}

/// The same for a run that stays: `caller` hears of its birth, and all else is asked for on its socket.
pub(crate) fn supervise(
    store: &Store,
    box_name: &BoxName,
    options: RunOptions,
    stay: Stay,
    caller: OwnedFd,
) {
    let mut staying = Staying::new(stay, caller);
    let mut signals = None;
    let answer = report::Report::open(options.report.as_deref()).and_then(|report| {
        let status = status::Status::open(options.status_fd, &options.preserve_fds)?;
        let staying = Some(&mut staying);
        let answer = execute(store, box_name, &options, &report, status, staying, &mut signals);
        if let Err(fault) = &answer {
            status.failed(fault);
        }
        report.write(&answer)?;
        answer.map(|(finished, _)| finished)
    });
    signals.into_iter().for_each(Deferred::to_the_end);
    staying.finish(store, answer);
}

/// What ends a run by default.
const ENDING: [Signal; 4] = [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGHUP];

fn execute(
    store: &Store,
    box_name: &BoxName,
    options: &RunOptions,
    report: &report::Report,
    status: status::Status,
    mut staying: Option<&mut Staying>,
    signals: &mut Option<Deferred>,
) -> Result<(Finished, report::Facts)> {
    let started = Timestamp::now();
    checks::answers(options)?;
    out::check(&options.outs)?;
    let (lock, base) = checks::resolve_verified(store, box_name, options)?;
    let options = &*defaults::fill_in(options, &base)?;
    let mut settings = resolve::settings(store, &lock, &base, options, false)?;
    let (mut record, run) =
        claim::claim(store, &base, &mut settings, options, started, staying.as_deref())?;
    // Until the run is over.
    let _caches = std::mem::take(&mut settings.caches);
    let mut facts = report.facts(&record, started).without(&mut settings.lost, options.warn);
    // From here on there is something to be cleaned up.
    let blocked = Blocked::new(&ENDING);
    let cgroup = settings.limits.cgroup(record.run)?;
    // The child finds base_dir again by its working directory.
    rustix::process::fchdir(store.dir()).context("enter", store.path().display())?;
    let stay = staying.as_deref().map(Staying::options);
    let mut spec = resolve::spec(store, settings, &base, record.run, options, stay)?;
    spec.cgroup = cgroup.as_ref().map(limits::Cgroup::entrance).transpose()?;
    let known = journal::Resumed::of(store, run.as_ref(), &record, &mut spec)?;
    let told = Told::of(&spec);
    let fleeting = spec.scaffold.is_some();
    if fleeting && staying.is_some() {
        return Err(Fault::errno("start: write to", store.path().display(), Errno::ROFS));
    }
    if let Some(staying) = &mut staying {
        staying.prepare(&mut spec, &base.id_map)?;
    }
    let mut around = around::Around::new(store, lock, &base, options, &record, run)
        .telling(status)
        .fleeting(fleeting)
        .staying(staying.as_deref_mut());
    let launched = launch::run(spec, store.dir(), &mut around);
    // What comes now ends what is still to be done, if nothing is decided by then, and not what is to be told.
    let signals = &*signals.insert(Deferred::new(blocked, &ENDING));
    facts.also_without(around.lost());
    facts.setup_us = around.setup().as_micros() as u64;
    let (tidy, lent, made) = (around.is_tidy(), around.lent(), around.made());
    let (run, gone) = around.into_run();
    record.made = made;
    let (mut run, outcome) = match (run, launched) {
        (run, Ok(outcome)) if fleeting || run.is_some() => (run, outcome),
        (run, launched) => {
            let fault = launched.err().unwrap_or_else(explain::vanished);
            let leaving = leave::Leaving { store, record: &record, staying: staying.as_deref() };
            run.map_or(Ok(()), |run| claim::abandon(run, options, &leaving, &fault))?;
            return Err(fault);
        }
    };
    let mut finished = Finished {
        code: OURS,
        messages: Vec::new(),
        fault: None,
        run: record.run,
        kept: false,
        committed: None,
        adopted: Vec::new(),
        tidy,
    };
    let mut out_failed = None;
    if let Some(root) = &outcome.root {
        let (lines, failed) = out::copy(root, &options.outs, &base.id_map, signals);
        finished.messages.extend(lines);
        failed.iter().for_each(|fault| status.failed(fault));
        out_failed = failed;
    }
    // The overlay lives as long as its descriptor; a commit needs it unmounted.
    drop(outcome.root);
    facts.held(cgroup, options, &mut finished);
    let held = staying.as_deref_mut().map_or(Ok(()), Staying::close);
    let said = staying.as_deref().map_or(Ok(None), |staying| staying.said(store, &base))?;
    match outcome.ended {
        Ok(ended) => {
            let left = run.as_ref().filter(|_| !gone);
            let reason = outcome.reason;
            let shared = staying.as_deref_mut().and_then(Staying::take_journal);
            let last = staying.as_deref();
            let last = last.map_or((ended, reason), |one| one.last(ended, reason));
            let (ended, reason) = limits::last(left, &base, options, lent, last)?;
            facts.ended(ended, reason, options, &mut finished);
            finished.messages.extend(report::unwritten(outcome.unwritten));
            finished.code = ended.exit_code();
            let resumed = options.kept_run.is_some();
            let journal = journal::read(shared.or(outcome.journal), resumed, known.as_ref())?;
            let out_failed = out_failed.as_ref();
            let end = nest::End {
                store,
                options,
                said: said.as_ref(),
                ended,
                held: &held,
                out_failed: out_failed.is_some(),
                signals,
            };
            if let Some(run) = &mut run {
                end.adopt(run, &mut record, &mut finished)?;
            }
            status.adopted(&finished.adopted);
            facts.adopted.clone_from(&finished.adopted);
            let (base, record, journal) = (&base, &record, &journal[..]);
            let after = finish::After {
                store,
                base,
                options,
                record,
                said,
                journal,
                held,
                out_failed,
                signals,
            };
            if let Some(run) = &mut run {
                after.finish(run, ended, &mut finished, &mut facts)?;
            }
            after.tell(ended, &mut finished, &mut facts);
            if let Some(layer) = finished.committed {
                status.committed(layer, facts.name());
            }
        }
        Err(failure) => {
            let (code, fault) = told.explain(failure);
            if code == OURS {
                let staying = staying.as_deref();
                let leaving = leave::Leaving { store, record: &record, staying };
                run.map_or(Ok(()), |run| claim::abandon(run, options, &leaving, &fault))?;
                return Err(fault);
            }
            finished.code = code;
            finished.kept = options.kept_run.is_some();
            facts.failed(&fault);
            if let Some(fault) = out_failed {
                facts.out_failed(&fault, false);
                finished.messages.push(fault.message);
            }
            status.failed(&fault);
            finished.fault = Some(fault);
        }
    }
    if let Some(run) = run.filter(|_| !finished.kept && !gone) {
        let leaving = leave::Leaving { store, record: &record, staying: staying.as_deref() };
        // A fault says it all.
        let reason = facts.error().filter(|_| finished.fault.is_none());
        leaving.finished(&run, &mut finished, reason);
        let discarded = finish::discard(store, run);
        // Once names were given the command has not failed: what cannot go now is left to the reaper.
        if finished.adopted.is_empty() {
            discarded?;
        }
    }
    Ok((finished, facts))
}
