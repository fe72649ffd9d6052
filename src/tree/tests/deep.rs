//! Walks and removals of trees that are deep, wide, locked or full of links.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::tree::{Descend, Visit, remove_tree, walk};

const DEEP: usize = 5_000;

#[test]
fn walks_in_the_order_of_names_directories_first() {
    let dir = temp();
    for path in ["b/z", "b/a", "b-c", "a", "b/y/x"] {
        write(dir.path(), path, "");
    }
    symlink("/", dir.path().join("l")).expect("symlink");
    let mut seen = Vec::new();
    walk(open(dir.path()).as_fd(), &mut |visit: &Visit<'_>| {
        seen.push(String::from_utf8_lossy(visit.path).into_owned());
        Ok(Descend::Yes)
    })
    .expect("walk");
    assert_eq!(seen, ["a", "b", "b/a", "b/y", "b/y/x", "b/z", "b-c", "l"]);
}

#[test]
fn a_walk_can_leave_directories_out() {
    let dir = temp();
    write(dir.path(), "a/b", "");
    write(dir.path(), "c/d", "");
    let mut seen = 0;
    walk(open(dir.path()).as_fd(), &mut |visit: &Visit<'_>| {
        seen += 1;
        Ok(if visit.path == b"a" { Descend::No } else { Descend::Yes })
    })
    .expect("walk");
    assert_eq!(seen, 3);
}

#[test]
fn depth_costs_neither_stack_nor_descriptors() {
    let dir = temp();
    nest(dir.path(), DEEP);
    let mut seen = 0;
    let mut highest = 0;
    walk(open(dir.path()).as_fd(), &mut |visit: &Visit<'_>| {
        seen += 1;
        highest = highest.max(std::os::fd::AsRawFd::as_raw_fd(&visit.dir));
        Ok(Descend::Yes)
    })
    .expect("walk");
    assert_eq!(seen, DEEP + 1);
    assert!(highest < 600, "descriptor {highest}");
    let removed = remove_tree(open(dir.path()).as_fd(), OsStr::new("d")).expect("remove");
    assert_eq!(removed.files, DEEP as u64 + 1);
    assert!(!dir.path().join("d").exists());
}

#[test]
fn removes_directories_that_deny_everything() {
    let dir = temp();
    write(dir.path(), "t/a/b/c", "x");
    write(dir.path(), "t/full/file", "x");
    for (path, mode) in [("t/a/b", 0), ("t/a", 0), ("t/full", 0o555), ("t", 0o111)] {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(dir.path().join(path), mode).expect("chmod");
    }
    let removed = remove_tree(open(dir.path()).as_fd(), OsStr::new("t")).expect("remove");
    assert_eq!(removed.files, 6);
}

#[test]
fn removes_links_and_not_what_they_lead_to() {
    let dir = temp();
    write(dir.path(), "canary/file", "safe");
    write(dir.path(), "t/x", "");
    symlink(dir.path().join("canary"), dir.path().join("t/link")).expect("symlink");
    symlink("canary", dir.path().join("top")).expect("symlink");
    for name in ["t", "top"] {
        remove_tree(open(dir.path()).as_fd(), OsStr::new(name)).expect("remove");
    }
    assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
    assert_eq!(fs::read(dir.path().join("canary/file")).expect("read"), b"safe");
}

#[test]
fn removes_a_wide_directory_and_counts_what_it_gives_back() {
    let dir = temp();
    for number in 0..3_000 {
        write(dir.path(), &format!("t/{number}"), "");
    }
    write(dir.path(), "t/big", &"x".repeat(100_000));
    let removed = remove_tree(open(dir.path()).as_fd(), OsStr::new("t")).expect("remove");
    assert_eq!(removed.files, 3_002);
    assert!(removed.bytes >= 100_000, "{}", removed.bytes);
}

#[test]
fn nothing_to_remove_is_no_fault() {
    let dir = temp();
    let removed = remove_tree(open(dir.path()).as_fd(), OsStr::new("none")).expect("remove");
    assert_eq!(removed.files, 0);
}
