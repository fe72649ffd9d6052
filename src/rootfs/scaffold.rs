//! The lowest lower of every run: empty directories and files at the places where something is mounted.
//!
//! A target that no layer has comes from here, so that neither an upper nor a layer is touched for a mount; only a target
//! that a layer has removed, and so hides here too, is made in the upper (`target.rs`). Scaffolds depend on the set of
//! places only, are never written once made, and are kept in the store's `cache/` under a name made of that set: a run
//! pays one look-up.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, RenameFlags, Uid};
use rustix::fs::{chmodat, chownat, mkdirat, openat, renameat_with, statat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

use super::account::HOME;
use crate::fault::{Context, Fault, Result, printable};
use crate::ids::ORDINARY;

/// How many leftovers of one process id there may be.
const TRIES: u32 = 1000;

/// Makes sure that the scaffold for `places` (absolute path, whether a directory) exists in `cache`, owned
/// by `owner` (user and group ids outside), and gives its name there. Without a cache nothing is made, and the name is
/// the one that it would have.
///
/// # Errors
/// What mkdirat(2), openat(2) or renameat2(2) say; nothing half-made is left under the final name.
pub fn ensure(
    cache: Option<BorrowedFd<'_>>,
    places: &[(PathBuf, bool)],
    owner: (u32, u32),
) -> Result<String> {
    let name = name_of(places, owner);
    match cache {
        Some(cache) if !exists(cache, &name) => make(cache, &name, places, owner, None)?,
        Some(_) => {}
        None => possible(places)?,
    }
    Ok(name)
}

/// The same with a home directory that belongs to `user`, another than `owner`, or is a place like any other if that
/// is none. `make_it` calls what it is given as somebody who may give files away, with `owner` and `user` as they are
/// called there.
///
/// # Errors
/// As [`ensure`].
pub fn ensure_with_home(
    cache: Option<BorrowedFd<'_>>,
    places: &[(PathBuf, bool)],
    owner: (u32, u32),
    user: (u32, u32),
    make_it: impl FnOnce(&dyn Fn((u32, u32), (u32, u32)) -> Result<()>) -> Result<()>,
) -> Result<String> {
    let mut places = places.to_vec();
    places.push((HOME.into(), true));
    let name = format!("{}-{}.{}", name_of(&places, owner), user.0, user.1);
    match cache {
        Some(cache) if !exists(cache, &name) => {
            make_it(&|owner, user| make(cache, &name, &places, owner, Some(user)))?;
        }
        Some(_) => {}
        None => possible(&places)?,
    }
    Ok(name)
}

fn exists(cache: BorrowedFd<'_>, name: &str) -> bool {
    statat(cache, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

fn make(
    cache: BorrowedFd<'_>,
    name: &str,
    places: &[(PathBuf, bool)],
    owner: (u32, u32),
    home: Option<(u32, u32)>,
) -> Result<()> {
    possible(places)?;
    let temporary = make_temporary(cache, name)?;
    let dir = open_directory(cache, Path::new(&temporary));
    if let Err(fault) = dir.and_then(|dir| fill(&dir, places, owner, home)) {
        // What went wrong is told; gc removes what cannot be removed now.
        drop(crate::tree::remove::remove_tree(cache, temporary.as_ref()));
        return Err(fault);
    }
    match renameat_with(cache, &temporary, cache, name, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // Another run made the same one in the meantime.
        Err(Errno::EXIST) => crate::tree::remove::remove_tree(cache, temporary.as_ref()).map(drop),
        Err(errno) => Err(Fault::errno("rename scaffold", name, errno)),
    }
}

/// A file has nothing in it.
fn possible(places: &[(PathBuf, bool)]) -> Result<()> {
    for (file, _) in places.iter().filter(|(_, directory)| !directory) {
        let within = |(path, _): &&(PathBuf, bool)| path != file && path.starts_with(file);
        if let Some((path, _)) = places.iter().find(within) {
            let message = format!(
                "mount target: {}: it would be a file, and {} is mounted in it",
                printable(&file.to_string_lossy()),
                printable(&path.to_string_lossy())
            );
            return Err(Fault::usage(message)
                .hint("a file is bound onto a file, a directory onto a directory"));
        }
    }
    Ok(())
}

/// A directory of our own. Process ids come again after a restart, and a power cut may have left what an
/// earlier one made: gc removes that.
fn make_temporary(cache: BorrowedFd<'_>, name: &str) -> Result<String> {
    let mut number = 0;
    loop {
        let temporary = format!(".{name}-{}-{number}", std::process::id());
        match mkdirat(cache, &temporary, Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) if number < TRIES => number += 1,
            made => {
                made.context("create", &temporary)?;
                permit(cache, Path::new(&temporary), 0o755)?;
                return Ok(temporary);
            }
        }
    }
}

fn name_of(places: &[(PathBuf, bool)], owner: (u32, u32)) -> String {
    // Only whoever owns the store chooses the places, so a hash without secrets will do; another version
    // of it makes another scaffold.
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, owner, places).hash(&mut hasher);
        hasher.finish()
    };
    format!("scaffold-{:016x}{:016x}", half(1), half(2))
}

