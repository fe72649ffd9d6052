//! One overlay from directories of the store, in four ways.
//!
//! | way | needs | how |
//! | --- | --- | --- |
//! | [`Way::Fd`] | 6.15 | O_PATH descriptors beneath a detached clone of base_dir |
//! | [`Way::FdAttached`] | 6.13 | O_RDONLY descriptors beneath the clone once it is attached |
//! | [`Way::Lowerdir`] | 6.8 | one `lowerdir+` string a layer, short numbered paths |
//! | [`Way::Mount`] | 5.11 | mount(2) with all layers in one page, short numbered paths |
//!
//! base_dir is always cloned on its own (`open_tree(".", OPEN_TREE_CLONE)`), so that lowers and upper come
//! from one clean mount of a real file system, never from another overlay. Options are those that a user
//! namespace may have: `userxattr` (5.11; without it a mkdir over a whiteout answers EIO), and `volatile`
//! (5.10) for a writable one: its upper is made durable by the commit's syncfs, never by the payload's fsync.

use std::fmt::{self, Display, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::str::FromStr;

use rustix::fs::{CWD, Mode, OFlags, fstat, mkdirat, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags,
    fsconfig_create, fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
    mount, move_mount, open_tree,
};

use crate::fault::{Fault, Result};
use crate::remedy::Refused;
use crate::sys::exec::leave_open;

/// How the layers are handed to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// O_PATH descriptors of a detached tree.
    Fd,
    /// O_RDONLY descriptors of an attached tree.
    FdAttached,
    /// One `lowerdir+` string for each layer.
    Lowerdir,
    /// One option string through mount(2).
    Mount,
}

/// All ways, the best one first.
pub const WAYS: [Way; 4] = [Way::Fd, Way::FdAttached, Way::Lowerdir, Way::Mount];

impl Way {
    /// The name of the hidden switch and of the JSON of `doctor`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fd => "fd",
            Self::FdAttached => "fd-attached",
            Self::Lowerdir => "lowerdir+",
            Self::Mount => "mount",
        }
    }
}

impl Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Way {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self> {
        WAYS.into_iter().find(|way| way.name() == text).ok_or_else(|| {
            Fault::usage(format!(
                "overlay way: {text}: not one of fd, fd-attached, lowerdir+, mount"
            ))
        })
    }
}

/// The writable part of an overlay: a directory of the store and, beneath it, upper and work.
#[derive(Debug, Clone, Copy)]
pub struct Writable<'a> {
    /// The directory that holds both, beneath the clone of base_dir. Inside root may search it.
    pub dir: BorrowedFd<'a>,
    /// The upper's path beneath `dir`.
    pub upper: &'a str,
    /// The work directory's path beneath `dir`, on the same mount.
    pub work: &'a str,
}

/// What to do about EINVAL of [`Base::clone_cwd`]: the kernel parts no mounts of another user namespace, and in none of ours
/// is anything of them needed, be it a layer (FUSE).
pub const MOUNTED_BENEATH: &str =
    "nothing must be mounted beneath base_dir: `findmnt` shows what is";

/// A clone of base_dir on its own, with nothing mounted beneath it unless it is a store inside a run; still detached.
#[derive(Debug)]
pub struct Base {
    tree: OwnedFd,
    attached: std::cell::Cell<bool>,
}

impl Base {
    /// Clones the mount of the working directory, which must be base_dir: descriptors opened before the
    /// mount namespace was made are of another namespace, and overlay answers EINVAL to them, but the
    /// working directory is carried over by the kernel. `expected` is the parent's descriptor: the same
    /// directory by device and inode, or ESTALE.
    ///
    /// `nested`: layers are mounts themselves, and come along. overlay takes those of an attached tree only, and the
    /// kernel would not part them.
    ///
    /// # Errors
    /// The errno of open_tree(2).
    pub fn clone_cwd(expected: BorrowedFd<'_>, nested: bool) -> Result<Self, Errno> {
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        if nested {
            flags |= OpenTreeFlags::AT_RECURSIVE;
        }
        let tree = open_tree(CWD, ".", flags)?;
        let (ours, theirs) = (fstat(&tree)?, fstat(expected)?);
        if (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino) {
            return Err(Errno::STALE);
        }
        let base = Self { tree, attached: std::cell::Cell::new(false) };
        if nested {
            base.attach()?;
        }
        Ok(base)
    }

