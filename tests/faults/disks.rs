//! A store on a disk that fails: errors of a real file system and a real block device, not of failpoints.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::Case;
use crate::full::{Disk, as_root, forget_kept, mount, remount};
use crate::watch;
use crate::world::{Place, Said};

pub(crate) const CASES: &[Case] = &[
    ("cannot_write", || as_root("disk_cannot_write")),
    ("cannot_read", || as_root("disk_cannot_read")),
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
    assert!(Command::new("umount").arg(at).status().expect("umount").success());
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

/// From some block on the disk cannot be read: what lies there is named, and all else goes on.
pub(crate) fn cannot_read_inside() {
    let mut place = Place::empty();
    let (image, disk) = (place.work().join("image"), Disk(place.base.clone()));
    fs::create_dir(&*disk).expect("create directory");
    thin(&image);
    mount_image(&image, &disk);
    place.base = disk.join("store");
    place.look_again();
    place.init(&[]).code(0);
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
