//! Tests on real directories. They pass as root, as a plain user, and as the root of a user namespace; what
//! only some of these may do is asserted where it may be done.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use tempfile::TempDir;

use crate::ids::{Extent, IdMap, Mode as IdMode};

mod change;
mod copy;
mod deep;
mod dirs;
mod fold;
mod manifest;
mod moving;
mod records;
mod settle;
mod upper;

fn open(path: &Path) -> OwnedFd {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).expect("directory opens")
}

fn temp() -> TempDir {
    tempfile::tempdir().expect("temporary directory")
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A map in which our own ids mean themselves, and as root a few more.
fn own_ids() -> IdMap {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let one = |id| vec![Extent { inside: id, outside: id, count: 1 }];
    IdMap { mode: IdMode::Identity, uids: one(uid), gids: one(gid) }
}

fn write(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("a parent")).expect("parents");
    fs::write(path, content).expect("file");
}

/// `depth` directories, one in the other, and a file in the last.
fn nest(root: &Path, depth: usize) {
    let mut here = open(root);
    for _ in 0..depth {
        mkdirat(&here, "d", Mode::RWXU).expect("mkdir");
        here = openat(here.as_fd(), "d", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .expect("open");
    }
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    drop(openat(&here, "leaf", flags, Mode::RUSR).expect("leaf"));
}
