//! Taking files out of an upper again that were copied up and did not change.
//!
//! To open a file of a lower layer for writing copies it up, also when nothing is written then. Databases
//! of packages are opened so by those who only read them, and by ourselves before a command starts. What is
//! then the same as before, in content, owner, mode, attributes and times, says nothing and goes, and so do
//! directories that hold nothing else. The time of a directory alone is no difference.
//!
//! Beside a database lie files that only the programs that have it open mean anything to: locks, indexes in
//! shared memory, an empty journal. Where nothing else of their directory changed they go too.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Stat, unlinkat};
use rustix::io::Errno;

use super::change::{difference, directories_differ, owner_or_mode};
use super::dir::{Names, kind, lstat, lstat_if_any, open_beneath, open_child};
use super::fold::Step;
use super::merged::{Found, Merged};
use super::path;
use super::whiteout::{is_opaque, is_whiteout_node};
use crate::fault::{Context, Result};

/// How many levels of directories beneath a place are looked at.
pub const MOST_LEVELS: usize = 16;

/// Takes out of `upper` what is unchanged at these places: files, or directories with all files in them.
/// Their paths are beneath the root, without a leading `/` and without symbolic links. `lowers` are the
/// layers beneath, top first. Says how many entries went.
///
/// # Errors
/// What the system says, naming the path. What went before stays away: it was the same anyway.
pub fn settle(
    upper: BorrowedFd<'_>,
    lowers: &[BorrowedFd<'_>],
    places: &[Vec<u8>],
    step: Step<'_>,
) -> Result<u64> {
    let mut job = Job { gone: 0, step };
    for place in places {
        // Almost always nothing is there, and the lowers need not be looked at.
        if lies_in(upper, place).context("look at", path::shown(place))? {
            job.place(upper, lowers, place)
                .context("compare with the layers", path::shown(place))?;
        }
    }
    Ok(job.gone)
}

fn lies_in(upper: BorrowedFd<'_>, place: &[u8]) -> Result<bool, Errno> {
    let (parent, name) = path::split(place);
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    match open_beneath(upper, parent) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(false),
        parent => Ok(lstat_if_any(parent?.as_fd(), &name)?.is_some()),
    }
}

struct Job<'s> {
    gone: u64,
    step: Step<'s>,
}

/// A directory on the way: of the upper, and of the view beneath it.
struct Level<'a> {
    /// Its name in the level above.
    name: CString,
    dir: OwnedFd,
    lower: Merged<'a>,
    /// What is still to be looked at.
    left: Vec<CString>,
}

