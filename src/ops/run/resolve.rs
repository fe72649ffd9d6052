//! From what was typed to a [`RunSpec`]: names to numbers, paths to canonical paths, all before the clone.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::io::Errno;

use super::{
    After, Net, RunOptions, Stay, Upper, binds, checks, limits, mounts, nest, network, stay, who,
};
use crate::fault::{Context, Fault, Result, printable};
use crate::ids::{self, IdMap, Mode as IdMode};
use crate::isolate::profile::{Profile, Root};
use crate::isolate::wall::Wall;
use crate::isolate::{caps, env, lost, remember, seccomp, vital};
use crate::ops::snapshot::free_it;
use crate::rootfs::apply;
use crate::rootfs::copy_up::{self, CopyUp, TouchRpmdb};
use crate::rootfs::plan::{self, MountPlan, Op, Source};
use crate::rootfs::scaffold::Fleeting;
use crate::run::spec::{GRACE, RunSpec};
use crate::run::{terminal, user};
use crate::store::{
    Box_, BoxName, BoxSettings, Cache, LayerId, LayerRecord, Lent, Resolved, RunId, SharedLock,
    Store,
};
use crate::sys::exec::Strings;
use crate::sys::landlock;

/// What a run stands on.
#[derive(Debug)]
pub(super) struct Base {
    /// The box whose names it moves.
    pub(super) box_name: BoxName,
    /// What the user said it starts from.
    pub(super) from: String,
    /// The layer that is.
    pub(super) layer: LayerRecord,
    /// The ids that own what lies on disk.
    pub(super) id_map: IdMap,
    /// Head, as it was.
    pub(super) head: Option<LayerId>,
    /// What the box says where nothing was typed.
    pub(super) settings: BoxSettings,
}

/// Resolves box, snapshot and chain, and refuses what can be refused before anything is made.
pub(super) fn base(store: &Store, box_name: &BoxName, options: &RunOptions) -> Result<Base> {
    let from = options.from.as_deref().unwrap_or("head");
    let (opened, layer, from) = match &options.kept_run {
        Some(kept) => {
            let (_run, record) = store.open_run(&kept.parse()?)?;
            let layer = record.layer.ok_or_else(|| {
                Fault::damaged(format!("open run: {kept}: its record names no layer"))
            })?;
            let opened = store.open_box(&record.box_name)?;
            opened.require_owners(&record.id_map, &format!("run {kept}"))?;
            (opened, layer, record.from)
        }
        None => {
            let resolved = store.resolve(box_name, from)?;
            let opened = store.open_box(box_name)?;
            // `BOX/NAME` starts from another box's snapshot; what is kept is kept in ours.
            require_same_owners(store, &opened, &resolved)?;
            (opened, resolved.layer, from.to_owned())
        }
    };
    let box_name = opened.name().clone();
    let head = match options.after {
        // Not read twice: another run may move it in between, and this one has begun from the first.
        After::Keep | After::KeepForce if from == "head" => Some(layer),
        After::Keep | After::KeepForce => opened.head()?,
        _ => None,
    };
    if let After::Commit(name) = &options.after
        && opened.get(name)?.is_some()
    {
        return Err(Fault::conflict(format!("commit: {name}: the snapshot exists already"))
            .hint(free_it(&box_name, name)));
    }
    if options.after == After::Keep && head != Some(layer) {
        return Err(Fault::conflict(format!("keep: {from}: is not the head of box {box_name}"))
            .hint("use --commit NAME, or --keep=force to move the head"));
    }
    let layer = store.layer(&layer)?;
    checks::room(store, &layer, options)?;
    let id_map = opened.record().id_map.clone();
    ids::check(&id_map)?;
    let settings = opened.record().settings.clone();
    Ok(Base { box_name, from, layer, id_map, head, settings })
}

