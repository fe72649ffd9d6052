//! Targets in the new root, which is the process's working directory: found without being led out of it, and made where
//! they may be missing.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::fs::{fstat, mkdirat, openat, openat2, readlinkat};
use rustix::io::Errno;

use super::plan::FRESH;
use crate::sys;
use crate::tree::dir::mount_of;

/// An empty file, unless there is something already.
pub(super) fn make_file(target: &Path) -> Result<(), Errno> {
    match new_file(CWD, target, 0o666) {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

/// An empty file where nothing is.
fn new_file(dir: impl AsFd, name: impl rustix::path::Arg + Copy, mode: u32) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(mode);
    match rustix::fs::mknodat(&dir, name, FileType::RegularFile, mode, 0) {
        // Filters that want no devices know nothing of kinds; and this is one call more.
        Err(Errno::NOSYS | Errno::PERM) => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            openat(dir, name, flags, mode).map(drop)
        }
        other => other,
    }
}

/// A path of the host without openat2(2), and without a symlink.
pub(super) fn open_step_by_step(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut here = openat(CWD, "/", flags, Mode::empty())?;
    for name in relative(path) {
        here = openat(&here, name, flags, Mode::empty())?;
        if FileType::from_raw_mode(fstat(&here)?.st_mode) == FileType::Symlink {
            return Err(Errno::LOOP);
        }
    }
    Ok(here)
}

/// Where something is mounted.
#[derive(Debug)]
pub(super) struct Place {
    /// The file or directory.
    pub(super) at: OwnedFd,
    /// How many of the last components of its path had to be made in the layers, and so in the upper.
    pub(super) made: u32,
}

impl Place {
    fn there(at: OwnedFd) -> Self {
        Self { at, made: 0 }
    }
}

/// Resolves a target in the new root, never through a magic link.
fn resolve(target: &Path, how: ResolveFlags) -> Result<OwnedFd, Errno> {
    look_up(relative(target), OFlags::PATH | OFlags::CLOEXEC, how)
}

/// Once the root is switched, no path leads out of it, whether the kernel knows openat2 or not.
fn look_up(target: &Path, flags: OFlags, how: ResolveFlags) -> Result<OwnedFd, Errno> {
    loop {
        match openat2(CWD, target, flags, Mode::empty(), how) {
            // A rename or mount anywhere on the machine while it walked a `..` (openat2(2)).
            Err(Errno::AGAIN) => {}
            Err(Errno::NOSYS | Errno::PERM) => return openat(CWD, target, flags, Mode::empty()),
            other => return other,
        }
    }
}

/// The target as it is named from the new root, be that the root already or only the working directory.
pub(super) fn relative(target: &Path) -> &Path {
    target.strip_prefix("/").unwrap_or(target)
}

/// Within the root, and by no magic link.
const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// The same, and not in what is mounted there: that may be the host's, or ours, such as /dev/null.
const IN_LAYERS: ResolveFlags = INSIDE.union(ResolveFlags::NO_XDEV);

/// Like [`resolve`]; a target to which a symlink leads through our /run (as systemd-resolved leaves /etc/resolv.conf) is made
/// there, and another one that is missing in the layers; as a directory if it `is_directory`.
pub(super) fn resolve_or_make(
    target: &Path,
    is_directory: impl Fn() -> Result<bool, Errno>,
) -> Result<Place, Errno> {
    match resolve(target, INSIDE) {
        Err(Errno::NOENT) => make_missing(target, is_directory()?),
        other => other.map(Place::there),
    }
}

/// The place of a file of ours. Where the layer has a symlink to nowhere, or to what is not the layers', it is a file in our
/// /run if the link leads there, or else the link itself, which can be mounted over like a file.
pub(super) fn resolve_ours(target: &Path) -> Result<Place, Errno> {
    resolve(target, IN_LAYERS)
        .or_else(|_| make_in_ours(target, false, &["/run"], LINKS))
        .or_else(|_| resolve_link(target))
        .map(Place::there)
        .or_else(|_| make(target, false))
}

/// The symlink itself.
pub(super) fn resolve_link(target: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    look_up(relative(target), flags, IN_LAYERS)
}

/// Makes a target that is not there: in a file system of ours, if the way leads there, or else in the layers.
pub(super) fn make_missing(target: &Path, directory: bool) -> Result<Place, Errno> {
    make_in_ours(target, directory, &FRESH, LINKS)
        .map(Place::there)
        .or_else(|_| make(target, directory))
}

