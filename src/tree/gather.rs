//! What is remembered of an upper, for the file `owners` of the layer that it becomes.
//!
//! Of files and directories the attribute tells ([`super::meta`]); it is there also on what was copied up from
//! a layer that has it. Of links, fifos and sockets the journal of the run tells, or, of those that were copied
//! up and not given to anybody since, the layer beneath.
//!
//! A device counts if the handler has made it, or a layer beneath has it at the same path or with the same owner
//! and mode, or if nobody but root inside can have written the attribute: else a user inside could make nodes for whoever unpacks an
//! archive of the layer as root. Where all inside have one id there is nobody to tell apart.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Stat, StatxFlags, readlinkat, statx};
use rustix::io::Errno;

use super::attributes::MODE_BITS;
use super::dir::{kind, lstat_if_any, open_beneath, open_file};
use super::merged::{Found, Merged};
use super::meta::{self, Inode, Journal, Meta};
use super::owners::Remembered;
use super::recall::look_up;
use super::walk::{Descend, Visit, Visitor, walk};
use super::whiteout::is_whiteout_node;
use super::{path, xattr};
use crate::fault::{Context, Result};
use crate::ids::{IdMap, Mode};

/// Where to look.
#[derive(Debug)]
pub struct Sources<'a> {
    /// The layers beneath, top first.
    pub beneath: &'a [BorrowedFd<'a>],
    /// What each of them remembers, sorted by path.
    pub theirs: &'a [Vec<Remembered>],
    /// What the handler of the run has written down.
    pub journal: &'a Journal,
    /// The ids of the tree.
    pub map: &'a IdMap,
    /// Whether any file may have the attribute; else only an empty one, which stands for a device.
    pub all: bool,
    /// Whether nobody in the run could give files away or make nodes, so that what their attributes say counts only as far
    /// as a layer beneath has said it.
    pub plain: bool,
}

impl Sources<'_> {
    fn believes(&self, meta: &Meta) -> bool {
        !self.plain || self.theirs.iter().any(|known| has_said(known, meta))
    }
}

/// Whether a layer remembers that very owner and device of some file.
pub(super) fn has_said(known: &[Remembered], meta: &Meta) -> bool {
    let same = |ours: Option<u32>, theirs| ours.is_none() || ours == theirs;
    known
        .iter()
        .any(|one| one.device == meta.device && same(meta.uid, one.uid) && same(meta.gid, one.gid))
}

/// What is remembered of `upper`, in the order of paths.
///
/// # Errors
/// What the system says, naming the path.
pub fn gather(upper: BorrowedFd<'_>, sources: &Sources<'_>) -> Result<Vec<Remembered>> {
    let mut gather = Gather { sources, found: Vec::new() };
    walk(upper, &mut gather)?;
    super::owners::settle(&mut gather.found);
    Ok(gather.found)
}

/// What is remembered of the links, fifos and sockets of `upper`, by their own numbers.
///
/// # Errors
/// As [`gather`].
pub fn links(upper: BorrowedFd<'_>, sources: &Sources<'_>) -> Result<Journal> {
    let (gather, mut found) = (Gather { sources, found: Vec::new() }, Journal::default());
    walk(upper, &mut |visit: &Visit<'_>| {
        if matches!(visit.kind(), FileType::Symlink | FileType::Fifo | FileType::Socket) {
            let known = gather.known_link(visit);
            if let Some((inode, meta)) = known.context("look at", path::shown(visit.path))? {
                found.set(inode, meta);
            }
        }
        Ok(Descend::Yes)
    })?;
    Ok(found)
}

struct Gather<'a> {
    sources: &'a Sources<'a>,
    found: Vec<Remembered>,
}

impl Visitor for Gather<'_> {
    fn entry(&mut self, visit: &Visit<'_>) -> Result<Descend> {
        let kept = match visit.kind() {
            FileType::Directory => return Ok(Descend::Yes),
            FileType::RegularFile if self.sources.all || visit.stat.st_size == 0 => {
                self.regular(visit)
            }
            FileType::Symlink | FileType::Fifo | FileType::Socket => self.link(visit),
            _ => Ok(None),
        };
        self.found.extend(kept.context("read attributes", path::shown(visit.path))?);
        Ok(Descend::Yes)
    }

    fn enter(&mut self, dir: BorrowedFd<'_>, at: &[u8]) -> Result<()> {
        if !self.sources.all {
            return Ok(());
        }
        let stat = rustix::fs::fstat(dir).context("look at", path::shown(at))?;
        let meta = read(dir).context("read attributes", path::shown(at))?;
        let meta = meta.map(|meta| Meta { device: None, ..meta });
        let meta = meta.filter(|meta| self.sources.believes(meta));
        self.found.extend(meta.and_then(|meta| self.remembered(at, &stat, meta)));
        Ok(())
    }
}

