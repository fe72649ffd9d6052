//! Trees through our own writer and back.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};

use rustix::fs::{AtFlags, FileType, Mode, Stat, Timespec, Timestamps, mknodat, utimensat};
use rustix::io::Errno;

use super::*;
use crate::image::tar::extract_over;
use crate::image::tar::write::{Form, Writer, Written};
use crate::tree::inscribe::inscribe;
use crate::tree::meta;
use crate::tree::owners::{Device, DeviceClass};
use crate::tree::recall::{Inside, Memory, Place};

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

/// Remembers of two files what is not on disk.
struct Two;

impl Memory for Two {
    fn of(&self, path: &[u8], _: Place<'_>, _: &Stat) -> std::result::Result<Inside, Errno> {
        Ok(match path {
            b"none" => Inside {
                device: Some(Device { class: DeviceClass::Block, major: 8, minor: 70_000 }),
                gid: Some(6),
                ..Inside::default()
            },
            b"a/link" => Inside { uid: Some(3_000_000_000), gid: Some(8), device: None },
            b"a/plain" => Inside { uid: Some(33), ..Inside::default() },
            _ => Inside::default(),
        })
    }
}

#[test]
fn what_is_remembered_is_written_and_taken_in_again() {
    if !rustix::process::geteuid().is_root() {
        // Outside of a namespace a plain user gives nothing away. `cli: owners` does the same inside, as every user.
        return;
    }
    let (from, to) = (temp(), temp());
    everything(from.path());
    let mut archive = Vec::new();
    let mut writer = Writer::new(&mut archive, Form::default()).of(b"/x", b"top").remembering(&Two);
    writer.tree(open(from.path()).as_fd(), b"top").expect("write");
    writer.finish().expect("finish");
    let (totals, known) = unpack(&archive, to.path()).unwrap();
    assert_eq!((totals.devices, totals.unmapped), (1, 2));
    let told: Vec<_> = known
        .iter()
        .map(|one| (String::from_utf8_lossy(&one.path).into_owned(), one.uid, one.gid))
        .collect();
    let is = |path: &str, uid, gid| (format!("top/{path}"), uid, gid);
    let expected = [
        is("a/link", Some(3_000_000_000), Some(8)),
        is("a/plain", Some(33), None),
        is("none", Some(me().0), Some(6)),
        // The other name of `a/plain`.
        is("second", Some(33), None),
    ];
    assert_eq!(told, expected);
    assert_eq!(known[2].device.map(|device| (device.major, device.minor)), Some((8, 70_000)));
}

#[test]
fn a_directory_that_was_there_has_what_the_archive_says() {
    if !rustix::process::geteuid().is_root() {
        // Outside of a namespace a plain user gives nothing away. `cli: owners` does the same inside, as every user.
        return;
    }
    let to = temp();
    for name in ["far", "near", "other"] {
        fs::create_dir(to.path().join(name)).unwrap();
        let dir = File::open(to.path().join(name)).unwrap();
        crate::tree::xattr::set(dir.as_fd(), meta::NAME, b"33 8 - 0 0").unwrap();
    }
    let dir = |name: &[u8], uid: u64| {
        let mut header = Raw::header(EntryType::Directory, name, 0);
        header.set_uid(uid);
        header.set_gid(u64::from(me().1));
        header.set_mode(0o755);
        header
    };
    let archive =
        Raw::default().add(dir(b"far", 77), b"").add(dir(b"near", u64::from(me().0)), b"").end();
    let (mut known, mut journal) = (Vec::new(), meta::Journal::default());
    let root = open(to.path());
    extract_over(&mut &archive[..], root.as_fd(), &own_ids(), &mut known).unwrap();
    inscribe(root.as_fd(), &known, &own_ids(), &mut journal).unwrap();
    let has = |name: &str| {
        let dir = File::open(to.path().join(name)).unwrap();
        let value = crate::tree::xattr::get(dir.as_fd(), meta::NAME).unwrap();
        value.and_then(|value| meta::Meta::parse(&value)).and_then(|meta| meta.uid)
    };
    assert_eq!((has("far"), has("near"), has("other")), (Some(77), None, Some(33)));
    assert!(!journal.is_empty(), "a commit has to look for the attribute");
}
