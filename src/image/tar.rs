//! The tar of a root file system, extracted by descriptor.
//!
//! The stream is hostile. Every name is checked (`name::clean`), every parent directory is opened beneath
//! the target without following a symbolic link, every file is made new (`O_EXCL`) and changed through its own
//! descriptor. Refused with `Failed`, naming the entry: `..`, absolute and empty names, names over 4096
//! bytes, a root that is no directory, paths and hard links that lead through a symbolic link or outside,
//! attributes that overlayfs would read as its own, sizes that disagree, unknown types.
//!
//! As tar does it, a later entry takes the place of an earlier one; a directory over a directory only changes
//! its attributes; a directory that is not empty is never replaced. Modes and times of directories are set
//! at the end, so that read-only ones can be filled. Long runs of zeroes become holes.
//!
//! Device nodes are remembered, not made. Whiteouts of OCI layers (`.wh.*`) are plain names here: this reads
//! whole trees, not layers.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, linkat, mkdirat, mknodat, openat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};
use tar::EntryType;

use crate::fault::{Context, Fault, Result};
use crate::ids::IdMap;
use crate::tree::attributes::{Attributes, MODE_BITS};
use crate::tree::dir::{kind, lstat, lstat_if_any, open_beneath, open_child, open_file};
use crate::tree::owners::{Device, DeviceClass, Remembered};
use crate::tree::{Totals, path};

mod content;
mod kind;
mod name;
mod pax;
mod reader;
mod sparse;
pub mod write;

use reader::{Entry, Reader};

/// Extracts a whole tree into the directory `dst`, and its owners and devices that `dst` cannot hold to the
/// end of `owners`. The entry `./` sets the attributes of `dst` itself.
///
/// # Errors
/// `Failed` for what is refused (see the module), for a stream that is no tar or is cut off (also one without
/// end mark), and what the system says. A part of the tree may have been made then.
pub fn extract(
    reader: &mut dyn Read,
    dst: BorrowedFd<'_>,
    ids: &IdMap,
    owners: &mut Vec<Remembered>,
) -> Result<Totals> {
    let begun = owners.len();
    let totals = extract_over(reader, dst, ids, owners)?;
    // Nobody has remembered anything of what was not there.
    let known = owners.split_off(begun);
    owners.extend(known.into_iter().filter(|entry| !entry.is_empty()));
    Ok(totals)
}

/// The same onto a tree that remembers something: an entry of `owners` without content is a directory, link or fifo
/// of which nothing is to be remembered any more.
///
/// # Errors
/// As [`extract`].
pub fn extract_over(
    reader: &mut dyn Read,
    dst: BorrowedFd<'_>,
    ids: &IdMap,
    owners: &mut Vec<Remembered>,
) -> Result<Totals> {
    let mut job = Extract {
        root: dst,
        ids,
        totals: Totals::default(),
        remembered: HashMap::new(),
        directories: BTreeMap::new(),
        parent: None,
    };
    let mut reader = Reader::new(reader);
    while let Some(entry) = reader.next()? {
        job.entry(&entry, &mut reader)?;
    }
    job.finish()?;
    owners.extend(job.remembered.into_values());
    Ok(job.totals)
}

struct Extract<'a> {
    root: BorrowedFd<'a>,
    ids: &'a IdMap,
    totals: Totals,
    remembered: HashMap<Vec<u8>, Remembered>,
    /// What directories are to have in the end, by path.
    directories: BTreeMap<Vec<u8>, Attributes>,
    /// The directory of the last entry, which is mostly that of the next.
    parent: Option<(Vec<u8>, OwnedFd)>,
}

/// Where an entry goes: its directory, its name there and its clean path.
struct Place<'a> {
    dir: BorrowedFd<'a>,
    name: &'a CStr,
    path: &'a [u8],
}

