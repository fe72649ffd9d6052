//! From what was typed to a [`RunSpec`]: names to numbers, paths to canonical paths, all before the clone.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;

use super::{After, Bind, Net, RunOptions, checks};
use crate::fault::{Context, Fault, Result, printable};
use crate::ids::{self, IdMap, Mode as IdMode};
use crate::isolate::profile::{Network, Profile, Root, Tmp};
use crate::isolate::{caps, env, limits, seccomp};
use crate::rootfs::copy_up::{self, CopyUp};
use crate::rootfs::plan::{self, BindMode, MountPlan, Op, Source};
use crate::rootfs::{apply, scaffold};
use crate::run::spec::RunSpec;
use crate::run::{terminal, user};
use crate::store::{BoxName, LayerId, LayerRecord, RunId, Store};
use crate::sys::exec::Strings;

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
    /// The paths that the box has copied up.
    pub(super) copy_up: Vec<String>,
}

/// Resolves box, snapshot and chain, and refuses what can be refused before anything is made.
pub(super) fn base(store: &Store, box_name: &BoxName, options: &RunOptions) -> Result<Base> {
    let from = options.from.as_deref().unwrap_or("head");
    let (box_name, layer, from) = match &options.kept_run {
        Some(kept) => {
            let (_run, record) = store.open_run(&kept.parse()?)?;
            let layer = record.layer.ok_or_else(|| {
                Fault::damaged(format!("open run: {kept}: its record names no layer"))
            })?;
            (record.box_name, layer, record.from)
        }
        None => {
            let resolved = store.resolve(box_name, from)?;
            // `BOX/NAME` starts from another box's snapshot; what is kept is kept in ours.
            (box_name.clone(), resolved.layer, from.to_owned())
        }
    };
    let opened = store.open_box(&box_name)?;
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
            .hint(format!("choose another name, or remove it first: `sandbox rm {name}`")));
    }
    if options.after == After::Keep && head != Some(layer) {
        return Err(Fault::conflict(format!("keep: {from}: is not the head of box {box_name}"))
            .hint("use --commit NAME, or --keep=force to move the head"));
    }
    let layer = store.layer(&layer)?;
    let id_map = opened.record().id_map.clone();
    ids::check(&id_map)?;
    let copy_up = opened.record().settings.copy_up.clone();
    Ok(Base { box_name, from, layer, id_map, head, copy_up })
}

/// Everything of a run that depends on no run directory yet.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) profile: Profile,
    pub(super) argv: Vec<CString>,
    pub(super) environment: Vec<CString>,
    pub(super) workdir: PathBuf,
    pub(super) lowers: Vec<String>,
    pub(super) scaffold: String,
    pub(super) plan: MountPlan,
    pub(super) copy_up: Vec<CopyUp>,
    pub(super) copy_up_paths: Vec<String>,
    pub(super) hostname: String,
    pub(super) network: Net,
    pub(super) user: Option<user::User>,
    pub(super) seccomp: Vec<u8>,
}

/// Resolves the settings of a run.
pub(super) fn settings(store: &Store, base: &Base, options: &RunOptions) -> Result<Settings> {
    let profile = Profile::named(options.profile.as_deref().unwrap_or(options.default_profile))?;
    checks::boundary(&profile, base, options)?;
    let argv = words(options)?;
    let environment = env::environment(&profile, std::env::vars_os(), &options.env)?;
    let user = options.user.as_deref().map(user::parse).transpose()?;
    checks::user(user.as_ref(), &base.id_map)?;
    // A box may have a longer name than a host.
    let box_name: String = base.box_name.as_str().chars().take(64).collect();
    let hostname = hostname(options.hostname.as_deref().unwrap_or(&box_name))?;
    let network = options.net.unwrap_or(match profile.network {
        Network::None => Net::None,
        Network::Host => Net::Host,
    });
    checks::descriptors(&options.preserve_fds)?;
    let cache = open_cache(store)?;
    let (plan, directories) = plan_of(store, base, options, &profile, &hostname, network)?;
    let is_directory = |source: &Source| directories.get(source).copied().unwrap_or(true);
    let places = plan.places(is_directory);
    let scaffold = scaffold::ensure(cache.as_fd(), &places, base.id_map.root_owner())?;
    let request = seccomp::Request { single: base.id_map.mode == IdMode::Single, nesting: false };
    let seccomp = seccomp::program(&profile, &request, cache.as_fd())?;
    let mut lowers: Vec<String> =
        base.layer.mount.iter().rev().map(|id| format!("layers/{id}/fs")).collect();
    lowers.push(format!("cache/{scaffold}"));
    let workdir = options.workdir.clone().unwrap_or_else(|| "/".into());
    let copy_up_paths =
        distinct(profile.copy_up.iter().chain(&base.copy_up).chain(&options.copy_up));
    Ok(Settings {
        // In a root that is read-only no file can become two.
        copy_up: match profile.root {
            Root::Overlay => copy_up::plan(&copy_up_paths, options.touch_rpmdb),
            Root::Readonly => Vec::new(),
        },
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
    })
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
        return Err(Fault::usage("run: no command given").hint("sandbox run -- COMMAND [ARGS]"));
    }
    let word = |word: &std::ffi::OsString| {
        CString::new(word.clone().into_vec())
            .map_err(|_| Fault::usage("run: a word of the command has a null byte"))
    };
    options.argv.iter().map(word).collect()
}

