//! Digests of a tree: what every entry of a layer was when it was whole.
//!
//! The form is that of `owners`: text, one JSON object a line, one line a path. The order is that of a walk:
//! a directory before its content, names by their bytes. The first line is the root itself, with an empty
//! path. `docs/format.md` says what the fields mean; the lines that the store adds at the end are none of
//! ours.
//!
//! What changes without a change of the layer is left out: times but the last modification, inode numbers
//! and numbers of links (a fold layer adds names elsewhere), labels of security modules, overlayfs's notes.

use std::collections::{BTreeMap, HashMap};
use std::ffi::CStr;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{FileType, Stat, fstat, major, minor, readlinkat};
use rustix::io::{Errno, read, retry_on_intr};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::attributes::{MODE_BITS, may_be_stored};
use super::dir::{kind, open_file};
use super::path;
use super::walk::{Descend, Visit, Visitor, walk};
use super::whiteout::{Meaning, meaning};
use super::xattr;
use crate::fault::{Context, Fault, Result, is_of_the_disk};

mod compare;

pub use compare::{Difference, How, compare};

/// How much of a file is read at once, in bytes.
const CHUNK: usize = 256 << 10;

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Beneath the root of the layer, without a leading `/`; empty for the root itself.
    #[serde(flatten, with = "path")]
    pub path: Vec<u8>,
    /// What it is.
    #[serde(rename = "type")]
    pub class: Class,
    /// Permission bits, 12 bits.
    pub mode: u32,
    /// Owner, as seen inside.
    pub uid: u32,
    /// Group, as seen inside.
    pub gid: u32,
    /// Time of last modification: seconds since 1970.
    pub mtime: i64,
    /// Its nanoseconds.
    pub nsec: u64,
    /// Attributes that count, by name, as base64.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub xattrs: BTreeMap<String, String>,
    /// Of a further name of a file: its first path in this walk, and then nothing of what follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Of a regular file: bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Of a regular file: the digest of its content, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Of a symbolic link: where it leads, as base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Of a device node (0 and 0 is a whiteout): major and minor number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<(u32, u32)>,
}

/// Types of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    Char,
    /// A block device.
    Block,
}

/// What was written: enough to finish the file outside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// How many lines.
    pub lines: u64,
    /// What the disk cannot read and has no line: of a tree with such there is no manifest.
    pub unread: Vec<Difference>,
}

/// Writes the lines of the tree `fs`, reading every file.
///
/// # Errors
/// What the system says, naming the path; what the writer says.
pub fn write(fs: BorrowedFd<'_>, out: &mut dyn Write) -> Result<Written> {
    let mut written = Written::default();
    scan(fs, &mut |seen| {
        let line = match seen {
            Seen::Entry(line) => line,
            Seen::Unread(path, errno) => {
                written.unread.push(Difference::unread(path, errno));
                return Ok(());
            }
        };
        let mut text = serde_json::to_vec(&line)
            .map_err(|error| Fault::failed(format!("write manifest: {error}")))?;
        text.push(b'\n');
        out.write_all(&text).context("write", "manifest")?;
        written.lines += 1;
        Ok(())
    })?;
    Ok(written)
}

/// Reads the lines of a manifest; `text` has no others.
///
/// # Errors
/// `Damaged` for a line that is no such record or is out of order.
pub fn read_lines(text: &[u8]) -> Result<Vec<Line>> {
    let mut lines: Vec<Line> = Vec::new();
    for (number, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let damaged =
            |why: &str| Fault::damaged(format!("read manifest: line {}: {why}", number + 1));
        let line: Line = serde_json::from_slice(line).map_err(|e| damaged(&e.to_string()))?;
        if lines.last().is_some_and(|last| order(&last.path, &line.path).is_ge()) {
            return Err(damaged("out of order"));
        }
        lines.push(line);
    }
    Ok(lines)
}

/// The order of a walk: component by component.
fn order(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    let slash = |byte: &u8| *byte == b'/';
    a.split(slash).cmp(b.split(slash))
}

/// What is met on the way.
enum Seen {
    /// An entry, and its line.
    Entry(Line),
    /// What the disk cannot read: there is no line, and none of what may lie beneath.
    Unread(Vec<u8>, Errno),
}

/// What is done with it.
type Sink<'a> = dyn FnMut(Seen) -> Result<()> + 'a;

/// Makes the line of every entry.
fn scan(fs: BorrowedFd<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let mut scan = Scan { sink, linked: HashMap::new(), pending: None, buffer: vec![0; CHUNK] };
    walk(fs, &mut scan)
}

struct Scan<'a, 's> {
    sink: &'a mut Sink<'s>,
    /// First path of each inode with several names.
    linked: HashMap<u64, String>,
    /// A directory whose attributes are read when it is open.
    pending: Option<Line>,
    buffer: Vec<u8>,
}

