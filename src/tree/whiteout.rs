//! What overlayfs writes into an upper directory. The only file that knows these names and forms.
//!
//! With the mount option `userxattr` overlayfs keeps its notes in `user.overlay.*` (kernel documentation,
//! filesystems/overlayfs). In an upper that a kernel wrote under us there can be:
//!
//! - *whiteout*: character device 0:0, "what was here is gone". Several may be one inode. Kernels since
//!   6.7 also know an empty regular file with `user.overlay.whiteout` in a directory whose
//!   `user.overlay.opaque` is `x`;
//! - *opaque*: a directory with `user.overlay.opaque` = `y`, "nothing of the layers beneath shows here";
//! - notes for its own use, without meaning for the tree: `origin`, `impure`, `uuid`, `nlink`,
//!   `protattr`; never exported, compared or hashed;
//! - `user.overlay.overlay.*`: attributes that the payload itself set as `user.overlay.*`, escaped by one
//!   level;
//! - never `redirect` nor `metacopy`: both are off with `userxattr`, because their values name other files
//!   of the layers and a payload could forge them.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, Stat, major, minor};
use rustix::io::Errno;

use super::dir::{kind, open_file};
use super::xattr;

const PREFIX: &[u8] = b"user.overlay.";
const ESCAPED: &[u8] = b"user.overlay.overlay.";
const TRUSTED: &[u8] = b"trusted.overlay.";
const OPAQUE: &CStr = c"user.overlay.opaque";
const WHITEOUT: &CStr = c"user.overlay.whiteout";

/// What an extended attribute of an upper means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// Nothing to overlayfs: an attribute of the file.
    Foreign,
    /// An attribute that the payload set, whose true name (`user.overlay.*`) is given.
    Escaped(CString),
    /// A note of overlayfs for itself.
    Note,
    /// Marks an opaque directory.
    Opaque,
    /// Marks a whiteout in the form of a regular file.
    Whiteout,
    /// Must not be in an upper: redirect, metacopy, and whatever else begins with the prefix.
    Refused,
}

/// What an attribute of this name in an upper means.
pub fn meaning(name: &CStr) -> Meaning {
    let bytes = name.to_bytes();
    if let Some(rest) = bytes.strip_prefix(ESCAPED) {
        let inner = [PREFIX, rest].concat();
        return CString::new(inner).map_or(Meaning::Refused, Meaning::Escaped);
    }
    if bytes.starts_with(TRUSTED) {
        return Meaning::Refused;
    }
    match bytes.strip_prefix(PREFIX) {
        None => Meaning::Foreign,
        Some(b"opaque") => Meaning::Opaque,
        Some(b"whiteout") => Meaning::Whiteout,
        Some(b"origin" | b"impure" | b"uuid" | b"nlink" | b"protattr") => Meaning::Note,
        Some(_) => Meaning::Refused,
    }
}

/// Whether an attribute from an archive or a foreign directory would be read by overlayfs, now or one
/// level deeper, and so must not be written into a layer.
pub fn is_overlay_name(name: &[u8]) -> bool {
    name.starts_with(PREFIX) || name.starts_with(TRUSTED)
}

/// Whether it is the device node that stands for a deleted entry.
pub fn is_whiteout_node(stat: &Stat) -> bool {
    kind(stat) == FileType::CharacterDevice && major(stat.st_rdev) == 0 && minor(stat.st_rdev) == 0
}

/// Whether it is a device node that is no whiteout: nothing that overlayfs or a payload can make in an
/// upper.
pub fn is_real_device(stat: &Stat) -> bool {
    match kind(stat) {
        FileType::BlockDevice => true,
        FileType::CharacterDevice => !is_whiteout_node(stat),
        _ => false,
    }
}

/// What a directory of a layer says about the layers beneath.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opacity {
    /// It is merged with them.
    Merged,
    /// It hides them.
    Opaque,
    /// It is merged with them, and whiteouts in it may be regular files with an attribute.
    Xattrs,
}

/// What `user.overlay.opaque` of an open directory says.
///
/// # Errors
/// What fgetxattr(2) says.
pub fn opacity(dir: BorrowedFd<'_>) -> Result<Opacity, Errno> {
    Ok(match xattr::get(dir, OPAQUE)?.as_deref() {
        Some(b"y") => Opacity::Opaque,
        Some(b"x") => Opacity::Xattrs,
        _ => Opacity::Merged,
    })
}

/// Whether an open directory hides the layers beneath.
///
/// # Errors
/// As [`opacity`].
pub fn is_opaque(dir: BorrowedFd<'_>) -> Result<bool, Errno> {
    opacity(dir).map(|found| found == Opacity::Opaque)
}

/// Lets an open directory of a layer hide the layers beneath.
///
/// # Errors
/// What fsetxattr(2) says.
pub fn set_opaque(dir: BorrowedFd<'_>) -> Result<(), Errno> {
    xattr::set(dir, OPAQUE, b"y")
}

/// Whether the entry `name` of `dir`, a directory of a layer, is a whiteout in either form.
///
/// # Errors
/// What opening the entry or reading its attributes says.
pub fn is_whiteout(dir: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<bool, Errno> {
    if is_whiteout_node(stat) {
        return Ok(true);
    }
    if kind(stat) != FileType::RegularFile || stat.st_size != 0 {
        return Ok(false);
    }
    let file = open_file(dir, name)?;
    Ok(xattr::get(file.as_fd(), WHITEOUT)?.is_some())
}

/// The attributes that belong to the file itself, under the names that a payload sees: overlayfs's own
/// are left out, escaped ones are unescaped. Labels of security modules are the machine's, and a copy of a
/// file may get another one than the file.
///
/// # Errors
/// What reading them says.
pub fn own_xattrs(fd: BorrowedFd<'_>) -> Result<Vec<xattr::Xattr>, Errno> {
    let mut own = Vec::new();
    for (name, value) in xattr::all(fd)? {
        match meaning(&name) {
            Meaning::Foreign if is_label(&name) => {}
            Meaning::Foreign => own.push((name, value)),
            Meaning::Escaped(inner) => own.push((inner, value)),
            _ => {}
        }
    }
    own.sort_unstable();
    Ok(own)
}

fn is_label(name: &CStr) -> bool {
    let bytes = name.to_bytes();
    bytes.starts_with(b"security.") && bytes != b"security.capability"
}

/// Why a file or directory of an upper must not become part of a layer; `None` if its attributes are in
/// order.
///
/// # Errors
/// What reading the attributes says.
pub fn check_upper_xattrs(fd: BorrowedFd<'_>) -> Result<Option<String>, Errno> {
    for name in xattr::names(fd)? {
        let text = name.to_string_lossy();
        match meaning(&name) {
            Meaning::Refused => {
                return Ok(Some(format!("the attribute {text} is never written by this store")));
            }
            Meaning::Opaque => match xattr::get(fd, &name)?.as_deref() {
                Some(b"y" | b"x") | None => {}
                Some(_) => return Ok(Some(format!("the attribute {text} has an unknown value"))),
            },
            _ => {}
        }
    }
    Ok(None)
}
