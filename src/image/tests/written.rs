//! Trees through our own writer and back.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};

use rustix::fs::{AtFlags, FileType, Mode, Timespec, Timestamps, mknodat, utimensat};

use super::*;
use crate::image::tar::write::{Form, Writer, Written};

fn write(dir: &Path, top: &[u8], form: Form) -> (Vec<u8>, Written) {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out, form);
    writer.tree(open(dir).as_fd(), top).expect("write");
    let written = writer.finish().expect("finish");
    (out, written)
}

/// A tree with one of everything that an archive can hold.
fn everything(dir: &Path) {
    fs::create_dir_all(dir.join("a/empty")).unwrap();
    fs::write(dir.join("a/plain"), b"content\n").unwrap();
    fs::write(dir.join("none"), b"").unwrap();
    fs::hard_link(dir.join("a/plain"), dir.join("second")).unwrap();
    symlink("../elsewhere", dir.join("a/link")).unwrap();
    symlink("x".repeat(300), dir.join("far")).unwrap();
    fs::write(dir.join("n".repeat(250)), b"long").unwrap();
    fs::write(dir.join("grün"), vec![7; 1000]).unwrap();
    let hole = File::create(dir.join("hole")).unwrap();
    hole.set_len(40 << 20).unwrap();
    hole.write_all_at(&[1; 5000], 8 << 20).unwrap();
    let fd = open(dir);
    mknodat(&fd, "fifo", FileType::Fifo, Mode::RUSR, 0).unwrap();
    rustix::fs::fsetxattr(
        File::open(dir.join("a/plain")).unwrap(),
        "user.note",
        b"\0binary\nvalue",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    fs::set_permissions(dir.join("second"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(dir.join("a/empty"), fs::Permissions::from_mode(0o1777)).unwrap();
    for (name, sec, nsec) in [("a/plain", 1_700_000_000, 123_456_789), ("far", -2, 250_000_000)] {
        let time = Timespec { tv_sec: sec, tv_nsec: nsec };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(&fd, name, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

#[test]
fn what_is_written_is_read_as_the_same_tree() {
    let (from, to) = (temp(), temp());
    everything(from.path());
    let (first, written) = write(from.path(), b"top", Form::default());
    assert_eq!((written.changed, written.sockets, written.mounts), (0, 0, 0));
    assert!(first.len() < 1 << 20, "holes are written: {}", first.len());
    let (totals, remembered) = unpack(&first, to.path()).unwrap();
    assert_eq!((totals.files, totals.xattrs_lost, remembered.len()), (written.entries, 0, 0));
    let (second, _) = write(&to.path().join("top"), b"top", Form::default());
    assert!(first == second, "it came back as another tree");
    let stat = fs::metadata(to.path().join("top/hole")).unwrap();
    assert!(stat.len() == 40 << 20 && stat.blocks() < 1000, "{stat:?}");
}

#[test]
fn other_tars_read_it() {
    let from = temp();
    everything(from.path());
    let (archive, _) = write(from.path(), b"", Form::default());
    let mut names = Vec::new();
    for entry in tar::Archive::new(&archive[..]).entries().unwrap() {
        names.push(entry.unwrap().path().unwrap().to_string_lossy().into_owned());
    }
    for name in ["a/", "a/empty/", "a/link", "none", "grün", &"n".repeat(250)] {
        assert!(names.iter().any(|one| one == name), "{name}: {names:?}");
    }
}

#[test]
fn a_form_takes_away_what_gives_power() {
    let (from, to) = (temp(), temp());
    everything(from.path());
    let form = Form { owner: Some(me()), without_set_id: true, user_attributes_only: true };
    let (archive, _) = write(from.path(), b"", form);
    unpack(&archive, to.path()).unwrap();
    let mode = |name: &str| fs::metadata(to.path().join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("second"), mode("a/empty")), (0o751, 0o1777));
}

#[test]
fn sockets_are_counted() {
    let from = temp();
    let _socket = std::os::unix::net::UnixListener::bind(from.path().join("s")).unwrap();
    let (archive, written) = write(from.path(), b"t", Form::default());
    assert_eq!((written.entries, written.sockets), (1, 1));
    assert!(unpack(&archive, temp().path()).is_ok());
}
