//! A tree copied file by file: the directory source of `init`, and what `--out` brings out.
//!
//! Kept: content with its holes, hard links within the tree, modes, owners that the map holds, times of
//! modification to the nanosecond, attributes of the user, file capabilities, access control lists.
//! Remembered instead: other owners, device nodes. Left out and counted: sockets, and what lies on other
//! mounts beneath the source (the mount point stays, empty), or in a directory that is named, such as the one that the
//! copy goes to.
//!
//! The source is read with the ids and rights of the namespace this runs in. Who has no number here is told by those who
//! looked at it outside ([`Strangers`]); of whom that is not known either, the file becomes 0's, and is counted as unmapped,
//! not remembered.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, Timespec, fstat, linkat, major, minor, mkdirat, mknodat,
    openat, readlinkat, symlinkat,
};
use rustix::io::Errno;

use super::attributes::{Attributes, MODE_BITS, may_be_stored};
use super::dir::{Trail, open_beneath, open_child, open_file};
use super::owners::{Device, DeviceClass, Remembered};
use super::strangers::{NOBODY_KNOWS, OVERFLOW_ID, Strangers};
use super::walk::{Descend, Visit, Visitor, walk};
use super::{Totals, path, xattr};
use crate::fault::{Context, Result};
use crate::ids::IdMap;

pub(super) mod data;
pub(crate) use data::next_data;

/// Set-user-ID and set-group-ID, as in stat(2).
const SET_ID: u32 = 0o6000;

/// Copies everything in `src`, and the attributes of `src` itself, to the empty directory `dst`.
///
/// What `dst` cannot hold is appended to `owners`, in no particular order. Of the directories `empty` (st_dev and st_ino),
/// where they lie in `src`, the content is left out. Owners that are not seen here are those of `strangers`.
///
/// # Errors
/// What the system says, naming the path; a part of the tree may have been copied then.
pub fn copy_tree(
    src: BorrowedFd<'_>,
    dst: BorrowedFd<'_>,
    ids: &IdMap,
    owners: &mut Vec<Remembered>,
    empty: &[(u64, u64)],
    strangers: &Strangers,
) -> Result<Totals> {
    copy(src, dst, ids, owners, Way { powerless: false, empty, strangers })
}

/// As [`copy_tree`], for a place that is no store: without set-id bits, file capabilities and access control
/// lists. There a tree that nobody trusts gets the ids of whoever copies, which may be the machine's root,
/// and other users may reach it (CVE-2021-41091).
///
/// # Errors
/// As [`copy_tree`].
pub fn copy_powerless(src: BorrowedFd<'_>, dst: BorrowedFd<'_>, ids: &IdMap) -> Result<Totals> {
    let strangers = &Strangers::default();
    copy(src, dst, ids, &mut Vec::new(), Way { powerless: true, empty: &[], strangers })
}

/// What a copy does not take, and cannot see.
#[derive(Debug, Clone, Copy)]
struct Way<'a> {
    /// Whether what gives power to whoever runs a file is left out.
    powerless: bool,
    /// The directories whose content is left out.
    empty: &'a [(u64, u64)],
    strangers: &'a Strangers,
}

fn copy(
    src: BorrowedFd<'_>,
    dst: BorrowedFd<'_>,
    ids: &IdMap,
    owners: &mut Vec<Remembered>,
    way: Way<'_>,
) -> Result<Totals> {
    let mut copy = Copy {
        root: dst,
        dst: Trail::new(dst).context("open directory", "/")?,
        ids,
        owners,
        way,
        totals: Totals::default(),
        linked: HashMap::new(),
    };
    walk(src, &mut copy)?;
    Ok(copy.totals)
}

struct Copy<'a> {
    root: BorrowedFd<'a>,
    dst: Trail,
    ids: &'a IdMap,
    owners: &'a mut Vec<Remembered>,
    way: Way<'a>,
    totals: Totals,
    /// First path of each inode with several names, and what was remembered of it.
    linked: HashMap<(u64, u64), Linked>,
}

struct Linked {
    path: Vec<u8>,
    remembered: Option<Remembered>,
}

