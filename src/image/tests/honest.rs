//! Archives as tar programs write them.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use super::*;
use crate::tree::owners::{Device, DeviceClass};
use crate::tree::xattr;

fn stat(root: &Path, path: &str) -> fs::Metadata {
    fs::symlink_metadata(root.join(path)).expect(path)
}

#[test]
fn every_type_arrives_with_its_attributes() {
    let to = temp();
    let mut setuid = Raw::header(EntryType::Regular, b"./d/set", 2);
    setuid.set_mode(0o4755);
    let archive = Raw::default()
        .dir(b"./", 0o750)
        .dir(b"d/", 0o500)
        .pax(&[("mtime", b"-1.25"), ("SCHILY.xattr.user.bin", b"a\n1 b=\0c\n")])
        .file(b"d/file", b"content")
        .add(setuid, b"id")
        .symlink(b"d/link", b"../../etc/passwd")
        .link(EntryType::Link, b"d/hard", b"./d/file")
        .add(Raw::header(EntryType::Fifo, b"d/fifo", 0), b"")
        .file(b"implicit/parent/x", b"")
        .end();
    let (totals, owners) = unpack(&archive, to.path()).expect("extract");
    assert_eq!((totals.files, totals.bytes, totals.xattrs_lost), (9, 9, 0));
    assert_eq!(owners, []);
    assert_eq!(stat(to.path(), "").mode() & 0o7777, 0o750);
    assert_eq!(stat(to.path(), "d").mode() & 0o7777, 0o500);
    assert_eq!(stat(to.path(), "d").mtime(), 1_000_000_000);
    assert_eq!(stat(to.path(), "implicit/parent").mode() & 0o7777, 0o755);
    let file = stat(to.path(), "d/file");
    assert_eq!((file.mtime(), file.mtime_nsec()), (-2, 750_000_000));
    assert_eq!(file.ino(), stat(to.path(), "d/hard").ino());
    let fd = fs::File::open(to.path().join("d/file")).expect("open");
    assert_eq!(xattr::get(fd.as_fd(), c"user.bin"), Ok(Some(b"a\n1 b=\0c\n".to_vec())));
    assert_eq!(stat(to.path(), "d/set").mode() & 0o7777, 0o4755);
    assert!(stat(to.path(), "d/fifo").file_type().is_fifo());
    let link = fs::read_link(to.path().join("d/link")).expect("link");
    assert_eq!(link, Path::new("../../etc/passwd"));
    assert_eq!(stat(to.path(), "d/link").mtime(), 1_000_000_000);
    // A plain user could not remove it as it is.
    fs::set_permissions(to.path().join("d"), fs::Permissions::from_mode(0o700)).expect("chmod");
}

#[test]
fn a_later_entry_takes_the_place_of_an_earlier() {
    let to = temp();
    fs::write(to.path().join("canary"), "safe").expect("canary");
    let archive = Raw::default()
        .file(b"a", b"first")
        .link(EntryType::Link, b"b", b"a")
        .file(b"a", b"second")
        .symlink(b"l", b"canary")
        .file(b"l", b"no link")
        .symlink(b"dl", b"d")
        .dir(b"d", 0o700)
        .dir(b"dl", 0o755)
        .file(b"dl/x", b"")
        .dir(b"d", 0o711)
        .dir(b"e", 0o700)
        .file(b"e", b"was a directory")
        .device(EntryType::Char, b"n", 1, 3)
        .file(b"n", b"was a device")
        .dir(b"dev", 0o755)
        .device(EntryType::Char, b"dev/null", 1, 3)
        .file(b"dev", b"was a directory of devices")
        .end();
    let (_, owners) = unpack(&archive, to.path()).expect("extract");
    let read = |path: &str| fs::read_to_string(to.path().join(path)).expect(path);
    assert_eq!((read("a"), read("b")), ("second".into(), "first".into()));
    assert_eq!((read("canary"), read("l")), ("safe".into(), "no link".into()));
    assert!(stat(to.path(), "dl").is_dir() && to.path().join("dl/x").exists());
    assert_eq!(stat(to.path(), "d").mode() & 0o7777, 0o711);
    assert_eq!(read("e"), "was a directory");
    assert_eq!(read("n"), "was a device");
    assert_eq!(owners, []);
}

