//! `run` and `shell`: resolve, execute, then commit or discard.

mod around;
mod binds;
pub(super) mod checks;
mod cwd;
mod defaults;
mod finish;
pub mod limits;
mod out;
mod report;
mod resolve;
mod status;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

pub use crate::rootfs::copy_up::TouchRpmdb;
pub use crate::rootfs::plan::BindMode;
pub use crate::run::spec::Upper;

use crate::fault::{Context, Fault, Result};
use crate::ids::IdMap;
use crate::isolate::lost::Lost;
use crate::rootfs::copy_up::CopyUp;
use crate::rootfs::overlay::Way;
use crate::run::explain::{self, Told};
use crate::run::launch;
use crate::run::outcome::OURS;
use crate::store::{
    BoxName, LayerId, Run, RunId, RunRecord, RunState, SharedLock, SnapshotName, Store,
};
use crate::tree::change::Change;

/// A bind as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// A path of the host.
    pub source: PathBuf,
    /// A path inside.
    pub target: PathBuf,
    /// How it may be used.
    pub mode: BindMode,
}

/// The network of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Net {
    /// Loopback only.
    None,
    /// The host's own.
    Host,
}

/// What happens to the changes of a command that returned 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum After {
    /// They are thrown away.
    Discard,
    /// They become a snapshot of this name, which must not exist.
    Commit(SnapshotName),
    /// They become the new head, if the run started from head.
    Keep,
    /// They become the new head in any case.
    KeepForce,
}

/// Shows what a command changed, and gives the name to keep it by, if it is to be kept.
pub type Ask = fn(&[Change]) -> Option<SnapshotName>;

/// Everything that can be said about a run.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The snapshot to start from; head if none.
    pub from: Option<String>,
    /// A kept run to go on with, instead of a fresh upper.
    pub kept_run: Option<String>,
    /// What happens to the changes.
    pub after: After,
    /// Whether the changes of a command that failed are kept as a run.
    pub keep_on_failure: bool,
    /// Whether a commit makes digests of all files.
    pub digest: bool,
    /// Whether what it starts from is checked before.
    pub verify: bool,
    /// Files and directories of the host.
    pub binds: Vec<Bind>,
    /// Places in memory.
    pub tmpfs: Vec<PathBuf>,
    /// Directories of the box that persist between runs: name and place.
    pub caches: Vec<(String, PathBuf)>,
    /// Results to copy out: a path inside, a directory of the host.
    pub outs: Vec<(PathBuf, PathBuf)>,
    /// Paths inside that are copied up before the command starts, besides those of the profile and the box.
    pub copy_up: Vec<String>,
    /// When rpm's databases are copied up, if not as the box says.
    pub touch_rpmdb: Option<TouchRpmdb>,
    /// The network; the profile's if none.
    pub net: Option<Net>,
    /// Variables for the command.
    pub env: Vec<(OsString, OsString)>,
    /// The working directory inside; `/` if none.
    pub workdir: Option<PathBuf>,
    /// `USER[:GROUP]`; inside root if none.
    pub user: Option<String>,
    /// The host name; the name of the box if none.
    pub hostname: Option<String>,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// Limits of what it may use.
    pub limits: limits::Limits,
    /// Told, before the command starts, of each protection that it goes without.
    pub warn: Option<fn(&str)>,
    /// A file to write what happened to, as JSON.
    pub report: Option<PathBuf>,
    /// Descriptors of the caller that stay open.
    pub preserve_fds: Vec<i32>,
    /// Where changes are kept while it runs.
    pub upper: Upper,
    /// The name of a profile, or a file; `default_profile` if none.
    pub profile: Option<String>,
    /// The profile of the command.
    pub default_profile: &'static str,
    /// Whether the root is read-only, whatever the profile says.
    pub read_only: bool,
    /// A descriptor of the caller that gets the events of the run, as JSON lines.
    pub status_fd: Option<i32>,
    /// Whether a lost protection is an error.
    pub strict: bool,
    /// The command.
    pub argv: Vec<OsString>,
    /// The only way to mount the overlay, for tests.
    pub overlay_way: Option<Way>,
    /// Asked at the end what shall become of the changes of a command whose changes are dropped otherwise:
    /// a name keeps them as a snapshot.
    pub ask: Option<Ask>,
}

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

