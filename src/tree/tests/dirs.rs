//! Opening directories: neither links nor mounts lead anywhere, with openat2(2) and without.

use std::os::fd::AsFd;
use std::os::unix::fs::symlink;

use rustix::io::Errno;

use super::*;
use crate::tree::dir::{Trail, open_beneath, open_child, open_child_plainly, step_by_step};

#[test]
fn links_and_files_are_not_opened() {
    let dir = temp();
    write(dir.path(), "a/b/c", "");
    symlink("a", dir.path().join("l")).expect("symlink");
    let root = open(dir.path());
    for open in [open_child, open_child_plainly] {
        open(root.as_fd(), c"a").expect("a directory");
        for name in [c"l", c"none"] {
            let errno = open(root.as_fd(), name).expect_err("no directory");
            assert!(matches!(errno, Errno::LOOP | Errno::NOTDIR | Errno::NOENT), "{errno}");
        }
    }
    for open in [open_beneath, step_by_step] {
        for path in ["", "a", "a/b"] {
            open(root.as_fd(), path.as_bytes()).expect(path);
        }
        for path in ["l", "l/b", "a/b/c", "a/b/none", "..", "a/../.."] {
            open(root.as_fd(), path.as_bytes()).expect_err(path);
        }
    }
}

#[test]
fn mounts_are_not_crossed() {
    let root = open(Path::new("/"));
    for open in [open_child, open_child_plainly] {
        assert_eq!(open(root.as_fd(), c"proc").expect_err("a mount"), Errno::XDEV);
    }
    assert_eq!(open_beneath(root.as_fd(), b"proc/self").expect_err("a mount"), Errno::XDEV);
    assert_eq!(step_by_step(root.as_fd(), b"proc/sys").expect_err("a mount"), Errno::XDEV);
}

#[test]
fn a_trail_notices_that_a_directory_was_moved() {
    let dir = temp();
    nest(dir.path(), 40);
    let mut trail = Trail::new(open(dir.path()).as_fd()).expect("trail");
    for _ in 0..40 {
        let child = open_child(trail.here(), c"d").expect("child");
        trail.push(child).expect("push");
    }
    std::fs::create_dir(dir.path().join("other")).expect("mkdir");
    let deep = dir.path().join("d/d/d/d/d/d");
    std::fs::rename(&deep, dir.path().join("other/d")).expect("rename");
    let climbed = (0..40).try_for_each(|_| trail.pop().map(drop));
    assert_eq!(climbed, Err(Errno::STALE));
}