fn hostname(name: &str) -> Result<String> {
    let fits = (1..=64).contains(&name.len());
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
    if fits && name.chars().all(allowed) {
        return Ok(name.to_owned());
    }
    let shown = printable(name);
    Err(Fault::usage(format!("host name: {shown}: not 1 to 64 letters, digits, `.`, `_`, `-`")))
}

fn open_cache(store: &Store) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(store.dir(), "cache", flags, Mode::empty()).context("open", "the cache of the store")
}

/// The mount plan, and for each bind source whether it is a directory.
fn plan_of(
    store: &Store,
    base: &Base,
    options: &RunOptions,
    profile: &Profile,
    hostname: &str,
    network: Net,
) -> Result<(MountPlan, HashMap<Source, bool>)> {
    let mut request = plan::Request {
        binds: Vec::new(),
        tmpfs: options.tmpfs.clone(),
        tmp_in_memory: profile.tmp == Tmp::Memory,
        hostname: hostname.to_owned(),
        host_network: network == Net::Host && Path::new("/etc/resolv.conf").exists(),
        masked: profile.masked_paths.clone(),
        read_only: profile.readonly_paths.clone(),
        host_root: base.id_map.mode == IdMode::Identity,
    };
    for bind in &options.binds {
        request.binds.push(host_bind(store, bind)?);
    }
    for (name, target) in &options.caches {
        let source = cache_dir(store, base, name)?;
        let (target, mode) = (target.clone(), BindMode::ReadWrite);
        request.binds.push(plan::Bind { source, target, mode });
    }
    let mut plan = plan::build(&request)?;
    let mut directories = HashMap::new();
    for op in &mut plan.ops {
        if let Op::Bind { source: source @ Source::Host(_), .. } = op {
            // resolv.conf is often a symlink; what is bound is what it leads to.
            let path = canonical(source)?;
            let directory = scaffold::is_directory(&path)
                .context("bind", printable(&path.to_string_lossy()))?;
            *source = Source::Host(path);
            directories.insert(source.clone(), directory);
        }
    }
    plan.make_places(|source| directories.get(source).copied().unwrap_or(true));
    Ok((plan, directories))
}

fn canonical(source: &Source) -> Result<PathBuf> {
    match source {
        Source::Host(path) => {
            path.canonicalize().context("bind", printable(&path.to_string_lossy()))
        }
        Source::Store(path) => Ok(path.into()),
    }
}

/// A bind of the host: canonical, so that the child can refuse a path that changes; never base_dir, nor
/// what contains it, nor what lies in it: a payload must not reach the store.
fn host_bind(store: &Store, bind: &Bind) -> Result<plan::Bind> {
    let shown = printable(&bind.source.to_string_lossy());
    let source = bind.source.canonicalize().map_err(|error| {
        let fault = Err::<(), _>(error).context("bind", &shown);
        Fault { kind: crate::fault::Kind::Usage, ..fault.err().unwrap_or_else(unreachable_fault) }
    })?;
    let base_dir = store.path().canonicalize().context("resolve", store.path().display())?;
    if leads_to(&source, &base_dir) || leads_to(&base_dir, &source) {
        return Err(Fault::usage(format!("bind: {shown}: it contains or is part of the store"))
            .hint("move the store elsewhere with --base-dir, or bind a smaller directory"));
    }
    if bind.mode == BindMode::Overlay && !source.is_dir() {
        return Err(Fault::usage(format!("bind: {shown}: only a directory can be an overlay")));
    }
    Ok(plan::Bind { source: Source::Host(source), target: bind.target.clone(), mode: bind.mode })
}