/// Refuses a snapshot of another box whose files belong to other ids on disk.
fn require_same_owners(store: &Store, own: &Box_<'_>, found: &Resolved) -> Result<()> {
    if found.box_name == *own.name() {
        return Ok(());
    }
    let theirs = store.box_record(&found.box_name)?;
    own.require_owners(&theirs.id_map, &format!("box {}", theirs.name)).map_err(|fault| {
        fault.hint(format!("run in that box: `sandbox run --box {} ...`", theirs.name))
    })
}

/// Everything of a run that depends on no run directory yet.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) profile: Profile,
    pub(super) argv: Vec<CString>,
    pub(super) environment: Vec<CString>,
    pub(super) workdir: PathBuf,
    pub(super) lowers: Vec<String>,
    /// The name of the scaffold in the cache, or what is made in its place.
    pub(super) scaffold: std::result::Result<String, Fleeting>,
    pub(super) plan: MountPlan,
    pub(super) copy_up: Vec<CopyUp>,
    pub(super) copy_up_paths: Vec<String>,
    pub(super) hostname: String,
    pub(super) network: network::Plan,
    pub(super) user: Option<user::User>,
    pub(super) seccomp: Vec<u8>,
    pub(super) wall: Wall,
    pub(super) limits: limits::Plan,
    /// Protections that it goes without.
    pub(super) lost: Vec<lost::Lost>,
    /// The caches it mounts, which nobody removes while these are held.
    pub(super) caches: Vec<Cache>,
    /// What it is lent for a store inside it, if it has one.
    pub(super) lent: Option<Lent>,
}

/// Resolves the settings of a run. For a `dry` one nothing is made, so that its store need not be writable.
pub(super) fn settings(
    store: &Store,
    lock: &SharedLock,
    base: &Base,
    options: &RunOptions,
    dry: bool,
) -> Result<Settings> {
    let mut profile =
        Profile::named(options.profile.as_deref().unwrap_or(options.default_profile))?;
    if options.read_only {
        profile = profile.read_only();
    }
    profile = options.changes.apply(profile)?;
    if options.nest && profile.nesting {
        profile = profile.around_nest();
    }
    checks::lowers(store, &base.layer, options)?;
    checks::boundary(&profile, base, options)?;
    checks::nest(&profile, base, options)?;
    let argv = words(options)?;
    let mut environment = env::environment(&profile, std::env::vars_os(), &options.env)?;
    if mounts::keeps_apt_root(&profile, base, options) {
        env::add(&mut environment, plan::APT_CONFIG);
    }
    if options.nest {
        nest_variables(&mut environment, &base.box_name);
    }
    let user = who::user(options)?;
    checks::user(user.as_ref(), &who::map(&base.id_map, options.as_user))?;
    // A box may have a longer name than a host.
    let box_name: String = base.box_name.as_str().chars().take(64).collect();
    let hostname = network::hostname(options.hostname.as_deref().unwrap_or(&box_name))?;
    let network = network::plan(options, &profile)?;
    checks::descriptors(&options.preserve_fds)?;
    let limits = limits::plan(store, options, &profile, base)?;
    let mut lost = limits.lost.clone();
    lost.extend(options.changes.given_up(&profile));
    lost.extend(nest::given_up(options));
    let cache = store.cache_dir()?;
    let single = who::pretends(&base.id_map, options.as_user);
    let request = seccomp::Request { single, nesting: options.nest };
    let seccomp = seccomp::program(&profile, &request, cache.as_fd())?;
    let (wall, open) = Wall::plan(&seccomp, network.net != Net::Host, landlock::version());
    lost.extend(open);
    if options.strict {
        lost::refuse(&lost)?;
    }
    let caches = binds::caches(store, lock, base, options, dry)?;
    let lent = options.nest.then(|| store.lend(lock, &base.box_name, &base.layer)).transpose()?;
    let (mut plan, directories) =
        mounts::plan(store, base, options, &profile, &hostname, &network)?;
    if let Some(lent) = &lent {
        plan.add_nest(lent.layers.iter().map(LayerId::as_str));
    }
    let is_directory = |source: &Source| directories.get(source).copied().unwrap_or(true);
    let places = plan.places(is_directory);
    let scaffold = match fleeting(store, options) {
        true => Err(Fleeting { places, home: options.as_user }),
        false => {
            let cache = (!dry).then(|| cache.as_fd());
            Ok(who::scaffold(cache, &places, &base.id_map, options.as_user)?)
        }
    };
    vital::check_profile(&profile, &seccomp, binds::shares(&plan))?;
    let mut lowers: Vec<String> =
        base.layer.mount.iter().rev().map(|id| format!("layers/{id}/fs")).collect();
    lowers.extend(scaffold.iter().map(|name| format!("cache/{name}")));
    let workdir = options.workdir.clone().unwrap_or_else(|| "/".into());
    let copy_up_paths =
        distinct(profile.copy_up.iter().chain(&base.settings.copy_up).chain(&options.copy_up));
    Ok(Settings {
        copy_up: copy_up_steps(&copy_up_paths, &profile, base, options)?,
        copy_up_paths,
        profile,
        argv,
        environment,
        workdir,
        lowers,
        scaffold,
        plan,
        hostname,
        network,
        user,
        seccomp,
        wall,
        limits,
        lost,
        caches,
        lent,
    })
}

