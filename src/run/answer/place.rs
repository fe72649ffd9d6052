//! From the arguments of a call to what it is about, as the kernel would find it for the caller.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags, XattrFlags, fgetxattr,
    flistxattr, fremovexattr, fsetxattr, getxattr, listxattr, openat2, removexattr, setxattr,
    statx,
};
use rustix::io::Errno;
use rustix::process::{chroot, fchdir};

use super::Handler;
use super::caller::Caller;
use super::walk::Walk;
use crate::tree::meta::{self, Inode};

/// A path of a call, not yet walked.
#[derive(Debug)]
pub(super) struct Place {
    /// Where it begins, if it is relative.
    base: Option<OwnedFd>,
    path: CString,
}

impl Handler<'_> {
    /// Reads the path of a call.
    pub(super) fn place(&self, caller: &Caller, dir: u64, address: u64) -> Result<Place, Errno> {
        let path = caller.path(self, address)?;
        self.place_of(caller, dir, path)
    }

    /// The same, of a path that was read.
    pub(super) fn place_of(
        &self,
        caller: &Caller,
        dir: u64,
        path: CString,
    ) -> Result<Place, Errno> {
        if path.is_empty() {
            return Err(Errno::NOENT);
        }
        let relative = path.as_bytes().first() != Some(&b'/');
        let base = relative.then(|| caller.directory(self, dir)).transpose()?;
        Ok(Place { base, path })
    }

    /// Walks to the file itself, as a place. The caller was asked to wait still.
    pub(super) fn find(
        &self,
        caller: &Caller,
        place: &Place,
        follow: bool,
    ) -> Result<OwnedFd, Errno> {
        let mut flags = OFlags::PATH;
        if !follow {
            flags |= OFlags::NOFOLLOW;
        }
        self.open(caller, place, flags, Mode::empty())
    }

    /// Opens it in the root of the caller. A magic link of /proc means something else to us than to the
    /// caller, so a path that leads through one is walked step by step.
    pub(super) fn open(
        &self,
        caller: &Caller,
        place: &Place,
        flags: OFlags,
        mode: Mode,
    ) -> Result<OwnedFd, Errno> {
        let base = place.base.as_ref().map_or(CWD, AsFd::as_fd);
        self.in_root_of(caller, || {
            let flags = flags | OFlags::CLOEXEC;
            let no_magic = ResolveFlags::NO_MAGICLINKS;
            match openat2(base, place.path.as_c_str(), flags, mode, no_magic) {
                // There was a magic link, or a loop; or /proc/self/fd/N, which we do not have; kernels before 5.6, and
                // filters that do not know the call.
                Err(Errno::LOOP | Errno::NOENT | Errno::NOSYS | Errno::PERM) => {
                    Walk::new(self, caller)?.open(base, &place.path, flags, mode)
                }
                other => other,
            }
        })
    }

    /// Does something in the root of the caller.
    fn in_root_of<T>(
        &self,
        caller: &Caller,
        work: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let Some(root) = &caller.root else { return work() };
        let done = fchdir(root).and_then(|()| chroot(".")).and_then(|()| work());
        // Whoever is stuck in a root of the payload's is of no use.
        let back = fchdir(&self.root).and_then(|()| chroot(".")).and_then(|()| fchdir(&self.fds));
        if back.is_err() {
            crate::sys::process::exit_now(1);
        }
        done
    }
}

/// What a call is about.
#[derive(Debug)]
pub(super) enum File {
    /// An open file of the caller, or one that we have made.
    Open(OwnedFd),
    /// Where it lies (`O_PATH`): what is no place wants a name, which it has in the working directory of the handler.
    Place(OwnedFd),
}

