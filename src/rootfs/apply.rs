//! Executes a [`MountPlan`](super::plan::MountPlan) in the child. It decides nothing.
//!
//! In parts, because the root switch lies between them: [`prepare`] takes everything that needs the
//! host's view of files (device nodes, bind sources, a fresh proc, which the kernel grants only while an
//! unmasked one is visible) as detached mounts; [`apply`] runs after pivot_root, when no path leads to the host
//! any more, so that no symlink of a layer can lead a target out of the new root
//! (CVE-2026-87766, CVE-2023-27561). /proc is mounted last: until then no magic link exists either. Between the two,
//! [`apply_devices`] makes our own /dev, where no path leads through anything of a layer.
//!
//! Nothing is closed one by one: PID 1 closes all it has at once, and a tree that is attached does not
//! notice.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, fstat, statat};
use rustix::fs::{mkdirat, openat, openat2, symlinkat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags,
    fsconfig_create, fsmount, fsopen, mount, move_mount, open_tree,
};

use super::hide::{self, Shown};
use super::overlay::{Base, Way, Writable, assemble, attach, open_directory};
use super::plan::{Op, Source};
use super::target::{
    make_file, make_missing, open_step_by_step, relative, resolve_link, resolve_or_make,
    resolve_ours,
};
use crate::sys;
use crate::sys::exec::leave_open;

/// Which step failed, by its index in the plan, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed {
    /// Index into [`MountPlan::ops`](super::plan::MountPlan).
    pub op: usize,
    /// The kernel's answer.
    pub errno: Errno,
}

/// Detached mounts, one slot a step.
pub type Prepared = Vec<Option<OwnedFd>>;

/// Takes what a plan needs of the host, before the root is switched. `given` holds what the parent has
/// prepared already. `run` is the run's directory beneath the base, for the uppers of overlay binds.
///
/// # Errors
/// The first step that failed.
pub fn prepare(
    ops: &[Op],
    mut given: Prepared,
    base: &Base,
    run: BorrowedFd<'_>,
    way: Option<Way>,
) -> Result<Prepared, Failed> {
    given.resize_with(ops.len(), || None);
    for (index, op) in ops.iter().enumerate() {
        let lower = given[index].take_if(|_| matches!(op, Op::OverlayBind { .. }));
        if given[index].is_none() {
            let tree = prepare_one(op, lower, base, run, way);
            given[index] = tree.map_err(|errno| Failed { op: index, errno })?;
        }
    }
    Ok(given)
}

fn prepare_one(
    op: &Op,
    lower: Option<OwnedFd>,
    base: &Base,
    run: BorrowedFd<'_>,
    way: Option<Way>,
) -> Result<Option<OwnedFd>, Errno> {
    match op {
        Op::Device { name } => {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            open_tree(CWD, format!("/dev/{name}"), flags).map(Some)
        }
        Op::Bind { source, read_only, .. } => detach_bind(source, *read_only, base, run).map(Some),
        Op::OverlayBind { source, scratch, .. } => {
            let lower = lower.map_or_else(|| open_host(source), Ok)?;
            let (upper, work) = (format!("{scratch}/fs"), format!("{scratch}/work"));
            for path in [scratch, &upper, &work] {
                mkdirat(run, path, Mode::from_raw_mode(0o755))?;
            }
            let writable = Writable { dir: run, upper: &upper, work: &work };
            assemble(base, &[lower], Some(writable), MountAttrFlags::empty(), way).map(Some)
        }
        Op::Proc => fresh_proc().map(Some),
        _ => Ok(None),
    }
}

/// The first half of [`prepare`] for who may reach the sources of binds now and not as root inside: takes those
/// that are not `given` yet, of overlays the directory beneath.
///
/// # Errors
/// The first step that failed.
pub fn prepare_binds(
    ops: &[Op],
    given: &mut Prepared,
    base: &Base,
    run: BorrowedFd<'_>,
) -> Result<(), Failed> {
    given.resize_with(ops.len(), || None);
    for (index, op) in ops.iter().enumerate() {
        let found = match op {
            _ if given[index].is_some() => continue,
            Op::Bind { source, read_only, .. } => detach_bind(source, *read_only, base, run),
            Op::OverlayBind { source, .. } => open_host(source),
            _ => continue,
        };
        given[index] = Some(found.map_err(|errno| Failed { op: index, errno })?);
    }
    Ok(())
}

fn detach_bind(
    source: &Source,
    read_only: bool,
    base: &Base,
    run: BorrowedFd<'_>,
) -> Result<OwnedFd, Errno> {
    let place = match source {
        Source::Host(path) => return detach_host(path, read_only),
        Source::Store(path) => base.open(path)?,
        Source::Run(path) => open_directory(run, path)?,
    };
    // Before 6.15 a clone can be taken of an attached tree only.
    base.attach()?;
    detach(place.as_fd(), read_only)
}