/// How a sandbox inside finds its store, and the box in it.
fn nest_variables(environment: &mut Vec<CString>, box_name: &BoxName) {
    for line in [format!("SANDBOX_BASE_DIR={}", plan::NEST), format!("SANDBOX_BOX={box_name}")] {
        // Neither has a null byte.
        if let Ok(line) = CString::new(line) {
            env::add(environment, &line);
        }
    }
}

/// Whether the run is to leave no trace in its store, because nobody can write there: all that it would make is in
/// memory, and it holds the lock of the store in place of a record.
pub(super) fn fleeting(store: &Store, options: &RunOptions) -> bool {
    let in_memory = options.upper != Upper::Disk && options.kept_run.is_none() && !options.nest;
    in_memory && (store.is_read_only() || store.require_uppers().is_err())
}

/// What is copied up: nothing in a root that is read-only, where no file can become two.
fn copy_up_steps(
    paths: &[String],
    profile: &Profile,
    base: &Base,
    options: &RunOptions,
) -> Result<Vec<CopyUp>> {
    if profile.root == Root::Readonly {
        return Ok(Vec::new());
    }
    let of_box = base.settings.touch_rpmdb.as_deref().map(str::parse::<TouchRpmdb>).transpose()?;
    Ok(copy_up::plan(paths, options.touch_rpmdb.or(of_box).unwrap_or_default()))
}

/// The same paths, each once.
pub(super) fn distinct<'a>(all: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut once: Vec<String> = Vec::new();
    for one in all {
        if !once.contains(one) {
            once.push(one.clone());
        }
    }
    once
}

fn words(options: &RunOptions) -> Result<Vec<CString>> {
    if options.argv.is_empty() || options.argv[0].is_empty() {
        return Err(Fault::usage("run: no command given").hint("`sandbox run -- COMMAND [ARGS]`"));
    }
    let word = |word: &std::ffi::OsString| {
        CString::new(word.clone().into_vec())
            .map_err(|_| Fault::usage("run: a word of the command has a null byte"))
    };
    options.argv.iter().map(word).collect()
}

