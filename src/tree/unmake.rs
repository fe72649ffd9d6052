//! Taking the places of mounts out of an upper again.
//!
//! A place that a layer has removed comes from no scaffold, which a whiteout hides, too: it is made in the upper before the
//! command starts (`rootfs::target`). The command cannot remove what is mounted on; if it is still as it was made, and the
//! layers beneath have nothing there, it goes, and so do directories above it that were copied up for nothing else.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, unlinkat};
use rustix::io::Errno;

use super::change::directories_differ;
use super::dir::{Names, kind, lstat_if_any, open_beneath, open_child};
use super::fold::Step;
use super::merged::{Found, Merged};
use super::path;
use super::whiteout::is_opaque;
use crate::fault::{Context, Result};

/// Modes that places are made with.
const DIRECTORY: u32 = 0o755;
const FILE: u32 = 0o644;

/// Takes the last `levels` components of `place` out of `upper`, from below, as far as they are empty and as they were made;
/// `lowers` are the layers beneath, top first. Says how many entries went.
///
/// # Errors
/// What the system says, naming the path.
pub fn unmake(
    upper: BorrowedFd<'_>,
    lowers: &[BorrowedFd<'_>],
    place: &[u8],
    levels: usize,
    step: Step<'_>,
) -> Result<u64> {
    take_out(upper, lowers, place, levels, step)
        .context("take out what was mounted on", path::shown(place))
}

fn take_out(
    upper: BorrowedFd<'_>,
    lowers: &[BorrowedFd<'_>],
    place: &[u8],
    levels: usize,
    step: Step<'_>,
) -> Result<u64, Errno> {
    let mut gone = 0;
    let mut rest = place;
    while !rest.is_empty() {
        let (parent, name) = path::split(rest);
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        let dir = match open_beneath(upper, parent) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => break,
            dir => dir?,
        };
        let Some(stat) = lstat_if_any(dir.as_fd(), &name)? else { break };
        let beneath = find(lowers, parent, &name)?;
        let ours = (gone as usize) < levels;
        let flags = match (kind(&stat), beneath) {
            (FileType::Directory, Found::Nothing)
                if ours && stat.st_mode & 0o7777 == DIRECTORY && is_root(&stat) =>
            {
                AtFlags::REMOVEDIR
            }
            (FileType::RegularFile, Found::Nothing)
                if ours
                    && stat.st_mode & 0o7777 == FILE
                    && is_root(&stat)
                    && (stat.st_size, stat.st_nlink) == (0, 1) =>
            {
                AtFlags::empty()
            }
            (FileType::Directory, Found::Directory(lower)) if !ours => {
                let own = open_child(dir.as_fd(), &name)?;
                let same = !is_opaque(own.as_fd())?
                    && !directories_differ(lower.open_top()?.as_fd(), own.as_fd())?;
                if !same || !Names::read(own.as_fd())?.is_empty() {
                    break;
                }
                AtFlags::REMOVEDIR
            }
            _ => break,
        };
        step("upper.unlink")?;
        match unlinkat(&dir, &name, flags) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => break,
            other => other?,
        }
        gone += 1;
        rest = parent;
    }
    Ok(gone)
}

/// Whether it belongs to root, seen inside.
fn is_root(stat: &rustix::fs::Stat) -> bool {
    (stat.st_uid, stat.st_gid) == (0, 0)
}

/// What the view of the layers beneath has at a name of a directory.
fn find<'a>(
    lowers: &'a [BorrowedFd<'a>],
    parent: &[u8],
    name: &CString,
) -> Result<Found<'a>, Errno> {
    let mut here = Merged::root(lowers)?;
    for part in parent.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        let part = CString::new(part).map_err(|_| Errno::INVAL)?;
        match here.child(&part)? {
            Found::Directory(next) => here = next,
            _ => return Ok(Found::Nothing),
        }
    }
    here.child(name)
}