/// A new /proc of the caller's pid namespace, detached.
///
/// # Errors
/// EPERM where a container masks parts of its own.
pub fn fresh_proc() -> Result<OwnedFd, Errno> {
    let fs = leave_open(fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?);
    fsconfig_create(fs)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// The outer /proc with all that lies over it, detached. Read-only, because it has files of other processes of the
/// caller that he may write (oom_score_adj, coredump_filter).
///
/// # Errors
/// What open_tree(2) and mount_setattr(2) say.
pub fn outer_proc() -> Result<OwnedFd, Errno> {
    detach_host(Path::new("/proc"), true)
}

/// A detached recursive clone of a path of the host, read-only in all its mounts if asked. `path` is
/// canonical: a component that has become a symlink since it was resolved is refused (CVE-2024-42472).
///
/// # Errors
/// ELOOP for a swapped component, otherwise what openat2(2) and open_tree(2) say.
pub fn detach_host(path: &Path, read_only: bool) -> Result<OwnedFd, Errno> {
    detach(open_host(path)?.as_fd(), read_only)
}

fn open_host(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        // systemd's RestrictSUIDSGID= and old container filters know no openat2.
        Err(Errno::NOSYS | Errno::PERM) => open_step_by_step(path),
        other => other,
    }
}

fn detach(source: BorrowedFd<'_>, read_only: bool) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(source, "", flags)?;
    if read_only {
        sys::mount::set_attributes(tree.as_fd(), sys::mount::READ_ONLY, true)?;
    }
    Ok(tree)
}

/// Executes the first steps, which make our own /dev, up to its devpts; the new root is only the working directory
/// yet. How many that were.
///
/// # Errors
/// The first step that failed.
pub fn apply_devices(ops: &[Op], prepared: &Prepared) -> Result<usize, Failed> {
    let dev = Path::new("/dev");
    for (index, (op, tree)) in ops.iter().zip(prepared).enumerate() {
        let of_ours = match op {
            Op::Tmpfs { target, .. } if target == dev => is_directory(target).is_ok(),
            Op::Directory { target, .. } | Op::Symlink { target, .. } => target.starts_with(dev),
            Op::Device { .. } => true,
            _ => false,
        };
        if !of_ours {
            return Ok(index);
        }
        apply_one(op, tree.as_ref(), None, &Shown::default())
            .map_err(|errno| Failed { op: index, errno })?;
    }
    Ok(ops.len())
}

/// Where the old root can be until somebody unmounts it: in a directory of our own that the step after those that are
/// `done` covers with devpts, so that no path leads there, whatever symlinks a layer has. None if that is not the
/// next step.
///
/// # Errors
/// What mkdir(2) says.
pub fn beneath_devpts(ops: &[Op], done: usize) -> Result<Option<PathBuf>, Errno> {
    let Some(Op::Devpts { target }) = ops.get(done) else { return Ok(None) };
    let place = relative(target).join("old-root");
    mkdirat(CWD, &place, Mode::RWXU)?;
    Ok(Some(place))
}

/// Executes that next step, right behind the switch. How many are done then.
///
/// # Errors
/// That it failed.
pub fn cover(ops: &[Op], done: usize) -> Result<usize, Failed> {
    let covered = ops.get(done).map_or(Ok(0), |op| apply_one(op, None, None, &Shown::default()));
    covered.map(|_| done + 1).map_err(|errno| Failed { op: done, errno })
}

/// What became of the steps of a plan, by their index in it.
#[derive(Debug, Default)]
pub struct Applied {
    /// Those that nobody asked for, and that the layers have no place for.
    pub missed: Vec<usize>,
    /// Those whose place was made in the layers, and how many of the last components of its path.
    pub made: Vec<(usize, u32)>,
}

/// Executes the steps in the new root, which is the process's root and working directory, but for the first, which were
/// `done` already.
///
/// # Errors
/// The first step that failed of those that a run cannot do without.
pub fn apply(ops: &[Op], prepared: Prepared, done: usize) -> Result<Applied, Failed> {
    for (index, op) in ops.iter().enumerate().skip(done) {
        plain_directory(op).map_err(|errno| Failed { op: index, errno })?;
    }
    // The null device itself, whatever a bind has put over /dev/null meanwhile.
    let null = ops.iter().position(|op| matches!(op, Op::Device { name: "null" }));
    let null = null.and_then(|index| prepared[index].as_ref());
    let shown = Shown::default();
    let mut applied = Applied::default();
    for (index, (op, tree)) in ops.iter().zip(&prepared).enumerate().skip(done) {
        match apply_one(op, tree.as_ref(), null, &shown) {
            Ok(0) => {}
            Ok(levels) => applied.made.push((index, levels)),
            Err(_) if !op.is_required() => applied.missed.push(index),
            Err(errno) => return Err(Failed { op: index, errno }),
        }
    }
    std::mem::forget(prepared);
    Ok(applied)
}

