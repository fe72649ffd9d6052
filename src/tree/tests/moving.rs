//! Trees that others change while they are looked at.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};

use super::*;
use crate::fault::Result;
use crate::tree::usage::{filled, up_to, usage};
use crate::tree::{Descend, Visit, Visitor, walk};

/// Removes everything else in the tree at the first entry.
struct Remover<'a> {
    root: &'a std::path::Path,
    tolerant: bool,
    seen: usize,
}

impl Visitor for Remover<'_> {
    fn entry(&mut self, visit: &Visit<'_>) -> Result<Descend> {
        self.seen += 1;
        if visit.path == b"a" {
            fs::remove_file(self.root.join("b")).expect("remove");
            fs::remove_dir(self.root.join("c")).expect("remove");
        }
        Ok(Descend::Yes)
    }

    fn enter(&mut self, _dir: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
        assert_ne!(path, b"c");
        Ok(())
    }

    fn tolerates_change(&self) -> bool {
        self.tolerant
    }
}

#[test]
fn what_goes_meanwhile_is_a_fault_unless_it_may() {
    for tolerant in [true, false] {
        let dir = temp();
        for file in ["a", "b", "d"] {
            write(dir.path(), file, "");
        }
        fs::create_dir(dir.path().join("c")).expect("directory");
        let mut remover = Remover { root: dir.path(), tolerant, seen: 0 };
        let walked = walk(open(dir.path()).as_fd(), &mut remover);
        assert_eq!((walked.is_ok(), remover.seen), if tolerant { (true, 2) } else { (false, 1) });
    }
}

#[test]
fn a_tree_that_was_removed_takes_nothing_but_itself() {
    let dir = temp();
    let gone = dir.path().join("gone");
    fs::create_dir(&gone).expect("directory");
    let fd = open(&gone);
    fs::remove_dir(&gone).expect("remove");
    assert!(usage(fd.as_fd()).expect("usage").total() < 1 << 20);
}

#[test]
fn measuring_ends_with_the_limit() {
    let dir = temp();
    for name in 0..10 {
        write(dir.path(), &format!("f{name}"), &"x".repeat(100 << 10));
    }
    let fd = open(dir.path());
    let (all, whole) = up_to(fd.as_fd(), u64::MAX);
    assert!(whole && all >= 1000 << 10, "{all}");
    let (some, whole) = up_to(fd.as_fd(), 300 << 10);
    assert!(!whole && some > 300 << 10 && some < 600 << 10, "{some}");
}

#[test]
fn what_was_put_into_a_tree_is_measured_without_an_empty_root() {
    let dir = temp();
    let fd = open(dir.path());
    assert_eq!(filled(fd.as_fd()).expect("measured"), 0);
    assert_eq!(up_to(fd.as_fd(), u64::MAX), (0, true));
    write(dir.path(), "f", &"x".repeat(100 << 10));
    let all = usage(fd.as_fd()).expect("usage").total();
    assert_eq!(filled(fd.as_fd()).expect("measured"), all);
    assert!(all >= 100 << 10, "{all}");
}