impl Gather<'_> {
    fn regular(&self, visit: &Visit<'_>) -> Result<Option<Remembered>, Errno> {
        let file = open_file(visit.dir, visit.name)?;
        let meta = read(file.as_fd())?.filter(|meta| self.sources.believes(meta));
        let Some(mut meta) = meta else { return Ok(None) };
        if meta.device.is_some() && !self.is_true_device(visit, file.as_fd(), &meta)? {
            meta.device = None;
        }
        Ok(self.remembered(visit.path, visit.stat, meta))
    }

    fn is_true_device(
        &self,
        visit: &Visit<'_>,
        file: BorrowedFd<'_>,
        meta: &Meta,
    ) -> Result<bool, Errno> {
        if only_root_could(visit.stat, self.sources.map) {
            return Ok(true);
        }
        let noted = self.sources.journal.get(&inode(file, c"", AtFlags::EMPTY_PATH)?);
        let disk = (visit.stat.st_uid, visit.stat.st_gid);
        let counted = meta.counted(disk, self.sources.map);
        let owner = (counted.uid.or(Some(disk.0)), counted.gid.or(Some(disk.1)));
        let mode = Some(visit.stat.st_mode & MODE_BITS);
        let same = |other: &Remembered| {
            let alike = (other.uid, other.gid) == owner && other.mode == mode;
            other.device == meta.device && (alike || other.path == visit.path)
        };
        Ok(noted.is_some_and(|noted| noted.device == meta.device)
            || self.sources.theirs.iter().flatten().any(same))
    }

    fn remembered(&self, at: &[u8], stat: &Stat, meta: Meta) -> Option<Remembered> {
        let owner = (stat.st_uid, stat.st_gid);
        let meta = meta.counted(owner, self.sources.map);
        if meta.is_empty() {
            return None;
        }
        let whole = |id: Option<u32>, disk| id.or(meta.device.map(|_| disk));
        Some(Remembered {
            path: at.to_vec(),
            uid: whole(meta.uid, owner.0),
            gid: whole(meta.gid, owner.1),
            mode: Some(stat.st_mode & MODE_BITS),
            device: meta.device,
        })
    }

    fn link(&self, visit: &Visit<'_>) -> Result<Option<Remembered>, Errno> {
        let known = self.known_link(visit)?;
        Ok(known.and_then(|(_, meta)| self.remembered(visit.path, visit.stat, meta)))
    }

    /// What is known of a link, fifo or socket, and which inode it is. Empty is not the same as nothing.
    fn known_link(&self, visit: &Visit<'_>) -> Result<Option<(Inode, Meta)>, Errno> {
        let (journal, theirs) = (self.sources.journal, self.sources.theirs);
        if journal.is_empty() && theirs.iter().all(Vec::is_empty) {
            return Ok(None);
        }
        let inode = inode(visit.dir, visit.name, AtFlags::SYMLINK_NOFOLLOW)?;
        let told = |meta| Ok(Some((inode, meta)));
        let noted = journal.get(&inode);
        if let Some(meta) = noted.filter(Meta::is_whole) {
            return told(meta);
        }
        let beneath = self.beneath(visit.path)?;
        // What was copied up has shown the number of the file beneath, until the kernel forgot that inode.
        let before =
            |(_, stat): &(usize, Stat)| journal.get(&Inode { number: stat.st_ino, ..inode });
        let noted = match (noted, beneath.as_ref().and_then(before)) {
            (Some(since), Some(before)) => Some(since.on_top_of(before)),
            (since, before) => since.or(before),
        };
        let Some((layer, stat)) = beneath.filter(|_| noted.is_none_or(|meta| !meta.is_whole()))
        else {
            return noted.map_or(Ok(None), told);
        };
        let Some(known) = self.inherited(visit, layer, &stat)? else {
            return noted.map_or(Ok(None), told);
        };
        let below = Meta {
            uid: known.uid,
            gid: known.gid,
            on: (stat.st_uid, stat.st_gid),
            ..Meta::default()
        };
        told(noted.map_or(below, |meta| meta.on_top_of(below)))
    }

    /// What the layer beneath remembers of a link that was copied up from it.
    fn inherited(
        &self,
        visit: &Visit<'_>,
        layer: usize,
        beneath: &Stat,
    ) -> Result<Option<&Remembered>, Errno> {
        // Copying up keeps the time, and so does chown; who makes the same link anew does not.
        let parts = |stat: &Stat| (kind(stat), stat.st_mtime, stat.st_mtime_nsec, stat.st_size);
        if parts(beneath) != parts(visit.stat) || !self.same_target(visit, layer)? {
            return Ok(None);
        }
        let known = self.sources.theirs.get(layer).and_then(|known| look_up(known, visit.path));
        Ok(known.filter(|known| known.device.is_none()))
    }

    fn same_target(&self, visit: &Visit<'_>, layer: usize) -> Result<bool, Errno> {
        if visit.kind() != FileType::Symlink {
            return Ok(true);
        }
        let whole = CString::new(visit.path).map_err(|_| Errno::INVAL)?;
        match readlinkat(self.sources.beneath[layer], &whole, Vec::new()) {
            Ok(target) => Ok(target == readlinkat(visit.dir, visit.name, Vec::new())?),
            Err(Errno::NAMETOOLONG) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// What the layers beneath have at a path that is no directory there, and which of them.
    fn beneath(&self, at: &[u8]) -> Result<Option<(usize, Stat)>, Errno> {
        if self.sources.beneath.is_empty() {
            return Ok(None);
        }
        let mut here = Merged::root(self.sources.beneath)?;
        for part in at.split(|byte| *byte == b'/') {
            let name = CString::new(part).map_err(|_| Errno::INVAL)?;
            here = match here.child(&name)? {
                Found::Directory(child) => child,
                Found::Other { layer, stat } if !is_whiteout_node(&stat) => {
                    return Ok(Some((layer, stat)));
                }
                _ => return Ok(None),
            };
        }
        Ok(None)
    }
}

/// Whether nobody but root inside can have written onto a file, or nobody can be told from root.
pub(super) fn only_root_could(stat: &Stat, map: &IdMap) -> bool {
    map.mode == Mode::Single || (stat.st_uid == 0 && stat.st_mode & 0o022 == 0)
}

pub(super) fn read(fd: BorrowedFd<'_>) -> Result<Option<Meta>, Errno> {
    Ok(xattr::get(fd, meta::NAME)?.and_then(|value| Meta::parse(&value)))
}

/// Which inode a name is, or an open file with no name and `AtFlags::EMPTY_PATH`.
pub(super) fn inode(
    dir: BorrowedFd<'_>,
    name: &std::ffi::CStr,
    flags: AtFlags,
) -> Result<Inode, Errno> {
    let found = statx(dir, name, flags, StatxFlags::INO | StatxFlags::BTIME)?;
    Ok(Inode { number: found.stx_ino, born: (found.stx_btime.tv_sec, found.stx_btime.tv_nsec) })
}

/// Adds what a layer remembers of links, fifos, sockets and devices, by inode: for a tree that has hard links to
/// its files. What is known already is of a layer above, and stays.
///
/// # Errors
/// What the system says, naming the path.
pub fn journal_of(
    layer: BorrowedFd<'_>,
    known: &[Remembered],
    journal: &mut Journal,
) -> Result<()> {
    for entry in known {
        note(layer, entry, journal).context("look at", path::shown(&entry.path))?;
    }
    Ok(())
}

fn note(layer: BorrowedFd<'_>, entry: &Remembered, journal: &mut Journal) -> Result<(), Errno> {
    if let Some((inode, stat)) = on_disk(layer, entry)? {
        let Remembered { uid, gid, device, .. } = *entry;
        let on = (stat.st_uid, stat.st_gid);
        journal.set(inode, Meta { uid, gid, device, on, unset: (false, false) });
    }
    Ok(())
}

/// The file of a layer that an entry of its `owners` is about, if that is no directory.
pub(super) fn on_disk(
    layer: BorrowedFd<'_>,
    entry: &Remembered,
) -> Result<Option<(Inode, Stat)>, Errno> {
    let (parent, name) = path::split(&entry.path);
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    let found = open_beneath(layer, parent)
        .and_then(|dir| Ok(lstat_if_any(dir.as_fd(), &name)?.map(|stat| (dir, stat))));
    let (dir, stat) = match found {
        Ok(Some(found)) => found,
        // In the old form nothing lies at the place of a device.
        Ok(None) | Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    if matches!(kind(&stat), FileType::Directory) || entry.path.is_empty() {
        return Ok(None);
    }
    Ok(Some((inode(dir.as_fd(), &name, AtFlags::SYMLINK_NOFOLLOW)?, stat)))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;
    use crate::ids::Extent;

    /// A copied-up link shows the number of the file beneath, and its own once the kernel has forgotten its inode.
    #[test]
    fn a_link_is_known_by_both_of_its_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            let tree = dir.path().join(name);
            std::fs::create_dir(&tree).unwrap();
            symlink("x", tree.join("l")).unwrap();
            File::open(tree).unwrap()
        };
        let (below, upper) = (open("below"), open("upper"));
        let own = inode(upper.as_fd(), c"l", AtFlags::SYMLINK_NOFOLLOW).unwrap();
        let number = dir.path().join("below/l").symlink_metadata().unwrap().ino();
        let ids = vec![Extent { inside: 0, outside: 1000, count: 1 }];
        let map = IdMap::new(Mode::Single, ids.clone(), ids).unwrap();
        let known = |before: Meta, since: Meta| {
            let mut journal = Journal::default();
            journal.set(Inode { number, ..own }, before);
            journal.set(own, since);
            let (beneath, theirs) = (&[below.as_fd()][..], &[Vec::new()][..]);
            let sources =
                Sources { beneath, theirs, journal: &journal, map: &map, all: true, plain: false };
            links(upper.as_fd(), &sources).unwrap().get(&own)
        };
        let before = Meta { uid: Some(33), gid: Some(8), ..Meta::default() };
        let since = Meta { gid: Some(9), unset: (true, false), ..Meta::default() };
        assert_eq!(known(before, since), Some(Meta { gid: Some(9), ..before }));
        let half = Meta { uid: Some(33), unset: (false, true), ..Meta::default() };
        assert_eq!(known(half, since), Some(Meta { gid: Some(9), ..before }));
        assert_eq!(known(before, Meta::default()), Some(Meta::default()), "whole");
    }
}