    /// The same of the store, for a job.
    ///
    /// # Errors
    /// The fault of it.
    pub fn clone_store(expected: BorrowedFd<'_>, nested: bool) -> Result<Self, Fault> {
        let cloned = Self::clone_cwd(expected, nested);
        let nothing_beneath = cloned.as_ref().err() != Some(&Errno::INVAL);
        cloned
            .mounting("clone the mount of", "the store")
            .map_err(|fault| if nothing_beneath { fault } else { fault.hint(MOUNTED_BENEATH) })
    }

    /// The clone's root.
    pub fn tree(&self) -> BorrowedFd<'_> {
        self.tree.as_fd()
    }

    /// Puts the clone over base_dir, which is the working directory until then; descriptors opened beneath it become
    /// those of an attached mount. The working directory itself and not `.` in it, where inside root of `range` mode
    /// may not search.
    ///
    /// # Errors
    /// The errno of move_mount(2).
    pub fn attach(&self) -> Result<(), Errno> {
        if !self.attached.replace(true) {
            attach(self.tree.as_fd(), CWD)?;
        }
        Ok(())
    }

    /// Opens a directory of the store beneath the clone, by the kind of descriptor that `way` wants.
    /// Must happen before the process becomes inside root: in `range` mode that user may not search
    /// base_dir.
    ///
    /// # Errors
    /// The errno of openat(2): ENOENT for a missing layer.
    pub fn open(&self, path: &str) -> Result<OwnedFd, Errno> {
        open_directory(self.tree.as_fd(), path)
    }
}

pub(super) fn open_directory(dir: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, path, flags, Mode::empty())
}

/// Mounts `source` (the root of a detached or attached mount) on the directory or file `target`.
///
/// # Errors
/// The errno of move_mount(2).
pub fn attach(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(source, "", target, "", flags)
}

/// Mounts an overlay of `lowers` (top first) and gives its root; not yet at a place of its own.
/// Without a `forced` way the best one that the kernel takes is used.
///
/// # Errors
/// The errno of the last way tried, or of the first that failed for a reason that no other way mends.
pub fn assemble(
    base: &Base,
    lowers: &[OwnedFd],
    writable: Option<Writable<'_>>,
    attributes: MountAttrFlags,
    forced: Option<Way>,
) -> Result<OwnedFd, Errno> {
    let mut answer = Err(Errno::NOSYS);
    for way in WAYS {
        if forced.is_some_and(|forced| forced != way) {
            continue;
        }
        answer = match way {
            Way::Fd => by_descriptor(lowers, writable, attributes),
            Way::FdAttached => by_attached(base, lowers, writable, attributes),
            Way::Lowerdir => by_strings(base, lowers, writable, attributes),
            Way::Mount => by_mount(base, lowers, writable, attributes),
        };
        // A kernel that does not know the way says one of these; anything else (no space, no permission)
        // would be the same by every way.
        match answer {
            Err(Errno::INVAL | Errno::BADF | Errno::NOSYS | Errno::OPNOTSUPP | Errno::LOOP) => {}
            _ => break,
        }
    }
    answer
}

