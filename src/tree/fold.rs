//! One layer in the place of several that lie upon one another.
//!
//! The new layer holds, for each path, what the topmost of the old ones holds there: files by another hard
//! link (the old layers are never written, and no data is copied), directories made anew, with the owner,
//! mode, times and attributes of the topmost one. So it costs what the old layers changed, whatever lies
//! beneath.
//!
//! The layers are merged from the top down, each in one walk. What overlayfs would do at a path decides:
//!
//! | there is already, from above | a layer holds | the new layer gets |
//! | --- | --- | --- |
//! | nothing | anything | the same |
//! | no directory (a whiteout too) | anything | nothing: it is hidden |
//! | an opaque directory | anything | nothing: it is hidden |
//! | a directory | a directory | what is in both; it is opaque if one of them is |
//! | a directory | anything else | the mark that it is opaque: what lies deeper was hidden |
//!
//! At the end whiteouts go that hide nothing, of files that came and went above the ground: the one layer
//! that will lie beneath.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, Stat, Timestamps, fstat, futimens, linkat, mkdirat, unlinkat,
};
use rustix::io::Errno;

use super::dir::{Trail, kind, lstat_if_any, open_child};
use super::walk::{Descend, Visit, Visitor, walk};
use super::whiteout::{self, Opacity, is_whiteout_node};
use super::{Totals, measure, path};
use crate::fault::{Context, Result};

pub(super) mod same;

/// Called before each group of system calls by its name: tests make some of them fail.
pub type Step<'a> = &'a mut dyn FnMut(&'static str) -> Result<(), Errno>;

/// Fills the empty directory `place` with what `layers` (the topmost first) make together on top of `ground`,
/// the one layer that will lie beneath, and says what is in it.
///
/// # Errors
/// What the system says, naming the path; what must not be in a layer. A part may have been made then.
pub fn fold(
    layers: &[BorrowedFd<'_>],
    ground: BorrowedFd<'_>,
    place: BorrowedFd<'_>,
    step: Step<'_>,
) -> Result<Totals> {
    let place = Trail::new(place).context("open directory", "/")?;
    let mut merge = Merge { place, levels: Vec::new(), child: None, topmost: true, step };
    for layer in layers {
        walk(*layer, &mut merge)?;
        merge.topmost = false;
    }
    let Merge { place, step, .. } = merge;
    let ground = Trail::new(ground).context("open directory", "/")?;
    let mut prune = Prune { ground, missing: 0, levels: Vec::new(), step };
    walk(place.here(), &mut prune)?;
    measure(place.here())
}

/// The walk of one layer, and where it is in the new one.
struct Merge<'a> {
    place: Trail,
    /// The directories from the root of the walk down.
    levels: Vec<Level>,
    /// The directory of the new layer that is entered next, and whether it was just made.
    child: Option<(OwnedFd, bool)>,
    /// Whether this is the first walk, whose layer gives its attributes to the root.
    topmost: bool,
    step: Step<'a>,
}

struct Level {
    /// Whether the directory of the new layer gets the attributes of the one that is walked.
    fresh: bool,
    /// Whether regular files in the directory that is walked can be whiteouts.
    xattrs: bool,
    times: Kept,
}

impl Visitor for Merge<'_> {
    fn entry(&mut self, visit: &Visit<'_>) -> Result<Descend> {
        let there = lstat_if_any(self.place.here(), visit.name);
        match there.context("look at", path::shown(visit.path))? {
            None => self.add(visit).context("fold", path::shown(visit.path)),
            Some(there) if kind(&there) != FileType::Directory => Ok(Descend::No),
            Some(_) => self.meet(visit).context("fold", path::shown(visit.path)),
        }
    }

    fn enter(&mut self, dir: BorrowedFd<'_>, at: &[u8]) -> Result<()> {
        let opacity = whiteout::opacity(dir).context("read attributes", path::shown(at))?;
        let mut fresh = self.topmost;
        if let Some((child, made)) = self.child.take() {
            if opacity == Opacity::Opaque {
                self.hide(child.as_fd()).context("set attributes", path::shown(at))?;
            }
            self.place.push(child).context("open directory", path::shown(at))?;
            fresh = made;
        }
        let times = Kept::of(self.place.here()).context("look at", path::shown(at))?;
        self.levels.push(Level { fresh, xattrs: opacity == Opacity::Xattrs, times });
        Ok(())
    }

    fn leave(&mut self, dir: BorrowedFd<'_>, at: &[u8]) -> Result<()> {
        if let Some(level) = self.levels.pop() {
            self.finish(&level, dir).context("set attributes", path::shown(at))?;
        }
        self.place.pop().context("climb out of directory", path::shown(at))?;
        Ok(())
    }

    fn mount(&mut self, visit: &Visit<'_>) -> Result<()> {
        Err(Errno::XDEV).context("fold", path::shown(visit.path))
    }
}