/// Whether `path` is `place` or lies in it, also where a bind mount of the host gives it another path.
fn leads_to(path: &Path, place: &Path) -> bool {
    let inode = |path: &Path| {
        let stat = rustix::fs::stat(path).ok()?;
        Some((stat.st_dev, stat.st_ino))
    };
    let place_inode = inode(place);
    path.starts_with(place)
        || path.ancestors().any(|above| place_inode.is_some() && inode(above) == place_inode)
}

fn unreachable_fault() -> Fault {
    Fault::failed("bind: unknown reason")
}

/// The directory of a persistent cache of the box, made when it is first named.
fn cache_dir(store: &Store, base: &Base, name: &str) -> Result<Source> {
    let name: crate::store::SnapshotName = name
        .parse()
        .map_err(|fault: Fault| Fault::usage(fault.message.replacen("snapshot", "cache", 1)))?;
    let parent = format!("cache/box-{}", base.box_name);
    let path = format!("{parent}/{name}");
    for (path, mode) in [(&parent, 0o700), (&path, 0o755)] {
        match mkdirat(store.dir(), path, Mode::from_raw_mode(mode)) {
            Ok(()) => own(store, path, base)?,
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).context("create cache", &name),
        }
    }
    Ok(Source::Store(path))
}

fn own(store: &Store, path: &str, base: &Base) -> Result<()> {
    let (uid, gid) = base.id_map.root_owner();
    if uid == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(store.dir(), path, Some(uid), Some(gid), flags).context("own cache", path)
}

/// The spec of a run whose directory exists.
pub(super) fn spec(
    store: &Store,
    settings: Settings,
    base: &Base,
    run: RunId,
    options: &RunOptions,
) -> Result<RunSpec> {
    let candidates = candidates(&settings.argv[0], &settings.environment);
    let prepared = prepared(store, &settings.plan, base)?;
    Ok(RunSpec {
        id_map: base.id_map.clone(),
        own_network: settings.network == Net::None,
        lowers: settings.lowers,
        run_dir: format!("runs/{run}"),
        upper: options.upper,
        way: options.overlay_way,
        read_only_root: settings.profile.root == Root::Readonly,
        plan: settings.plan,
        copy_up: settings.copy_up,
        prepared,
        hostname: settings.hostname,
        argv: Strings::new(settings.argv),
        environment: settings.environment,
        candidates,
        workdir: settings.workdir,
        user: settings.user,
        capabilities: settings.profile.capabilities,
        last_capability: caps::last_cap(),
        seccomp: settings.seccomp,
        limits: limits::plan(&settings.profile.limits),
        preserve_fds: options.preserve_fds.clone(),
        terminal: terminal::inspect(),
        want_root: !options.outs.is_empty(),
        timeout: options.timeout,
    })
}

/// Where execvp(3) would look: the command itself if it has a slash, else each directory of PATH.
fn candidates(command: &CString, environment: &[CString]) -> Vec<CString> {
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
/// reach and an unmapped id may not is detached here, where we still are root.
fn prepared(store: &Store, plan: &MountPlan, base: &Base) -> Result<Vec<Option<OwnedFd>>> {
    if base.id_map.mode != IdMode::Range {
        return Ok(Vec::new());
    }
    plan.ops
        .iter()
        .map(|op| match op {
            Op::Bind { source: Source::Host(path), read_only, .. } => {
                let shown = printable(&path.to_string_lossy());
                apply::detach_host(path, *read_only).map(Some).context("bind", shown)
            }
            Op::Bind { source: Source::Store(path), read_only, .. } => {
                let dir = store.path().canonicalize().context("resolve", store.path().display())?;
                apply::detach_host(&dir.join(path), *read_only).map(Some).context("bind", path)
            }
            _ => Ok(None),
        })
        .collect()
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

    #[test]
    fn host_names_are_plain() {
        assert!(hostname("build-1.example").is_ok());
        for name in ["", "a b", "a/b", "a\n", &"x".repeat(65)] {
            assert!(hostname(name).is_err(), "{name:?}");
        }
    }
}
