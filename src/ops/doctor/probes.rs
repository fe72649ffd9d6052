//! The tries. Each happens in a child of its own with fresh namespaces; the child says how it went by its
//! exit code, which is the errno.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatFs, chmodat, fstatfs, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, fsconfig_create, fsmount, fsopen, mount_change, move_mount, open_tree,
};
use rustix::process::{WaitOptions, chdir, fchdir, getegid, geteuid, pivot_root as pivot, waitpid};

use super::{Probe, remedy};
use crate::fault::{Context, Result, why};
use crate::ids::{self, Extent, IdMap};
use crate::rootfs::overlay::{Base, WAYS, Way, Writable, assemble};
use crate::sys::process::{
    NEW_MOUNT, NEW_NET, NEW_PID, NEW_USER, Namespaces, Side, clone, exit_now,
};

/// Does `job` in a child that was born into a fresh user namespace (only the caller's own ids) and the
/// other `namespaces`.
fn attempt(
    namespaces: Namespaces,
    job: impl FnOnce() -> Result<(), Errno>,
) -> Result<Option<Errno>> {
    let map = own_map()?;
    match clone(NEW_USER | namespaces) {
        Err(errno) => Ok(Some(errno)),
        Ok(Side::Child) => {
            let answer = ids::write_own_map(&map).and_then(|()| job());
            exit_now(answer.map_or_else(|errno| errno.raw_os_error().clamp(1, 254), |()| 0))
        }
        Ok(Side::Parent { child, .. }) => {
            let ended =
                waitpid(Some(child), WaitOptions::empty()).context("wait for", "a probe")?;
            let code = ended.and_then(|(_, status)| status.exit_status());
            Ok(match code {
                Some(0) => None,
                Some(code) => Some(Errno::from_raw_os_error(code)),
                // Killed by a signal: a filter that kills instead of refusing.
                None => Some(Errno::PERM),
            })
        }
    }
}

fn own_map() -> Result<IdMap> {
    let one = |outside| vec![Extent { inside: 0, outside, count: 1 }];
    IdMap::new(ids::Mode::Single, one(geteuid().as_raw()), one(getegid().as_raw()))
}

/// What a probe found, as the row that is printed.
fn row(
    name: &'static str,
    needed: bool,
    good: impl Into<String>,
    bad: &str,
    found: Option<Errno>,
    remedy: impl FnOnce(Errno) -> String,
) -> Probe {
    match found {
        None => Probe { name, ok: true, needed, detail: good.into(), errno: None, remedy: None },
        Some(errno) => Probe {
            name,
            ok: false,
            needed,
            detail: format!("{bad}: {}", why(errno)),
            errno: Some(name_of(errno)),
            remedy: Some(remedy(errno)),
        },
    }
}

/// `EPERM` for `Errno::PERM`: nix knows the names.
fn name_of(errno: Errno) -> String {
    format!("{:?}", nix::errno::Errno::from_raw(errno.raw_os_error()))
}

pub(super) fn user_namespace() -> Result<Probe> {
    // Ubuntu's restriction lets the namespace be made and refuses everything in it: so try something.
    let found = attempt(NEW_MOUNT, private_mounts)?;
    let good = "made, with a mount namespace in it";
    Ok(row("user-namespace", true, good, "cannot be made", found, remedy::user_namespace))
}

fn private_mounts() -> Result<(), Errno> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
}

/// A directory for tries beneath base_dir or, before there is one, beside it; gone when dropped.
#[derive(Debug)]
pub(super) struct Scratch {
    dir: OwnedFd,
    _place: tempfile::TempDir,
}

impl Scratch {
    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    fn beneath(place: &Path) -> std::io::Result<Self> {
        let place = tempfile::Builder::new().prefix(".doctor-").tempdir_in(place)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(CWD, place.path(), flags, Mode::empty())?;
        for name in ["a", "b", "upper"] {
            mkdirat(&dir, name, Mode::RWXU)?;
        }
        Ok(Self { dir, _place: place })
    }
}

impl Drop for Scratch {
    /// overlay's own directories beneath a work directory have mode 0000, which stops their removal.
    fn drop(&mut self) {
        for way in WAYS {
            for own in ["work", "work/incompat", "work/incompat/volatile"] {
                let path = format!("work-{}/{own}", way.name());
                // They are there only for the ways that were tried and worked.
                chmodat(&self.dir, path, Mode::RWXU, AtFlags::empty()).ok();
            }
        }
    }
}

/// The file system of base_dir, and a place on it to try an overlay.
pub(super) fn base_dir(base_dir: &Path) -> (Probe, Option<Scratch>) {
    let name = "base-dir";
    let place = base_dir.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    let no = |detail: String, errno: Option<Errno>| Probe {
        name,
        ok: false,
        needed: true,
        detail,
        errno: errno.map(name_of),
        remedy: Some(remedy::base_dir()),
    };
    let scratch = match Scratch::beneath(place) {
        Ok(scratch) => scratch,
        Err(error) => {
            let errno = Errno::from_io_error(&error);
            let reason = errno.map_or_else(|| error.to_string(), why);
            return (no(format!("make a directory: {}: {reason}", place.display()), errno), None);
        }
    };
    let kind = match fstatfs(&scratch.dir) {
        Ok(stat) => file_system(&stat),
        Err(errno) => {
            return (no(format!("{}: {}", place.display(), why(errno)), Some(errno)), None);
        }
    };
    let detail = format!("{} on {}", base_dir.display(), kind.name);
    if !kind.upper {
        return (no(format!("{detail}, which cannot be written through an overlay"), None), None);
    }
    (Probe { name, ok: true, needed: true, detail, errno: None, remedy: None }, Some(scratch))
}

