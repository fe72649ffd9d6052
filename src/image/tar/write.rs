//! A tree as a tar stream: ustar headers, and PAX records for what they cannot hold: names over 100 bytes, sizes
//! of 8 GiB and more, nanoseconds, attributes, holes (GNU sparse 1.0). The same tree gives the same bytes.
//!
//! The tree may change meanwhile, and by somebody who means ill: all is opened beneath its directory without
//! following a symbolic link and without leaving the mount, a size that was announced is kept to (cut off, or
//! filled with zeroes), and what vanishes or changes its type between two looks is left out and counted.
//!
//! Owners and devices that are not on disk are written as somebody knows them who remembers (`inside`).

use std::collections::HashMap;
use std::ffi::CStr;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Stat, fstat, readlinkat};
use rustix::io::{Errno, pread, retry_on_intr};
use serde::{Deserialize, Serialize};
use tar::{EntryType, Header};

use crate::fault::{Context, Fault, Result};
use crate::tree::attributes::{MODE_BITS, may_be_stored};
use crate::tree::dir::{Names, Trail, kind, lstat_if_any, open_child, open_file};
use crate::tree::recall::{Memory, Place};
use crate::tree::{path, xattr};

mod form;
mod inside;
mod source;

use form::{BLOCK, Records, fill, sparse_map, stretches, time, unwritten};
use inside::Owner;
use source::Source;

/// How much is read at once, in bytes.
const CHUNK: usize = 128 * 1024;
/// The largest numbers of the octal fields of 12 and 8 bytes.
const LARGEST_SIZE: u64 = 0o77_777_777_777;
const LARGEST_ID: u32 = 0o7_777_777;
/// Set-user-ID and set-group-ID, as in stat(2).
const SET_ID: u32 = 0o6000;

/// What of a tree goes into the stream.
#[derive(Debug, Clone, Copy, Default)]
pub struct Form {
    /// Whose everything is; the owners as they are seen here if nobody's.
    pub owner: Option<(u32, u32)>,
    /// Without set-id bits.
    pub without_set_id: bool,
    /// Without attributes but `user.*`: the others mean ids and rights of the place that they come from.
    pub user_attributes_only: bool,
}

/// What was written, and what was left out.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Entries.
    pub entries: u64,
    /// Bytes of content, without holes.
    pub bytes: u64,
    /// Entries that changed while they were read.
    pub changed: u64,
    /// Sockets, which no archive holds.
    pub sockets: u64,
    /// Directories on which something is mounted: written empty.
    pub mounts: u64,
}

/// A stream that is being written.
pub struct Writer<'a> {
    out: &'a mut dyn Write,
    form: Form,
    source: Source,
    memory: Option<&'a dyn Memory>,
    written: Written,
    /// The first name of each file with several, and its owner.
    linked: HashMap<(u64, u64), (Vec<u8>, Owner)>,
}

impl std::fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("written", &self.written).finish_non_exhaustive()
    }
}

impl<'a> Writer<'a> {
    /// A stream without an entry.
    pub fn new(out: &'a mut dyn Write, form: Form) -> Self {
        let (source, written) = (Source::default(), Written::default());
        Self { out, form, source, memory: None, written, linked: HashMap::new() }
    }

    /// The same, with what somebody remembers of the tree.
    #[must_use]
    pub fn remembering(self, memory: &'a dyn Memory) -> Self {
        Self { memory: Some(memory), ..self }
    }

    /// The same, of a tree that comes from `path` and stands in the stream as `name`: messages tell the path.
    #[must_use]
    pub fn of(self, path: &[u8], name: &[u8]) -> Self {
        Self { source: Source::new(path, name), ..self }
    }