/// /dev and /proc are named by path, before and after something is mounted there: a layer that has a symlink
/// instead could have them mean two places (CVE-2019-19921, CVE-2026-41579).
fn plain_directory(op: &Op) -> Result<(), Errno> {
    match op {
        Op::Proc => is_directory(Path::new("/proc")),
        Op::Tmpfs { target, .. } if target == Path::new("/dev") => is_directory(target),
        _ => Ok(()),
    }
}

fn is_directory(target: &Path) -> Result<(), Errno> {
    let mode = statat(CWD, relative(target), AtFlags::SYMLINK_NOFOLLOW)?.st_mode;
    match FileType::from_raw_mode(mode) {
        FileType::Directory => Ok(()),
        _ => Err(Errno::NOTDIR),
    }
}

/// How many components of its place it had to make in the layers.
fn apply_one(
    op: &Op,
    tree: Option<&OwnedFd>,
    null: Option<&OwnedFd>,
    shown: &Shown,
) -> Result<u32, Errno> {
    let tree = || tree.ok_or(Errno::BADF);
    match op {
        Op::Tmpfs { target, mode, limits, exec } => {
            match mount_tmpfs(target, *mode, limits.as_deref(), *exec) {
                Err(Errno::NOENT) => {
                    let place = make_missing(target, true)?;
                    leave_open(place.at);
                    mount_tmpfs(target, *mode, limits.as_deref(), *exec)?;
                    return Ok(place.made);
                }
                other => other,
            }
        }
        Op::Devpts { target } => {
            let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
            mount(
                "devpts",
                relative(target),
                "devpts",
                flags,
                c"newinstance,ptmxmode=0666,mode=0620",
            )
        }
        Op::Directory { target, mode } => {
            match mkdirat(CWD, relative(target), Mode::from_raw_mode(*mode)) {
                Err(Errno::EXIST) => Ok(()),
                other => other,
            }
        }
        Op::File { target } => make_file(target),
        Op::Note { target, content } => note(target, content),
        Op::Symlink { target, to } => symlinkat(*to, CWD, relative(target)),
        Op::Device { name } => {
            let target = format!("dev/{name}");
            make_file(Path::new(&target))?;
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            move_mount(tree()?, "", CWD, target, flags)
        }
        Op::Text { target, content } => return text(target, content),
        Op::Account { target, entry } => match entry.added_to(target) {
            Some(content) => return text(target, &content),
            None => Ok(()),
        },
        Op::Bind { target, required: false, .. } => return attach_ours(tree()?.as_fd(), target),
        Op::Bind { target, .. } | Op::OverlayBind { target, .. } => {
            let tree = tree()?.as_fd();
            let kind = || fstat(tree).map(|stat| FileType::from_raw_mode(stat.st_mode));
            let place = resolve_or_make(target, || Ok(kind()? == FileType::Directory))?;
            attach(tree, leave_open(place.at))?;
            return Ok(place.made);
        }
        Op::Proc => move_mount(tree()?, "", CWD, "/proc", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH),
        Op::Mask { target } => hide::mask(target, null, shown),
        Op::ReadOnly { target } => hide::read_only(target),
    }
    .map(|()| 0)
}

fn mount_tmpfs(target: &Path, mode: u32, limits: Option<&str>, exec: bool) -> Result<(), Errno> {
    let limits = limits.map_or(String::new(), |limits| format!(",{limits}"));
    let options =
        std::ffi::CString::new(format!("mode={mode:o}{limits}")).map_err(|_| Errno::INVAL)?;
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    if !exec {
        flags |= MountFlags::NOEXEC;
    }
    mount("tmpfs", relative(target), "tmpfs", flags, options.as_c_str())
}

/// Where the layer has a symlink to a directory, over that link.
fn attach_ours(tree: BorrowedFd<'_>, target: &Path) -> Result<u32, Errno> {
    let over = |at: OwnedFd| attach(tree, leave_open(at));
    let place = resolve_ours(target);
    let attached = place.and_then(|place| over(place.at).map(|()| place.made));
    attached.or_else(|errno| resolve_link(target).and_then(over).map(|()| 0).map_err(|_| errno))
}

/// A file of ours over one of the layer: in the memory of /run, without a name there once it is mounted.
fn text(target: &Path, content: &str) -> Result<u32, Errno> {
    const NAME: &str = "/run/.text";
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = leave_open(openat(CWD, NAME, flags, Mode::from_raw_mode(0o644))?);
    rustix::io::write(file, content.as_bytes())?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let attached = attach_ours(leave_open(open_tree(file, "", flags)?), target);
    // Only now: a file without a name cannot be mounted (ENOENT), a mounted one may lose its name.
    unlinkat(CWD, NAME, AtFlags::empty())?;
    attached
}

fn note(target: &Path, content: &str) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = leave_open(openat(CWD, target, flags, Mode::from_raw_mode(0o644))?);
    rustix::io::write(file, content.as_bytes()).map(drop)
}
