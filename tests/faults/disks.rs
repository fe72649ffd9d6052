//! A store on a disk that fails: errors of a real file system and a real block device, not of failpoints.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::Case;
use crate::full::{Disk, as_root, forget_kept, mount, remount};
use crate::watch;
use crate::world::{Place, Said};

pub(crate) const CASES: &[Case] = &[
    ("cannot_write", || as_root("disk_cannot_write")),
    ("cannot_read", || as_root("disk_cannot_read")),
    ("broken_directories", || as_root("disk_broken_directories")),
    ("broken_folders", || as_root("disk_broken_folders")),
];

/// A disk of 64 MiB whose blocks lie in `image`, made when they are written first.
fn thin(image: &Path) {
    fs::File::create(image).and_then(|file| file.set_len(64 << 20)).expect("image");
    let words = ["-q", "-m", "0", "-b", "4096", "-N", "2000"];
    let made = Command::new("mkfs.ext4").args(words).arg(image).status();
    assert!(made.expect("mkfs.ext4").success());
}

#[track_caller]
pub(crate) fn mount_image(image: &Path, at: &Path) {
    let mounted = Command::new("mount").args(["-o", "loop"]).arg(image).arg(at).status();
    assert!(mounted.expect("mount").success());
}

#[track_caller]
fn unmount(at: &Path) {
    // Whoever empties the trash may be at work for a moment still.
    let gone = (0..100).any(|_| {
        let done = Command::new("umount").arg(at).output().expect("umount").status.success();
        done || {
            std::thread::sleep(Duration::from_millis(100));
            false
        }
    });
    assert!(gone, "{} is busy", at.display());
}

/// The kernel takes what a command writes and fails later, when it writes it back: here before the commit asks.
pub(crate) fn cannot_write_inside() {
    let mut place = Place::empty();
    let (beneath, disk) = (Disk(place.work().join("beneath")), Disk(place.base.clone()));
    for folder in [&beneath, &disk] {
        fs::create_dir(&**folder).expect("create directory");
    }
    mount("tmpfs", "size=24m", &beneath);
    let image = beneath.join("image");
    thin(&image);
    mount_image(&image, &disk);
    place.base = disk.join("store");
    place.look_again();
    place.init(&[]).code(0);
    place.line(&["--commit", "good"], "echo good >/good").code(0);
    let big = "dd if=/dev/urandom of=/big bs=1M count=30 status=none; sleep 3";
    let mut command = place.command(["run", "--commit", "never", "--", "sh", "-c", big]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("start");
    std::thread::sleep(Duration::from_secs(2));
    let synced = Command::new("sync").arg("-f").arg(&*disk).output().expect("sync");
    let said = Said::from(child.wait_with_output().expect("wait"));
    assert!(!synced.status.success(), "the disk has taken it all: {said:?}");
    assert!(said.code == 125 && said.err.contains("write layer to disk"), "{said:?}");
    // What is there can still be looked at.
    assert_eq!(place.snapshots().len(), 2);
    // With room beneath it goes on as if nothing had been.
    unmount(&disk);
    remount("size=100m", &beneath);
    mount_image(&image, &disk);
    place.look_again();
    forget_kept(&place);
    place.said(&["gc", "--all"]).code(0);
    crate::disk::Disk::read(&place.base).clean("afterwards");
    place.said(&["fsck"]).code(0);
    place.line(&["--from", "good"], "[ \"$(cat /good)\" = good ]").code(0);
    place.line(&["--commit", "after"], "echo x >/x").code(0);
    place.pristine();
}

/// A place whose store lies on a disk of its own, and that disk's image. (Disks go before the directory around.)
fn on_a_disk() -> (Place, PathBuf, Disk) {
    let mut place = Place::empty();
    let (image, disk) = (place.work().join("image"), Disk(place.base.clone()));
    fs::create_dir(&*disk).expect("create directory");
    thin(&image);
    mount_image(&image, &disk);
    place.base = disk.join("store");
    place.look_again();
    place.init(&[]).code(0);
    (place, image, disk)
}

/// From some block on the disk cannot be read: what lies there is named, and all else goes on.
pub(crate) fn cannot_read_inside() {
    let (mut place, image, disk) = on_a_disk();
    place.line(&["--commit", "good", "--digest"], "echo good >/good").code(0);
    place.said(&["snapshot", "first"]).code(0);
    let big = "dd if=/dev/urandom of=/big bs=1M count=20 status=none";
    place.line(&["--commit", "bad", "--digest"], big).code(0);
    let shown = place.said(&["show", "bad", "--json"]).code(0).out;
    let layer = shown.split("\"layer\":\"").nth(1).expect("layer")[..26].to_owned();
    let file = place.base.join(format!("layers/{layer}/fs/big"));
    let end = last_block(&file);
    unmount(&disk);
    cut(&image, (end - 256) * 4096, &disk);
    place.look_again();
    let name = place.base.join("boxes/default/refs/bad");
    let unreadable = fs::read(&name).is_err();
    place.line(&["--from", "good"], "[ \"$(cat /good)\" = good ]").code(0);
    let before = watch::names(&place.base.join("layers"));
    let found = place.said(&["fsck", "--json"]).code(7).out;
    let path = if unreadable { "boxes/default/refs/bad" } else { "\"big\"" };
    assert!(found.contains(path) && !found.contains("good"), "{found}");
    if unreadable {
        place.said(&["list"]).refused(7, "refs/bad");
        place.said(&["gc", "--all"]).code(7);
    }
    assert_eq!(watch::names(&place.base.join("layers")), before);
    place.said(&["fsck", "--repair"]).code(0);
    let names: Vec<_> = place.snapshots().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["postinit", "good", "first"]);
    place.line(&["--from", "good"], "[ \"$(cat /good)\" = good ]").code(0);
    place.pristine();
}

