//! What is refused before anything is made.

use std::path::Path;

use rustix::fs::{Access, AtFlags, accessat};
use rustix::io::Errno;

use super::resolve::{self, Base};
use super::{After, RunOptions};
use crate::fault::{Fault, Result, WRITABLE};
use crate::ids::{IdMap, Mode, is_no_boundary};
use crate::isolate::profile::Profile;
use crate::ops::snapshot::refuse_taken;
use crate::ops::{budget, in_time};
use crate::remedy;
use crate::run::spec::Upper;
use crate::run::user::{User, Who};
use crate::store::{BoxName, LayerRecord, SharedLock, Store};
use crate::sys;

/// Code that nobody trusts is not run as the machine's own root, whatever else holds it back.
pub(super) fn boundary(profile: &Profile, base: &Base, options: &RunOptions) -> Result<()> {
    if !is_no_boundary(&base.id_map) || !strict(profile, options) {
        return Ok(());
    }
    Err(Fault::host(format!(
        "run: strict: in box {} root inside is root of this machine",
        base.box_name
    ))
    .hint("make a box with a range: `sandbox init NAME --ids range --from SOURCE`"))
}

/// A sandbox inside the sandbox: not where root inside could reach beyond its store.
pub(super) fn nest(profile: &Profile, base: &Base, options: &RunOptions) -> Result<()> {
    if !options.nest {
        return Ok(());
    }
    if is_no_boundary(&base.id_map) {
        return Err(Fault::host(format!(
            "run: --nest: in box {} root inside is root of this machine",
            base.box_name
        ))
        .hint("make a box with a range: `sandbox init NAME --ids range --from SOURCE`"));
    }
    let refuse = |why: &str| Err(Fault::usage(format!("run: --nest: {why}")));
    if profile.capabilities.holds(CAP_SYS_ADMIN) {
        return refuse("with CAP_SYS_ADMIN the layers could be mounted with writes");
    }
    if options.user.is_some() || options.as_user {
        return refuse("the store inside belongs to root inside: leave out --user and --as-user");
    }
    if options.kept_run.is_some() {
        return refuse("a kept run goes on as it was: leave out --run");
    }
    Ok(())
}

/// A chain that cannot get one layer more: said before the command runs, and not after.
pub(super) fn room(store: &Store, layer: &LayerRecord, options: &RunOptions) -> Result<()> {
    if store.is_nest() && options.after != After::Discard {
        store.fold_plan(layer)?;
    }
    Ok(())
}

/// Where a store lies on overlayfs, what its layers say about removed files may not have come along: overlayfs shows and
/// takes no whiteout, and what builds an image leaves attributes out. A layer without one beneath needs neither; else
/// only digests tell.
pub(super) fn lowers(store: &Store, layer: &LayerRecord, options: &RunOptions) -> Result<()> {
    let Err(fault) = store.require_uppers() else { return Ok(()) };
    if !resolve::fleeting(store, options) {
        return Err(fault);
    }
    let has_digests = |id| store.manifest(id).map(|digests| digests.is_some());
    let mut undigested = layer.mount.iter().map(has_digests).filter(|has| *has != Ok(true));
    if layer.mount.len() == 1 || (options.verify && undigested.next().is_none()) {
        return Ok(());
    }
    Err(Fault::host(format!(
        "run: {}: lies on overlayfs, which shows no whiteouts, so that files that a layer has removed could be there again",
        store.path().display()
    ))
    .hint("start from a snapshot of one layer, as init makes it; or add --verify, if the layers were given digests (fsck --seal) before the store was put here"))
}

/// The number of CAP_SYS_ADMIN in capabilities(7).
const CAP_SYS_ADMIN: u32 = 21;

/// Whether a run may lose no protection.
pub(super) fn strict(profile: &Profile, options: &RunOptions) -> bool {
    options.strict || profile.name() == "strict"
}

/// Users that the map does not hold cannot be.
pub(in crate::ops) fn user(user: Option<&User>, map: &IdMap) -> Result<()> {
    let held = |who: &Who, holds: &dyn Fn(u32) -> bool| match who {
        Who::Id(id) => holds(*id),
        Who::Name(_) => true,
    };
    let Some(user) = user else { return Ok(()) };
    let group = user.group.as_ref();
    if held(&user.user, &|id| map.holds_uid(id))
        && group.is_none_or(|group| held(group, &|id| map.holds_gid(id)))
    {
        return Ok(());
    }
    let hint = match map.mode {
        Mode::Single if map.holds_uid(0) => {
            "a box in single mode has uid 0 only; --as-user makes that uid 1000, and sub-ids give a new box more"
        }
        Mode::Single => "with --as-user a box in single mode has uid 1000 only",
        _ => "the box has the ids that its map holds and no others: `sandbox box show`",
    };
    Err(Fault::usage(format!("user: {user}: the id map ({}) does not hold it", map.mode))
        .hint(hint))
}

