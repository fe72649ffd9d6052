//! Opening and making a store: whose it is, on what it lies, which format it has.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{
    AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, RenameFlags, Stat, chmodat, flock, fstat,
    fsync, mkdirat, openat, renameat_with, statat, unlinkat,
};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::geteuid;

use super::failpoint::step;
use super::file::{self, PRIVATE_DIR};
use super::format::Format;
use super::remains::{no_format, no_store, refuse_remains, refuse_strange};
use super::{Store, json_line, layout, nest, place};
use crate::fault::{Context, Fault, Kind, Result, quoted};
use crate::remedy::{self, Host};
use crate::tree::xattr;

/// How long a lock is waited for, unless [`Store::set_patience`] says otherwise.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a directory that others make and remove at the same time is tried anew.
const TRIES: usize = 16;

impl Store {
    /// Opens a store.
    ///
    /// # Errors
    /// Not-found if there is none; usage if the directory is not ours alone; host on a filesystem that
    /// cannot hold the upper of an overlay; failed if a newer sandbox wrote it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_on(path.as_ref(), false)
    }

    /// The same for runs that have their uppers in memory: on overlayfs, too, a directory of which can be a lower. All that
    /// would change such a store is refused.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_for_memory(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_on(path.as_ref(), true)
    }

    fn open_on(path: &Path, for_memory: bool) -> Result<Self> {
        let shown = path.display().to_string();
        let Some(dir) = open_base(path)? else { return Err(no_store(&shown)) };
        let owner = geteuid().as_raw();
        let stat = fstat(&dir).context("look at store", &shown)?;
        check_owner(&stat, owner, &shown)?;
        if !is_private(&stat) && holds_something(&dir, &shown)? {
            return Err(not_private(&stat, &shown));
        }
        let found = place::file_system(&dir).context("look at filesystem of the store", &shown)?;
        let holds_uppers = check_use(found, for_memory, &shown)?;
        let format = match file::read_small(dir.as_fd(), layout::FORMAT, file::RECORD_LIMIT) {
            Err(Errno::NOENT) => {
                let found = place::file_system_for_sure(&dir);
                check_kind(found.context("look at filesystem of the store", &shown)?, &shown)?;
                let fault = no_format(&dir, &shown);
                // What is being made meanwhile holds something before we look, and a format after.
                if statat(&dir, layout::FORMAT, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
                    return Self::open_on(path, for_memory);
                }
                return Err(fault?);
            }
            bytes => bytes.context("read format of the store", &shown)?,
        };
        let format = Format::parse(&format, &shown)?;
        let writable = format.writable(&shown)?;
        let ignores_strays = !format.compat.is_empty() || !format.ro_compat.is_empty();
        let outer = match format.is_nest() {
            true => Some(nest::outer_layers(dir.as_fd(), &shown)?),
            false => None,
        };
        let (path, patience) = (path.to_owned(), PATIENCE);
        Ok(Self { dir, path, owner, writable, holds_uppers, ignores_strays, outer, patience })
    }

    /// Opens a store, and makes it (and the directories above it) if there is none. Several processes may
    /// do so at once. What was made is removed again if it cannot be finished.
    ///
    /// # Errors
    /// As [`Store::open`]; conflict if the directory holds something that is no store.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let shown = path.display().to_string();
        for _ in 0..TRIES {
            let mut made = Made::default();
            match make(path, &shown, &mut made) {
                Ok(Outcome::Ready) => return Self::open(path),
                Ok(Outcome::Again) => {}
                Err(fault) => {
                    made.take_back();
                    return Err(fault);
                }
            }
        }
        // Or the file system takes no directory, and says so as if there were no place for it.
        let parent = path.parent().filter(|parent| rustix::fs::stat(*parent).is_ok());
        match parent {
            Some(_) => Err(elsewhere(Fault::errno("create directory", &shown, Errno::NOENT))),
            None => Err(Fault::busy(format!(
                "create store: {shown}: it is being made and removed by others"
            ))),
        }
    }
}

impl Store {
    /// Whether a place is a store, or could become one; nothing is made.
    ///
    /// # Errors
    /// Those of [`Store::open`] and [`Store::create`], but for what only trying to write tells.
    pub fn check(path: &Path) -> Result<()> {
        match Self::open(path) {
            Err(fault) if fault.kind == Kind::NotFound => {
                let Some(place) = open_base(path)? else { return Ok(()) };
                let shown = path.display().to_string();
                let dir = file::open_dir(place.as_fd(), ".").context("open directory", &shown)?;
                let present = file::names(dir.as_fd()).context("read directory", &shown)?;
                refuse_strange(&present, &shown)?;
                refuse_remains(&dir, &shown)
            }
            opened => opened.map(drop),
        }
    }
}

enum Outcome {
    Ready,
    /// Somebody removed the directory between our steps.
    Again,
}

