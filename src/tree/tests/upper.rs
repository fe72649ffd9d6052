//! Uppers: what is allowed in them and what is not.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;

use rustix::fs::{CWD, FileType, Mode, fsetxattr, mknodat};

use super::*;
use crate::fault::Kind;
use crate::tree::whiteout::{Meaning, Opacity, is_whiteout, meaning, opacity};
use crate::tree::{dir, measure};

fn mark(path: &Path, name: &str, value: &[u8]) {
    let file = fs::File::open(path).expect("open");
    fsetxattr(&file, name, value, rustix::fs::XattrFlags::empty()).expect("setxattr");
}

#[test]
fn counts_files_once_and_bytes_of_links_once() {
    let dir = temp();
    write(dir.path(), "a/one", "12345");
    fs::hard_link(dir.path().join("a/one"), dir.path().join("a/two")).expect("link");
    let _socket = UnixListener::bind(dir.path().join("s")).expect("socket");
    let totals = measure(open(dir.path()).as_fd()).expect("measure");
    assert_eq!((totals.files, totals.bytes, totals.sockets), (4, 5, 1));
}

#[test]
fn lets_pass_what_overlayfs_and_payloads_leave() {
    let dir = temp();
    write(dir.path(), "d/empty", "");
    for name in ["origin", "impure", "uuid", "nlink", "protattr", "overlay.redirect"] {
        mark(&dir.path().join("d"), &format!("user.overlay.{name}"), b"y");
    }
    mark(&dir.path().join("d"), "user.overlay.opaque", b"x");
    mark(&dir.path().join("d/empty"), "user.overlay.whiteout", b"");
    mark(&dir.path().join("d/empty"), "user.mine", b"1");
    if mknodat(CWD, dir.path().join("gone"), FileType::CharacterDevice, Mode::empty(), 0).is_ok() {
        let fd = open(dir.path());
        let stat = dir::lstat(fd.as_fd(), c"gone").expect("stat");
        assert!(is_whiteout(fd.as_fd(), c"gone", &stat).expect("read"));
    }
    measure(open(dir.path()).as_fd()).expect("a good upper");
    let d = open(&dir.path().join("d"));
    assert_eq!(opacity(d.as_fd()), Ok(Opacity::Xattrs));
    let stat = dir::lstat(d.as_fd(), c"empty").expect("stat");
    assert!(is_whiteout(d.as_fd(), c"empty", &stat).expect("read"));
}

#[test]
fn refuses_forged_notes_and_names_the_path() {
    for (target, name, value) in [
        ("d", "user.overlay.redirect", "/etc"),
        ("d", "user.overlay.metacopy", ""),
        ("d", "user.overlay.new", ""),
        ("d", "user.overlay.opaque", "z"),
        ("d/hole", "user.overlay.metacopy", ""),
        ("d/empty", "user.overlay.redirect", "/etc/shadow"),
    ] {
        let dir = temp();
        write(dir.path(), "d/empty", "");
        let hole = fs::File::create(dir.path().join("d/hole")).expect("create");
        hole.set_len(1 << 20).expect("hole");
        mark(&dir.path().join(target), name, value.as_bytes());
        let fault = measure(open(dir.path()).as_fd()).expect_err(name);
        assert_eq!(fault.kind, Kind::Failed);
        assert!(fault.message.contains(&format!("/{target}:")), "{fault}");
    }
}

#[test]
fn refuses_real_devices() {
    for (class, device) in [
        (FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
        (FileType::BlockDevice, rustix::fs::makedev(0, 0)),
    ] {
        let dir = temp();
        if mknodat(CWD, dir.path().join("null"), class, Mode::empty(), device).is_err() {
            continue;
        }
        let fault = measure(open(dir.path()).as_fd()).expect_err("a device");
        assert!(fault.message.contains("/null"), "{fault}");
    }
}

#[test]
fn knows_what_names_mean() {
    let escaped = Meaning::Escaped(c"user.overlay.opaque".to_owned());
    for (name, expected) in [
        (c"user.overlay.opaque", Meaning::Opaque),
        (c"user.overlay.whiteout", Meaning::Whiteout),
        (c"user.overlay.overlay.opaque", escaped),
        (c"user.overlay.origin", Meaning::Note),
        (c"user.overlay.redirect", Meaning::Refused),
        (c"user.overlay.", Meaning::Refused),
        (c"trusted.overlay.opaque", Meaning::Refused),
        (c"user.overlayed", Meaning::Foreign),
        (c"security.capability", Meaning::Foreign),
    ] {
        assert_eq!(meaning(name), expected, "{name:?}");
    }
}