#[test]
fn devices_are_remembered_and_not_made() {
    let to = temp();
    let archive = Raw::default()
        .dir(b"dev", 0o755)
        .device(EntryType::Char, b"dev/null", 1, 3)
        .device(EntryType::Block, b"dev/sda", 8, 0)
        .device(EntryType::Char, b"gone", 0, 0)
        .link(EntryType::Link, b"dev/zilch", b"dev/null")
        .end();
    let (totals, owners) = unpack(&archive, to.path()).expect("extract");
    assert_eq!((totals.files, totals.devices), (1, 4));
    assert_eq!(fs::read_dir(to.path().join("dev")).expect("list").count(), 0);
    assert!(!to.path().join("gone").exists());
    let found: Vec<_> = owners
        .iter()
        .map(|entry| (String::from_utf8_lossy(&entry.path).into_owned(), entry.device))
        .collect();
    let device = |class, major, minor| Some(Device { class, major, minor });
    let expected = [
        ("dev/null".to_owned(), device(DeviceClass::Char, 1, 3)),
        ("dev/sda".to_owned(), device(DeviceClass::Block, 8, 0)),
        ("dev/zilch".to_owned(), device(DeviceClass::Char, 1, 3)),
        ("gone".to_owned(), device(DeviceClass::Char, 0, 0)),
    ];
    assert_eq!(found, expected);
    assert_eq!((owners[0].uid, owners[0].mode), (Some(me().0), Some(0o644)));
}

#[test]
fn owners_that_the_map_cannot_hold_are_remembered() {
    if me() != (0, 0) {
        return; // Such files become 0:0, which only 0 can give away.
    }
    let to = temp();
    let mut mail = Raw::header(EntryType::Regular, b"mail", 0);
    mail.set_gid(8);
    mail.set_mode(0o2755);
    let archive = Raw::default()
        .add(mail, b"")
        .link(EntryType::Link, b"post", b"mail")
        .pax(&[("uid", b"3000000"), ("gid", b"8")])
        .symlink(b"link", b"mail")
        .end();
    let (totals, owners) = unpack(&archive, to.path()).expect("extract");
    assert_eq!(totals.unmapped, 2);
    let found: Vec<_> = owners.iter().map(|e| (&e.path[..], e.uid, e.gid, e.mode)).collect();
    let expected = [
        (&b"link"[..], Some(3_000_000), Some(8), Some(0o644)),
        (b"mail", None, Some(8), Some(0o2755)),
        (b"post", None, Some(8), Some(0o2755)),
    ];
    assert_eq!(found, expected);
    assert_eq!(
        (stat(to.path(), "mail").gid(), stat(to.path(), "mail").mode() & 0o7777),
        (0, 0o2755)
    );
}

