//! Copies keep what they say they keep.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;
use crate::tree::{Remembered, Strangers, Totals, View, compare, copy_tree, xattr};

fn copied(src: &Path, dst: &Path, ids: &IdMap) -> (Totals, Vec<Remembered>) {
    let mut owners = Vec::new();
    let totals = copy_tree(
        open(src).as_fd(),
        open(dst).as_fd(),
        ids,
        &mut owners,
        &[],
        &Strangers::default(),
    )
    .expect("copy");
    // What is written into the record of the layer is what lies there.
    let there = crate::tree::measure(open(dst).as_fd()).expect("measure");
    assert_eq!((totals.files, totals.bytes), (there.files, there.bytes));
    (totals, owners)
}

#[test]
fn a_copy_is_equal() {
    let (src, dst) = (temp(), temp());
    write(src.path(), "a/file", "content");
    write(src.path(), "set", "id");
    symlink("/nowhere", src.path().join("link")).expect("symlink");
    mknodat(CWD, src.path().join("fifo"), FileType::Fifo, Mode::RUSR, 0).expect("fifo");
    fs::hard_link(src.path().join("a/file"), src.path().join("b")).expect("link");
    let file = fs::File::options().write(true).open(src.path().join("a/file")).expect("open");
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    file.set_modified(time).expect("time");
    xattr::set(file.as_fd(), c"user.note", b"1").expect("xattr");
    for (path, mode) in [("set", 0o4755), ("a", 0o2551), ("a/file", 0o400)] {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(src.path().join(path), mode).expect("chmod");
    }
    let _socket = UnixListener::bind(src.path().join("socket")).expect("socket");
    let (totals, owners) = copied(src.path(), dst.path(), &own_ids());
    assert_eq!((totals.files, totals.bytes, totals.sockets), (6, 9, 1));
    assert_eq!(owners, []);
    fs::remove_file(src.path().join("socket")).expect("remove");
    let (from, to) = (open(src.path()), open(dst.path()));
    let changes =
        compare(Some(&View::plain(from.as_fd())), &View::plain(to.as_fd()), &[from.as_fd()])
            .expect("compare");
    assert_eq!(changes, []);
    let stat = |path: &str| fs::symlink_metadata(dst.path().join(path)).expect("stat");
    assert_eq!(stat("a/file").ino(), stat("b").ino());
    assert_eq!(stat("a/file").mtime_nsec(), 123_456_789);
    assert_eq!(stat("set").mode() & 0o7777, 0o4755);
    assert!(stat("fifo").file_type().is_fifo());
    // A plain user could not remove them as they are.
    for dir in [&src, &dst] {
        let open = fs::Permissions::from_mode(0o700);
        fs::set_permissions(dir.path().join("a"), open).expect("chmod");
    }
}

#[test]
fn holes_stay_holes() {
    let (src, dst) = (temp(), temp());
    let mut file = fs::File::create(src.path().join("sparse")).expect("create");
    file.write_all(b"start").expect("write");
    file.seek(SeekFrom::Start(32 << 20)).expect("seek");
    file.write_all(b"middle").expect("write");
    file.set_len(64 << 20).expect("size");
    copied(src.path(), dst.path(), &own_ids());
    let found = dst.path().join("sparse");
    assert!(fs::metadata(&found).expect("stat").blocks() * 512 < 1 << 20);
    let same = fs::read(src.path().join("sparse")).expect("read") == fs::read(found).expect("read");
    assert!(same);
}

#[test]
fn overlay_notes_are_not_copied() {
    let (src, dst) = (temp(), temp());
    write(src.path(), "d/x", "");
    xattr::set(open(&src.path().join("d")).as_fd(), c"user.overlay.opaque", b"y").expect("xattr");
    copied(src.path(), dst.path(), &own_ids());
    assert_eq!(xattr::names(open(&dst.path().join("d")).as_fd()), Ok(vec![]));
}

#[test]
fn a_deep_tree_is_copied() {
    let (src, dst) = (temp(), temp());
    nest(src.path(), 2_500);
    let (totals, _) = copied(src.path(), dst.path(), &own_ids());
    assert_eq!(totals.files, 2_501);
    for dir in [src, dst] {
        let fd = open(dir.path());
        crate::tree::remove_tree(fd.as_fd(), std::ffi::OsStr::new("d")).expect("remove");
    }
}

#[test]
fn what_the_map_cannot_hold_is_remembered() {
    let (src, dst) = (temp(), temp());
    write(src.path(), "mail", "x");
    if !is_root() || chown(src.path().join("mail"), Some(7), Some(8)).is_err() {
        return; // Only an id 0 with more than one id can make such a source.
    }
    fs::set_permissions(src.path().join("mail"), fs::Permissions::from_mode(0o4755))
        .expect("chmod");
    fs::hard_link(src.path().join("mail"), src.path().join("post")).expect("link");
    let device = mknodat(
        CWD,
        src.path().join("null"),
        FileType::CharacterDevice,
        Mode::RUSR,
        rustix::fs::makedev(1, 3),
    );
    let (totals, mut owners) = copied(src.path(), dst.path(), &own_ids());
    crate::tree::owners::settle(&mut owners);
    let stat = fs::metadata(dst.path().join("mail")).expect("stat");
    assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777), (0, 0, 0o4755));
    let paths: Vec<_> = owners.iter().map(|entry| entry.path.as_slice()).collect();
    assert_eq!(paths[0], b"mail");
    assert_eq!((owners[0].uid, owners[0].gid, owners[0].mode), (Some(7), Some(8), Some(0o4755)));
    if device.is_ok() {
        assert_eq!(paths, [&b"mail"[..], b"null", b"post"]);
        assert_eq!(totals.devices, 1);
        assert!(!dst.path().join("null").exists());
    } else {
        assert_eq!(paths, [&b"mail"[..], b"post"]);
    }
}