/// Makes a target that a whiteout of a layer hides from the scaffold, with what is missing above it: in the layers, and
/// so in the upper, out of which a commit takes it again.
fn make(target: &Path, directory: bool) -> Result<Place, Errno> {
    match make_in_layers(target, directory) {
        // The root is read-only to the command, which has not begun.
        Err(Errno::ROFS) => {
            let root = resolve(Path::new("."), INSIDE)?;
            sys::mount::clear_attributes(root.as_fd(), sys::mount::READ_ONLY)?;
            let made = make_in_layers(target, directory);
            sys::mount::set_attributes(root.as_fd(), sys::mount::READ_ONLY, false)?;
            made
        }
        other => other,
    }
}

fn make_in_layers(target: &Path, directory: bool) -> Result<Place, Errno> {
    let target = relative(target);
    let mut made_now = 0;
    let mut dir = resolve(Path::new("."), IN_LAYERS)?;
    let mut place = PathBuf::new();
    for name in target {
        place.push(name);
        dir = match resolve(&place, IN_LAYERS) {
            Err(Errno::NOENT) => {
                match make_one(&dir, name, directory || place != target) {
                    // A symlink to nowhere.
                    Err(Errno::EXIST) => Err(Errno::NOENT),
                    Err(errno) => Err(errno),
                    Ok(()) => {
                        made_now += 1;
                        resolve(&place, IN_LAYERS)
                    }
                }
            }
            // Another mount, which has no such place.
            Err(Errno::XDEV) => Err(Errno::NOENT),
            other => other,
        }?;
    }
    Ok(Place { at: dir, made: made_now })
}

/// How many symlinks to nowhere may be met on the way to one place.
const LINKS: u32 = 8;

/// The same in one of these file systems of ours ([`FRESH`]), where a symlink of a layer leads there: /var/run and /var/lock do in most
/// trees, and to nowhere as long as /run is empty.
fn make_in_ours(
    target: &Path,
    directory: bool,
    ours: &[&str],
    links: u32,
) -> Result<OwnedFd, Errno> {
    let target = relative(target);
    let mut dir = resolve(Path::new("."), INSIDE)?;
    let mut place = PathBuf::from("/");
    for name in target {
        place.push(name);
        dir = match resolve(&place, INSIDE) {
            Err(Errno::NOENT) => {
                let directory = directory || relative(&place) != target;
                match readlinkat(&dir, name, Vec::new()) {
                    Ok(link) if links > 0 => {
                        let link = link.to_str().map_err(|_| Errno::NOENT)?;
                        make_in_ours(&beside(&place, Path::new(link)), directory, ours, links - 1)?;
                    }
                    Err(_) if is_one_of(ours, &dir)? => make_one(&dir, name, directory)?,
                    _ => return Err(Errno::NOENT),
                }
                resolve(&place, INSIDE)
            }
            other => other,
        }?;
    }
    // What was there before may be the host's, or one of our devices.
    if is_one_of(ours, &dir)? { Ok(dir) } else { Err(Errno::NOENT) }
}

/// Whether it lies on a file system that we have mounted, empty; what is bound into that is somebody else's.
fn is_one_of(ours: &[&str], dir: &OwnedFd) -> Result<bool, Errno> {
    let mount = mount_of(dir.as_fd())?;
    for fresh in ours {
        match resolve(Path::new(fresh), INSIDE) {
            Ok(root) if mount_of(root.as_fd())? == mount => return Ok(true),
            _ => {}
        }
    }
    Ok(false)
}

fn make_one(dir: &OwnedFd, name: &OsStr, directory: bool) -> Result<(), Errno> {
    if directory {
        return mkdirat(dir, name, Mode::from_raw_mode(0o755));
    }
    new_file(dir, name, 0o644)
}

/// The path that a symlink at `target` with content `link` means, by its text.
fn beside(target: &Path, link: &Path) -> PathBuf {
    let mut place = target.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    for part in link.components() {
        match part {
            std::path::Component::RootDir => place = PathBuf::from("/"),
            std::path::Component::ParentDir => {
                place.pop();
            }
            std::path::Component::Normal(name) => place.push(name),
            _ => {}
        }
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dangling_link_is_read_by_its_text() {
        let meant = |link: &str| beside(Path::new("/etc/resolv.conf"), Path::new(link));
        assert_eq!(meant("../run/r/stub"), Path::new("/run/r/stub"));
        assert_eq!(meant("/run/x"), Path::new("/run/x"));
        assert_eq!(meant("../../../../x"), Path::new("/x"));
    }
}