/// What a run would do.
#[derive(Debug, Serialize)]
pub struct DryRun {
    /// The command.
    pub argv: Vec<String>,
    /// Its environment.
    pub environment: Vec<String>,
    /// Its working directory.
    pub workdir: String,
    /// The ids inside and outside.
    pub id_map: IdMap,
    /// Its capabilities.
    pub capabilities: Vec<String>,
    /// The layers, top first.
    pub lowers: Vec<String>,
    /// The mounts, in order.
    pub mounts: Vec<String>,
    /// What is copied up then, if it is there.
    pub copy_up: Vec<String>,
    /// Its limits.
    pub limits: Vec<String>,
    /// The protections it would go without.
    pub lost: Vec<Lost>,
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
    /// Whether there was no trash in the store at its end.
    pub tidy: bool,
}

/// Says what a run would do. Makes nothing but cache entries.
///
/// # Errors
/// As [`run`], for everything that is decided before the run begins.
pub fn plan(store: &Store, box_name: &BoxName, options: &RunOptions) -> Result<DryRun> {
    let lock = store.lock_shared()?;
    let base = resolve::base(store, box_name, options)?;
    let options = &*defaults::fill_in(options, &base)?;
    let settings = resolve::settings(store, &lock, &base, options)?;
    drop(lock);
    let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(DryRun {
        argv: settings.argv.iter().map(|word| show(word.as_bytes())).collect(),
        environment: settings.environment.iter().map(|line| show(line.as_bytes())).collect(),
        workdir: settings.workdir.to_string_lossy().into_owned(),
        id_map: base.id_map.clone(),
        capabilities: settings.profile.capabilities.names(),
        lowers: settings.lowers.clone(),
        mounts: settings.plan.describe(),
        copy_up: settings.copy_up.iter().map(CopyUp::describe).collect(),
        limits: settings.limits.describe(),
        lost: settings.lost,
    })
}

/// Runs a command, and commits or discards what it changed.
///
/// # Errors
/// A fault for everything of ours: nothing was run, or (the message says so) the command ran and its
/// changes could not be committed. A command that cannot be found or executed is no fault: its exit code
/// and message are in [`Finished`].
pub fn run(store: &Store, box_name: &BoxName, options: RunOptions) -> Result<Finished> {
    let report = report::Report::open(options.report.as_deref())?;
    let status = status::Status::open(options.status_fd, &options.preserve_fds)?;
    let answer = execute(store, box_name, &options, &report, status);
    if let Err(fault) = &answer {
        status.failed(fault);
    }
    report.write(&answer)?;
    answer.map(|(finished, _)| finished)
}

/// Resolves what the run starts from; checks it, if that is asked for, while nobody waits for a lock, and
/// anew if it has moved meanwhile.
fn resolve_verified(
    store: &Store,
    box_name: &BoxName,
    options: &RunOptions,
) -> Result<(SharedLock, resolve::Base)> {
    let mut verified = None;
    loop {
        let lock = store.lock_shared()?;
        let base = resolve::base(store, box_name, options)?;
        if !options.verify || verified == Some(base.layer.id) {
            return Ok((lock, base));
        }
        drop(lock);
        super::verify::chain(store, &base.layer, &base.id_map)?;
        verified = Some(base.layer.id);
    }
}

