//! Calls and features that no namespace is needed for, or that are tried one by one.

use std::path::PathBuf;

use rustix::fs::{CWD, Mode, OFlags, access, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsmount, fsopen, move_mount, open_tree,
};
use rustix::system::uname;

use super::Probe;
use super::probes::{attempt, name_of, private_mounts, row};
use crate::fault::{Result, why};
use crate::isolate::cgroup::{self, Wanted};
use crate::remedy::{self, Host};
use crate::sys;
use crate::sys::process::NEW_MOUNT;
use crate::tree::xattr;

/// [`remedy::OLDEST`] in numbers: mount_setattr(2), and overlays in user namespaces (5.11).
pub(super) const OLDEST: (u32, u32) = (5, 12);

pub(super) fn kernel() -> Probe {
    judged(&uname().release().to_string_lossy())
}

fn judged(release: &str) -> Probe {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|word| word.parse().ok());
    let version = (numbers.next().flatten(), numbers.next().flatten());
    let old = matches!(version, (Some(major), Some(minor)) if (major, minor) < OLDEST);
    Probe {
        name: "kernel",
        ok: !old,
        needed: true,
        detail: format!("Linux {release}"),
        errno: None,
        remedy: old.then(|| format!("{} or newer", remedy::OLDEST)),
    }
}

/// clone3(2), for which clone(2) stands in.
pub(super) fn clone3() -> Probe {
    let bad = "refused, as Docker's filter does without SYS_ADMIN; clone stands in";
    row("clone3", false, "there", bad, sys::probe::clone3().err(), |_| String::new())
}

type Try = (&'static str, fn() -> Result<(), Errno>);

/// The mount API call by call; the first that is refused is named.
pub(super) fn mount_api(host: Host) -> Result<Probe> {
    let calls: [Try; 4] = [
        ("fsopen, fsmount", || tmpfs().map(drop)),
        ("move_mount", || {
            private_mounts()?;
            move_mount(tmpfs()?, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        }),
        ("open_tree", || clone_root().map(drop)),
        ("mount_setattr", || {
            use std::os::fd::AsFd as _;
            sys::mount::set_attributes(clone_root()?.as_fd(), sys::mount::READ_ONLY, true)
        }),
    ];
    for (name, call) in calls {
        if let Some(errno) = attempt(NEW_MOUNT, call)? {
            let remedy = |errno| remedy::mounts(errno, host);
            return Ok(row("mount-api", true, "", name, Some(errno), remedy));
        }
    }
    Ok(row("mount-api", true, "all of it works", "", None, |_| String::new()))
}

fn tmpfs() -> Result<std::os::fd::OwnedFd, Errno> {
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&fs)?;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

fn clone_root() -> Result<std::os::fd::OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, "/", flags)
}

/// An upper in memory, for runs whose changes are dropped.
pub(super) fn upper_in_memory() -> Result<Probe> {
    let found = attempt(NEW_MOUNT, || {
        use std::os::fd::AsFd as _;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        xattr::try_user(openat(tmpfs()?, ".", flags, Mode::empty())?.as_fd())
    })?;
    let bad = "no user xattrs on tmpfs, so no `--upper tmpfs`";
    let remedy = |_| "Linux 6.6 or newer, with CONFIG_TMPFS_XATTR".to_owned();
    Ok(row("upper-tmpfs", false, "works", bad, found, remedy))
}

/// Landlock, which keeps a run from files outside, and one with the host's network from its abstract sockets.
pub(super) fn landlock() -> Probe {
    let name = "landlock";
    let remedy = |_: Errno| {
        "Linux 6.12 or newer, with `landlock` among the `lsm=` of the kernel's command line"
            .to_owned()
    };
    match sys::probe::landlock_abi() {
        Ok(version @ 6..) => row(name, false, format!("ABI {version}"), "", None, remedy),
        Ok(version) => Probe {
            name,
            ok: false,
            needed: false,
            detail: match version {
                2.. => format!("ABI {version} cannot hold abstract sockets back (6 can)"),
                _ => format!(
                    "ABI {version} is no second wall around files (2 is), and cannot hold abstract sockets back (6 can)"
                ),
            },
            errno: None,
            remedy: Some(remedy(Errno::NOSYS)),
        },
        Err(errno) => row(name, false, "", "not there", Some(errno), remedy),
    }
}

/// A cgroup for `--memory`, `--pids` and `--cpus`. Looked for, not made.
pub(super) fn cgroup(host: Host) -> Probe {
    let wanted = Wanted { memory: Some(1 << 30), pids: Some(1000), cpu_quota: Some(100_000) };
    let (_, lost, errno) = cgroup::find_or_errno(&wanted);
    let (name, needed) = ("cgroup", false);
    let Some(first) = lost.first() else {
        let detail = "limits of memory, pids and cpus hold".to_owned();
        return Probe { name, ok: true, needed, detail, errno: None, remedy: None };
    };
    let names: Vec<_> = lost.iter().map(|lost| lost.protection).collect();
    let detail = format!("no limit of {}: {}", names.join(", "), first.reason);
    let errno = errno.map(name_of);
    Probe { name, ok: false, needed, detail, errno, remedy: Some(remedy::cgroup(host)) }
}

/// The device that programs for the network of a user namespace need.
pub(super) fn tun(host: Host) -> Probe {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let found = openat(CWD, "/dev/net/tun", flags, Mode::empty()).err();
    let bad = "/dev/net/tun cannot be opened, so there is no `--net pasta`";
    row("tun", false, "/dev/net/tun opens", bad, found, |_| remedy::tun(host))
}

/// pasta(1) or slirp4netns(1).
pub(super) fn network_program() -> Probe {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/bin", "/bin", "/usr/local/bin"].map(PathBuf::from);
    let folders: Vec<_> = std::env::split_paths(&path).chain(usual).collect();
    let found = ["pasta", "slirp4netns"].into_iter().find(|name| {
        let is_there = |folder: &PathBuf| access(folder.join(name), rustix::fs::Access::EXEC_OK);
        folders.iter().any(|folder| is_there(folder).is_ok())
    });
    let (name, needed) = ("network-program", false);
    match found {
        Some(program) => {
            let detail = format!("{program} is there");
            Probe { name, ok: true, needed, detail, errno: None, remedy: None }
        }
        None => {
            let errno = Errno::NOENT;
            let detail = format!("neither pasta nor slirp4netns: {}", why(errno));
            let remedy = Some("install the package passt (or slirp4netns)".to_owned());
            Probe { name, ok: false, needed, detail, errno: Some(name_of(errno)), remedy }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_are_told_and_what_cannot_be_read_is_tried() {
        for (release, ok) in [
            ("4.18.0-553.el8.x86_64", false),
            ("5.4.0", false),
            ("5.11.22-1-pve", false),
            ("5.12", true),
            ("5.15.0-91-generic", true),
            ("6.1.0-57-cloud-amd64", true),
            ("10.0.1", true),
            ("strange", true),
        ] {
            let probe = judged(release);
            assert_eq!(probe.ok, ok, "{release}");
            assert_eq!(probe.remedy.as_deref(), (!ok).then_some("Linux 5.12 or newer"));
            assert!(probe.needed && probe.detail == format!("Linux {release}"));
        }
    }
}
