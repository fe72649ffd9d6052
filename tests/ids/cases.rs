//! What a job is, sees and leaves on disk.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Gid, Mode as Permissions, OFlags, Uid, chownat, openat, statat};
use sandbox::fault::{Fault, Kind, Result};
use sandbox::ids::{Entry, Extent, IdMap, Mode, Powers, check as check_map, choose, inside};
use sandbox::ids::{write_maps, write_own_map};
use sandbox::sys::process::{NEW_USER, Side, clone, exit_now};
use tempfile::TempDir;

/// A map of the mode, made here.
pub(crate) fn map(mode: Mode) -> IdMap {
    choose(Some(mode)).unwrap_or_else(|fault| panic!("{fault}; {:?}", fault.hint))
}

/// A directory that inside 0 owns, and its descriptor; nobody else can reach it by its path.
pub(crate) fn stage(map: &IdMap) -> (TempDir, OwnedFd) {
    let dir = tempfile::tempdir().expect("tempdir");
    std::fs::create_dir(dir.path().join("fs")).expect("mkdir");
    let (uid, gid) = map.root_owner();
    std::os::unix::fs::chown(dir.path().join("fs"), Some(uid), Some(gid)).expect("chown");
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let fs = openat(CWD, dir.path().join("fs"), flags, Permissions::empty()).expect("open");
    (dir, fs)
}

pub(crate) fn make(fs: impl AsFd, name: &str) -> Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    openat(fs, name, flags, Permissions::from_raw_mode(0o666))
        .map_err(|e| Fault::errno("make", name, e))
}

fn owner(dir: &TempDir, name: &str) -> (u32, u32) {
    let found = std::fs::symlink_metadata(dir.path().join("fs").join(name)).expect("stat");
    (found.uid(), found.gid())
}

pub(crate) fn auto(expected: Mode) {
    let map = choose(None).expect("a map");
    assert_eq!(map.mode, expected);
    check_map(&map).expect("what was chosen can be made again");
}

pub(crate) fn refused(mode: Mode) {
    let fault = choose(Some(mode)).expect_err("not for us");
    assert_eq!(fault.kind, Kind::Host);
    assert!(fault.hint.is_some());
}

pub(crate) fn owners(mode: Mode) {
    let map = map(mode);
    let (dir, fs) = stage(&map);
    let chowned = inside(Entry::Map(&map), Powers::Files, || {
        make(&fs, "root")?;
        make(&fs, "other")?;
        let ids = (Some(Uid::from_raw(5)), Some(Gid::from_raw(6)));
        let chowned = chownat(&fs, "other", ids.0, ids.1, AtFlags::SYMLINK_NOFOLLOW);
        let seen = statat(&fs, "other", AtFlags::SYMLINK_NOFOLLOW).expect("stat");
        assert_eq!((seen.st_uid, seen.st_gid), if chowned.is_ok() { (5, 6) } else { (0, 0) });
        Ok(chowned.is_ok())
    })
    .expect("job");
    assert_eq!(owner(&dir, "root"), map.root_owner());
    let other = map.uid_outside(5).zip(map.gid_outside(6));
    assert_eq!(chowned, other.is_some());
    assert_eq!(chowned, mode != Mode::Single);
    assert_eq!(owner(&dir, "other"), other.unwrap_or(map.root_owner()));
    if mode == Mode::Range {
        assert!(map.root_owner().0 >= 65536 && map.root_owner().1 >= 65536);
    }
    // Mode 0000 and a stranger's: only the namespace gets rid of it.
    inside(Entry::Map(&map), Powers::Files, || {
        for name in ["root", "other"] {
            rustix::fs::chmodat(&fs, name, Permissions::empty(), AtFlags::empty())
                .map_err(|e| Fault::errno("chmod", name, e))?;
            openat(&fs, name, OFlags::RDONLY, Permissions::empty())
                .map_err(|e| Fault::errno("open", name, e))?;
            rustix::fs::unlinkat(&fs, name, AtFlags::empty())
                .map_err(|e| Fault::errno("unlink", name, e))?;
        }
        Ok(())
    })
    .expect("removal");
}