/// Makes the places in an empty directory; the home among them, if there is one, belongs to its own user.
fn fill(
    root: &OwnedFd,
    places: &[(PathBuf, bool)],
    owner: (u32, u32),
    home: Option<(u32, u32)>,
) -> Result<()> {
    own(root.as_fd(), Path::new("."), owner)?;
    for (path, directory) in places {
        place(root, path, *directory, owner)?;
    }
    match home {
        Some(user) => own(root.as_fd(), Path::new(HOME.trim_start_matches('/')), user),
        None => Ok(()),
    }
}

/// A scaffold that is made for one run, because its store cannot be written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fleeting {
    /// The places, without the home.
    pub places: Vec<(PathBuf, bool)>,
    /// Whether there is a home for an ordinary user.
    pub home: bool,
}

impl Fleeting {
    /// Makes it, in the child, as a file system in memory that no path leads to: its root.
    ///
    /// # Errors
    /// What the calls for the mount say; EIO for a place that cannot be made.
    pub fn make(&self) -> Result<OwnedFd, Errno> {
        let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&fs, "mode", "0755")?;
        fsconfig_create(&fs)?;
        let flags = MountAttrFlags::MOUNT_ATTR_NODEV;
        let root = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, flags)?;
        let ours = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let mut places = self.places.clone();
        places.extend(self.home.then(|| (HOME.into(), true)));
        let home = self.home.then_some((ORDINARY, ORDINARY));
        fill(&root, &places, ours, home).map_err(|_| Errno::IO)?;
        Ok(root)
    }
}

fn place(root: &OwnedFd, path: &Path, directory: bool, owner: (u32, u32)) -> Result<()> {
    let parts: Vec<&Path> = path
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(Path::new(name)),
            _ => None,
        })
        .collect();
    let Some((last, parents)) = parts.split_last() else { return Ok(()) };
    let mut dir = open_directory(root.as_fd(), Path::new("."))?;
    for parent in parents {
        make_directory(&dir, parent, owner)?;
        dir = open_directory(dir.as_fd(), parent)?;
    }
    if directory {
        return make_directory(&dir, last, owner);
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    drop(openat(&dir, *last, flags, Mode::from_raw_mode(0o644)).context("create", path.display())?);
    permit(dir.as_fd(), last, 0o644)?;
    own(dir.as_fd(), last, owner)
}

fn make_directory(dir: &OwnedFd, name: &Path, owner: (u32, u32)) -> Result<()> {
    match mkdirat(dir, name, Mode::from_raw_mode(0o755)) {
        Ok(()) => {
            permit(dir.as_fd(), name, 0o755)?;
            own(dir.as_fd(), name, owner)
        }
        Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno).context("create directory", name.display()),
    }
}

/// Whatever the umask of whoever is the first to need these places: others inside walk through them.
fn permit(dir: BorrowedFd<'_>, name: &Path, mode: u32) -> Result<()> {
    chmodat(dir, name, Mode::from_raw_mode(mode), AtFlags::empty())
        .context("change the mode of", name.display())
}

fn own(dir: BorrowedFd<'_>, name: &Path, owner: (u32, u32)) -> Result<()> {
    if owner == (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()) {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
    chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .context("change the owner of", name.display())
}

fn open_directory(dir: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, path, flags, Mode::empty()).context("open directory", path.display())
}

/// Whether `path` of the host is a directory; follows symlinks, as a bind of it will.
///
/// # Errors
/// What stat(2) says: ENOENT for a source that does not exist.
pub fn is_directory(path: &Path) -> Result<bool, Errno> {
    let stat = statat(CWD, path, AtFlags::empty())?;
    Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us() -> (u32, u32) {
        (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
    }

    #[test]
    fn is_made_once_and_found_again() {
        let dir = tempfile::tempdir().expect("tempdir");
        let cache = open_directory(CWD, dir.path()).expect("open");
        let places = vec![("/a/b".into(), true), ("/a/f".into(), false)];
        let name = ensure(Some(cache.as_fd()), &places, us()).expect("first");
        assert!(dir.path().join(&name).join("a/b").is_dir());
        assert!(dir.path().join(&name).join("a/f").is_file());
        assert_eq!(ensure(Some(cache.as_fd()), &places, us()).expect("second"), name);
        let other = vec![("/a/b".into(), false)];
        assert_ne!(ensure(Some(cache.as_fd()), &other, us()).expect("other"), name);
        assert_eq!(std::fs::read_dir(dir.path()).expect("list").count(), 2);
    }

    #[test]
    fn what_a_power_cut_left_is_no_obstacle() {
        let dir = tempfile::tempdir().expect("tempdir");
        let cache = open_directory(CWD, dir.path()).expect("open");
        let places = vec![("/a/b".into(), true)];
        let left = make_temporary(cache.as_fd(), &name_of(&places, us())).expect("left");
        let name = ensure(Some(cache.as_fd()), &places, us()).expect("made");
        assert!(dir.path().join(name).join("a/b").is_dir());
        assert!(dir.path().join(left).is_dir(), "it may be another one's");
    }

    #[test]
    fn a_file_where_a_directory_is_needed_is_a_fault() {
        let dir = tempfile::tempdir().expect("tempdir");
        let cache = open_directory(CWD, dir.path()).expect("open");
        let places = vec![("/a".into(), false), ("/a/b".into(), true)];
        let fault = ensure(Some(cache.as_fd()), &places, us()).expect_err("no such tree");
        assert!(fault.message.contains("/a: it would be a file, and /a/b is"), "{fault}");
        assert_eq!(std::fs::read_dir(dir.path()).expect("list").count(), 0, "left over");
    }
}
