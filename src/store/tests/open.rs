//! Making and opening: whose, where, which format, and by how many at once.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::*;
use crate::fault::Kind;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("metadata").permissions().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
}

#[test]
fn makes_parents_and_everything_is_private() {
    let folder = folder();
    let path = folder.path().join("a/b/sto:re, \u{e4}\u{6f22} x");
    let missing = Store::open(&path).expect_err("absent");
    assert_eq!(missing.kind, Kind::NotFound);
    assert!(missing.hint.expect("hint").contains("sandbox init"));
    let store = Store::create(&path).expect("create");
    assert_eq!(store.path(), path);
    for name in [".", "layers", "boxes", "runs", "trash", "cache"] {
        assert_eq!(mode(&path.join(name)), 0o700, "{name}");
    }
    assert_eq!(mode(&path.join("lock")), 0o600);
    assert_eq!(
        fs::read_to_string(path.join("format.json")).expect("read").trim(),
        r#"{"format":1,"compat":[],"ro_compat":[],"incompat":[]}"#
    );
    drop(Store::create(&path).expect("again"));
    drop(Store::open(&path).expect("open"));
}

/// EXT4_SUPER_MAGIC.
const EXT4: i64 = 0xef53;

#[test]
fn runs_are_spread_over_the_disk_where_it_knows_that() {
    let folder = folder();
    let path = folder.path().join("store");
    drop(Store::create(&path).expect("create"));
    let runs = fs::File::open(path.join("runs")).expect("open");
    let on_ext4 = rustix::fs::fstatfs(&runs).expect("statfs").f_type == EXT4;
    let flags = rustix::fs::ioctl_getflags(&runs).unwrap_or(rustix::fs::IFlags::empty());
    assert_eq!(flags.contains(rustix::fs::IFlags::TOPDIR), on_ext4);
}

#[test]
fn an_empty_directory_of_ours_is_made_private() {
    let folder = folder();
    let path = folder.path().join("volume");
    for start in [0o755, 0o777, 0o2755, 0o1777] {
        fs::create_dir(&path).expect("mkdir");
        fs::create_dir(path.join("lost+found")).expect("mkdir");
        chmod(&path, start);
        drop(Store::create(&path).expect("create"));
        assert_eq!(mode(&path), 0o700);
        fs::remove_dir_all(&path).expect("remove");
    }
}

#[test]
fn a_directory_with_content_and_other_modes_is_refused() {
    let (folder, store) = store();
    let path = store.path().to_owned();
    for open in [0o755, 0o710, 0o701, 0o1700, 0o2700, 0o500] {
        chmod(&path, open);
        for fault in
            [Store::open(&path).expect_err("open"), Store::create(&path).expect_err("create")]
        {
            assert_eq!(fault.kind, Kind::Usage, "{open:o}");
            assert!(fault.hint.expect("hint").starts_with("`chmod "), "{open:o}");
        }
        assert_eq!(mode(&path), open, "left as it was");
    }
    chmod(&path, 0o700);
    drop(Store::open(&path).expect("open"));

    let home = folder.path().join("home");
    fs::create_dir(&home).expect("mkdir");
    chmod(&home, 0o700);
    fs::write(home.join("letter"), "").expect("write");
    assert_eq!(Store::create(&home).expect_err("not a store").kind, Kind::Conflict);
    assert_eq!(fs::read_dir(&home).expect("read").count(), 1);
}

#[test]
fn a_directory_of_somebody_else_is_refused() {
    // For a plain user `/` is root's; for root we give one away.
    let folder = folder();
    let path = if rustix::process::geteuid().is_root() {
        let path = folder.path().join("theirs");
        fs::create_dir(&path).expect("mkdir");
        std::os::unix::fs::chown(&path, Some(12345), None).expect("chown");
        path
    } else {
        PathBuf::from("/")
    };
    assert_eq!(Store::create(&path).expect_err("theirs").kind, Kind::Usage);
    assert_eq!(Store::open(&path).expect_err("theirs").kind, Kind::Usage);
}

