//! Directories by descriptor: their names, their children, and the trail of open directories from a root
//! down to where a walk is.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Stat, StatxFlags, fstat, openat,
    openat2, statat, statx,
};
use rustix::io::Errno;

/// The name that stands for the directory itself.
const SELF: &CStr = c".";

/// How many directories of a [`Trail`] stay open above the deepest one. Deeper trails climb by `..`.
const OPEN_LEVELS: usize = 32;

/// Size of the buffer for getdents64(2), in bytes: some 800 names a call.
const DIRENT_BUFFER: usize = 32 * 1024;

/// The names in one directory, without `.` and `..`, in one block of memory.
#[derive(Debug, Default)]
pub struct Names {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    start: usize,
    /// Without the NUL that follows the name.
    len: usize,
    kind: FileType,
}

impl Names {
    /// Reads the names of `dir` from its first entry on, in the order of the file system.
    ///
    /// # Errors
    /// What getdents64(2) says.
    pub fn read(dir: BorrowedFd<'_>) -> Result<Self, Errno> {
        rustix::fs::seek(dir, rustix::fs::SeekFrom::Start(0))?;
        Self::read_on(dir)
    }

    /// The same from where the descriptor stands: from the first entry on, if nobody has read by it.
    ///
    /// # Errors
    /// What getdents64(2) says.
    pub fn read_on(dir: BorrowedFd<'_>) -> Result<Self, Errno> {
        let mut buffer = Vec::with_capacity(DIRENT_BUFFER);
        let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
        let mut names = Self::default();
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if name == SELF || name == c".." {
                continue;
            }
            let span = Span {
                start: names.bytes.len(),
                len: name.to_bytes().len(),
                kind: entry.file_type(),
            };
            names.bytes.extend_from_slice(name.to_bytes_with_nul());
            names.spans.push(span);
        }
        Ok(names)
    }

    /// The same names in the order of their bytes.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        let Self { bytes, spans } = &mut self;
        let text = |span: &Span| &bytes[span.start..span.start + span.len];
        spans.sort_unstable_by(|a, b| text(a).cmp(text(b)));
        self
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether the directory is empty.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The name at a place from 0 to `len() - 1`, with its type as the directory tells it (which may be
    /// [`FileType::Unknown`]).
    pub fn get(&self, place: usize) -> Option<(&CStr, FileType)> {
        let span = self.spans.get(place)?;
        let bytes = &self.bytes[span.start..=span.start + span.len];
        CStr::from_bytes_with_nul(bytes).ok().map(|name| (name, span.kind))
    }

    /// All names in their present order.
    pub fn iter(&self) -> impl Iterator<Item = (&CStr, FileType)> {
        (0..self.len()).filter_map(|place| self.get(place))
    }
}

