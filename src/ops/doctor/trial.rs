//! A run, from its birth to the exec of a command that is not there: what it meets, a real one would meet, too.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid, chownat, mkdirat, openat};
use rustix::process::{fchdir, geteuid};

use super::Probe;
use super::probes::{Scratch, own_map};
use crate::fault::{Context, Fault, Result};
use crate::ids::{self, IdMap};
use crate::isolate::profile::{Profile, Root, Tmp};
use crate::isolate::wall::Wall;
use crate::isolate::{caps, env, limits, remember, seccomp};
use crate::ops::in_time;
use crate::remedy;
use crate::rootfs::copy_up::{self, TouchRpmdb};
use crate::rootfs::plan;
use crate::rootfs::scaffold::Fleeting;
use crate::run::explain::Told;
use crate::run::launch;
use crate::run::moments::Moments;
use crate::run::outcome::{Ended, OURS};
use crate::run::spec::{GRACE, RunSpec, Upper};
use crate::run::weaker::Weaker;
use crate::sys::exec::Strings;
use crate::sys::landlock;

/// The layer, of the directories that are made for every try, and where a database of rpm's is copied up.
const LAYER: &str = "a";
const DATABASE: [&str; 4] = ["var", "var/lib", "var/lib/rpm", "var/lib/rpm/Index.db"];
/// No tree has it.
const COMMAND: &std::ffi::CStr = c"/.sandbox-doctor";

/// Tries to start one in the scratch directory.
pub(super) fn run(scratch: Option<&Scratch>, place: &Probe, map: Option<&IdMap>) -> Result<Probe> {
    let (name, needed) = ("run", true);
    let Some(scratch) = scratch else {
        let detail = "not tried: no place for it".to_owned();
        let remedy = place.remedy.clone();
        return Ok(Probe { name, ok: false, needed, detail, errno: None, remedy });
    };
    let here = openat(CWD, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .context("open", "the working directory")?;
    // What lies beneath is the caller's own to take away again.
    let map = match map.filter(|_| geteuid().is_root()) {
        Some(map) => map.clone(),
        None => own_map()?,
    };
    fchdir(scratch.dir()).context("enter a directory for", "a run")?;
    let tried = start(scratch, map);
    fchdir(&here).context("return to", "the working directory")?;
    Ok(match tried {
        Ok(lost) => {
            let without = lost.iter().map(|one| one.lost().protection).collect::<Vec<_>>();
            let detail = match without.as_slice() {
                [] => "one starts".to_owned(),
                lost => format!("one starts, without: {}", lost.join(", ")),
            };
            Probe { name, ok: true, needed, detail, errno: None, remedy: None }
        }
        Err(fault) => {
            let errno = super::errno_of(&fault);
            let remedy = fault.hint.as_deref().map(remedy::in_lines);
            Probe { name, ok: false, needed, detail: fault.message, errno, remedy }
        }
    })
}

/// What it had to do without.
fn start(scratch: &Scratch, map: IdMap) -> Result<Vec<Weaker>> {
    let spec = spec(scratch, map)?;
    let told = Told::of(&spec);
    let mut heard = Heard::default();
    let outcome = launch::run(spec, scratch.dir(), &mut heard)?;
    match outcome.ended {
        Ok(_) => Ok(heard.0),
        Err(failure) => match told.explain(failure) {
            // It came to its command.
            (code, _) if code != OURS => Ok(heard.0),
            (_, fault) => Err(fault),
        },
    }
}

fn spec(scratch: &Scratch, id_map: IdMap) -> Result<RunSpec> {
    fill(scratch, &id_map)?;
    let profile = Profile::builtin("build")?;
    let request = plan::Request {
        hostname: "doctor".to_owned(),
        tmp_in_memory: profile.tmp == Tmp::Memory,
        masked: profile.masked_paths.clone(),
        read_only: profile.readonly_paths.clone(),
        host_root: id_map.has_root_of_outside(),
        ..plan::Request::default()
    };
    let mut plan = plan::build(&request)?;
    plan.make_places(|_| true);
    let single = id_map.mode == ids::Mode::Single;
    let program = seccomp::compiled(&profile, &seccomp::Request { single, nesting: false })?;
    Ok(RunSpec {
        own_network: true,
        outside: None,
        wall: Wall::plan(&program, true, landlock::version()).0,
        lowers: vec![LAYER.to_owned()],
        scaffold: Some(Fleeting { places: plan.places(|_| true), home: false }),
        run_dir: ".".to_owned(),
        nested: false,
        upper: Upper::Disk,
        way: None,
        read_only_root: profile.root == Root::Readonly,
        by_descriptor: false,
        plan,
        copy_up: copy_up::plan(&profile.copy_up, TouchRpmdb::default()),
        prepared: Vec::new(),
        hostname: request.hostname,
        argv: Strings::new(vec![COMMAND.to_owned()]),
        environment: env::environment(&profile, std::iter::empty(), &[])?,
        candidates: vec![COMMAND.to_owned()],
        workdir: "/".into(),
        user: None,
        ordinary: None,
        capabilities: profile.capabilities,
        last_capability: caps::last_cap(),
        remember: profile.remember_ids.then(|| remember::programs(&id_map, &program)),
        journal: None,
        seccomp: program,
        limits: limits::plan(&profile.limits),
        cgroup: None,
        preserve_fds: Vec::new(),
        terminal: None,
        may_lose: true,
        want_root: false,
        stays: false,
        heeds_exec: false,
        executing: None,
        timeout: None,
        setup_timeout: Some(in_time::SETUP),
        grace: GRACE,
        output_limit: None,
        disk_limit: None,
        pipes: Default::default(),
        processors: Default::default(),
        id_map,
    })
}

/// The layer, the upper and its work, of whom they have to be.
fn fill(scratch: &Scratch, map: &IdMap) -> Result<()> {
    let dir = scratch.dir();
    let directory = |path: &str| {
        mkdirat(dir, path, Mode::from_raw_mode(0o755)).context("make a directory for", "a run")
    };
    for name in ["layer", "layer/fs", "work"] {
        directory(name)?;
    }
    let [places @ .., file] = DATABASE;
    for place in places {
        directory(&format!("{LAYER}/{place}"))?;
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    openat(dir, format!("{LAYER}/{file}"), flags, Mode::from_raw_mode(0o644))
        .context("make a file for", "a run")?;
    if geteuid().is_root() {
        let (uid, gid) = map.root_owner();
        let layer = DATABASE.map(|path| format!("{LAYER}/{path}"));
        let others = [LAYER, "layer", "layer/fs", "work"].map(str::to_owned);
        for path in layer.iter().chain(&others) {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            chownat(dir, path, uid, gid, AtFlags::empty()).context("give away", path)?;
        }
    }
    Ok(())
}

/// Nothing but what was lost.
#[derive(Debug, Default)]
struct Heard(Vec<Weaker>);

impl Moments for Heard {
    fn ready(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    fn terminal(&mut self, _: OwnedFd) -> Option<OwnedFd> {
        None
    }

    fn weaker(&mut self, weaker: Weaker) {
        if !self.0.contains(&weaker) {
            self.0.push(weaker);
        }
    }

    fn ended(&mut self, _: Ended) {}
}