/// The spec of a run whose directory exists.
pub(super) fn spec(
    store: &Store,
    settings: Settings,
    base: &Base,
    run: RunId,
    options: &RunOptions,
    stay: Option<&Stay>,
) -> Result<RunSpec> {
    let candidates = candidates(&settings.argv[0], &settings.environment);
    let prepared = prepared(store, &settings.plan, base)?;
    Ok(RunSpec {
        id_map: base.id_map.clone(),
        own_network: settings.network.net != Net::Host,
        outside: settings.network.outside,
        wall: settings.wall,
        lowers: settings.lowers,
        run_dir: match &settings.scaffold {
            Ok(_) => format!("runs/{run}"),
            Err(_) => ".".to_owned(),
        },
        nested: store.is_nest(),
        scaffold: settings.scaffold.err(),
        upper: options.upper,
        way: options.overlay_way,
        read_only_root: settings.profile.root == Root::Readonly,
        by_descriptor: binds::shares(&settings.plan),
        plan: settings.plan,
        copy_up: settings.copy_up,
        prepared,
        hostname: settings.hostname,
        argv: Strings::new(settings.argv),
        environment: settings.environment,
        candidates,
        workdir: settings.workdir,
        user: settings.user,
        ordinary: who::ordinary(options),
        capabilities: settings.profile.capabilities,
        last_capability: caps::last_cap(),
        remember: remembers(&settings.profile, &base.id_map, options)
            .then(|| remember::programs(&base.id_map, &settings.seccomp)),
        journal: None,
        seccomp: settings.seccomp,
        limits: settings.limits.rlimits,
        cgroup: None,
        preserve_fds: options.preserve_fds.clone(),
        terminal: stay.map_or_else(|| Ok(terminal::inspect()), stay::terminal_spec)?,
        may_lose: !checks::strict(&settings.profile, options),
        want_root: !options.outs.is_empty(),
        stays: stay.is_some(),
        heeds_exec: stay.is_some() || options.status_fd.is_some(),
        executing: None,
        timeout: options.timeout.map(|time| time.saturating_sub(options.begun.elapsed())),
        setup_timeout: options.setup_time(),
        grace: options.grace.unwrap_or(GRACE),
        output_limit: options.limits.output,
        disk_limit: options.limits.disk,
        pipes: Default::default(),
        processors: Default::default(),
    })
}

/// Where execvp(3) would look: the command itself if it has a slash, else each directory of PATH.
pub(in crate::ops) fn candidates(command: &CString, environment: &[CString]) -> Vec<CString> {
    if command.as_bytes().contains(&b'/') {
        return vec![command.clone()];
    }
    let path = environment
        .iter()
        .find_map(|line| line.as_bytes().strip_prefix(b"PATH="))
        .unwrap_or(b"/usr/bin:/bin");
    path.split(|byte| *byte == b':')
        .filter_map(|dir| {
            let dir = if dir.is_empty() { b".".as_slice() } else { dir };
            CString::new([dir, b"/", command.as_bytes()].concat()).ok()
        })
        .collect()
}

/// In `range` mode the child has given up the rights of the host's root before it binds: what root may
/// reach and an unmapped id may not is detached here, where we still are root. A root without CAP_SYS_ADMIN (of a
/// container) may not: then the child does it while it is still the caller by uid.
fn prepared(store: &Store, plan: &MountPlan, base: &Base) -> Result<Vec<Option<OwnedFd>>> {
    if base.id_map.mode != IdMode::Range {
        return Ok(Vec::new());
    }
    let detach = |op: &Op| {
        let (path, read_only) = match op {
            Op::Bind { source: Source::Host(path), read_only, .. } => (path.clone(), *read_only),
            Op::Bind { source: Source::Store(path), read_only, .. } => {
                let dir = store.path().canonicalize();
                (dir.context("resolve", store.path().display())?.join(path), *read_only)
            }
            _ => return Ok(None),
        };
        match apply::detach_host(&path, read_only) {
            Err(Errno::PERM) => Ok(None),
            tree => tree.map(Some).context("bind", printable(&path.to_string_lossy())),
        }
    };
    plan.ops.iter().map(detach).collect()
}

/// Whether somebody answers for owners and devices that the map does not hold.
pub(super) fn remembers(profile: &Profile, map: &IdMap, options: &RunOptions) -> bool {
    profile.remember_ids && who::remembers(map, options.as_user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_word_is_looked_for_in_path() {
        let environment = vec![c"HOME=/".into(), c"PATH=/a::/b".into()];
        let found = candidates(&c"x".into(), &environment);
        assert_eq!(found, [c"/a/x".into(), c"./x".into(), CString::from(c"/b/x")]);
        assert_eq!(candidates(&c"./x".into(), &environment), [CString::from(c"./x")]);
    }
}