/// Refuses, before the command starts, what could not be kept at its end: a name that is taken, a disk that is full. Tells of one
/// that is nearly so.
pub(super) fn may_keep(store: &Store, box_name: &BoxName, options: &RunOptions) -> Result<()> {
    if let After::Commit(name) = &options.after {
        refuse_taken(store, box_name, name)?;
    }
    if (options.nest || options.after != After::Discard)
        && let (Some(warning), Some(warn)) = (budget::check(store)?, options.warn)
    {
        warn(&warning);
    }
    Ok(())
}

/// The fault of a run on a store that cannot be written to, with the way in which it can be used.
pub(super) fn or_in_memory(store: &Store, options: &RunOptions, fault: Fault) -> Fault {
    let kept = !matches!(options.after, After::Discard) || options.keep_on_failure;
    let read_only = || accessat(store.dir(), ".", Access::WRITE_OK, AtFlags::empty());
    match (options.upper, &fault.hint) {
        // Something else that the run writes may be read-only, too.
        (Upper::Disk, Some(hint))
            if hint == WRITABLE && !kept && read_only() == Err(Errno::ROFS) =>
        {
            let hint = format!("{hint}; or {}", remedy::IN_MEMORY);
            fault.hint(hint)
        }
        _ => fault,
    }
}

/// Descriptors to leave open have to be.
pub(super) fn descriptors(fds: &[i32]) -> Result<()> {
    match fds.iter().find(|fd| **fd < 3 || !sys::exec::is_inherited(**fd)) {
        Some(fd) => Err(Fault::usage(format!("preserve descriptor: {fd}: it is not open"))),
        None => no_directory(fds).and_then(|()| no_terminal(fds)),
    }
}

/// The host's terminal never gets inside, where what is typed for others could be read. (For a standard descriptor one of
/// the sandbox's own stands in.)
fn no_terminal(fds: &[i32]) -> Result<()> {
    match fds.iter().find(|fd| sys::exec::is_terminal(**fd)) {
        Some(fd) => Err(Fault::usage(format!(
            "preserve descriptor: {fd}: it is a terminal, on which the command could read what is typed for others"
        ))
        .hint("the command finds one of its own as stdin, stdout or stderr; a pipe to `cat` shows what it writes")),
        None => Ok(()),
    }
}

/// What a command is given open is no directory: from there it could go up, and to every file of the host that its
/// caller may reach (as in CVE-2024-21626).
pub(in crate::ops) fn no_directory(more: &[i32]) -> Result<()> {
    match [0, 1, 2].iter().chain(more).find(|fd| sys::exec::is_directory(**fd)) {
        Some(fd) => Err(Fault::usage(format!(
            "give descriptor: {fd}: it is a directory, from which all of this machine can be reached"
        ))
        .hint("--bind SRC:DST shows a directory inside; `</dev/null` is no input")),
        None => Ok(()),
    }
}

/// What is named of the host is there within the time that the run has, or nothing is begun: from then on nobody could end
/// it.
pub(super) fn answers(options: &RunOptions) -> Result<()> {
    let Some(until) = options.until(options.begun) else { return Ok(()) };
    let sources = options.binds.iter().map(|bind| bind.source.as_path());
    let results = options.outs.iter().filter_map(|(_, dir)| dir.parent());
    let paths: Vec<_> = sources.chain(results).collect();
    let profile = options.profile.as_deref().filter(|name| name.contains('/'));
    let files: Vec<_> = [profile, options.changes.seccomp.as_deref()]
        .into_iter()
        .flatten()
        .map(Path::new)
        .collect();
    in_time::answer_until(&paths, &files, until)
}

/// Resolves what the run starts from; checks it, if that is asked for, while nobody waits for a lock, and
/// anew if it has moved meanwhile.
pub(super) fn resolve_verified(
    store: &Store,
    box_name: &BoxName,
    options: &RunOptions,
) -> Result<(SharedLock, Base)> {
    let mut verified = None;
    loop {
        let lock = store.lock_shared()?;
        let base = resolve::base(store, box_name, options)?;
        if !options.verify || verified == Some(base.layer.id) {
            return Ok((lock, base));
        }
        drop(lock);
        crate::ops::verify::chain(store, &base.layer, &base.id_map)?;
        verified = Some(base.layer.id);
    }
}
