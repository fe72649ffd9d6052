//! Digests of a tree: whatever is changed afterwards is named.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{open, temp, write};
use crate::tree::manifest::{self, How, compare, read_lines};
use crate::tree::xattr;

/// A tree with every type of entry, and its manifest.
fn tree() -> (tempfile::TempDir, Vec<u8>) {
    let dir = temp();
    write(dir.path(), "a/file", "content");
    write(dir.path(), "a-b", "sorts before a/file by its bytes, and after it in a walk");
    write(dir.path(), "empty", "");
    write(dir.path(), "line\nbreak", "x");
    symlink("/nowhere", dir.path().join("link")).expect("symlink");
    fs::hard_link(dir.path().join("a/file"), dir.path().join("other")).expect("link");
    mknodat(CWD, dir.path().join("fifo"), FileType::Fifo, Mode::RUSR, 0).expect("fifo");
    xattr::set(open(&dir.path().join("a")).as_fd(), c"user.note", b"1").expect("xattr");
    let mut text = Vec::new();
    let written = manifest::write(open(dir.path()).as_fd(), &mut text).expect("write");
    assert_eq!(written.lines, 9);
    (dir, text)
}

fn found(dir: &Path, text: &[u8]) -> Vec<(String, How)> {
    let lines = read_lines(text).expect("lines");
    let found = compare(open(dir).as_fd(), lines).expect("compare");
    found.into_iter().map(|one| (String::from_utf8(one.path).expect("UTF-8"), one.how)).collect()
}

/// Does one thing to the tree, and expects it to be found at `path`.
#[track_caller]
fn shows(path: &str, how: How, change: impl FnOnce(&Path)) {
    let (dir, text) = tree();
    assert_eq!(found(dir.path(), &text), []);
    change(dir.path());
    let found = found(dir.path(), &text);
    assert!(found.contains(&(path.to_owned(), how)), "{path}: {found:?}");
    // The directory around may show that its time has changed, and the file's other name; else nothing.
    let related = |other: &str| {
        Path::new(path).ancestors().any(|above| above == Path::new(other))
            || ["other", "a/file"].contains(&other)
    };
    assert!(found.iter().all(|(other, _)| related(other)), "{path}: {found:?}");
}

fn again(path: &Path, change: impl FnOnce()) {
    let time = fs::metadata(path).and_then(|meta| meta.modified()).expect("time");
    change();
    let file = fs::File::options().write(true).open(path).expect("open");
    file.set_modified(time).expect("set time");
}

#[test]
fn every_change_is_named() {
    shows("a/file", How::Content, |dir| {
        let path = dir.join("a/file");
        again(&path, || fs::write(&path, "c0ntent").expect("write"));
    });
    // The other name of the same file has changed as well.
    shows("other", How::Content, |dir| fs::write(dir.join("a/file"), "c0ntent").expect("write"));
    shows("a-b", How::Content, |dir| fs::write(dir.join("a-b"), "").expect("truncate"));
    shows("empty", How::Missing, |dir| fs::remove_file(dir.join("empty")).expect("remove"));
    shows("a/file", How::Missing, |dir| fs::remove_dir_all(dir.join("a")).expect("remove"));
    shows("a/zz", How::Extra, |dir| write(dir, "a/zz", ""));
    shows("zz", How::Extra, |dir| write(dir, "zz", ""));
    shows("link", How::Content, |dir| {
        fs::remove_file(dir.join("link")).expect("remove");
        symlink("/elsewhere", dir.join("link")).expect("symlink");
    });
    shows("fifo", How::Content, |dir| {
        fs::remove_file(dir.join("fifo")).expect("remove");
        write(dir, "fifo", "");
    });
    shows("empty", How::Metadata, |dir| {
        fs::set_permissions(dir.join("empty"), fs::Permissions::from_mode(0o4711)).expect("mode");
    });
    shows("", How::Metadata, |dir| {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o711)).expect("mode");
    });
    shows("a", How::Metadata, |dir| {
        xattr::set(open(&dir.join("a")).as_fd(), c"user.note", b"2").expect("xattr");
    });
    shows("empty", How::Metadata, |dir| {
        let file = fs::File::open(dir.join("empty")).expect("open");
        xattr::set(file.as_fd(), c"user.new", b"").expect("xattr");
    });
    shows("other", How::Metadata, |dir| {
        let path = dir.join("other");
        let time = fs::metadata(&path).and_then(|meta| meta.modified()).expect("time");
        fs::remove_file(&path).expect("remove");
        fs::write(&path, "content").expect("write");
        fs::File::options().write(true).open(&path).and_then(|f| f.set_modified(time)).expect("t");
    });
}

/// What a fold does to a layer, and overlayfs to its notes, is no change.
#[test]
fn names_elsewhere_and_notes_do_not_count() {
    let (dir, text) = tree();
    let elsewhere = temp();
    fs::hard_link(dir.path().join("empty"), elsewhere.path().join("empty")).expect("link");
    xattr::set(open(dir.path()).as_fd(), c"user.overlay.impure", b"y").expect("xattr");
    assert_eq!(found(dir.path(), &text), []);
    xattr::set(open(dir.path()).as_fd(), c"user.overlay.opaque", b"y").expect("xattr");
    assert_eq!(found(dir.path(), &text), [(String::new(), How::Metadata)]);
}

#[test]
fn a_manifest_that_was_changed_is_refused() {
    let (_dir, text) = tree();
    assert!(read_lines(&text[..text.len() - 5]).is_err());
    let mut lines: Vec<_> = text.split_inclusive(|byte| *byte == b'\n').collect();
    lines.swap(1, 2);
    assert!(read_lines(&lines.concat()).is_err());
}