#[test]
fn symlinks_are_followed_once_and_dangling_ones_told() {
    let (folder, store) = store();
    let link = folder.path().join("link");
    symlink(store.path(), &link).expect("symlink");
    drop(Store::open(&link).expect("open"));
    let nowhere = folder.path().join("nowhere");
    symlink(folder.path().join("absent"), &nowhere).expect("symlink");
    assert_eq!(Store::create(&nowhere).expect_err("dangling").kind, Kind::Conflict);
    let file = folder.path().join("file");
    fs::write(&file, "").expect("write");
    assert!(Store::create(&file).expect_err("file").message.contains("not a directory"));
    assert!(Store::create(file.join("below")).is_err());
    // Beneath the store no symlink is followed.
    fs::rename(store.path().join("format.json"), folder.path().join("format")).expect("rename");
    symlink(folder.path().join("format"), store.path().join("format.json")).expect("symlink");
    assert!(Store::open(store.path()).is_err());
}

#[test]
fn newer_stores_are_refused_or_only_read() {
    let (_folder, store) = store();
    let format = store.path().join("format.json");
    fs::write(&format, r#"{"format":2}"#).expect("write");
    let fault = Store::open(store.path()).expect_err("newer");
    assert!(fault.message.contains("written by a newer sandbox"), "{fault}");
    assert_eq!(fault.kind, Kind::Failed);
    assert!(Store::create(store.path()).is_err());
    fs::write(&format, r#"{"format":1,"ro_compat":["x"]}"#).expect("write");
    let old = Store::open(store.path()).expect("readable");
    assert_eq!(old.boxes().expect("list"), []);
    assert_eq!(make_box(&old, "x").expect_err("read only").kind, Kind::Failed);
    let lock = old.lock_shared().expect("lock");
    assert!(old.new_run(&lock, &map()).is_err());
    drop(lock);
    assert!(old.gc(&GcOptions::default()).is_err());
    fs::write(&format, "").expect("write");
    assert_eq!(Store::open(store.path()).expect_err("empty").kind, Kind::Damaged);
}

#[test]
fn many_creates_at_once_all_succeed() {
    for _ in 0..20 {
        let folder = folder();
        let path = folder.path().join("deep/er/store");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| drop(Store::create(&path).expect("create")));
            }
        });
        assert_eq!(garbage(&Store::open(&path).expect("open")), Vec::<String>::new());
    }
}

/// Run by hand or by the tests below: makes a store where the environment says, and tells how it went.
#[test]
fn child() {
    let Some(path) = std::env::var_os("SANDBOX_TEST_CREATE") else { return };
    rustix::process::umask(rustix::fs::Mode::empty());
    let code = match Store::create(Path::new(&path)) {
        Ok(_) => 0,
        Err(fault) => {
            let text = format!("{:?}: {fault} / {:?}\n", fault.kind, fault.hint);
            file::write_all(rustix::stdio::stderr(), text.as_bytes()).ok();
            i32::from(fault.kind.exit_code())
        }
    };
    crate::sys::process::exit_now(code);
}

#[test]
fn the_umask_does_not_matter() {
    let folder = folder();
    let path = folder.path().join("a/store");
    let orders = [("SANDBOX_TEST_CREATE", path.as_os_str())];
    assert!(again("open::child", &orders).status().expect("run").success());
    for name in ["..", ".", "layers", "runs"] {
        assert_eq!(mode(&path.join(name)), 0o700, "{name}");
    }
}

#[cfg(feature = "failpoints")]
#[test]
fn what_cannot_be_finished_is_taken_back() {
    for point in [
        "create.folders.before",
        "create.folders.after",
        "create.lock.before",
        "create.format.before",
    ] {
        let folder = folder();
        let path = folder.path().join("a/store");
        let wish = format!("{point}:ENOSPC");
        let orders =
            [("SANDBOX_TEST_CREATE", path.as_os_str()), ("SANDBOX_FAIL", OsStr::new(&wish))];
        assert_eq!(again("open::child", &orders).status().expect("run").code(), Some(1), "{point}");
        // `after` has made a directory that the maker never heard of.
        assert_eq!(folder.path().join("a").exists(), point == "create.folders.after", "{point}");
        drop(Store::create(&path).expect("create"));
    }
}
