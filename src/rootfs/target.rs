//! Targets in the new root, which is the process's working directory: found without being led out of it, and made where
//! they may be missing.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::fs::{mkdirat, openat, openat2, readlinkat};
use rustix::io::Errno;

/// An empty file, unless there is something already.
pub(super) fn make_file(target: &Path) -> Result<(), Errno> {
    let kind = FileType::RegularFile;
    match rustix::fs::mknodat(CWD, target, kind, Mode::from_raw_mode(0o666), 0) {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

/// Resolves a target in the new root, never through a magic link.
pub(super) fn resolve(target: &Path, how: ResolveFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    loop {
        match openat2(CWD, relative(target), flags, Mode::empty(), how) {
            // A rename or mount anywhere on the machine while it walked a `..` (openat2(2)).
            Err(Errno::AGAIN) => {}
            Err(Errno::NOSYS) => return openat(CWD, target, flags, Mode::empty()),
            other => return other,
        }
    }
}

/// The target as it is named from the new root, be that the root already or only the working directory.
pub(super) fn relative(target: &Path) -> &Path {
    target.strip_prefix("/").unwrap_or(target)
}

/// Like [`resolve`]; a target that is a dangling symlink into our /run (as systemd-resolved leaves
/// /etc/resolv.conf) gets its file there.
pub(super) fn resolve_or_make(target: &Path) -> Result<OwnedFd, Errno> {
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match resolve(target, how) {
        Err(Errno::NOENT) => make_in_run(target),
        other => other,
    }
}

/// The file in our /run that a symlink of the layer means.
pub(super) fn make_in_run(target: &Path) -> Result<OwnedFd, Errno> {
    let link = readlinkat(CWD, target, Vec::new()).map_err(|_| Errno::NOENT)?;
    let place = beside(target, Path::new(link.to_str().map_err(|_| Errno::NOENT)?));
    if !place.starts_with("/run") {
        return Err(Errno::NOENT);
    }
    let parents: Vec<&Path> = place.ancestors().skip(1).collect();
    for parent in parents.into_iter().rev().skip(2) {
        match mkdirat(CWD, parent, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    make_file(&place)?;
    resolve(target, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// The path that a symlink at `target` with content `link` means, by its text.
fn beside(target: &Path, link: &Path) -> PathBuf {
    let mut place = target.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    for part in link.components() {
        match part {
            std::path::Component::RootDir => place = PathBuf::from("/"),
            std::path::Component::ParentDir => {
                place.pop();
            }
            std::path::Component::Normal(name) => place.push(name),
            _ => {}
        }
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dangling_link_is_read_by_its_text() {
        let meant = |link: &str| beside(Path::new("/etc/resolv.conf"), Path::new(link));
        assert_eq!(meant("../run/r/stub"), Path::new("/run/r/stub"));
        assert_eq!(meant("/run/x"), Path::new("/run/x"));
        assert_eq!(meant("../../../../x"), Path::new("/x"));
    }
}
