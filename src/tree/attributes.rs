//! Owner, attributes, mode and times of a file that was just made.
//!
//! The order matters: chown(2) clears set-id bits and file capabilities, so it comes first; attributes of the
//! user need a file that may be written, so they come before the mode; everything changes times, so
//! these come last.
//!
//! In `single` mode only uid and gid 0 are held. Whatever has another owner lies on disk as 0:0 with its own
//! mode, set-id bits included, and the true owner is remembered. A set-id file of an owner that is not held
//! then looks like one of the inside root: that root is the caller, who could make such a file at any time,
//! and every run has `no_new_privs`, so that the bits have no effect.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use rustix::fs::{
    AtFlags, Gid, Mode, Timespec, Timestamps, UTIME_NOW, Uid, chownat, fchmod, fchown, futimens,
    utimensat,
};
use rustix::io::Errno;

use super::meta;
use super::owners::Remembered;
use super::whiteout::is_overlay_name;
use super::xattr::{self, Xattr};
use crate::ids::IdMap;

/// The twelve bits of a mode that chmod(2) sets.
pub const MODE_BITS: u32 = 0o7777;

/// What a file is to have.
#[derive(Debug, Clone)]
pub struct Attributes {
    /// Owner inside, one that the map holds.
    pub uid: u32,
    /// Group inside, one that the map holds.
    pub gid: u32,
    /// Permission bits, 12 bits.
    pub mode: u32,
    /// Attributes to set. Names for which [`may_be_stored`] is false are counted as lost.
    pub xattrs: Vec<Xattr>,
    /// Time of last modification, which becomes the time of last access too; `None`: now.
    pub mtime: Option<Timespec>,
}

impl Attributes {
    /// For a file of owner `uid`:`gid`: what can lie on disk under this map, and what must be remembered
    /// of it, if anything.
    pub fn place(
        ids: &IdMap,
        path: &[u8],
        (uid, gid): (u32, u32),
        mode: u32,
    ) -> (Self, Option<Remembered>) {
        let lost_uid = (!ids.holds_uid(uid)).then_some(uid);
        let lost_gid = (!ids.holds_gid(gid)).then_some(gid);
        let on_disk = Self {
            uid: if lost_uid.is_some() { 0 } else { uid },
            gid: if lost_gid.is_some() { 0 } else { gid },
            mode: mode & MODE_BITS,
            xattrs: Vec::new(),
            mtime: None,
        };
        let remembered = (lost_uid.is_some() || lost_gid.is_some()).then(|| Remembered {
            path: path.to_vec(),
            uid: lost_uid,
            gid: lost_gid,
            mode: Some(mode & MODE_BITS),
            device: None,
        });
        (on_disk, remembered)
    }

    fn times(&self) -> Timestamps {
        let time = self.mtime.unwrap_or(Timespec { tv_sec: 0, tv_nsec: UTIME_NOW });
        Timestamps { last_access: time, last_modification: time }
    }

    /// Applies everything to an open file or directory; says how many attributes could not be stored.
    ///
    /// # Errors
    /// What fchown(2), fsetxattr(2), fchmod(2) or futimens(3) says; an attribute that is unknown or not
    /// permitted here is lost, not an error.
    pub fn apply(&self, fd: BorrowedFd<'_>) -> Result<u64, Errno> {
        fchown(fd, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))?;
        let mut lost = 0;
        for (name, value) in &self.xattrs {
            lost += u64::from(!store(fd, name, value)?);
        }
        fchmod(fd, Mode::from_raw_mode(self.mode))?;
        futimens(fd, &self.times())?;
        Ok(lost)
    }

    /// Applies owner and times to an entry that cannot be opened: a symbolic link.
    ///
    /// # Errors
    /// What fchownat(2) or utimensat(2) says.
    pub fn apply_to_link(&self, dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        utimensat(dir, name, &self.times(), AtFlags::SYMLINK_NOFOLLOW)
    }
}

/// Which attributes of a foreign tree or archive have a meaning in a layer: those of the user, file
/// capabilities, access control lists. Labels of security modules and `trusted.*` belong to the machine
/// they came from; overlayfs's own names would be read as its notes.
pub fn may_be_stored(name: &CStr) -> bool {
    let bytes = name.to_bytes();
    let kept: [&[u8]; 3] =
        [b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default"];
    // What is remembered is ours to say, not a foreign tree's.
    let ours = name == meta::NAME;
    (bytes.starts_with(b"user.") && !is_overlay_name(bytes) && !ours) || kept.contains(&bytes)
}

/// Whether the attribute was stored; errors are those that concern the file system and not the attribute.
fn store(fd: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> Result<bool, Errno> {
    if !may_be_stored(name) {
        return Ok(false);
    }
    match xattr::set(fd, name, value) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::PERM | Errno::INVAL | Errno::OVERFLOW | Errno::TOOBIG) => {
            Ok(false)
        }
        Err(errno) => Err(errno),
    }
}
