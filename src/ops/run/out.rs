//! `--out PATH:DIR`: results out of a sandbox whose command has ended, whether or not it succeeded.
//!
//! Read through the merged view by descriptor, in the user namespace of the box: a link that the command
//! left behind leads nowhere but into its own root. What arrives belongs to the caller, and no set-id bit,
//! capability or access control list of the command's comes along.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags};
use rustix::fs::{fstat, mkdirat, openat, renameat, renameat_with, statat};
use rustix::io::Errno;

use crate::fault::{Context, Fault, Result, printable};
use crate::ids::{self, Entry, Extent, IdMap, Mode as IdMode, Powers};
use crate::store::RunId;
use crate::sys::signal::Deferred;
use crate::tree;

/// Refuses, before the command starts, what could not be copied at its end, as far as that can be known by now.
///
/// # Errors
/// Usage for what has no name; conflict for a directory that is in the way; what the system says of what is no directory.
pub(super) fn check(outs: &[(PathBuf, PathBuf)]) -> Result<()> {
    for (path, dir) in outs {
        let name = name(path)?;
        if dir.exists() && !dir.is_dir() {
            return Err(Fault::errno("open directory", show(dir), Errno::NOTDIR));
        }
        // A file may replace a file.
        if dir.join(name).symlink_metadata().is_ok_and(|stat| stat.is_dir()) {
            return Err(exists(&show(path), name));
        }
    }
    Ok(())
}

/// Copies each result, and gives a line for each; after one that fails, no other. Results before it are there.
///
/// # Errors
/// Beside the lines: not-found for a path that is not there; conflict for a directory that exists; a signal that has come;
/// otherwise what the system says.
pub(super) fn copy(
    root: &OwnedFd,
    outs: &[(PathBuf, PathBuf)],
    map: &IdMap,
    signals: &Deferred,
) -> (Vec<String>, Option<Fault>) {
    let mut lines = Vec::new();
    for (path, dir) in outs {
        match copy_one(root, path, dir, map, signals) {
            Ok(line) => lines.push(line),
            Err(fault) => return (lines, Some(fault)),
        }
    }
    (lines, None)
}

fn name(path: &Path) -> Result<&OsStr> {
    path.file_name().ok_or_else(|| {
        Fault::usage(format!("copy out: {}: name a file or directory in the root", show(path)))
    })
}

fn exists(shown: &str, name: &OsStr) -> Fault {
    let name = printable(&name.to_string_lossy());
    Fault::conflict(format!("copy out: {shown}: {name} exists already"))
        .hint("name an empty directory")
}

fn copy_one(
    root: &OwnedFd,
    path: &Path,
    dir: &Path,
    map: &IdMap,
    signals: &Deferred,
) -> Result<String> {
    let (shown, into) = (show(path), show(dir));
    let name = name(path)?;
    let fresh = !dir.exists();
    std::fs::create_dir_all(dir).context("create directory", &into)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let target = openat(CWD, dir, flags, Mode::empty()).context("open directory", &into)?;
    // Nobody else's, since it is taken away whatever comes of this.
    let temporary = OsString::from(format!(".sandbox-{}", RunId::random()?));
    let job = || transfer(root.as_fd(), path, target.as_fd(), [name, &temporary]);
    let signals = Some(signals);
    let copied = match map.mode {
        // Inside root is the caller: it may read all of the tree, and write where the caller may.
        IdMode::Single | IdMode::Subuid => {
            ids::inside_unless(signals, Entry::Map(map), Powers::Files, job)
        }
        // The caller is root of this namespace, and inside root could not write to its directory.
        IdMode::Range | IdMode::Identity => ids::aside(signals, job),
    };
    if copied.is_err() {
        // Half made, also by one that was killed.
        tree::remove::remove_tree(target.as_fd(), &temporary).ok();
    }
    if copied.is_err() && fresh {
        // Only if there is nothing in it.
        std::fs::remove_dir(dir).ok();
    }
    copied.map_err(|fault| match signals.and_then(Deferred::heard) {
        Some(_) => Fault { message: format!("copy out: {shown}: {}", fault.message), ..fault },
        None => fault,
    })?;
    Ok(format!("copied out: {shown} to {into}"))
}

fn transfer(
    root: BorrowedFd<'_>,
    path: &Path,
    target: BorrowedFd<'_>,
    [name, temporary]: [&OsStr; 2],
) -> Result<()> {
    let shown = show(path);
    let source = open_inside(root, path).map_err(|errno| match errno {
        Errno::NOENT => Fault::not_found(format!("copy out: {shown}: no such file inside")),
        errno => Fault::errno("copy out", &shown, errno),
    })?;
    match FileType::from_raw_mode(fstat(&source).context("read", &shown)?.st_mode) {
        FileType::Directory => directory(source.as_fd(), target, [name, temporary], &shown),
        FileType::RegularFile => file(source, target, [name, temporary], &shown),
        _ => Err(Fault::failed(format!("copy out: {shown}: neither a file nor a directory"))),
    }
}

fn open_inside(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    // Not blocked by a FIFO that the command left at this place.
    tree::inside::open(root, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
}

/// By a temporary name, too: a directory that is there is whole.
fn directory(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    [name, temporary]: [&OsStr; 2],
    shown: &str,
) -> Result<()> {
    // Not after all has been copied.
    if is_there(target, name) {
        return Err(exists(shown, name));
    }
    mkdirat(target, temporary, Mode::from_raw_mode(0o755)).context("copy out", shown)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = openat(target, temporary, flags, Mode::empty()).context("copy out", shown)?;
    let everything_is_ours = only_root()?;
    tree::copy::copy_powerless(source, made.as_fd(), &everything_is_ours)?;
    let renamed = match renameat_with(target, temporary, target, name, RenameFlags::NOREPLACE) {
        // A file system that has no such flag, such as NFS: rename(2) replaces nothing but an empty directory.
        Err(Errno::INVAL) if !is_there(target, name) => renameat(target, temporary, target, name),
        other => other,
    };
    match renamed {
        Err(Errno::EXIST | Errno::INVAL) => Err(exists(shown, name)),
        other => other.context("copy out", shown),
    }
}

fn is_there(target: BorrowedFd<'_>, name: &OsStr) -> bool {
    statat(target, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// A map that holds no id but 0: a copy by it belongs to whoever copies.
fn only_root() -> Result<IdMap> {
    let only = vec![Extent { inside: 0, outside: 0, count: 1 }];
    IdMap::new(IdMode::Single, only.clone(), only)
}

/// By a temporary name and a rename: whoever looks sees the old file or the new one.
fn file(
    source: OwnedFd,
    target: BorrowedFd<'_>,
    [name, temporary]: [&OsStr; 2],
    shown: &str,
) -> Result<()> {
    let mode = Mode::from_raw_mode(fstat(&source).context("read", shown)?.st_mode & 0o777);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let made = openat(target, temporary, flags, mode).context("copy out", shown)?;
    let copied = std::io::copy(&mut std::fs::File::from(source), &mut std::fs::File::from(made))
        .context("copy out", shown)
        .and_then(|_| renameat(target, temporary, target, name).context("copy out", shown));
    if copied.is_err() {
        rustix::fs::unlinkat(target, temporary, AtFlags::empty()).ok();
    }
    copied
}

fn show(path: &Path) -> String {
    printable(&path.to_string_lossy())
}