fn execute(
    store: &Store,
    box_name: &BoxName,
    options: &RunOptions,
    report: &report::Report,
    status: status::Status,
) -> Result<(Finished, report::Facts)> {
    let started = Timestamp::now();
    let begun = std::time::Instant::now();
    let (lock, base) = resolve_verified(store, box_name, options)?;
    let options = &*defaults::fill_in(options, &base)?;
    let mut settings = resolve::settings(store, &lock, &base, options)?;
    let (record, run) = claim(store, &base, &settings, options, started)?;
    // Until the run is over.
    let _caches = std::mem::take(&mut settings.caches);
    let mut facts = report.facts(&record, started).without(&mut settings.lost, options.warn);
    let cgroup = settings.limits.cgroup(record.run)?;
    // The child finds base_dir again by its working directory.
    rustix::process::fchdir(store.dir()).context("enter", store.path().display())?;
    let mut spec = resolve::spec(store, settings, &base, record.run, options)?;
    spec.cgroup = cgroup.as_ref().map(limits::Cgroup::entrance).transpose()?;
    let told = Told::of(&spec);
    facts.setup_us = begun.elapsed().as_micros() as u64;
    let mut around = around::Around::new(store, lock, &base, options, &record, run).telling(status);
    let launched = launch::run(spec, store.dir(), &mut around);
    facts.also_without(around.lost());
    let tidy = around.is_tidy();
    let (run, gone) = around.into_run();
    let (mut run, outcome) = match (run, launched) {
        (Some(run), Ok(outcome)) => (run, outcome),
        (run, launched) => {
            run.map_or(Ok(()), |run| abandon(store, run, options))?;
            return Err(launched.err().unwrap_or_else(explain::vanished));
        }
    };
    let mut finished = Finished {
        code: OURS,
        messages: Vec::new(),
        fault: None,
        run: run.id(),
        kept: false,
        committed: None,
        tidy,
    };
    let mut out_failed = None;
    if let Some(root) = &outcome.root {
        match out::copy(root, &options.outs, &base.id_map) {
            Ok(lines) => finished.messages.extend(lines),
            Err(fault) => out_failed = Some(fault),
        }
    }
    // The overlay lives as long as its descriptor; a commit needs it unmounted.
    drop(outcome.root);
    facts.held(cgroup, options, &mut finished);
    match outcome.ended {
        Ok(ended) => {
            if outcome.timed_out {
                let time = options.timeout.unwrap_or_default().as_secs_f64();
                finished.messages.push(format!("ended after {time} s: --timeout"));
            }
            facts.ended(ended, outcome.timed_out);
            finished.code = ended.exit_code();
            let after = finish::After { store, base: &base, options, record: &record };
            after.finish(&mut run, ended, &mut finished, &mut facts)?;
            if let Some(layer) = finished.committed {
                status.committed(layer, facts.name());
            }
        }
        Err(failure) => {
            let (code, fault) = told.explain(failure);
            if code == OURS {
                abandon(store, run, options)?;
                return Err(fault);
            }
            finished.code = code;
            finished.kept = options.kept_run.is_some();
            facts.error = Some(fault.message.clone());
            status.failed(&fault);
            finished.fault = Some(fault);
        }
    }
    if !finished.kept && !gone {
        finish::discard(store, run)?;
    }
    if let Some(fault) = out_failed {
        return Err(fault);
    }
    Ok((finished, facts))
}

/// The command never began: a fresh run is of no use, a kept one stays as it was.
fn abandon(store: &Store, run: Run, options: &RunOptions) -> Result<()> {
    if options.kept_run.is_some() { Ok(()) } else { finish::discard(store, run) }
}

/// The record of a run: a fresh one, whose directory is still to be made, or a kept one, which is taken.
fn claim(
    store: &Store,
    base: &resolve::Base,
    settings: &resolve::Settings,
    options: &RunOptions,
    started: Timestamp,
) -> Result<(RunRecord, Option<Run>)> {
    if let Some(kept) = &options.kept_run {
        let (mut run, record) = store.open_run(&kept.parse()?)?;
        let record = RunRecord {
            pid: std::process::id(),
            scaffold: Some(settings.scaffold.clone()),
            copy_up: resolve::distinct(settings.copy_up_paths.iter().chain(&record.copy_up)),
            ..record
        };
        // On disk it stays kept: its lock says that it runs, and a kill must not make it a dead one.
        run.mark_kept(&record)?;
        finish::reopen(&run, &base.id_map)?;
        return Ok((record, Some(run)));
    }
    let record = RunRecord {
        run: RunId::random()?,
        box_name: base.box_name.clone(),
        from: base.from.clone(),
        layer: Some(base.layer.id),
        chain: base.layer.mount.clone(),
        scaffold: Some(settings.scaffold.clone()),
        id_map: base.id_map.clone(),
        argv: settings.argv.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
        copy_up: settings.copy_up_paths.clone(),
        started,
        pid: std::process::id(),
        state: RunState::Running,
        exit: None,
    };
    Ok((record, None))
}