/// lstat(2) of one name in a directory.
///
/// # Errors
/// What fstatat(2) says.
pub fn lstat(dir: BorrowedFd<'_>, name: &CStr) -> Result<Stat, Errno> {
    statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// lstat(2) of one name, `None` if there is none.
///
/// # Errors
/// What fstatat(2) says, but for ENOENT.
pub fn lstat_if_any(dir: BorrowedFd<'_>, name: &CStr) -> Result<Option<Stat>, Errno> {
    match lstat(dir, name) {
        Err(Errno::NOENT) => Ok(None),
        other => other.map(Some),
    }
}

/// The file type of a stat.
pub fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Opens the directory `name` of `dir` for reading. Never follows a symbolic link.
///
/// # Errors
/// `XDEV` if a mount lies on it; `NOTDIR` or `LOOP` if it is no directory; else what openat2(2) says.
pub fn open_child(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    match openat2(dir, name, flags, Mode::empty(), resolve) {
        // Kernels before 5.6 and filters that do not know the call.
        Err(Errno::NOSYS | Errno::PERM) => open_child_plainly(dir, name),
        other => other,
    }
}

/// The same without openat2(2).
pub(super) fn open_child_plainly(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let child = openat(dir, name, flags, Mode::empty())?;
    if mount_of(dir)? == mount_of(child.as_fd())? { Ok(child) } else { Err(Errno::XDEV) }
}

/// Opens the directory at a path of several components beneath `root` for reading. The empty path is the
/// root. No component may be a symbolic link, `..` or a mount.
///
/// # Errors
/// `LOOP` or `NOTDIR` if a component is a symbolic link; `XDEV` if one is a mount or `..` leads out; else
/// what openat2(2) says.
pub fn open_beneath(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let whole = if path.is_empty() { b"." } else { path };
    match openat2(root, whole, flags, Mode::empty(), resolve) {
        // A path may be longer than one call takes (PATH_MAX), too.
        Err(Errno::NOSYS | Errno::PERM | Errno::NAMETOOLONG) => step_by_step(root, path),
        other => other,
    }
}

/// The same one component at a time.
pub(super) fn step_by_step(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let mut here = openat(root, SELF, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        if name == b".." {
            return Err(Errno::XDEV);
        }
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        here = open_child_plainly(here.as_fd(), &name)?;
    }
    Ok(here)
}

/// Opens an entry that is no directory for reading its content or attributes, without following a
/// symbolic link and without waiting for the other end of a fifo.
///
/// # Errors
/// What openat(2) says; `LOOP` for a symbolic link.
pub fn open_file(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

/// What tells one mount from another: the mount id, or the device where statx(2) does not know it.
///
/// # Errors
/// What statx(2) says.
pub fn mount_of(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    match statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID) {
        Ok(found) if found.stx_mask & StatxFlags::MNT_ID.bits() != 0 => Ok(found.stx_mnt_id),
        _ => fstat(fd).map(|stat| stat.st_dev),
    }
}

/// The open directories from a root down to one directory.
///
/// Only the deepest few are kept open. A directory that was closed is opened again as `..` of its child
/// and must be the same inode as before; an open child keeps its parents' inodes in memory, so that also
/// overlayfs shows the same numbers again.
#[derive(Debug)]
pub struct Trail {
    above: Vec<Level>,
    here: OwnedFd,
}

#[derive(Debug)]
enum Level {
    Open(OwnedFd),
    Closed { device: u64, inode: u64 },
}

impl Trail {
    /// A trail that is at its root. The root is opened anew, so that `O_PATH` descriptors serve and
    /// the caller's read position is left alone.
    ///
    /// # Errors
    /// What openat(2) says.
    pub fn new(root: BorrowedFd<'_>) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let here = openat(root, SELF, flags, Mode::empty())?;
        Ok(Self { above: Vec::new(), here })
    }

    /// The deepest directory.
    pub fn here(&self) -> BorrowedFd<'_> {
        self.here.as_fd()
    }

    /// How many levels the deepest directory lies beneath the root.
    pub fn depth(&self) -> usize {
        self.above.len()
    }

    /// Goes down into an open child of the deepest directory.
    ///
    /// # Errors
    /// What fstat(2) says about a directory that has to be closed.
    pub fn push(&mut self, child: OwnedFd) -> Result<(), Errno> {
        let parent = std::mem::replace(&mut self.here, child);
        self.above.push(Level::Open(parent));
        if let Some(place) = self.above.len().checked_sub(OPEN_LEVELS + 1)
            && let Level::Open(fd) = &self.above[place]
        {
            let stat = fstat(fd)?;
            self.above[place] = Level::Closed { device: stat.st_dev, inode: stat.st_ino };
        }
        Ok(())
    }

    /// Goes up one level and hands out the directory it leaves; at the root it stays.
    ///
    /// # Errors
    /// `STALE` if the directory was moved meanwhile; what openat(2) says about `..`.
    pub fn pop(&mut self) -> Result<Option<OwnedFd>, Errno> {
        let up = match self.above.pop() {
            None => return Ok(None),
            Some(Level::Open(fd)) => fd,
            Some(Level::Closed { device, inode }) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let up = openat(&self.here, c"..", flags, Mode::empty())?;
                let stat = fstat(&up)?;
                if (stat.st_dev, stat.st_ino) != (device, inode) {
                    return Err(Errno::STALE);
                }
                up
            }
        };
        Ok(Some(std::mem::replace(&mut self.here, up)))
    }
}