    /// Writes a directory under the name `top`, and all in it; with an empty name only what is in it.
    ///
    /// # Errors
    /// What the system says, naming the path; `STALE` for a directory that was moved while it was read.
    pub fn tree(&mut self, root: BorrowedFd<'_>, top: &[u8]) -> Result<()> {
        let source = self.source.clone();
        let failed = |path: &[u8], errno| Fault::errno("read", source.shown(path), errno);
        let mut trail = Trail::new(root).map_err(|errno| failed(top, errno))?;
        let mut path = top.to_vec();
        if !top.is_empty() {
            self.directory(trail.here(), &path)?;
        }
        let names = |dir: BorrowedFd<'_>, path: &[u8]| {
            Names::read(dir).map(Names::sorted).map_err(|errno| failed(path, errno))
        };
        let mut levels = vec![(names(trail.here(), &path)?, 0, path.len())];
        while let Some((level, next, prefix)) = levels.last_mut() {
            path.truncate(*prefix);
            let Some(name) = level.get(*next).map(|(name, _)| name.to_owned()) else {
                levels.pop();
                trail.pop().map_err(|errno| failed(&path, errno))?;
                continue;
            };
            *next += 1;
            path::join(&mut path, &name);
            if let Some(child) = self.entry(trail.here(), &name, &path)? {
                levels.push((names(child.as_fd(), &path)?, 0, path.len()));
                trail.push(child).map_err(|errno| failed(&path, errno))?;
            }
        }
        Ok(())
    }

    /// Writes one entry of `dir` under the path `at`. A directory is handed back, for what is in it.
    ///
    /// # Errors
    /// As [`Writer::tree`].
    pub fn entry(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        at: &[u8],
    ) -> Result<Option<OwnedFd>> {
        let found = lstat_if_any(dir, name).context("look at", self.source.shown(at))?;
        let Some(stat) = found else { return self.changed() };
        if kind(&stat) == FileType::Directory {
            return match open_child(dir, name) {
                Ok(child) => self.directory(child.as_fd(), at).map(|()| Some(child)),
                Err(Errno::XDEV) => {
                    self.written.mounts += 1;
                    let header = self.header(&stat, EntryType::Directory);
                    self.head(header, &[at, b"/"].concat(), b"", &stat, Vec::new()).map(|()| None)
                }
                Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => self.changed(),
                Err(errno) => Err(Fault::errno("read", self.source.shown(at), errno)),
            };
        }
        if stat.st_nlink > 1 && kind(&stat) != FileType::Socket {
            if let Some((first, owner)) = self.linked.get(&(stat.st_dev, stat.st_ino)).cloned() {
                let header = self.header(&stat, EntryType::Link);
                let stat = inside::owned_by(stat, owner);
                return self.head(header, at, &first, &stat, Vec::new()).map(|()| None);
            }
            let owner = (stat.st_uid, stat.st_gid);
            self.linked.insert((stat.st_dev, stat.st_ino), (at.to_vec(), owner));
        }
        self.leaf(dir, name, at, &stat).map(|()| None)
    }

    /// Writes an open regular file under the path `at`.
    ///
    /// # Errors
    /// As [`Writer::tree`].
    pub fn file(&mut self, file: BorrowedFd<'_>, at: &[u8]) -> Result<()> {
        let stat = fstat(file).context("look at", self.source.shown(at))?;
        self.opened(file, at, &stat)
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// What writing says.
    pub fn finish(self) -> Result<Written> {
        self.out.write_all(&[0; 2 * BLOCK]).and_then(|()| self.out.flush()).map_err(unwritten)?;
        Ok(self.written)
    }

    fn changed(&mut self) -> Result<Option<OwnedFd>> {
        self.written.changed += 1;
        Ok(None)
    }

    fn directory(&mut self, dir: BorrowedFd<'_>, at: &[u8]) -> Result<()> {
        let stat = fstat(dir).context("look at", self.source.shown(at))?;
        let (stat, _) = self.inside(at, Place::Open(dir), &stat)?;
        let xattrs = self.xattrs(dir).context("read attributes", self.source.shown(at))?;
        let header = self.header(&stat, EntryType::Directory);
        self.head(header, &[at, b"/"].concat(), b"", &stat, xattrs)
    }

    fn leaf(&mut self, dir: BorrowedFd<'_>, name: &CStr, at: &[u8], stat: &Stat) -> Result<()> {
        if kind(stat) == FileType::RegularFile {
            return self.regular(dir, name, at, stat);
        }
        let (stat, _) = &self.inside(at, Place::Entry(dir, name), stat)?;
        match kind(stat) {
            FileType::Symlink => match readlinkat(dir, name, Vec::new()) {
                Ok(target) => {
                    let header = self.header(stat, EntryType::Symlink);
                    self.head(header, at, target.as_bytes(), stat, Vec::new())
                }
                Err(Errno::NOENT | Errno::INVAL) => self.changed().map(drop),
                Err(errno) => Err(Fault::errno("read", self.source.shown(at), errno)),
            },
            FileType::Socket => {
                self.written.sockets += 1;
                Ok(())
            }
            FileType::Fifo => {
                let header = self.header(stat, EntryType::Fifo);
                self.head(header, at, b"", stat, Vec::new())
            }
            _ => self.node(at, stat, inside::node_of(stat)),
        }
    }

    fn regular(&mut self, dir: BorrowedFd<'_>, name: &CStr, at: &[u8], seen: &Stat) -> Result<()> {
        let opened = open_file(dir, name).and_then(|file| fstat(&file).map(|stat| (file, stat)));
        let (file, stat) = match opened {
            Ok((file, stat)) if kind(&stat) == FileType::RegularFile => (file, stat),
            // Something else stands there now: what was seen does not.
            Ok(_) | Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => {
                self.linked.remove(&(seen.st_dev, seen.st_ino));
                return self.changed().map(drop);
            }
            Err(errno) => return Err(Fault::errno("read", self.source.shown(at), errno)),
        };
        self.opened(file.as_fd(), at, &stat)
    }

    fn opened(&mut self, file: BorrowedFd<'_>, at: &[u8], stat: &Stat) -> Result<()> {
        let (stat, device) = self.inside(at, Place::Open(file), stat)?;
        if let Some(device) = device {
            return self.node(at, &stat, device);
        }
        let stat = &stat;
        let reading = |errno| Fault::errno("read", self.source.shown(at), errno);
        let xattrs = self.xattrs(file).map_err(reading)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let Some(stretches) = stretches(file, stat, size).map_err(reading)? else {
            let header = self.header(stat, EntryType::Regular);
            self.sized(header, size, at, stat, xattrs)?;
            self.content(file, (0, size), at)?;
            return self.pad(size);
        };
        let map = sparse_map(&stretches);
        let stored: u64 = stretches.iter().map(|(from, to)| to - from).sum();
        let mut records = xattrs;
        for (key, value) in [("major", "1"), ("minor", "0"), ("realsize", &size.to_string())] {
            records.push((format!("GNU.sparse.{key}").into_bytes(), value.as_bytes().to_vec()));
        }
        records.push((b"GNU.sparse.name".to_vec(), at.to_vec()));
        let header = self.header(stat, EntryType::Regular);
        self.sized(header, map.len() as u64 + stored, at, stat, records)?;
        self.out.write_all(&map).map_err(unwritten)?;
        for stretch in stretches {
            self.content(file, stretch, at)?;
        }
        self.pad(stored)
    }

    /// Exactly the bytes from one place to the other, whatever the file has there by now.
    fn content(&mut self, file: BorrowedFd<'_>, (from, to): (u64, u64), at: &[u8]) -> Result<()> {
        let mut buffer = vec![0; CHUNK.min(usize::try_from(to - from).unwrap_or(CHUNK)).max(1)];
        let (mut place, mut short) = (from, false);
        while place < to {
            let want = usize::try_from(to - place).unwrap_or(CHUNK).min(buffer.len());
            let mut size = retry_on_intr(|| pread(file, &mut buffer[..want], place))
                .context("read", self.source.shown(at))?;
            if size == 0 {
                buffer[..want].fill(0);
                (size, short) = (want, true);
            }
            self.out.write_all(&buffer[..size]).map_err(unwritten)?;
            place += size as u64;
        }
        self.written.changed += u64::from(short);
        self.written.bytes += to - from;
        Ok(())
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let rest = (size.wrapping_neg() % BLOCK as u64) as usize;
        self.out.write_all(&[0; BLOCK][..rest]).map_err(unwritten)
    }

    fn xattrs(&self, file: BorrowedFd<'_>) -> Result<Records, Errno> {
        let mut records = Vec::new();
        for name in xattr::names(file)? {
            let users = name.to_bytes().starts_with(b"user.");
            if !may_be_stored(&name) || (self.form.user_attributes_only && !users) {
                continue;
            }
            match xattr::get(file, &name) {
                Ok(Some(value)) => {
                    records.push(([b"SCHILY.xattr.", name.to_bytes()].concat(), value));
                }
                // A file capability of another user namespace has no form here.
                Ok(None) | Err(Errno::OVERFLOW | Errno::PERM) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(records)
    }

    fn header(&self, stat: &Stat, kind: EntryType) -> Header {
        let mut header = Header::new_ustar();
        let dropped = if self.form.without_set_id { SET_ID } else { 0 };
        header.set_entry_type(kind);
        header.set_mode(stat.st_mode & MODE_BITS & !dropped);
        header.set_size(0);
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0).min(LARGEST_SIZE));
        header
    }

    /// The header of an entry with content of this size.
    fn sized(
        &mut self,
        mut header: Header,
        size: u64,
        at: &[u8],
        stat: &Stat,
        mut records: Records,
    ) -> Result<()> {
        header.set_size(size.min(LARGEST_SIZE));
        if size > LARGEST_SIZE {
            records.push((b"size".to_vec(), size.to_string().into_bytes()));
        }
        self.head(header, at, b"", stat, records)
    }

    /// Writes the header of an entry, with a PAX header before it if it has to be.
    fn head(
        &mut self,
        mut header: Header,
        at: &[u8],
        link: &[u8],
        stat: &Stat,
        mut records: Records,
    ) -> Result<()> {
        let (uid, gid) = self.form.owner.unwrap_or((stat.st_uid, stat.st_gid));
        header.set_uid(u64::from(uid.min(LARGEST_ID)));
        header.set_gid(u64::from(gid.min(LARGEST_ID)));
        let mut record = |key: &str, value: Vec<u8>| records.push((key.into(), value));
        if uid > LARGEST_ID {
            record("uid", uid.to_string().into_bytes());
        }
        if gid > LARGEST_ID {
            record("gid", gid.to_string().into_bytes());
        }
        if stat.st_mtime < 0 || stat.st_mtime_nsec != 0 {
            record("mtime", time(stat.st_mtime, stat.st_mtime_nsec as i64));
        }
        let ustar = header.as_ustar_mut().ok_or_else(|| Fault::failed("write tar: no header"))?;
        if !fill(&mut ustar.name, at) {
            record("path", at.to_vec());
        }
        if !fill(&mut ustar.linkname, link) {
            record("linkpath", link.to_vec());
        }
        header.set_cksum();
        if !records.is_empty() {
            self.extended(&records)?;
        }
        self.written.entries += 1;
        self.out.write_all(header.as_bytes()).map_err(unwritten)
    }

    fn extended(&mut self, records: &Records) -> Result<()> {
        let body = form::records(records);
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.set_size(body.len() as u64);
        header.set_mode(0o644);
        if let Some(ustar) = header.as_ustar_mut() {
            fill(&mut ustar.name, b"PaxHeaders/x");
        }
        header.set_cksum();
        let out = &mut self.out;
        out.write_all(header.as_bytes()).and_then(|()| out.write_all(&body)).map_err(unwritten)?;
        self.pad(body.len() as u64)
    }
}
