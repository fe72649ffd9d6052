//! A store on a file system that is full, or cannot be written.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Case;
use crate::nested::inside;
use crate::watch;
use crate::world::{Place, Said, ids, tree};

pub(crate) const CASES: &[Case] = &[
    ("space", || inside("space")),
    ("inodes", || inside("inodes")),
    ("ext4", || as_root("ext4")),
    ("read_only", || inside("read_only")),
    ("no_user_xattrs", || inside("no_user_xattrs")),
];

const FULL: &str = "no space left on device";

#[track_caller]
pub(crate) fn mount(kind: &str, options: &str, at: &Path) {
    let mut command = Command::new("mount");
    command.args(["-t", kind, "-o", options, "none"]).arg(at);
    assert!(command.status().expect("mount").success());
}

#[track_caller]
pub(crate) fn remount(options: &str, at: &Path) {
    let mut command = Command::new("mount");
    command.args(["-o", &format!("remount,{options}"), "none"]).arg(at);
    assert!(command.status().expect("mount").success());
}

/// A place whose store is to be on a tmpfs of its own, with that.
fn small(options: &str) -> (Place, Disk) {
    let mut place = Place::empty();
    let disk = Disk(place.base.clone());
    fs::create_dir(&*disk).expect("create directory");
    mount("tmpfs", &format!("mode=0700,{options}"), &disk);
    place.base = disk.join("store");
    place.look_again();
    (place, disk)
}

/// Where it is mounted, until this is dropped.
pub(crate) struct Disk(pub(crate) PathBuf);

impl std::ops::Deref for Disk {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Later than the case, earlier than the directory around.
        Command::new("umount").arg("--lazy").arg(&self.0).status().ok();
    }
}

/// Leaves room for so many pages.
fn leave_pages(disk: &Path, pages: usize) {
    let spare: Vec<_> = (0..pages).map(|n| disk.join(format!("spare-{n}"))).collect();
    for path in &spare {
        fs::write(path, [1; 4096]).ok();
    }
    let mut ballast =
        fs::OpenOptions::new().append(true).create(true).open(disk.join("ballast")).expect("open");
    for size in [1 << 20, 4096] {
        while std::io::Write::write_all(&mut ballast, &vec![1; size]).is_ok() {}
    }
    for path in &spare {
        fs::remove_file(path).ok();
    }
}

fn leave_inodes(disk: &Path, inodes: usize) {
    let dir = disk.join("ballast");
    fs::create_dir_all(&dir).expect("create directory");
    let mut count = 0_usize;
    while fs::write(dir.join(count.to_string()), "").is_ok() {
        count += 1;
    }
    for number in count.saturating_sub(inodes)..count {
        fs::remove_file(dir.join(number.to_string())).expect("remove");
    }
}

fn lighten(disk: &Path) {
    let ballast = disk.join("ballast");
    if ballast.is_dir() { fs::remove_dir_all(ballast) } else { fs::remove_file(ballast) }
        .expect("remove");
}

/// It worked or was refused for want of space; whether it worked.
#[track_caller]
fn worked(said: Said, code: i32) -> bool {
    if said.code == 0 {
        return true;
    }
    said.refused(code, FULL);
    false
}

/// init of a directory and of a tar into what is too small for it.
fn too_small(place: &Place, disk: &Path) {
    let tar = place.work().join("tree.tar");
    let packed = Command::new("tar").arg("-C").arg(tree()).arg("-cf").arg(&tar).arg(".").status();
    assert!(packed.expect("tar").success());
    let tar = format!("tar:{}", tar.display());
    place.init(&[]).refused(1, FULL);
    assert_eq!(watch::names(disk), Vec::<String>::new(), "something is left of a failed init");
    place.said(&["init", "--ids", &ids(), "--from", &tar]).refused(1, FULL);
    assert_eq!(watch::names(disk), Vec::<String>::new(), "something is left of a failed init");
    // The same with a store that holds something.
    place.said(&["init", "first", "--ids", &ids(), "--from", "scratch"]).code(0);
    for _ in 0..3 {
        place.said(&["init", "second", "--ids", &ids(), "--from", &tar]).refused(1, FULL);
        place.said(&["list", "--box", "second"]).refused(3, "second");
        for folder in ["runs", "trash"] {
            assert_eq!(watch::names(&place.base.join(folder)), Vec::<String>::new());
        }
    }
    place.said(&["list", "--box", "first"]).code(0);
    fs::remove_dir_all(&place.base).expect("remove store");
}

