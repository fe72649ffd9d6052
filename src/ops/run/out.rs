//! `--out PATH:DIR`: results out of a sandbox whose command has ended, whether or not it succeeded.
//!
//! Read through the merged view by descriptor, in the user namespace of the box: a link that the command
//! left behind leads nowhere but into its own root. What arrives belongs to the caller, and no set-id bit,
//! capability or access control list of the command's comes along.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::fs::{fstat, mkdirat, openat, renameat};
use rustix::io::Errno;

use crate::fault::{Context, Fault, Result, printable};
use crate::ids::{self, Entry, Extent, IdMap, Mode as IdMode, Powers};
use crate::tree;

/// Copies each result, and gives a line for each.
///
/// # Errors
/// Not-found for a path that is not there; conflict for a directory that exists; otherwise what the
/// system says. Results before the failed one are there.
pub(super) fn copy(
    root: &OwnedFd,
    outs: &[(PathBuf, PathBuf)],
    map: &IdMap,
) -> Result<Vec<String>> {
    outs.iter().map(|(path, dir)| copy_one(root, path, dir, map)).collect()
}

fn copy_one(root: &OwnedFd, path: &Path, dir: &Path, map: &IdMap) -> Result<String> {
    let (shown, into) = (show(path), show(dir));
    let Some(name) = path.file_name() else {
        return Err(Fault::usage(format!(
            "copy out: {shown}: name a file or directory in the root"
        )));
    };
    let fresh = !dir.exists();
    std::fs::create_dir_all(dir).context("create directory", &into)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let target = openat(CWD, dir, flags, Mode::empty()).context("open directory", &into)?;
    let job = || transfer(root.as_fd(), path, target.as_fd(), name);
    let copied = match map.mode {
        // Inside root is the caller: it may read all of the tree, and write where the caller may.
        IdMode::Single | IdMode::Subuid => ids::inside(Entry::Map(map), Powers::Files, job),
        // The caller is root of this namespace, and inside root could not write to its directory.
        IdMode::Range | IdMode::Identity => job(),
    };
    if copied.is_err() && fresh {
        // Only if there is nothing in it.
        std::fs::remove_dir(dir).ok();
    }
    copied?;
    Ok(format!("copied out: {shown} to {into}"))
}

fn transfer(root: BorrowedFd<'_>, path: &Path, target: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    let shown = show(path);
    let source = open_inside(root, path).map_err(|errno| match errno {
        Errno::NOENT => Fault::not_found(format!("copy out: {shown}: no such file inside")),
        errno => Fault::errno("copy out", &shown, errno),
    })?;
    match FileType::from_raw_mode(fstat(&source).context("read", &shown)?.st_mode) {
        FileType::Directory => directory(source.as_fd(), target, name, &shown),
        FileType::RegularFile => file(source, target, name, &shown),
        _ => Err(Fault::failed(format!("copy out: {shown}: neither a file nor a directory"))),
    }
}

fn open_inside(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    // Not blocked by a FIFO that the command left at this place.
    tree::inside::open(root, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
}

fn directory(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    name: &OsStr,
    shown: &str,
) -> Result<()> {
    match mkdirat(target, name, Mode::from_raw_mode(0o755)) {
        Err(Errno::EXIST) => {
            let name = printable(&name.to_string_lossy());
            return Err(Fault::conflict(format!("copy out: {shown}: {name} exists already"))
                .hint("name an empty directory"));
        }
        other => other.context("copy out", shown)?,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = openat(target, name, flags, Mode::empty()).context("copy out", shown)?;
    let everything_is_ours = only_root()?;
    tree::copy::copy_powerless(source, made.as_fd(), &everything_is_ours).map(drop)
}

/// A map that holds no id but 0: a copy by it belongs to whoever copies.
fn only_root() -> Result<IdMap> {
    let only = vec![Extent { inside: 0, outside: 0, count: 1 }];
    IdMap::new(IdMode::Single, only.clone(), only)
}

/// By a temporary name and a rename: whoever looks sees the old file or the new one.
fn file(source: OwnedFd, target: BorrowedFd<'_>, name: &OsStr, shown: &str) -> Result<()> {
    let mode = Mode::from_raw_mode(fstat(&source).context("read", shown)?.st_mode & 0o777);
    let mut temporary = std::ffi::OsString::from(format!(".sandbox-{}-", std::process::id()));
    temporary.push(name);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let made = openat(target, &temporary, flags, mode).context("copy out", shown)?;
    let copied = std::io::copy(&mut std::fs::File::from(source), &mut std::fs::File::from(made))
        .context("copy out", shown)
        .and_then(|_| renameat(target, &temporary, target, name).context("copy out", shown));
    if copied.is_err() {
        rustix::fs::unlinkat(target, &temporary, rustix::fs::AtFlags::empty()).ok();
    }
    copied
}

fn show(path: &Path) -> String {
    printable(&path.to_string_lossy())
}