/// The value of a line of /proc/self/status, its words joined.
fn status(text: &str, key: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn own_status() -> Result<String> {
    std::fs::read_to_string("/proc/self/status").map_err(|e| Fault::failed(e.to_string()))
}

/// CHOWN 0, DAC_OVERRIDE 1, FOWNER 3, FSETID 4, MKNOD 27, SETFCAP 31; SYS_ADMIN 21.
const FILES: &str = "000000008800001b";
const MOUNTS: &str = "000000008820001b";

fn assert_root_with(text: &str, capabilities: &str) {
    for (key, value) in [
        ("Uid", "0 0 0 0"),
        ("Gid", "0 0 0 0"),
        ("Umask", "0000"),
        ("NoNewPrivs", "1"),
        ("CapEff", capabilities),
        ("CapPrm", capabilities),
        ("CapBnd", capabilities),
        ("CapInh", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
    ] {
        assert_eq!(status(text, key), value, "{key}");
    }
}

pub(crate) fn credentials(mode: Mode) {
    let map = map(mode);
    for (powers, capabilities) in [(Powers::Files, FILES), (Powers::Mounts, MOUNTS)] {
        let text = inside(Entry::Map(&map), powers, own_status).expect("job");
        assert_root_with(&text, capabilities);
        let denied = std::fs::read_to_string("/proc/self/setgroups").expect("setgroups");
        if mode != Mode::Single && denied.starts_with("allow") {
            assert_eq!(status(&text, "Groups"), "");
        }
    }
    let lines = inside(Entry::Map(&map), Powers::Files, || {
        Ok(std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default())
    });
    assert_eq!(lines.expect("job").lines().count(), map.uids.len());
    if mode == Mode::Identity && map.uids.len() > 1 {
        // Recorded where the ids were one piece; here they are several.
        let count = map.uids.iter().map(|extent| extent.count).sum();
        let one = vec![Extent { inside: 0, outside: 0, count }];
        let one = IdMap::new(mode, one.clone(), one).expect("valid");
        assert!(one.same_owners(&map));
        check_map(&one).expect("the same owners");
        inside(Entry::Map(&one), Powers::Files, || Ok(())).expect("the same map");
    }
}

fn covers_tmp() -> Result<bool> {
    use rustix::mount::{MountFlags, mount};
    mount("tmpfs", "/tmp", "tmpfs", MountFlags::empty(), None)
        .map_err(|e| Fault::errno("mount", "/tmp", e))?;
    std::fs::write("/tmp/sandbox-ids-covered", "").map_err(|e| Fault::failed(e.to_string()))?;
    Ok(true)
}

pub(crate) fn mounts(mode: Mode) {
    let map = map(mode);
    assert!(inside(Entry::Map(&map), Powers::Mounts, covers_tmp).expect("mounted"));
    assert!(!Path::new("/tmp/sandbox-ids-covered").exists(), "the mount has leaked");
    let fault = inside(Entry::Map(&map), Powers::Files, covers_tmp).expect_err("no power");
    assert!(fault.message.contains("mount: /tmp"), "{fault}");
}

/// Runs `test` with the descriptor of a user namespace that a sleeping child holds.
fn with_namespace(map: &IdMap, test: impl FnOnce(&OwnedFd)) {
    let (ready_out, ready_in) = rustix::pipe::pipe().expect("pipe");
    let (end_out, end_in) = rustix::pipe::pipe().expect("pipe");
    match clone(NEW_USER).expect("clone") {
        Side::Child => {
            drop(end_in);
            let own = map.mode == Mode::Single;
            if !own || write_own_map(map).is_ok() {
                let number = rustix::fs::readlink("/proc/self", Vec::new()).unwrap_or_default();
                let _told = rustix::io::write(&ready_in, number.as_bytes());
                let _ended = rustix::io::read(&end_out, &mut [0]);
            }
            exit_now(0)
        }
        Side::Parent { child, pidfd } => {
            drop(ready_in);
            // Not `child`, which is another number where /proc is that of an outer pid namespace.
            let mut number = [0; 16];
            let size = rustix::io::read(&ready_out, &mut number).expect("the child's number");
            let number = std::str::from_utf8(&number[..size]).expect("the child's number");
            if map.mode != Mode::Single {
                write_maps(child, map).expect("maps");
            }
            let path = format!("/proc/{number}/ns/user");
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let namespace = openat(CWD, path, flags, Permissions::empty()).expect("namespace");
            test(&namespace);
            drop(end_in);
            crate::lives::wait_for(&pidfd);
        }
    }
}

pub(crate) fn joined(mode: Mode) {
    let map = map(mode);
    let (dir, fs) = stage(&map);
    with_namespace(&map, |namespace| {
        let entry = Entry::Joined(namespace.as_fd());
        let text = inside(entry, Powers::Files, || {
            make(&fs, "joined")?;
            own_status()
        });
        assert_root_with(&text.expect("job"), FILES);
    });
    assert_eq!(owner(&dir, "joined"), map.root_owner());
}

pub(crate) fn joined_mounts(mode: Mode) {
    let map = map(mode);
    with_namespace(&map, |namespace| {
        let entry = Entry::Joined(namespace.as_fd());
        assert_root_with(&inside(entry, Powers::Mounts, own_status).expect("job"), MOUNTS);
        assert!(inside(entry, Powers::Mounts, covers_tmp).expect("mounted"));
        assert!(!Path::new("/tmp/sandbox-ids-covered").exists(), "the mount has leaked");
    });
}

pub(crate) fn answers(mode: Mode) {
    let map = map(mode);
    let entry = Entry::Map(&map);
    let large = inside(entry, Powers::Files, || Ok("x".repeat(3 << 20))).expect("large");
    assert_eq!(large.len(), 3 << 20);
    inside(entry, Powers::Files, || Ok(())).expect("nothing");
    let fault = Fault::not_found("look: here: nothing").hint("look there");
    let answer = inside::<()>(entry, Powers::Files, || Err(fault.clone()));
    assert_eq!(answer.expect_err("fault"), fault);
    let none: Option<u8> = inside(entry, Powers::Files, || Ok(None)).expect("none");
    assert_eq!(none, None);
}

pub(crate) fn check(mode: Mode) {
    let good = map(mode);
    check_map(&good).expect("made here");
    let foreign = Extent { inside: 0, outside: 3_999_999_999, count: 1 };
    let alien = IdMap::new(mode, vec![foreign], vec![foreign]).expect("valid");
    if mode != Mode::Identity && mode != Mode::Range {
        assert_eq!(check_map(&alien).expect_err("of somebody else").kind, Kind::Conflict);
    }
}