impl Extract<'_> {
    fn entry(&mut self, entry: &Entry, reader: &mut Reader<'_>) -> Result<()> {
        let clean = name::clean(&entry.path).map_err(|why| entry.fault(why))?;
        let kind = kind::effective(entry)?;
        kind::check_xattrs(entry)?;
        if clean.is_empty() {
            if kind != EntryType::Directory {
                return Err(entry.fault("the root of the tree can only be a directory"));
            }
            self.forget(&clean);
            let attributes = self.attributes(entry, &clean, true)?;
            self.directories.insert(clean, attributes);
            return Ok(());
        }
        let (parent, name) = path::split(&clean);
        let name = CString::new(name).map_err(|_| entry.fault("a name with a NUL byte"))?;
        let dir = self.parent(parent, entry)?;
        let place = Place { dir: dir.as_fd(), name: &name, path: &clean };
        match kind {
            EntryType::Directory => self.directory(entry, &place)?,
            EntryType::Symlink => self.symlink(entry, &place)?,
            EntryType::Link => self.hard_link(entry, &place)?,
            EntryType::Fifo => self.fifo(entry, &place)?,
            EntryType::Char | EntryType::Block => self.device(entry, &place)?,
            _ => self.regular(entry, &place, reader)?,
        }
        self.parent = Some((parent.to_vec(), dir));
        Ok(())
    }

    /// Opens the directory of an entry. Directories that no entry named so far are made, as ours (0:0 in a
    /// user namespace) with mode 0755.
    fn parent(&mut self, parent: &[u8], entry: &Entry) -> Result<OwnedFd> {
        if let Some((known, dir)) = self.parent.take()
            && known == parent
        {
            return Ok(dir);
        }
        match open_beneath(self.root, parent) {
            Err(Errno::NOENT) => {}
            other => return other.map_err(|errno| through(entry, errno)),
        }
        let mut here = open_beneath(self.root, b"").map_err(|errno| through(entry, errno))?;
        let mut made = Vec::new();
        for name in parent.split(|byte| *byte == b'/') {
            let name = CString::new(name).map_err(|_| entry.fault("a name with a NUL byte"))?;
            path::join(&mut made, &name);
            let child = match open_child(here.as_fd(), &name) {
                Err(Errno::NOENT) => {
                    self.remembered.remove(&made);
                    let ours = (geteuid().as_raw(), getegid().as_raw());
                    let plain = Attributes::place(self.ids, &made, ours, 0o755).0;
                    self.directories.insert(made.clone(), plain);
                    self.totals.files += 1;
                    mkdirat(&here, &name, Mode::RWXU).and_then(|()| open_child(here.as_fd(), &name))
                }
                other => other,
            };
            here = child.map_err(|errno| through(entry, errno))?;
        }
        Ok(here)
    }

    fn directory(&mut self, entry: &Entry, place: &Place<'_>) -> Result<()> {
        let there = lstat_if_any(place.dir, place.name).map_err(|errno| failed(entry, errno))?;
        if there.is_none_or(|stat| kind(&stat) != FileType::Directory) {
            self.make(entry, place, || mkdirat(place.dir, place.name, Mode::RWXU))?;
        }
        self.forget(place.path);
        let attributes = self.attributes(entry, place.path, true)?;
        self.directories.insert(place.path.to_vec(), attributes);
        Ok(())
    }

    fn regular(&mut self, entry: &Entry, place: &Place<'_>, reader: &mut Reader<'_>) -> Result<()> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = self.make(entry, place, || openat(place.dir, place.name, flags, mode))?;
        content::write(entry, reader, file.as_fd())?;
        self.totals.bytes = self.totals.bytes.saturating_add(entry.size);
        let attributes = self.attributes(entry, place.path, true)?;
        let lost = attributes.apply(file.as_fd()).map_err(|errno| failed(entry, errno))?;
        self.totals.xattrs_lost += lost;
        Ok(())
    }

    fn symlink(&mut self, entry: &Entry, place: &Place<'_>) -> Result<()> {
        let target = name::target(&entry.link).map_err(|why| entry.fault(why))?;
        self.make(entry, place, || symlinkat(target.as_c_str(), place.dir, place.name))?;
        self.forget(place.path);
        let attributes = self.attributes(entry, place.path, false)?;
        attributes.apply_to_link(place.dir, place.name).map_err(|errno| failed(entry, errno))
    }

    fn fifo(&mut self, entry: &Entry, place: &Place<'_>) -> Result<()> {
        let mode = Mode::RUSR | Mode::WUSR;
        self.make(entry, place, || mknodat(place.dir, place.name, FileType::Fifo, mode, 0))?;
        self.forget(place.path);
        let attributes = self.attributes(entry, place.path, false)?;
        open_file(place.dir, place.name)
            .and_then(|file| attributes.apply(file.as_fd()))
            .map_err(|errno| failed(entry, errno))?;
        Ok(())
    }

    fn device(&mut self, entry: &Entry, place: &Place<'_>) -> Result<()> {
        self.clear(entry, place)?;
        let class = match entry.kind {
            EntryType::Block => DeviceClass::Block,
            _ => DeviceClass::Char,
        };
        let (major, minor) = entry.device;
        self.totals.devices += 1;
        let device = Remembered {
            path: place.path.to_vec(),
            uid: Some(entry.uid),
            gid: Some(entry.gid),
            mode: Some(entry.mode & MODE_BITS),
            device: Some(Device { class, major, minor }),
        };
        self.remembered.insert(place.path.to_vec(), device);
        Ok(())
    }

    fn hard_link(&mut self, entry: &Entry, place: &Place<'_>) -> Result<()> {
        let target = name::clean(&entry.link)
            .map_err(|why| entry.fault(&format!("it is a hard link to {why}")))?;
        if target == place.path {
            return Err(entry.fault("it is a hard link to itself"));
        }
        let known = self.remembered.get(&target).cloned();
        let known = known.map(|known| Remembered { path: place.path.to_vec(), ..known });
        if known.as_ref().is_some_and(|known| known.device.is_some()) {
            self.clear(entry, place)?;
            self.totals.devices += 1;
        } else {
            let (parent, name) = path::split(&target);
            let name = CString::new(name).map_err(|_| entry.fault("a name with a NUL byte"))?;
            let bad = |errno| match errno {
                Errno::NOENT => entry.fault("it is a hard link to what is not in the archive"),
                _ => through(entry, errno),
            };
            let from = open_beneath(self.root, parent).map_err(bad)?;
            if kind(&lstat(from.as_fd(), &name).map_err(bad)?) == FileType::Directory {
                return Err(entry.fault("it is a hard link to a directory"));
            }
            let empty = AtFlags::empty();
            self.make(entry, place, || linkat(&from, &name, place.dir, place.name, empty))?;
        }
        self.remembered.extend(known.map(|known| (place.path.to_vec(), known)));
        Ok(())
    }

    /// Makes an entry, in place of what was there.
    fn make<T>(
        &mut self,
        entry: &Entry,
        place: &Place<'_>,
        mut call: impl FnMut() -> Result<T, Errno>,
    ) -> Result<T> {
        match call() {
            Err(Errno::EXIST) => {
                self.clear(entry, place)?;
                call()
            }
            other => {
                self.remembered.remove(place.path);
                other
            }
        }
        .map_err(|errno| failed(entry, errno))
        .inspect(|_| self.totals.files += 1)
    }

    /// Nothing is remembered of a directory, link or fifo, until something is. A link that looks like one of a layer
    /// beneath would be taken for that one.
    fn forget(&mut self, path: &[u8]) {
        let nothing = Remembered { path: path.to_vec(), ..Remembered::default() };
        self.remembered.insert(path.to_vec(), nothing);
    }

    /// Takes away what is at the place of an entry, if anything.
    fn clear(&mut self, entry: &Entry, place: &Place<'_>) -> Result<()> {
        self.remembered.remove(place.path);
        let there = lstat_if_any(place.dir, place.name).map_err(|errno| failed(entry, errno))?;
        let Some(there) = there else { return Ok(()) };
        let directory = kind(&there) == FileType::Directory;
        let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        if directory {
            // Devices in it are on no disk that would keep it from being empty.
            self.directories.remove(place.path);
            self.remembered.retain(|path, _| !path::is_beneath(path, place.path));
        }
        match unlinkat(place.dir, place.name, flags) {
            Err(Errno::NOTEMPTY) => {
                return Err(entry.fault("it would replace a directory that is not empty"));
            }
            other => other.map_err(|errno| failed(entry, errno))?,
        }
        // It was counted when it was made, by an earlier entry of the archive.
        self.totals.files = self.totals.files.saturating_sub(1);
        if kind(&there) == FileType::RegularFile && there.st_nlink <= 1 {
            let size = u64::try_from(there.st_size).unwrap_or_default();
            self.totals.bytes = self.totals.bytes.saturating_sub(size);
        }
        Ok(())
    }

    /// What the entry is to have on disk; the rest is remembered.
    fn attributes(&mut self, entry: &Entry, path: &[u8], xattrs: bool) -> Result<Attributes> {
        let owner = (entry.uid, entry.gid);
        let (mut attributes, remembered) = Attributes::place(self.ids, path, owner, entry.mode);
        attributes.mtime = Some(entry.mtime);
        if xattrs {
            for (name, value) in &entry.xattrs {
                let name = CString::new(&name[..])
                    .map_err(|_| entry.fault("an attribute's name with a NUL byte"))?;
                attributes.xattrs.push((name, value.clone()));
            }
        } else {
            self.totals.xattrs_lost += entry.xattrs.len() as u64;
        }
        if let Some(remembered) = remembered {
            self.totals.unmapped += 1;
            self.remembered.insert(path.to_vec(), remembered);
        }
        Ok(attributes)
    }

    /// Gives the directories what they are to have, the deepest first: what is set on one is not changed
    /// by the work on another.
    fn finish(&mut self) -> Result<()> {
        self.parent = None;
        for (path, attributes) in std::mem::take(&mut self.directories).into_iter().rev() {
            let lost = open_beneath(self.root, &path).and_then(|dir| attributes.apply(dir.as_fd()));
            self.totals.xattrs_lost += lost.context("set attributes", path::shown(&path))?;
        }
        Ok(())
    }
}

/// The fault of a path that cannot be walked.
fn through(entry: &Entry, errno: Errno) -> Fault {
    match errno {
        Errno::LOOP | Errno::NOTDIR => {
            entry.fault("its path leads through something that is no directory")
        }
        Errno::XDEV => entry.fault("its path leads out of the tree"),
        _ => failed(entry, errno),
    }
}

fn failed(entry: &Entry, errno: Errno) -> Fault {
    Fault::errno("extract", String::from_utf8_lossy(&entry.path), errno)
}