impl Job<'_> {
    fn place<'a>(
        &mut self,
        upper: BorrowedFd<'_>,
        lowers: &'a [BorrowedFd<'a>],
        place: &[u8],
    ) -> Result<(), Errno> {
        let mut way: Vec<CString> = Vec::new();
        for name in place.split(|byte| *byte == b'/') {
            way.push(CString::new(name).map_err(|_| Errno::INVAL)?);
        }
        let root = open_beneath(upper, b"")?;
        let lower = Merged::root(lowers)?;
        let mut levels =
            vec![Level { name: c".".into(), dir: root, lower, left: vec![way[0].clone()] }];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.left.pop() else {
                let Some(done) = levels.pop() else { break };
                if levels.len() >= way.len() {
                    self.leftovers(&done)?;
                }
                if let Some(above) = levels.last() {
                    self.directory(above, &done)?;
                }
                continue;
            };
            let Some(stat) = lstat_if_any(level.dir.as_fd(), &name)? else { continue };
            match kind(&stat) {
                FileType::Directory if levels.len() <= way.len() + MOST_LEVELS => {
                    let next = way.get(levels.len());
                    levels.extend(enter(&levels[levels.len() - 1], name, next)?);
                }
                FileType::RegularFile if levels.len() >= way.len() => {
                    self.file(&levels[levels.len() - 1], &name, &stat)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes a file away that is the same beneath.
    fn file(&mut self, level: &Level<'_>, name: &CStr, stat: &Stat) -> Result<(), Errno> {
        // With a second name it is one file here and would be two.
        if stat.st_nlink != 1 {
            return Ok(());
        }
        let Found::Other { layer, stat: old } = level.lower.child(name)? else { return Ok(()) };
        let time = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec);
        if kind(&old) != FileType::RegularFile || time(&old) != time(stat) {
            return Ok(());
        }
        let beneath = level.lower.open(layer)?;
        if difference(name, (beneath.as_fd(), &old), (level.dir.as_fd(), stat))?.is_none() {
            self.unlink(level, name, AtFlags::empty())?;
        }
        Ok(())
    }

    /// Takes away what only means something while a database is open, if nothing else is left.
    fn leftovers(&mut self, level: &Level<'_>) -> Result<(), Errno> {
        let names = Names::read(level.dir.as_fd())?;
        for (name, _) in names.iter() {
            if !is_leftover(level, name)? {
                return Ok(());
            }
        }
        for (name, _) in names.iter() {
            self.unlink(level, name, AtFlags::empty())?;
        }
        Ok(())
    }

    /// Takes a directory away that is empty and the same beneath.
    fn directory(&mut self, above: &Level<'_>, done: &Level<'_>) -> Result<(), Errno> {
        if directories_differ(done.lower.open_top()?.as_fd(), done.dir.as_fd())? {
            return Ok(());
        }
        match self.unlink(above, &done.name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
            other => other,
        }
    }

    fn unlink(&mut self, level: &Level<'_>, name: &CStr, flags: AtFlags) -> Result<(), Errno> {
        (self.step)("upper.unlink")?;
        unlinkat(&level.dir, name, flags)?;
        self.gone += 1;
        Ok(())
    }
}

/// The level of a directory that is in the upper and beneath; none if it is new or hides what is beneath.
fn enter<'a>(
    above: &Level<'a>,
    name: CString,
    next: Option<&CString>,
) -> Result<Option<Level<'a>>, Errno> {
    let Found::Directory(lower) = above.lower.child(&name)? else { return Ok(None) };
    let dir = open_child(above.dir.as_fd(), &name)?;
    if is_opaque(dir.as_fd())? {
        return Ok(None);
    }
    let left = match next {
        Some(next) => vec![next.clone()],
        None => Names::read(dir.as_fd())?.iter().map(|(name, _)| name.to_owned()).collect(),
    };
    Ok(Some(Level { name, dir, lower, left }))
}

/// Whether an entry means nothing once nobody has the database open that lies beside it, unchanged: what is
/// changed of a database is never among these.
fn is_leftover(level: &Level<'_>, name: &CStr) -> Result<bool, Errno> {
    let stat = lstat(level.dir.as_fd(), name)?;
    let old = match level.lower.child(name)? {
        Found::Nothing => None,
        Found::Other { stat, .. } if kind(&stat) == FileType::RegularFile => Some(stat),
        _ => return Ok(false),
    };
    let taken_away = is_whiteout_node(&stat);
    let touched = old.is_some_and(|old| owner_or_mode(&old, &stat).is_some());
    if !taken_away && (kind(&stat) != FileType::RegularFile || stat.st_nlink != 1 || touched) {
        return Ok(false);
    }
    let empty = (taken_away || stat.st_size == 0) && old.is_none_or(|old| old.st_size == 0);
    let beside = |base: &[u8]| match CString::new(base) {
        Ok(base) => level.lower.child(&base).map(|found| matches!(found, Found::Other { .. })),
        Err(_) => Ok(false),
    };
    let bytes = name.to_bytes();
    match bytes {
        // rpm's own lock, and that of its Berkeley DB.
        b".rpm.lock" | b".dbenv.lock" => return Ok(empty),
        // LMDB's table of readers.
        b"lock.mdb" => return beside(b"data.mdb"),
        _ => {}
    }
    if let Some(number) = bytes.strip_prefix(b"__db.") {
        // The environment of a Berkeley DB, made again whenever it is missing.
        return Ok(!number.is_empty() && number.iter().all(u8::is_ascii_digit));
    }
    if let Some(base) = bytes.strip_suffix(b"-shm") {
        // SQLite's index of its journal, made again by whoever opens the database first.
        return beside(base);
    }
    match bytes.strip_suffix(b"-wal") {
        // SQLite's journal.
        Some(base) if empty => beside(base),
        _ => Ok(false),
    }
}