/// Directories that the disk cannot read, with digests and without, in a tree and around one: each is one finding with
/// its path, the rest of the store is looked at, and mended without harm to what is whole.
pub(crate) fn broken_directories_inside() {
    let (mut place, image, disk) = on_a_disk();
    let names = "mkdir -p /d/e; for n in 1 2 3 4; do echo x >/d/$n; echo y >/d/e/$n; done";
    place.line(&["--commit", "plain"], names).code(0);
    place.line(&["--commit", "sealed", "--digest"], names).code(0);
    place.line(&["--commit", "around"], names).code(0);
    place.line(&["--commit", "fewer"], "echo x >/fewer").code(0);
    place.line(&["--commit", "good", "--digest"], names).code(0);
    let snapshots: std::collections::BTreeMap<_, _> = place.snapshots().into_iter().collect();
    let layer = |name: &str| format!("layers/{}", snapshots[name]);
    fs::remove_file(place.base.join(layer("fewer")).join("fs/fewer")).expect("remove");
    unmount(&disk);
    for (name, dir) in [("plain", "fs/d"), ("sealed", "fs/d/e"), ("around", "")] {
        erase(&image, &format!("/store/{}/{dir}", layer(name)));
    }
    mount_image(&image, &disk);
    place.look_again();
    let report = place.said(&["fsck", "--json"]).code(7).out;
    let report: serde_json::Value = serde_json::from_str(&report).expect("json");
    let found: Vec<_> = report["damage"].as_array().expect("damage").iter().collect();
    let at = |name: &str, path: &str| {
        let it = found.iter().filter(|one| one["snapshots"][0] == name && one["path"] == path);
        assert_eq!(it.count(), 1, "{name}: {path}: {report:#}");
    };
    at("plain", "d");
    at("sealed", "d/e");
    at("around", &layer("around"));
    at("fewer", ".");
    assert_eq!(found.len(), 4, "{report:#}");
    assert!(found[0]["detail"].as_str().is_some_and(|text| !text.is_empty()));
    // What opens it says so, and what does not goes on.
    place.line(&["--from", "around"], ":").refused(125, &snapshots["around"]);
    place.said(&["diff", "around"]).refused(7, &snapshots["around"]);
    place.line(&["--from", "good"], "[ -e /d/e/1 ]").code(0);
    // Digests are made of what is whole only.
    let sealed = place.said(&["fsck", "--seal", "--json"]).code(7).out;
    let sealed: serde_json::Value = serde_json::from_str(&sealed).expect("json");
    assert_eq!(sealed["sealed"], 3, "{sealed:#}");
    // A directory that cannot be read cannot be moved either; all else is mended.
    let stays = place.said(&["fsck", "--repair"]).code(7);
    assert!(stays.err.contains("e2fsck"), "{stays:?}");
    let left: Vec<_> = place.snapshots().into_iter().map(|(name, _)| name).collect();
    assert_eq!(left, ["postinit", "good"]);
    assert_eq!(watch::names(&place.base.join("layers")).len(), 3);
    place.line(&["--from", "good"], "[ -e /d/e/1 ]").code(0);
    place.line(&["--commit", "after"], ":>/after").code(0);
    unmount(&disk);
    let checked = Command::new("e2fsck").args(["-fy"]).arg(&image).output().expect("e2fsck");
    assert!(checked.status.code().is_some_and(|code| code < 4), "{checked:?}");
    mount_image(&image, &disk);
    place.look_again();
    place.said(&["fsck", "--repair"]).code(0);
    place.said(&["gc", "--all"]).code(0);
    place.said(&["fsck"]).code(0);
    let left: Vec<_> = place.snapshots().into_iter().map(|(name, _)| name).collect();
    assert_eq!(left, ["postinit", "good", "after"]);
    place.line(&["--from", "after"], "[ -e /after ]").code(0);
}