impl Visitor for Copy<'_> {
    fn entry(&mut self, visit: &Visit<'_>) -> Result<Descend> {
        let shown = || path::shown(visit.path);
        if visit.kind() != FileType::Directory && self.link(visit).context("link", shown())? {
            self.totals.files += 1;
            return Ok(Descend::No);
        }
        match visit.kind() {
            FileType::Directory => {
                mkdirat(self.dst.here(), visit.name, Mode::RWXU)
                    .context("create directory", shown())?;
                if self.way.empty.contains(&(visit.stat.st_dev, visit.stat.st_ino)) {
                    self.totals.files += 1;
                    self.mount(visit)?;
                    return Ok(Descend::No);
                }
            }
            FileType::RegularFile => self.regular(visit).context("copy file", shown())?,
            FileType::Symlink => self.symlink(visit).context("copy symbolic link", shown())?,
            FileType::Fifo => self.fifo(visit).context("copy fifo", shown())?,
            FileType::CharacterDevice | FileType::BlockDevice => {
                self.device(visit);
                return Ok(Descend::No);
            }
            _ => {
                self.totals.sockets += 1;
                return Ok(Descend::No);
            }
        }
        self.totals.files += 1;
        Ok(Descend::Yes)
    }

    fn enter(&mut self, _dir: BorrowedFd<'_>, at: &[u8]) -> Result<()> {
        let Some(name) = last_name(at) else { return Ok(()) };
        let child =
            open_child(self.dst.here(), &name).context("open directory", path::shown(at))?;
        self.dst.push(child).context("open directory", path::shown(at))
    }

    fn leave(&mut self, dir: BorrowedFd<'_>, at: &[u8]) -> Result<()> {
        let done = self.dst.pop().context("climb out of directory", path::shown(at))?;
        self.finish_dir(dir, done.as_ref().map_or(self.root, AsFd::as_fd), at)
            .context("set attributes", path::shown(at))
    }

    fn mount(&mut self, visit: &Visit<'_>) -> Result<()> {
        self.totals.mounts += 1;
        let (attributes, _) = self.attributes(visit.stat, visit.path);
        open_child(self.dst.here(), visit.name)
            .and_then(|dir| attributes.apply(dir.as_fd()))
            .context("set attributes", path::shown(visit.path))?;
        Ok(())
    }
}