#[test]
fn file_capabilities_survive_the_change_of_owner() {
    let to = temp();
    // VFS_CAP_REVISION_2 with CAP_NET_RAW, see capabilities(7); it holds a line end on purpose.
    let value = [1, 0, 0, 2, 0, 0x20, 0, 0, b'\n', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let archive = Raw::default()
        .pax(&[
            ("SCHILY.xattr.security.capability", &value),
            ("SCHILY.xattr.security.selinux", b"x"),
        ])
        .file(b"ping", b"")
        .end();
    let (totals, _) = unpack(&archive, to.path()).expect("extract");
    let file = fs::File::open(to.path().join("ping")).expect("open");
    let found = xattr::get(file.as_fd(), c"security.capability").expect("read");
    if me().0 == 0 {
        assert_eq!(totals.xattrs_lost, 1);
        assert_eq!(found.map(|value| value[4..8].to_vec()), Some(value[4..8].to_vec()));
    } else {
        assert_eq!((totals.xattrs_lost, found), (2, None));
    }
}

#[test]
fn holes_are_made_and_content_is_right() {
    let to = temp();
    let mut content = vec![0; 9 << 20];
    content[5 << 20] = 1;
    content[(9 << 20) - 1] = 2;
    unpack(&Raw::default().file(b"f", &content).end(), to.path()).expect("extract");
    assert!(fs::read(to.path().join("f")).expect("read") == content);
    assert!(stat(to.path(), "f").blocks() * 512 < 1 << 20);
}

#[test]
fn every_form_of_sparse_file_is_read() {
    let map: &[u8] = b"2\n4096\n4\n1048576\n4\n";
    let mut in_data = map.to_vec();
    in_data.resize(512, 0);
    in_data.extend_from_slice(b"onetwo!!");
    let mut old = Raw::header(EntryType::GNUSparse, b"old", 8);
    let gnu = old.as_gnu_mut().expect("gnu");
    gnu.set_real_size(2_000_000);
    for (place, offset) in [4096, 1_048_576].into_iter().enumerate() {
        gnu.sparse[place].set_offset(offset);
        gnu.sparse[place].set_length(4);
    }
    let repeated: [(&str, &[u8]); 5] = [
        ("GNU.sparse.size", b"2000000"),
        ("GNU.sparse.offset", b"4096"),
        ("GNU.sparse.numbytes", b"4"),
        ("GNU.sparse.offset", b"1048576"),
        ("GNU.sparse.numbytes", b"4"),
    ];
    let listed: [(&str, &[u8]); 3] = [
        ("GNU.sparse.size", b"2000000"),
        ("GNU.sparse.map", b"4096,4,1048576,4"),
        ("GNU.sparse.name", b"v01"),
    ];
    let modern: [(&str, &[u8]); 4] = [
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"v10"),
        ("GNU.sparse.realsize", b"2000000"),
    ];
    let archive = Raw::default()
        .add(old, b"onetwo!!")
        .pax(&repeated)
        .file(b"v00", b"onetwo!!")
        .pax(&listed)
        .file(b"GNUSparseFile.1/v01", b"onetwo!!")
        .pax(&modern)
        .file(b"GNUSparseFile.1/v10", &in_data)
        .file(b"after", b"")
        .end();
    let to = temp();
    let (totals, _) = unpack(&archive, to.path()).expect("extract");
    assert_eq!(totals.files, 5);
    let mut expected = vec![0; 2_000_000];
    expected[4096..4100].copy_from_slice(b"onet");
    expected[1_048_576..1_048_580].copy_from_slice(b"wo!!");
    for name in ["old", "v00", "v01", "v10"] {
        assert!(fs::read(to.path().join(name)).expect(name) == expected, "{name}");
        assert!(stat(to.path(), name).blocks() * 512 < 100_000, "{name}");
    }
}

#[test]
fn long_names_of_both_kinds() {
    let to = temp();
    let long = [b"directory/".repeat(30), b"file".to_vec()].concat();
    let ended = [long.as_slice(), b"2\0"].concat();
    let archive = Raw::default()
        .pax(&[("path", &long)])
        .file(b"short", b"pax")
        .add(Raw::header(EntryType::GNULongName, b"././@LongLink", ended.len() as u64), &ended)
        .file(b"short", b"gnu")
        .add(Raw::header(EntryType::GNULongLink, b"././@LongLink", long.len() as u64), &long)
        .link(EntryType::Link, b"hard", b"short")
        .end();
    unpack(&archive, to.path()).expect("extract");
    let deep = to.path().join(String::from_utf8(long).expect("text"));
    assert_eq!(fs::read(&deep).expect("read"), b"pax");
    assert_eq!(fs::read(deep.with_file_name("file2")).expect("read"), b"gnu");
    assert_eq!(fs::read(to.path().join("hard")).expect("read"), b"pax");
}