/// Directories of ours that the disk cannot read: each is named, and a repair takes nothing of what may be in there.
pub(crate) fn broken_folders_inside() {
    let (mut place, image, disk) = on_a_disk();
    place.line(&["--commit", "good"], "echo good >/good").code(0);
    let layers = watch::names(&place.base.join("layers"));
    unmount(&disk);
    let whole = place.work().join("whole");
    fs::rename(&image, &whole).expect("rename");
    for folder in ["boxes", "boxes/default", "boxes/default/refs", "layers", "runs"] {
        fs::copy(&whole, &image).expect("copy");
        erase(&image, &format!("/store/{folder}"));
        mount_image(&image, &disk);
        place.look_again();
        for repair in [false, true] {
            let words = ["fsck", "--json", "--repair"];
            let report = place.said(&words[..2 + usize::from(repair)]).code(7).out;
            let report: serde_json::Value = serde_json::from_str(&report).expect("json");
            let found = report["damage"].as_array().expect("damage");
            assert!(
                matches!(&found[..], [one] if one["path"] == folder && one["kind"] == "record"),
                "{folder}: {report:#}"
            );
            assert_eq!(report["repaired"], serde_json::json!([]), "{folder}");
        }
        // Whoever needs what is in there says so, and takes no layer for one that nobody names.
        if folder != "runs" {
            let gc = place.said(&["gc", "--all"]);
            assert!(gc.code != 0 && gc.err.contains(folder), "{folder}: {gc:?}");
        }
        if folder != "layers" {
            assert_eq!(watch::names(&place.base.join("layers")), layers, "{folder}");
        }
        unmount(&disk);
    }
}

/// Overwrites the one block of a directory of the file system in `image`, which is not mounted.
fn erase(image: &Path, dir: &str) {
    let said = Command::new("debugfs").args(["-R", &format!("blocks {dir}")]).arg(image).output();
    let said = said.expect("debugfs");
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let block: u64 = text.trim().parse().unwrap_or_else(|_| panic!("no single block: {said:?}"));
    let file = fs::File::options().write(true).open(image).expect("image");
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xa5; 4096], block * 4096).expect("erase");
}

/// The last block of a file on the disk, of 4096 bytes.
fn last_block(file: &Path) -> u64 {
    let said =
        Command::new("filefrag").args(["-e", "-b4096"]).arg(file).output().expect("filefrag");
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let ends = text
        .lines()
        .filter_map(|line| line.split("..").nth(2)?.split(':').next()?.trim().parse().ok());
    ends.max().unwrap_or_else(|| panic!("no extent: {text}"))
}

/// Mounts a disk whose blocks from here on are gone: its size is that of the image before it was cut.
fn cut(image: &Path, size: u64, at: &Path) {
    let file = fs::File::options().write(true).open(image).expect("image");
    let device =
        Command::new("losetup").args(["-f", "--show"]).arg(image).output().expect("losetup").stdout;
    let device = String::from_utf8(device).expect("a path").trim().to_owned();
    file.set_len(size).expect("cut");
    let mounted = Command::new("mount").arg(&device).arg(at).status();
    // It goes with the mount.
    drop(Command::new("losetup").args(["-d", &device]).status());
    assert!(mounted.expect("mount").success());
}