impl File {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Open(fd) | Self::Place(fd) => fd.as_fd(),
        }
    }

    /// getxattr(2).
    pub(super) fn get(&self, name: &CStr, into: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Open(fd) => fgetxattr(fd, name, into),
            Self::Place(fd) => getxattr(link(fd).as_c_str(), name, into),
        }
    }

    /// Which of the attributes that matter here it has, by listxattr(2).
    fn attributes(&self) -> Result<Attributes, Errno> {
        let mut names = [0_u8; MOST_NAMES];
        let length = match self {
            Self::Open(fd) => flistxattr(fd, &mut names),
            Self::Place(fd) => listxattr(link(fd).as_c_str(), &mut names),
        };
        match length {
            Ok(length) => Ok(Attributes::among(&names[..length])),
            Err(Errno::OPNOTSUPP) => Ok(Attributes::default()),
            // Too many: each is to be asked for.
            Err(Errno::RANGE) => Ok(Attributes { record: true, capability: true }),
            Err(errno) => Err(errno),
        }
    }

    /// setxattr(2).
    pub(super) fn set(&self, name: &CStr, value: &[u8], flags: XattrFlags) -> Result<(), Errno> {
        match self {
            Self::Open(fd) => fsetxattr(fd, name, value, flags),
            Self::Place(fd) => setxattr(link(fd).as_c_str(), name, value, flags),
        }
    }

    /// removexattr(2).
    pub(super) fn remove(&self, name: &CStr) -> Result<(), Errno> {
        match self {
            Self::Open(fd) => fremovexattr(fd, name),
            Self::Place(fd) => removexattr(link(fd).as_c_str(), name),
        }
    }
}

/// The name of a descriptor in /proc/self/fd.
fn link(fd: &OwnedFd) -> CString {
    CString::new(fd.as_raw_fd().to_string()).unwrap_or_else(|_| CStr::to_owned(c""))
}

/// Bytes of a list of names that is read; seldom has a file more than the label of a security module.
const MOST_NAMES: usize = 256;

/// Which attributes a file has, or may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Attributes {
    /// Who owns it, and which device it stands for.
    pub(super) record: bool,
    /// `security.capability`.
    pub(super) capability: bool,
}

impl Attributes {
    fn among(names: &[u8]) -> Self {
        let mut has = Self::default();
        for name in names.split(|byte| *byte == 0) {
            has.record |= name == meta::NAME.to_bytes();
            has.capability |= name == b"security.capability";
        }
        has
    }
}

/// What was found, and what statx(2) says of it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) file: File,
    pub(super) stat: Statx,
}

impl Found {
    pub(super) fn new(file: File) -> Result<Self, Errno> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID | StatxFlags::BTIME;
        let stat = statx(file.fd(), c"", AtFlags::EMPTY_PATH, wanted)?;
        Ok(Self { file, stat })
    }

    /// Whether it is of the layer that this run makes, and not of a bind or a memory of its own.
    pub(super) fn is_kept(&self, handler: &Handler<'_>) -> bool {
        self.stat.stx_mnt_id == handler.whole.0
    }

    pub(super) fn inode(&self) -> Inode {
        let born = self.stat.stx_btime;
        Inode { number: self.stat.stx_ino, born: (born.tv_sec, born.tv_nsec) }
    }

    /// Only these can have attributes of the user (xattr(7)).
    pub(super) fn has_attributes(&self) -> bool {
        let kind = FileType::from_raw_mode(u32::from(self.stat.stx_mode));
        matches!(kind, FileType::RegularFile | FileType::Directory)
    }

    /// Those that it has; none if it cannot have any.
    pub(super) fn attributes(&self) -> Result<Attributes, Errno> {
        match self.has_attributes() {
            true => self.file.attributes(),
            false => Ok(Attributes::default()),
        }
    }

    /// Whether chown(2), even to the owner that it has, takes something from it: set-id bits of a file that is no directory,
    /// or capabilities.
    pub(super) fn has_powers(&self, attributes: Attributes) -> bool {
        let mode = u32::from(self.stat.stx_mode);
        let set_id = mode & (libc::S_ISUID | libc::S_ISGID) != 0;
        attributes.capability || set_id && FileType::from_raw_mode(mode) != FileType::Directory
    }

    pub(super) fn owner(&self) -> (u32, u32) {
        (self.stat.stx_uid, self.stat.stx_gid)
    }
}