impl Merge<'_> {
    /// Nothing is there yet.
    fn add(&mut self, visit: &Visit<'_>) -> Result<Descend, Errno> {
        let here = self.place.here();
        if let Some(level) = self.levels.last_mut() {
            level.times.touched = true;
        }
        if visit.kind() == FileType::Directory {
            (self.step)("fold.mkdir")?;
            mkdirat(here, visit.name, Mode::RWXU)?;
            self.child = Some((open_child(here, visit.name)?, true));
            return Ok(Descend::Yes);
        }
        (self.step)("fold.link")?;
        if self.is_whiteout(visit)? && !is_whiteout_node(visit.stat) {
            // The other form would need a mark on each directory up to the root.
            same::whiteout(here, visit.name)?;
            return Ok(Descend::No);
        }
        match linkat(visit.dir, visit.name, here, visit.name, AtFlags::empty()) {
            // The file has as many names as it can have.
            Err(Errno::MLINK) => same::copy(visit, here)?,
            other => other?,
        }
        Ok(Descend::No)
    }

    /// A directory is there.
    fn meet(&mut self, visit: &Visit<'_>) -> Result<Descend, Errno> {
        let child = open_child(self.place.here(), visit.name)?;
        if whiteout::is_opaque(child.as_fd())? {
            return Ok(Descend::No);
        }
        if visit.kind() == FileType::Directory {
            self.child = Some((child, false));
            return Ok(Descend::Yes);
        }
        self.hide(child.as_fd())?;
        Ok(Descend::No)
    }

    fn hide(&mut self, dir: BorrowedFd<'_>) -> Result<(), Errno> {
        (self.step)("fold.opaque")?;
        whiteout::set_opaque(dir)
    }

    fn is_whiteout(&self, visit: &Visit<'_>) -> Result<bool, Errno> {
        let either = self.levels.last().is_some_and(|level| level.xattrs);
        match either {
            true => whiteout::is_whiteout(visit.dir, visit.name, visit.stat),
            false => Ok(is_whiteout_node(visit.stat)),
        }
    }

    /// All of a directory is there: what was made in it has changed its times.
    fn finish(&mut self, level: &Level, dir: BorrowedFd<'_>) -> Result<(), Errno> {
        if level.fresh {
            (self.step)("fold.attributes")?;
            return same::attributes(dir, self.place.here());
        }
        level.times.give_back(self.place.here())
    }
}

/// The walk of the new layer that takes out what hides nothing, and where it is in the ground.
struct Prune<'a> {
    ground: Trail,
    /// How many of the directories that were entered last the ground does not have.
    missing: usize,
    levels: Vec<Kept>,
    step: Step<'a>,
}

impl Visitor for Prune<'_> {
    fn entry(&mut self, visit: &Visit<'_>) -> Result<Descend> {
        if is_whiteout_node(visit.stat) && !self.hides(visit.name, visit.path)? {
            (self.step)("fold.prune").context("fold", path::shown(visit.path))?;
            unlinkat(visit.dir, visit.name, AtFlags::empty())
                .context("remove whiteout", path::shown(visit.path))?;
            if let Some(times) = self.levels.last_mut() {
                times.touched = true;
            }
        }
        Ok(Descend::Yes)
    }

    fn enter(&mut self, dir: BorrowedFd<'_>, at: &[u8]) -> Result<()> {
        self.levels.push(Kept::of(dir).context("look at", path::shown(at))?);
        if at.is_empty() {
            return Ok(());
        }
        match self.beneath(dir, at).context("open directory", path::shown(at))? {
            Some(child) => self.ground.push(child).context("open directory", path::shown(at)),
            None => {
                self.missing += 1;
                Ok(())
            }
        }
    }

    fn leave(&mut self, dir: BorrowedFd<'_>, at: &[u8]) -> Result<()> {
        if let Some(times) = self.levels.pop() {
            times.give_back(dir).context("set times", path::shown(at))?;
        }
        if self.missing > 0 {
            self.missing -= 1;
        } else {
            self.ground.pop().context("climb out of directory", path::shown(at))?;
        }
        Ok(())
    }
}

impl Prune<'_> {
    /// The directory of the ground that shows through this one, if any does.
    fn beneath(&self, dir: BorrowedFd<'_>, at: &[u8]) -> Result<Option<OwnedFd>, Errno> {
        if self.missing > 0 || whiteout::is_opaque(dir)? {
            return Ok(None);
        }
        let name = CString::new(path::split(at).1).map_err(|_| Errno::INVAL)?;
        match open_child(self.ground.here(), &name) {
            Ok(child) => Ok(Some(child)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    fn hides(&self, name: &CStr, at: &[u8]) -> Result<bool> {
        if self.missing > 0 {
            return Ok(false);
        }
        let found = lstat_if_any(self.ground.here(), name).context("look at", path::shown(at))?;
        Ok(found.is_some())
    }
}

/// The times of a directory before something was made or removed in it.
struct Kept {
    times: Timestamps,
    touched: bool,
}

impl Kept {
    fn of(dir: BorrowedFd<'_>) -> Result<Self, Errno> {
        Ok(Self { times: times(&fstat(dir)?), touched: false })
    }

    fn give_back(&self, dir: BorrowedFd<'_>) -> Result<(), Errno> {
        if self.touched { futimens(dir, &self.times) } else { Ok(()) }
    }
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds| rustix::fs::Timespec {
        tv_sec: seconds as _,
        tv_nsec: nanoseconds as _,
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}