/// All commands with room for 0, 1, 2, ... of something.
fn step_by_step(place: &Place, disk: &Path, most: usize, leave: fn(&Path, usize)) {
    let mut commits = 0;
    for room in 0..most {
        leave(disk, room);
        let before = place.snapshots();
        worked(place.said(&["run", "--", "true"]), 125);
        worked(place.said(&["snapshot", "named"]), 1);
        let committed = worked(
            place.line(&["--commit", "new"], "(echo x >/x && mkdir /d) 2>/dev/null; exit 0"),
            125,
        );
        let names = place.snapshots();
        assert_eq!(
            names.iter().any(|(name, _)| name == "new"),
            committed,
            "room {room}: {names:?}"
        );
        place.said(&["gc"]).code(0);
        assert!(before.iter().all(|one| names.contains(one)));
        worked(place.said(&["init", "b", "--ids", &ids(), "--from", "scratch"]), 1);
        lighten(disk);
        // After that, all is well again.
        place.said(&["run", "--", "true"]).code(0);
        for name in ["new", "named"] {
            if place.snapshots().iter().any(|(known, _)| known == name) {
                commits += usize::from(name == "new");
                place.said(&["run", "--from", name, "--", "true"]).code(0);
                place.said(&["rm", name]).code(0);
            }
        }
        if place.base.join("boxes/b").exists() {
            place.said(&["list", "--box", "b"]).code(0);
            fs::remove_dir_all(place.base.join("boxes/b")).expect("remove box");
        }
        forget_kept(place);
    }
    assert!(commits > 0, "room for {most} is never enough");
}

/// Takes in what a failed commit has kept, and drops it.
pub(crate) fn forget_kept(place: &Place) {
    place.said(&["gc"]).code(0);
    for id in watch::names(&place.base.join("runs")) {
        place.said(&["recover", &id, "--as", "rescued"]).code(0);
        place.said(&["rm", "rescued"]).code(0);
    }
}

pub(crate) fn space_inside() {
    let (place, disk) = small("size=4m");
    too_small(&place, &disk);
    remount("size=40m", &disk);
    place.init(&[]).code(0);
    step_by_step(&place, &disk, 12, leave_pages);
    // A payload that fills the disk.
    let big = "dd if=/dev/zero of=/big bs=1M status=none";
    let said = place.line(&["--commit", "never"], big).code(1);
    assert!(said.err.contains("No space left on device"), "{said:?}");
    watch::until("the trash is emptied", || {
        watch::names(&place.base.join("trash")).is_empty().then_some(())
    });
    place.said(&["run", "--", "true"]).code(0);
    let said = place.line(&["--commit", "never"], &format!("{big} 2>/dev/null; exit 0"));
    if !worked(said, 125) {
        assert_eq!(place.snapshots().len(), 1);
        remount("size=60m", &disk);
        forget_kept(&place);
    } else {
        remount("size=60m", &disk);
        place.said(&["rm", "never"]).code(0);
    }
    place.pristine();
}

/// A case with a disk as people have them, which only root can mount.
#[expect(clippy::print_stdout, reason = "what is not run is told")]
pub(crate) fn as_root(case: &str) {
    let map = fs::read_to_string("/proc/self/uid_map").expect("uid_map");
    let first = map.split_whitespace().eq(["0", "0", "4294967295"]);
    if first && rustix::process::geteuid().is_root() {
        inside(case);
    } else {
        println!("{case}: not run: only root can mount a disk");
    }
}

pub(crate) fn ext4_inside() {
    let mut place = Place::empty();
    let image = place.work().join("image");
    fs::File::create(&image).and_then(|file| file.set_len(64 << 20)).expect("image");
    // No blocks set aside for root, who runs this.
    let made = Command::new("mkfs.ext4").args(["-q", "-m", "0", "-N", "600"]).arg(&image).status();
    assert!(made.expect("mkfs.ext4").success());
    let disk = Disk(place.base.clone());
    fs::create_dir(&*disk).expect("create directory");
    crate::disks::mount_image(&image, &disk);
    place.base = disk.join("store");
    place.look_again();
    place.init(&[]).code(0);
    // Each directory takes a block here.
    step_by_step(&place, &disk, 14, |disk, room| leave_pages(disk, 3 * room));
    step_by_step(&place, &disk, 24, leave_inodes);
    let said = place.line(&["--commit", "never"], "dd if=/dev/zero of=/big bs=1M status=none");
    said.code(1);
    place.said(&["run", "--", "true"]).code(0);
    place.pristine();
}