struct FileSystem {
    name: String,
    upper: bool,
}

/// By the magic numbers of statfs(2).
fn file_system(stat: &StatFs) -> FileSystem {
    let (name, upper) = match stat.f_type as u64 & 0xffff_ffff {
        0xef53 => ("ext4", true),
        0x5846_5342 => ("xfs", true),
        0x9123_683e => ("btrfs", true),
        0x0102_1994 => ("tmpfs", true),
        0xf2f5_2010 => ("f2fs", true),
        0x2fc1_2fc1 => ("zfs", true),
        0xca45_1a4e => ("bcachefs", true),
        0x794c_7630 => ("overlayfs", false),
        0x6969 => ("nfs", false),
        0xff53_4d42 | 0xfe53_4d42 => ("cifs", false),
        other => return FileSystem { name: format!("file system {other:#x}"), upper: true },
    };
    FileSystem { name: name.to_owned(), upper }
}

/// A writable overlay of two lowers, by each way; the best that works.
pub(super) fn overlay(scratch: Option<BorrowedFd<'_>>) -> Result<(Probe, Option<String>)> {
    let name = "overlay";
    let Some(scratch) = scratch else {
        let detail = "not tried: no place for it".to_owned();
        let probe = Probe { name, ok: false, needed: true, detail, errno: None, remedy: None };
        return Ok((probe, None));
    };
    // The working directory is what the kernel carries into a new mount namespace; what a descriptor
    // names stays in the old one, where nothing can be cloned from.
    let here = openat(CWD, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .context("open", "the working directory")?;
    fchdir(scratch).context("enter a directory for", name)?;
    let tried = try_ways(scratch);
    fchdir(&here).context("return to", "the working directory")?;
    match tried? {
        Ok(way) => {
            let good = format!("works, by {way}");
            let probe = row(name, true, good, "", None, remedy::mounts);
            Ok((probe, Some(way.name().to_owned())))
        }
        Err(errno) => {
            let bad = "cannot be mounted in a user namespace";
            Ok((row(name, true, "", bad, Some(errno), remedy::mounts), None))
        }
    }
}

/// The best way that works in the working directory `scratch`, or why the last one did not.
fn try_ways(scratch: BorrowedFd<'_>) -> Result<Result<Way, Errno>> {
    let mut found = Errno::NOSYS;
    for way in WAYS {
        // The kernel makes work/work with mode 0000, and another try wants an empty one.
        let work = format!("work-{}", way.name());
        mkdirat(scratch, &work, Mode::RWXU).context("make a directory for", "overlay")?;
        match attempt(NEW_MOUNT, || try_overlay(scratch, &work, way))? {
            None => return Ok(Ok(way)),
            Some(errno) => found = errno,
        }
    }
    Ok(Err(found))
}

fn try_overlay(scratch: BorrowedFd<'_>, work: &str, way: Way) -> Result<(), Errno> {
    private_mounts()?;
    let base = Base::clone_cwd(scratch)?;
    let lowers = [base.open("a")?, base.open("b")?];
    let writable = Writable { dir: base.tree(), upper: "upper", work };
    let root = assemble(&base, &lowers, Some(writable), MountAttrFlags::empty(), Some(way))?;
    mkdirat(&root, "made", Mode::RWXU)?;
    unlinkat(&root, "made", AtFlags::REMOVEDIR)
}

/// A fresh /proc, or else the outer one bound.
pub(super) fn proc() -> Result<(Probe, &'static str)> {
    let fresh = attempt(NEW_MOUNT | NEW_PID, || {
        let fs = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&fs)?;
        drop(fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?);
        Ok(())
    })?;
    let Some(errno) = fresh else {
        return Ok((row("proc", true, "fresh", "", None, |_| remedy::proc()), "fresh"));
    };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let bound = attempt(NEW_MOUNT | NEW_PID, || open_tree(CWD, "/proc", flags).map(drop))?;
    let (needed, word, bad) = match bound {
        None => (false, "bound", "a fresh one is refused, so the outer one is bound"),
        Some(_) => (true, "none", "neither a fresh one nor the outer one"),
    };
    Ok((row("proc", needed, "", bad, Some(errno), |_| remedy::proc()), word))
}

pub(super) fn pivot_root() -> Result<Probe> {
    let found = attempt(NEW_MOUNT, || {
        private_mounts()?;
        let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&fs)?;
        let root = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        // Any directory will do as the place; the new root must be a mount that is attached.
        move_mount(&root, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        fchdir(&root)?;
        pivot(".", ".")?;
        chdir("/")
    })?;
    let bad = "refused, so the root is switched by a move and chroot";
    Ok(row("pivot-root", false, "works", bad, found, |_| remedy::pivot_root()))
}

pub(super) fn seccomp() -> Result<Probe> {
    let found = attempt(0, || {
        use libseccomp::{ScmpAction, ScmpFilterContext};
        // libseccomp sets no_new_privs by itself; a filter that allows all is a filter all the same.
        let filter = ScmpFilterContext::new(ScmpAction::Allow);
        filter.and_then(|filter| filter.load()).map_err(|_| Errno::INVAL)
    })?;
    let remedy = |_| "a kernel with CONFIG_SECCOMP_FILTER".to_owned();
    Ok(row("seccomp", true, "filters load", "a filter is refused", found, remedy))
}

pub(super) fn network() -> Result<Probe> {
    let found = attempt(NEW_NET, || Ok(()))?;
    let good = "a namespace of its own";
    let bad = "no namespace of its own, only --net host";
    Ok(row("network", true, good, bad, found, remedy::network))
}
