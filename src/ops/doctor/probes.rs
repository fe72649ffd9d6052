//! The tries. Each happens in a child of its own with fresh namespaces; the child says how it went by its
//! exit code, which is the errno.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, access, chmodat, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, fsconfig_create, fsmount, fsopen, mount_change, move_mount, open_tree,
};
use rustix::process::{WaitOptions, chdir, fchdir, getegid, geteuid, pivot_root as pivot, waitpid};

use super::Probe;
use crate::fault::{Context, Result, WRITABLE, why};
use crate::ids::{self, Extent, IdMap};
use crate::remedy::{self, Host, Spaces};
use crate::rootfs::overlay::{Base, WAYS, Way, Writable, assemble};
use crate::store::Store;
use crate::store::place::file_system_for_sure;
use crate::sys;
use crate::sys::process::{
    NEW_CGROUP, NEW_IPC, NEW_MOUNT, NEW_NET, NEW_PID, NEW_USER, NEW_UTS, Namespaces, Side, clone,
    exit_now,
};
use crate::tree::xattr;

/// Does `job` in a child that was born into a fresh user namespace (only the caller's own ids) and the
/// other `namespaces`.
pub(super) fn attempt(
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

pub(super) fn own_map() -> Result<IdMap> {
    let one = |outside| vec![Extent { inside: 0, outside, count: 1 }];
    IdMap::new(ids::Mode::Single, one(geteuid().as_raw()), one(getegid().as_raw()))
}

/// What a probe found, as the row that is printed.
pub(super) fn row(
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
pub(super) fn name_of(errno: Errno) -> String {
    format!("{:?}", nix::errno::Errno::from_raw(errno.raw_os_error()))
}

pub(super) fn user_namespace(host: Host) -> Result<Probe> {
    // Ubuntu's restriction lets the namespace be made and refuses everything in it: so try something.
    let found = attempt(NEW_MOUNT, private_mounts)?;
    let made = found.is_some() && attempt(NEW_MOUNT, || Ok(()))?.is_none();
    Ok(namespace(found, made, host))
}

/// All that a run is born into.
pub(super) fn namespaces(host: Host) -> Result<Probe> {
    let all = NEW_MOUNT | NEW_PID | NEW_IPC | NEW_UTS | NEW_CGROUP;
    let found = attempt(all, || Ok(()))?;
    let (good, bad) = ("of pids, IPC, the host name and cgroups, too", "cannot be made");
    let remedy = |errno| remedy::user_namespace(errno, host);
    let probe = row("namespaces", true, good, bad, found, remedy);
    let Some(errno) = found else { return Ok(probe) };
    let why = remedy::why_no_namespace(errno, Spaces::OF_BIRTH, host);
    Ok(Probe { detail: format!("{bad}: {why}"), ..probe })
}

/// `made`: the namespace can be had, and what is refused is the mount in it, as beneath the AppArmor profile of an engine.
fn namespace(found: Option<Errno>, made: bool, host: Host) -> Probe {
    let good = "made, with a mount namespace in it";
    let bad = if made { "made, but mounts in it are refused" } else { "cannot be made" };
    let probe = row("user-namespace", true, good, bad, found, |errno| {
        if made { remedy::mounts(errno, host) } else { remedy::user_namespace(errno, host) }
    });
    match found.filter(|_| !made) {
        Some(errno) => Probe {
            detail: format!("{bad}: {}", remedy::why_no_namespace(errno, Spaces::OF_BIRTH, host)),
            ..probe
        },
        None => probe,
    }
}

pub(super) fn private_mounts() -> Result<(), Errno> {
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
        let of_ways = WAYS.map(|way| format!("work-{}", way.name()));
        for work in of_ways.iter().map(String::as_str).chain(["work"]) {
            for own in ["work", "work/incompat", "work/incompat/volatile"] {
                let path = format!("{work}/{own}");
                // They are there only for the ways that were tried and worked.
                chmodat(&self.dir, path, Mode::RWXU, AtFlags::empty()).ok();
            }
        }
    }
}

/// The file system of base_dir, and a place on it to try an overlay.
pub(super) fn base_dir(base_dir: &Path, host: Host) -> (Probe, Option<Scratch>) {
    let name = "base-dir";
    let shown = base_dir.display();
    let place = base_dir.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    let no = |detail: String, errno: Option<Errno>, remedy: Option<String>| {
        let errno = errno.map(name_of);
        (Probe { name, ok: false, needed: true, detail, errno, remedy }, None)
    };
    // What is there can be used in memory, wherever it lies.
    let as_it_is = |remedy: String| match Store::open_for_memory(base_dir) {
        Ok(_) => format!("{remedy}\n{}", remedy::IN_MEMORY),
        Err(_) => remedy,
    };
    let elsewhere = || Some(as_it_is(remedy::base_dir(&shown.to_string(), host)));
    let kind = match openat(CWD, place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .and_then(file_system_for_sure)
    {
        Ok(kind) => kind,
        Err(errno) => return no(format!("{shown}: {}", why(errno)), Some(errno), None),
    };
    if !kind.holds_uppers {
        let detail = format!("{shown} on {}, which cannot hold the upper of an overlay", kind.name);
        return no(detail, None, elsewhere());
    }
    // What tempfile says has no errno any more.
    if let Err(errno) = access(place, Access::WRITE_OK | Access::EXEC_OK) {
        let detail = format!("write to: {}: {}", place.display(), why(errno));
        return no(detail, Some(errno), Some(as_it_is(WRITABLE.to_owned())));
    }
    // As every other command says it; before our own directory is in there.
    let refused = Store::check(base_dir);
    let scratch = match Scratch::beneath(place) {
        Ok(scratch) => scratch,
        Err(error) => {
            let errno = Errno::from_io_error(&error);
            let reason = errno.map_or_else(|| error.to_string(), why);
            let detail = format!("make a directory: {}: {reason}", place.display());
            return no(detail, errno, Some(WRITABLE.to_owned()));
        }
    };
    if let Err(errno) = xattr::try_user(scratch.dir()) {
        let detail = format!("{shown} on {}: user xattrs: {}", kind.name, why(errno));
        return no(detail, Some(errno), elsewhere());
    }
    let probe = match refused {
        Ok(()) => {
            let detail = format!("{shown} on {}", kind.name);
            Probe { name, ok: true, needed: true, detail, errno: None, remedy: None }
        }
        Err(fault) => {
            let errno = fault.errno.map(Errno::from_raw_os_error);
            no(fault.message, errno, fault.hint).0
        }
    };
    (probe, Some(scratch))
}

/// A writable overlay of two lowers, by each way; the best that works. Without a `scratch`, what was found of the
/// `place` has the remedy.
pub(super) fn overlay(
    scratch: Option<BorrowedFd<'_>>,
    place: &Probe,
    host: Host,
) -> Result<(Probe, Option<String>)> {
    let name = "overlay";
    let Some(scratch) = scratch else {
        let detail = "not tried: no place for it".to_owned();
        let remedy = place.remedy.clone();
        let probe = Probe { name, ok: false, needed: true, detail, errno: None, remedy };
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
            let probe = row(name, true, good, "", None, |_| String::new());
            Ok((probe, Some(way.name().to_owned())))
        }
        Err(errno) => {
            let bad = "cannot be mounted in a user namespace";
            Ok((row(name, true, "", bad, Some(errno), |errno| remedy::mounts(errno, host)), None))
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
    let base = Base::clone_cwd(scratch, false)?;
    let lowers = [base.open("a")?, base.open("b")?];
    let writable = Writable { dir: base.tree(), upper: "upper", work };
    let root = assemble(&base, &lowers, Some(writable), MountAttrFlags::empty(), Some(way))?;
    mkdirat(&root, "made", Mode::RWXU)?;
    unlinkat(&root, "made", AtFlags::REMOVEDIR)
}

/// A fresh /proc, or else the outer one bound.
pub(super) fn proc(host: Host) -> Result<(Probe, &'static str)> {
    let fresh = attempt(NEW_MOUNT | NEW_PID, || {
        let fs = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&fs)?;
        drop(fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?);
        Ok(())
    })?;
    let Some(errno) = fresh else {
        return Ok((row("proc", true, "fresh", "", None, |_| String::new()), "fresh"));
    };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let bound = attempt(NEW_MOUNT | NEW_PID, || open_tree(CWD, "/proc", flags).map(drop))?;
    let (needed, word, bad) = match bound {
        None => (false, "bound", "a fresh one is refused, so the outer one is bound"),
        Some(_) => (true, "none", "neither a fresh one nor the outer one"),
    };
    let remedy = |errno| match errno {
        Errno::NOSPC | Errno::USERS => remedy::user_namespace(errno, host),
        _ => remedy::proc(host),
    };
    Ok((row("proc", needed, "", bad, Some(errno), remedy), word))
}

pub(super) fn pivot_root(host: Host) -> Result<Probe> {
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
    Ok(row("pivot-root", false, "works", bad, found, |_| remedy::pivot_root(host)))
}

pub(super) fn seccomp(host: Host) -> Result<Probe> {
    // BPF_RET, SECCOMP_RET_ALLOW: a filter that allows all is a filter all the same.
    let mut all = [0; 8];
    all[..2].copy_from_slice(&6_u16.to_ne_bytes());
    all[4..].copy_from_slice(&0x7fff_0000_u32.to_ne_bytes());
    let found = attempt(0, || {
        rustix::thread::set_no_new_privs(true)?;
        sys::seccomp::load(&all)
    })?;
    let remedy = |errno| remedy::filter(errno, host);
    Ok(row("seccomp", true, "filters load", "a filter is refused", found, remedy))
}

pub(super) fn network(host: Host) -> Result<Probe> {
    let found = attempt(NEW_NET, || Ok(()))?;
    let good = "a namespace of its own";
    let bad = "no namespace of its own, only --net host";
    Ok(row("network", true, good, bad, found, |errno| remedy::network(errno, host)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remedy::Engine;

    #[test]
    fn an_overlay_without_a_place_has_the_remedy_of_the_place() {
        // No file system of the kernel's own can hold an upper.
        let (place, scratch) = base_dir(Path::new("/proc/store"), Host::default());
        assert!(!place.ok && scratch.is_none(), "{place:?}");
        let (overlay, way) = overlay(None, &place, Host::default()).unwrap();
        assert!(way.is_none() && overlay.detail.contains("no place"), "{overlay:?}");
        assert!(place.remedy.is_some() && overlay.remedy == place.remedy, "{overlay:?}");
    }

    #[test]
    fn a_refused_mount_is_no_refused_namespace() {
        let host =
            Host { engine: Some(Engine::Docker), apparmor_confined: true, ..Host::default() };
        let of = |made| namespace(Some(Errno::ACCESS), made, host);
        let mount = of(true);
        assert!(mount.detail.starts_with("made, but mounts in it are refused: "), "{mount:?}");
        let remedy = mount.remedy.unwrap_or_default();
        assert!(remedy.contains("apparmor=unconfined") && !remedy.contains("seccomp"), "{remedy}");
        let namespace = of(false);
        assert!(namespace.detail.starts_with("cannot be made: "), "{namespace:?}");
        assert!(namespace.remedy.unwrap_or_default().contains("seccomp=docker-nested.json"));
    }
}