/// What this process made and must take back if it fails.
#[derive(Default)]
struct Made {
    folders: Vec<PathBuf>,
    inside: Option<(OwnedFd, Vec<&'static str>)>,
}

impl Made {
    fn take_back(self) {
        if let Some((dir, names)) = self.inside {
            for name in names.iter().rev() {
                // Best effort: a lock file or a directory, and whatever stays is no store.
                let flags =
                    if *name == layout::LOCK { AtFlags::empty() } else { AtFlags::REMOVEDIR };
                unlinkat(&dir, *name, flags).ok();
            }
        }
        for folder in self.folders.iter().rev() {
            unlinkat(CWD, folder, AtFlags::REMOVEDIR).ok();
        }
    }
}

fn make(path: &Path, shown: &str, made: &mut Made) -> Result<Outcome> {
    let Some(place) = open_base(path)? else {
        return make_folders(path, shown, made);
    };
    let owner = geteuid().as_raw();
    let stat = fstat(&place).context("look at store", shown)?;
    check_owner(&stat, owner, shown)?;
    let found = place::file_system_for_sure(&place);
    check_kind(found.context("look at filesystem of the store", shown)?, shown)?;
    make_private(&place, &stat, shown)?;
    let dir = file::open_dir(place.as_fd(), ".").context("open directory", shown)?;
    // One maker at a time, so that taking back never removes what another one counts on.
    retry_on_intr(|| flock(&dir, FlockOperation::LockExclusive)).context("lock", shown)?;
    if fstat(&dir).context("look at store", shown)?.st_nlink == 0 {
        return Ok(Outcome::Again);
    }
    let present = file::names(dir.as_fd()).context("read directory", shown)?;
    if present.iter().any(|name| name == layout::FORMAT) {
        return Ok(Outcome::Ready);
    }
    refuse_strange(&present, shown)?;
    refuse_remains(&dir, shown)?;
    check_xattrs(&dir, shown)?;
    fill(dir, shown, made)?;
    Ok(Outcome::Ready)
}

/// Makes the directory of the store, and those above it that are missing, all 0700.
fn make_folders(path: &Path, shown: &str, made: &mut Made) -> Result<Outcome> {
    let mut missing = Vec::new();
    for folder in path.ancestors().filter(|folder| !folder.as_os_str().is_empty()) {
        if rustix::fs::stat(folder).is_ok() {
            break;
        }
        missing.push(folder);
    }
    for folder in missing.into_iter().rev() {
        match step("create.above", || mkdirat(CWD, folder, PRIVATE_DIR)) {
            Ok(()) => made.folders.push(folder.to_owned()),
            Err(Errno::EXIST) if rustix::fs::stat(folder).is_err() => {
                return Err(Fault::conflict(format!(
                    "create store: {}: is a symlink that leads nowhere",
                    folder.display()
                )));
            }
            // Another maker was faster.
            Err(Errno::EXIST) => {}
            // Another maker failed and took it back.
            Err(Errno::NOENT) => return Ok(Outcome::Again),
            Err(errno) => {
                return Err(elsewhere(Fault::errno("create directory", folder.display(), errno)));
            }
        }
    }
    if rustix::fs::stat(path).is_err() {
        return Ok(Outcome::Again);
    }
    make(path, shown, made)
}

/// Fills a locked, empty directory; the format is written last, and makes it a store.
fn fill(dir: OwnedFd, shown: &str, made: &mut Made) -> Result<()> {
    let (dir, names) = made.inside.insert((dir, Vec::new()));
    for folder in layout::FOLDERS {
        match step("create.folders", || mkdirat(&*dir, folder, PRIVATE_DIR)) {
            Ok(()) => names.push(folder),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(Fault::errno("create directory", shown, errno)),
        }
    }
    file::spread(dir.as_fd(), layout::RUNS);
    names.push(layout::LOCK);
    step("create.lock", || file::write_small(dir.as_fd(), layout::LOCK, b""))
        .context("create lock", shown)?;
    let temporary = format!("{}{}", layout::UNFINISHED, layout::FORMAT);
    let bytes = json_line(&Format::new())?;
    let written = step("create.format", || {
        let file = file::create(dir.as_fd(), &temporary)?;
        file::write_all(&file, &bytes)?;
        fsync(&file)?;
        renameat_with(&*dir, &temporary, &*dir, layout::FORMAT, RenameFlags::NOREPLACE)?;
        fsync(&*dir)
    });
    if written.is_err() {
        for name in [&temporary, layout::FORMAT] {
            file::unlink(dir.as_fd(), name).ok();
        }
    }
    written.context("write format of the store", shown)
}

/// The directory, through symlinks once and then never again; `None` if there is none.
fn open_base(path: &Path) -> Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match retry_on_intr(|| openat(CWD, path, flags, Mode::empty())) {
        Ok(dir) => Ok(Some(dir)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(elsewhere(Fault::errno("open store", path.display(), errno))),
    }
}

/// The same fault with the way out of a place that cannot be used, if it has none yet.
fn elsewhere(fault: Fault) -> Fault {
    match fault.hint {
        None => fault.hint("choose another directory with --base-dir"),
        Some(_) => fault,
    }
}

fn check_owner(stat: &Stat, owner: u32, shown: &str) -> Result<()> {
    if stat.st_uid == owner {
        return Ok(());
    }
    let theirs = stat.st_uid;
    Err(Fault::usage(format!(
        "open store: {shown}: belongs to user id {theirs}, and we are {owner}"
    ))
    .hint("choose a directory of your own with --base-dir"))
}

fn is_private(stat: &Stat) -> bool {
    debug_assert!(FileType::from_raw_mode(stat.st_mode).is_dir());
    stat.st_mode & 0o7777 == 0o700
}

fn not_private(stat: &Stat, shown: &str) -> Fault {
    let mode = stat.st_mode & 0o7777;
    // chmod(1) with a number leaves the set-group-id bit of a directory alone.
    let change = if mode & 0o7000 == 0 { "700" } else { "u=rwx,go=,a-s,-t" };
    Fault::usage(format!(
        "open store: {shown}: mode is {mode:04o}, but what layers hold must be out of reach of other users"
    ))
    .hint(format!("`chmod {change} {}`", quoted(shown)))
}

/// Makes an empty directory of ours 0700 (a fresh volume is 0755); refuses another one.
fn make_private(place: &OwnedFd, stat: &Stat, shown: &str) -> Result<()> {
    if is_private(stat) {
        return Ok(());
    }
    if holds_something(place, shown)? {
        // Another maker may have changed the mode and filled it since we looked, in this order.
        let now = fstat(place).context("look at store", shown)?;
        return if is_private(&now) { Ok(()) } else { Err(not_private(stat, shown)) };
    }
    step("create.mode", || chmodat(place, ".", PRIVATE_DIR, AtFlags::empty()))
        .context("change mode of directory", shown)
}

/// Whether the directory holds anything but the `lost+found` of a fresh volume.
fn holds_something(place: &OwnedFd, shown: &str) -> Result<bool> {
    let names = file::open_dir(place.as_fd(), ".").and_then(|dir| file::names(dir.as_fd()));
    Ok(names.context("read directory", shown)?.iter().any(|name| name != "lost+found"))
}

/// Whether it holds uppers; refused if it holds no layers either.
fn check_use(found: place::FileSystem, for_memory: bool, shown: &str) -> Result<bool> {
    match found.name.as_str() {
        OVERLAYFS if for_memory => Ok(false),
        FUSE if for_memory => Err(no_layers(shown)),
        _ => check_kind(found, shown).map(|()| true),
    }
}

fn check_kind(found: place::FileSystem, shown: &str) -> Result<()> {
    if found.holds_uppers {
        return Ok(());
    }
    Err(no_uppers(&found.name, shown))
}

/// What [`place`] calls it.
const OVERLAYFS: &str = "overlayfs";
const FUSE: &str = "FUSE";

/// The kernel would take layers from there, beneath an upper in memory. What is set-user-ID there is what a program says, and
/// the copy-up of such files was a way out (CVE-2023-0386).
fn no_layers(shown: &str) -> Fault {
    Fault::host(format!(
        "open store: {shown}: lies on {FUSE}, where a program says whose the files of layers are and what they may do"
    ))
    .hint(remedy::in_one_line(&remedy::base_dir(shown, Host::read())))
}

fn no_uppers(name: &str, shown: &str) -> Fault {
    let which = if name == OVERLAYFS { "another overlay" } else { "an overlay" };
    Fault::host(format!(
        "open store: {shown}: lies on {name}, which cannot hold the upper of {which}"
    ))
    .hint(remedy::in_one_line(&remedy::base_dir(shown, Host::read())))
}

impl Store {
    /// Whether changes of runs can be kept in it.
    ///
    /// # Errors
    /// Host, as [`Store::open`], for what [`Store::open_for_memory`] has opened where they cannot.
    pub fn require_uppers(&self) -> Result<()> {
        match self.holds_uppers {
            true => Ok(()),
            false => Err(no_uppers(OVERLAYFS, &self.path.display().to_string())),
        }
    }
}

/// Overlayfs keeps its notes in user xattrs. Without them it mounts and then answers EIO to whoever removes
/// a directory of a layer. Tried once, when the store is made.
fn check_xattrs(dir: &OwnedFd, shown: &str) -> Result<()> {
    match xattr::try_user(dir.as_fd()) {
        Err(Errno::OPNOTSUPP) => Err(Fault::host(format!(
            "open store: {shown}: lies on a filesystem without user xattrs, which cannot hold the upper of an overlay"
        ))
        .hint("choose a place on a local disk with --base-dir (a tmpfs: from Linux 6.6)")),
        tried => tried.context("try user xattrs", shown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_come_from_no_program() {
        let on = |name: &str, holds_uppers, for_memory| {
            let found = place::FileSystem { name: name.to_owned(), holds_uppers };
            check_use(found, for_memory, "/s").map_err(|fault| fault.message)
        };
        assert_eq!(on("ext4", true, true), Ok(true));
        assert_eq!(on(OVERLAYFS, false, true), Ok(false));
        for (for_memory, why) in [(true, "where a program says"), (false, "cannot hold the upper")]
        {
            let refused = on(FUSE, false, for_memory).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
        assert!(on("NFS", false, true).is_err() && on(OVERLAYFS, false, false).is_err());
    }
}