impl Copy<'_> {
    /// Makes another name of a file that was copied before; false if it was not, or cannot have more
    /// names.
    fn link(&mut self, visit: &Visit<'_>) -> Result<bool, Errno> {
        let key = (visit.stat.st_dev, visit.stat.st_ino);
        let Some(first) = self.linked.get(&key).filter(|_| visit.stat.st_nlink > 1) else {
            return Ok(false);
        };
        let (parent, name) = split(&first.path);
        let made = open_beneath(self.root, parent)
            .and_then(|dir| linkat(dir, &name, self.dst.here(), visit.name, AtFlags::empty()));
        match made {
            Ok(()) => {
                let again = first.remembered.clone();
                self.owners.extend(again.map(|r| Remembered { path: visit.path.to_vec(), ..r }));
                Ok(true)
            }
            // Too many names, or a path longer than one call takes: it becomes a file of its own.
            Err(Errno::MLINK | Errno::NAMETOOLONG) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    fn regular(&mut self, visit: &Visit<'_>) -> Result<(), Errno> {
        let src = open_file(visit.dir, visit.name)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dst = openat(self.dst.here(), visit.name, flags, Mode::RUSR | Mode::WUSR)?;
        data::copy(src.as_fd(), dst.as_fd())?;
        // Not the size of the source: it may grow meanwhile.
        self.totals.bytes += u64::try_from(fstat(&dst)?.st_size).unwrap_or(0);
        self.finish(src.as_fd(), dst.as_fd(), visit)
    }

    fn fifo(&mut self, visit: &Visit<'_>) -> Result<(), Errno> {
        let mode = Mode::RUSR | Mode::WUSR;
        mknodat(self.dst.here(), visit.name, FileType::Fifo, mode, 0)?;
        let dst = open_file(self.dst.here(), visit.name)?;
        let (attributes, remembered) = self.attributes(visit.stat, visit.path);
        attributes.apply(dst.as_fd())?;
        self.remember(visit, remembered);
        Ok(())
    }

    fn symlink(&mut self, visit: &Visit<'_>) -> Result<(), Errno> {
        let target = readlinkat(visit.dir, visit.name, Vec::new())?;
        symlinkat(&target, self.dst.here(), visit.name)?;
        let (attributes, remembered) = self.attributes(visit.stat, visit.path);
        attributes.apply_to_link(self.dst.here(), visit.name)?;
        self.remember(visit, remembered);
        Ok(())
    }

    fn device(&mut self, visit: &Visit<'_>) {
        let stat = visit.stat;
        let class = match visit.kind() {
            FileType::BlockDevice => DeviceClass::Block,
            _ => DeviceClass::Char,
        };
        let ((uid, gid), _) = self.owner(stat);
        self.totals.devices += 1;
        self.owners.push(Remembered {
            path: visit.path.to_vec(),
            uid: Some(uid),
            gid: Some(gid),
            mode: Some(stat.st_mode & MODE_BITS),
            device: Some(Device { class, major: major(stat.st_rdev), minor: minor(stat.st_rdev) }),
        });
    }

    fn finish(
        &mut self,
        src: BorrowedFd<'_>,
        dst: BorrowedFd<'_>,
        visit: &Visit<'_>,
    ) -> Result<(), Errno> {
        let (mut attributes, remembered) = self.attributes(visit.stat, visit.path);
        attributes.xattrs = self.xattrs(src)?;
        self.totals.xattrs_lost += attributes.apply(dst)?;
        self.remember(visit, remembered);
        Ok(())
    }

    fn finish_dir(
        &mut self,
        src: BorrowedFd<'_>,
        dst: BorrowedFd<'_>,
        at: &[u8],
    ) -> Result<(), Errno> {
        let (mut attributes, remembered) = self.attributes(&fstat(src)?, at);
        attributes.xattrs = self.xattrs(src)?;
        self.totals.xattrs_lost += attributes.apply(dst)?;
        self.owners.extend(remembered);
        Ok(())
    }

    /// The attributes of a file of the source that a layer can hold. A file capability of another user
    /// namespace cannot be read here (EOVERFLOW) and is lost.
    fn xattrs(&mut self, src: BorrowedFd<'_>) -> Result<Vec<xattr::Xattr>, Errno> {
        let mut found = Vec::new();
        let powerless = self.way.powerless;
        let wanted = |name: &CString| {
            may_be_stored(name) && (!powerless || name.to_bytes().starts_with(b"user."))
        };
        for name in xattr::names(src)?.into_iter().filter(wanted) {
            match xattr::get(src, &name) {
                Ok(Some(value)) => found.push((name, value)),
                Ok(None) => {}
                Err(Errno::OVERFLOW | Errno::PERM) => self.totals.xattrs_lost += 1,
                Err(errno) => return Err(errno),
            }
        }
        Ok(found)
    }

    fn attributes(&mut self, stat: &Stat, at: &[u8]) -> (Attributes, Option<Remembered>) {
        let (owner, known) = self.owner(stat);
        let (mut attributes, remembered) = Attributes::place(self.ids, at, owner, stat.st_mode);
        attributes.mtime = Some(mtime(stat));
        if self.way.powerless {
            attributes.mode &= MODE_BITS & !SET_ID;
        }
        self.totals.unmapped += u64::from(!known || remembered.is_some());
        (attributes, remembered)
    }

    /// Whose it is, and whether that is known.
    fn owner(&self, stat: &Stat) -> ((u32, u32), bool) {
        let told = self.way.strangers.owner(stat);
        let known = |shown: u32, told: Option<u32>, is_held: bool| match (shown, told) {
            (OVERFLOW_ID, Some(NOBODY_KNOWS)) => None,
            (OVERFLOW_ID, Some(id)) => Some(id),
            (OVERFLOW_ID, None) if !is_held => None,
            _ => Some(shown),
        };
        let uid = known(stat.st_uid, told.0, self.ids.holds_uid(OVERFLOW_ID));
        let gid = known(stat.st_gid, told.1, self.ids.holds_gid(OVERFLOW_ID));
        ((uid.unwrap_or(0), gid.unwrap_or(0)), uid.is_some() && gid.is_some())
    }

    fn remember(&mut self, visit: &Visit<'_>, remembered: Option<Remembered>) {
        if visit.stat.st_nlink > 1 {
            let linked = Linked { path: visit.path.to_vec(), remembered: remembered.clone() };
            self.linked.insert((visit.stat.st_dev, visit.stat.st_ino), linked);
        }
        self.owners.extend(remembered);
    }
}

fn mtime(stat: &Stat) -> Timespec {
    Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ }
}

fn split(at: &[u8]) -> (&[u8], CString) {
    let (parent, name) = path::split(at);
    (parent, CString::new(name).expect("a name that the kernel gave has no NUL"))
}

fn last_name(at: &[u8]) -> Option<CString> {
    (!at.is_empty()).then(|| split(at).1)
}