fn by_descriptor(
    lowers: &[OwnedFd],
    writable: Option<Writable<'_>>,
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Errno> {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for lower in lowers {
        fsconfig_set_fd(&fs, "lowerdir+", lower)?;
    }
    if let Some(writable) = writable {
        let upper = leave_open(open_directory(writable.dir, writable.upper)?);
        fsconfig_set_fd(&fs, "upperdir", upper)?;
        let work = leave_open(open_directory(writable.dir, writable.work)?);
        fsconfig_set_fd(&fs, "workdir", work)?;
    }
    finish(fs, writable.is_some(), attributes)
}

fn by_attached(
    base: &Base,
    lowers: &[OwnedFd],
    writable: Option<Writable<'_>>,
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Errno> {
    base.attach()?;
    // 6.13 and 6.14 take no O_PATH descriptor.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for lower in lowers {
        fsconfig_set_fd(&fs, "lowerdir+", openat(lower, ".", flags, Mode::empty())?)?;
    }
    if let Some(writable) = writable {
        let upper = openat(writable.dir, writable.upper, flags, Mode::empty())?;
        fsconfig_set_fd(&fs, "upperdir", upper)?;
        let work = openat(writable.dir, writable.work, flags, Mode::empty())?;
        fsconfig_set_fd(&fs, "workdir", work)?;
    }
    finish(fs, writable.is_some(), attributes)
}

fn by_strings(
    base: &Base,
    lowers: &[OwnedFd],
    writable: Option<Writable<'_>>,
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Errno> {
    numbered(base, lowers, writable)?;
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for number in 0..lowers.len() {
        fsconfig_set_string(&fs, "lowerdir+", number.to_string())?;
    }
    if let Some(writable) = writable {
        fsconfig_set_string(&fs, "upperdir", format!("r/{}", writable.upper))?;
        fsconfig_set_string(&fs, "workdir", format!("r/{}", writable.work))?;
    }
    finish(fs, writable.is_some(), attributes)
}

fn finish(fs: OwnedFd, writable: bool, attributes: MountAttrFlags) -> Result<OwnedFd, Errno> {
    let fs = leave_open(fs);
    fsconfig_set_flag(fs, "userxattr")?;
    if writable {
        fsconfig_set_flag(fs, "volatile")?;
    }
    fsconfig_create(fs)?;
    fsmount(fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// The longest option string that mount(2) takes; the kernel cuts what is longer silently at a page.
const PAGE: usize = 4096;

fn by_mount(
    base: &Base,
    lowers: &[OwnedFd],
    writable: Option<Writable<'_>>,
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Errno> {
    let options = mount_options(lowers.len(), writable).ok_or(Errno::NAMETOOLONG)?;
    numbered(base, lowers, writable)?;
    mkdirat(CWD, "m", Mode::RWXU)?;
    let mut flags = MountFlags::NODEV;
    for (asked, flag) in [
        (MountAttrFlags::MOUNT_ATTR_RDONLY, MountFlags::RDONLY),
        (MountAttrFlags::MOUNT_ATTR_NOSUID, MountFlags::NOSUID),
    ] {
        flags.set(flag, attributes.contains(asked));
    }
    mount("overlay", "m", "overlay", flags, options.as_c_str())?;
    // A clone of its own: what is attached here goes with the old root.
    open_tree(CWD, "m", OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
}

/// The option string of mount(2), or none if it does not fit into the kernel's page.
fn mount_options(lowers: usize, writable: Option<Writable<'_>>) -> Option<std::ffi::CString> {
    let mut options = String::from("lowerdir=");
    for number in 0..lowers {
        let separator = if number == 0 { "" } else { ":" };
        write!(options, "{separator}{number}").ok()?;
    }
    if let Some(writable) = writable {
        let (upper, work) = (writable.upper, writable.work);
        write!(options, ",upperdir=r/{upper},workdir=r/{work},volatile").ok()?;
    }
    options.push_str(",userxattr");
    if options.len() >= PAGE {
        return None;
    }
    std::ffi::CString::new(options).ok()
}

/// A private tmpfs as working directory, in it the layers as `0`, `1`, ... (top first) and the writable
/// part as `r`: short paths without a character that overlay would want escaped. They are bind mounts and
/// not links, because inside root may not be able to walk to the real places.
fn numbered(base: &Base, lowers: &[OwnedFd], writable: Option<Writable<'_>>) -> Result<(), Errno> {
    base.attach()?;
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&fs)?;
    let room = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    attach(room.as_fd(), base.tree())?;
    rustix::process::fchdir(&room)?;
    for (number, lower) in lowers.iter().enumerate() {
        bind_here(lower.as_fd(), &number.to_string())?;
    }
    if let Some(writable) = writable {
        bind_here(writable.dir, "r")?;
    }
    Ok(())
}

fn bind_here(source: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    mkdirat(CWD, name, Mode::RWXU)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = match open_tree(source, "", flags) {
        // Before 6.15 a mount that is still detached (an upper in memory) cannot be cloned: move it itself.
        Err(Errno::INVAL) => {
            return move_mount(source, "", CWD, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH);
        }
        tree => tree?,
    };
    move_mount(&tree, "", CWD, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ways_read_back() {
        for way in WAYS {
            assert_eq!(way.name().parse::<Way>().expect("own name"), way);
        }
        assert!("fuse".parse::<Way>().is_err());
    }

    #[test]
    fn options_that_would_be_cut_are_refused() {
        // The longest chain, its scaffold and a run.
        let dir = openat(CWD, ".", OFlags::PATH, Mode::empty()).expect("open");
        let writable = Writable { dir: dir.as_fd(), upper: "layer/fs", work: "work" };
        let longest = mount_options(401, Some(writable)).expect("fits");
        assert!(longest.to_bytes().len() < PAGE / 2);
        assert!(mount_options(1500, None).is_none());
    }
}