pub(crate) fn inodes_inside() {
    let (place, disk) = small("size=60m,nr_inodes=30");
    too_small(&place, &disk);
    remount("nr_inodes=300", &disk);
    place.init(&[]).code(0);
    step_by_step(&place, &disk, 24, leave_inodes);
    let many = "n=0; while : >/f$n; do n=$((n + 1)); done";
    place.line(&["--commit", "never"], many).code(2);
    watch::until("the trash is emptied", || {
        watch::names(&place.base.join("trash")).is_empty().then_some(())
    });
    place.said(&["run", "--", "true"]).code(0);
    place.pristine();
}

pub(crate) fn read_only_inside() {
    const REASON: &str = "read-only file system";
    let (place, disk) = small("size=60m");
    place.init(&[]).code(0);
    place.line(&["--commit", "one"], "echo x >/x").code(0);
    remount("ro", &disk);
    place.said(&["list"]).code(0);
    place.said(&["show", "one"]).code(0);
    place.said(&["diff", "postinit", "one"]).code(0);
    place.said(&["run", "--", "true"]).refused(125, REASON);
    // What a run would do can be told all the same, and nothing is made for it: places, a home, a cache.
    for flags in [
        &[][..],
        &["--commit", "two"],
        &["--as-user"],
        &["--profile", "strict", "--tmpfs", "/srv/deep"],
        &["--cache", "c:/srv/cache", "--bind", "/opt:/srv/opt"],
        &["--upper", "tmpfs", "--cache", "c:/srv/cache"],
    ] {
        if ids() == "identity" && flags.contains(&"strict") {
            // Where root inside is root of the machine that is refused, whatever the store is.
            continue;
        }
        let said = place.said(&[&["run", "--dry-run"], flags, &["--", "true"]].concat()).code(0);
        assert!(said.out.contains("mounts:") && said.err.is_empty(), "{flags:?}: {said:?}");
    }
    place.said(&["shell", "--dry-run"]).code(0);
    // What is in memory needs no place: neither for the changes nor for anything of ours.
    let memory = &["run", "--from", "one", "--upper", "tmpfs"];
    for (flags, line) in [
        (&[][..], "cat /x; echo y >/y; rm /x; test ! -e /x; echo gone >/etc/hostname; cat /y >&2"),
        (&["--as-user"], "cat /x; echo z >z"),
        (&["--tmpfs", "/srv/deep"], "cat /x; echo z >/srv/deep/z"),
        (&["--read-only"], "cat /x; echo z >/tmp/z"),
    ] {
        let said = place.said(&[memory, flags, &["--", "sh", "-euc", line]].concat()).code(0);
        assert_eq!(said.out, "x\n", "{flags:?}");
    }
    for way in ["fd-attached", "lowerdir+", "mount"] {
        place.said(&[memory, &["--overlay-way", way, "--", "cat", "/x"][..]].concat()).code(0);
    }
    place.said(&[memory, &["--", "sh", "-c", "exit 7"][..]].concat()).code(7);
    place.said(&[memory, &["--", "nosuch"][..]].concat()).code(127);
    place.said(&["start", "--upper", "tmpfs", "--", "true"]).refused(125, REASON);
    place.said(&["run", "--commit", "two", "--", "true"]).refused(125, REASON);
    place.said(&["snapshot", "three"]).refused(6, REASON);
    place.said(&["rm", "one"]).refused(6, REASON);
    place.init(&["other"]).refused(6, REASON);
    place.said(&["gc"]).code(0);
    remount("rw", &disk);
    assert_eq!(place.snapshots().len(), 2);
    place.pristine();
    fs::remove_dir_all(&place.base).expect("remove store");
    remount("ro", &disk);
    place.init(&[]).refused(6, REASON);
}

/// Where overlayfs can keep no notes, it would say EIO in the midst of a run.
pub(crate) fn no_user_xattrs_inside() {
    let mut place = Place::empty();
    let disk = Disk(place.base.clone());
    fs::create_dir(&*disk).expect("create directory");
    mount("ramfs", "mode=0700", &disk);
    place.base = disk.join("store");
    let said = place.init(&[]).refused(6, "user xattrs");
    assert!(said.err.contains("--base-dir"), "{said:?}");
    assert_eq!(watch::names(&disk), Vec::<String>::new(), "something is left of a refused init");
}
