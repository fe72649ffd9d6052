//! What of /proc is hidden or made read-only, once it is mounted.

use std::cell::OnceCell;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, mount, move_mount, open_tree};

use crate::sys;
use crate::sys::exec::leave_open;
use crate::tree::dir::{Names, kind};

/// The names in /proc, read when the first is asked for. Most of what a profile hides is on no usual kernel: to look
/// for each of them would be a system call each.
#[derive(Debug, Default)]
pub(super) struct Shown(OnceCell<Names>);

impl Shown {
    /// What a path is; none if there is nothing. Symbolic links are not followed.
    fn kind(&self, path: &Path) -> Result<Option<FileType>, Errno> {
        if let Ok(name) = path.strip_prefix("/proc")
            && name.components().count() == 1
        {
            let bytes = name.as_os_str().as_bytes();
            let found = self.names()?.iter().find(|(name, _)| name.to_bytes() == bytes);
            match found {
                Some((_, FileType::Unknown)) => {}
                other => return Ok(other.map(|(_, kind)| kind)),
            }
        }
        match statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(None),
            stat => stat.map(|stat| Some(kind(&stat))),
        }
    }

    fn names(&self) -> Result<&Names, Errno> {
        if let Some(names) = self.0.get() {
            return Ok(names);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let names = Names::read_on(leave_open(openat(CWD, "/proc", flags, Mode::empty())?))?;
        Ok(self.0.get_or_init(|| names))
    }
}

/// Hides a path of /proc, if there is one: a file by our own /dev/null, which was bound from the host's
/// before any layer was in sight (CVE-2025-31133), a directory by an empty tmpfs. Looked at first, because a
/// clone that is not used in the end costs a wait for all processors when it is closed.
pub(super) fn mask(target: &Path, null: Option<&OwnedFd>, shown: &Shown) -> Result<(), Errno> {
    let Some(kind) = shown.kind(target)? else { return Ok(()) };
    if kind == FileType::Directory {
        let flags =
            MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        return mount("tmpfs", target, "tmpfs", flags, c"mode=555,size=4k");
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let cover = leave_open(open_tree(null.ok_or(Errno::BADF)?, "", flags)?);
    move_mount(cover, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Makes a path read-only with all that is mounted beneath it, if there is one.
pub(super) fn read_only(target: &Path) -> Result<(), Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = match open_tree(CWD, target, flags) {
        Err(Errno::NOENT) => return Ok(()),
        other => leave_open(other?),
    };
    sys::mount::set_attributes(tree.as_fd(), sys::mount::READ_ONLY, true)?;
    move_mount(tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_says_what_looking_says() {
        let shown = Shown::default();
        for name in
            ["acpi", "asound", "keys", "self", "sys", "no-such-name", "sys/kernel", "sys/no"]
        {
            let path = Path::new("/proc").join(name);
            let seen = statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW).ok().map(|stat| kind(&stat));
            assert_eq!(shown.kind(&path), Ok(seen), "{name}");
        }
        assert_eq!(shown.kind(Path::new("/no-such-name")), Ok(None));
    }
}