impl Visitor for Scan<'_, '_> {
    fn entry(&mut self, visit: &Visit<'_>) -> Result<Descend> {
        let mut line = line(visit.path, visit.stat);
        if line.class == Class::Dir {
            self.pending = Some(line);
            return Ok(Descend::Yes);
        }
        let is_link = self.is_link(visit, &mut line);
        let read = match line.class {
            _ if is_link => Ok(()),
            Class::File => self.file(visit, &mut line),
            Class::Symlink => readlinkat(visit.dir, visit.name, Vec::new())
                .map(|target| line.target = Some(STANDARD.encode(target.as_bytes()))),
            _ => Ok(()),
        };
        self.tell(line, read)?;
        Ok(Descend::Yes)
    }

    fn enter(&mut self, dir: BorrowedFd<'_>, at: &[u8]) -> Result<()> {
        let mut line = match self.pending.take() {
            Some(line) => line,
            None => line(at, &fstat(dir).context("look at", path::shown(at))?),
        };
        let read = xattrs(dir).map(|found| line.xattrs = found);
        self.tell(line, read)
    }

    fn mount(&mut self, visit: &Visit<'_>) -> Result<()> {
        self.pending = None;
        Err(Fault::failed(format!("read layer: {}: a mount lies on it", path::shown(visit.path))))
    }

    fn unreadable(&mut self, _what: &str, path: &[u8], errno: Errno) -> Result<()> {
        self.pending = None;
        (self.sink)(Seen::Unread(path.to_vec(), errno))
    }
}

impl Scan<'_, '_> {
    /// Whether it is a further name of a file that was seen before. Whiteouts may be one inode and are none.
    fn is_link(&mut self, visit: &Visit<'_>, line: &mut Line) -> bool {
        if visit.stat.st_nlink <= 1 || line.class == Class::Char {
            return false;
        }
        if let Some(first) = self.linked.get(&visit.stat.st_ino) {
            line.link = Some(first.clone());
            return true;
        }
        self.linked.insert(visit.stat.st_ino, String::from_utf8_lossy(visit.path).into_owned());
        false
    }

    /// Fills in what only the open file tells.
    fn file(&mut self, visit: &Visit<'_>, line: &mut Line) -> Result<(), Errno> {
        line.size = Some(u64::try_from(visit.stat.st_size).unwrap_or_default());
        let file = open_file(visit.dir, visit.name)?;
        line.xattrs = xattrs(file.as_fd())?;
        line.sha256 = Some(digest(file.as_fd(), &mut self.buffer)?);
        Ok(())
    }

    /// Hands a line on that was filled in. A disk that cannot read it is the answer, no failure.
    fn tell(&mut self, line: Line, filled: Result<(), Errno>) -> Result<()> {
        match filled {
            Ok(()) => (self.sink)(Seen::Entry(line)),
            Err(errno) if is_of_the_disk(errno) => (self.sink)(Seen::Unread(line.path, errno)),
            Err(errno) => Err(Fault::errno("read", path::shown(&line.path), errno)),
        }
    }
}

/// What lstat(2) tells of an entry.
fn line(path: &[u8], stat: &Stat) -> Line {
    let class = match kind(stat) {
        FileType::RegularFile => Class::File,
        FileType::Directory => Class::Dir,
        FileType::Symlink => Class::Symlink,
        FileType::Fifo => Class::Fifo,
        FileType::CharacterDevice => Class::Char,
        FileType::BlockDevice => Class::Block,
        _ => Class::Socket,
    };
    let device = matches!(class, Class::Char | Class::Block)
        .then(|| (major(stat.st_rdev), minor(stat.st_rdev)));
    Line {
        path: path.to_vec(),
        class,
        mode: stat.st_mode & MODE_BITS,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: stat.st_mtime,
        nsec: stat.st_mtime_nsec,
        xattrs: BTreeMap::new(),
        link: None,
        size: None,
        sha256: None,
        target: None,
        device,
    }
}

/// The attributes that count: the payload's own and those that have a meaning to overlayfs, under the names
/// that lie on disk.
fn xattrs(fd: BorrowedFd<'_>) -> Result<BTreeMap<String, String>, Errno> {
    let counts = |name: &CStr| match meaning(name) {
        Meaning::Note => false,
        Meaning::Foreign => may_be_stored(name),
        _ => true,
    };
    let all = xattr::all(fd)?.into_iter().filter(|(name, _)| counts(name));
    Ok(all
        .map(|(name, value)| (name.to_string_lossy().into_owned(), STANDARD.encode(value)))
        .collect())
}

fn digest(file: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<String, Errno> {
    let mut digest = Sha256::new();
    loop {
        match retry_on_intr(|| read(file, &mut *buffer))? {
            0 => return Ok(hex(&digest.finalize())),
            length => digest.update(buffer.get(..length).unwrap_or_default()),
        }
    }
}

/// A digest as text.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
