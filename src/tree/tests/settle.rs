//! What leaves an upper again because it says nothing, and how a path is found in several layers.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rustix::fs::{FileType, fsetxattr, mknodat};

use super::*;
use crate::tree::merged::{Found, Merged, plain_path};
use crate::tree::{Descend, Visit, settle, walk};

/// An upper on two layers; files have one time unless a test says otherwise.
struct Layers {
    dir: TempDir,
}

impl Layers {
    fn new() -> Self {
        let dir = temp();
        for name in ["upper", "middle", "base"] {
            fs::create_dir(dir.path().join(name)).expect("layer");
        }
        Self { dir }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn file(&self, layer: &str, path: &str, content: &str) {
        write(&self.at(layer), path, content);
        self.aged(&format!("{layer}/{path}"), 1000);
    }

    fn aged(&self, path: &str, seconds: u64) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let file = fs::File::options().write(true).open(self.at(path)).expect("open");
        file.set_modified(time).expect("time");
    }

    fn opaque(&self, path: &str) {
        let dir = fs::File::open(self.at(path)).expect("open");
        let none = rustix::fs::XattrFlags::empty();
        fsetxattr(&dir, "user.overlay.opaque", b"y", none).expect("setxattr");
    }

    /// A whiteout; false where the file system lets nobody make one.
    fn whiteout(&self, path: &str) -> bool {
        fs::create_dir_all(self.at(path).parent().expect("a parent")).expect("parents");
        mknodat(CWD, self.at(path), FileType::CharacterDevice, Mode::empty(), 0).is_ok()
    }

    /// Settles these places; what is left in the upper.
    fn settle(&self, places: &[&str]) -> Vec<String> {
        let open = ["upper", "middle", "base"].map(|name| open(&self.at(name)));
        let lowers = [open[1].as_fd(), open[2].as_fd()];
        let places: Vec<Vec<u8>> = places.iter().map(|place| place.as_bytes().to_vec()).collect();
        let before = self.left(&open[0]).len();
        let mut steps = 0;
        let mut step = |_| {
            steps += 1;
            Ok(())
        };
        let gone = settle(open[0].as_fd(), &lowers, &places, &mut step).expect("settle");
        let left = self.left(&open[0]);
        assert_eq!(before - left.len(), gone as usize);
        assert!(steps >= gone, "each is a step");
        left
    }

    fn left(&self, upper: &OwnedFd) -> Vec<String> {
        let mut left = Vec::new();
        walk(upper.as_fd(), &mut |visit: &Visit<'_>| {
            left.push(String::from_utf8_lossy(visit.path).into_owned());
            Ok(Descend::Yes)
        })
        .expect("walk");
        left
    }
}

const NOTHING: [&str; 0] = [];

#[test]
fn what_is_the_same_goes_with_its_directories() {
    let layers = Layers::new();
    for path in ["var/lib/db/one", "var/lib/db/deep/er/two"] {
        layers.file("base", path, "data");
        layers.file("upper", path, "data");
    }
    assert_eq!(layers.settle(&["var/lib/db"]), NOTHING);
    // A file as a place; the place beside it is left alone.
    layers.file("upper", "var/lib/db/one", "data");
    layers.file("upper", "var/lib/db/deep/er/two", "data");
    let expected = ["var", "var/lib", "var/lib/db", "var/lib/db/one"];
    assert_eq!(layers.settle(&["var/lib/db/deep/er/two", "nowhere", "var/nothing/x"]), expected);
    // Twice is once.
    assert_eq!(layers.settle(&["var/lib/db/one", "var/lib/db/one", "var"]), NOTHING);
}

#[test]
fn the_topmost_layer_counts() {
    let layers = Layers::new();
    layers.file("base", "d/a", "old");
    layers.file("middle", "d/a", "new");
    layers.file("upper", "d/a", "old");
    assert_eq!(layers.settle(&["d"]), ["d", "d/a"]);
    layers.file("upper", "d/a", "new");
    assert_eq!(layers.settle(&["d"]), NOTHING);
}

#[test]
fn any_difference_stays() {
    let layers = Layers::new();
    for name in ["content", "size", "mode", "time", "link", "attribute", "same", "gone"] {
        layers.file("base", &format!("d/{name}"), "data");
        layers.file("upper", &format!("d/{name}"), "data");
    }
    layers.file("upper", "d/content", "DATA");
    layers.file("upper", "d/size", "data and more");
    let mode = |bits| fs::Permissions::from_mode(bits);
    fs::set_permissions(layers.at("upper/d/mode"), mode(0o600)).expect("chmod");
    layers.aged("upper/d/time", 1001);
    fs::hard_link(layers.at("upper/d/link"), layers.at("upper/d/other")).expect("link");
    let file = fs::File::open(layers.at("upper/d/attribute")).expect("open");
    fsetxattr(&file, "user.mine", b"1", rustix::fs::XattrFlags::empty()).expect("setxattr");
    // What overlayfs notes for itself is no difference.
    let file = fs::File::open(layers.at("upper/d/same")).expect("open");
    fsetxattr(&file, "user.overlay.origin", b"1", rustix::fs::XattrFlags::empty()).expect("set");
    // Nor is a label of this machine, which only its root may set.
    let _denied = fsetxattr(&file, "security.label", b"x", rustix::fs::XattrFlags::empty());
    fs::remove_file(layers.at("base/d/gone")).expect("remove");
    let expected = [
        "d",
        "d/attribute",
        "d/content",
        "d/gone",
        "d/link",
        "d/mode",
        "d/other",
        "d/size",
        "d/time",
    ];
    assert_eq!(layers.settle(&["d"]), expected);
}

#[test]
fn a_directory_that_differs_stays() {
    let layers = Layers::new();
    for path in ["mode/f", "time/f", "new/f"] {
        layers.file("base", path, "");
        layers.file("upper", path, "");
    }
    fs::set_permissions(layers.at("upper/mode"), fs::Permissions::from_mode(0o700)).expect("chmod");
    fs::remove_dir_all(layers.at("base/new")).expect("remove");
    fs::create_dir(layers.at("upper/time/g")).expect("mkdir");
    fs::create_dir(layers.at("base/time/g")).expect("mkdir");
    assert_eq!(layers.settle(&["mode", "time", "new"]), ["mode", "new", "new/f"]);
}

#[test]
fn what_a_layer_hides_is_not_the_same() {
    let layers = Layers::new();
    for path in ["replaced/f", "emptied/f", "upper/f"] {
        layers.file("base", path, "data");
        layers.file("upper", path, "data");
    }
    layers.file("middle", "emptied/other", "");
    layers.opaque("middle/emptied");
    layers.opaque("upper/upper");
    layers.file("middle", "replaced", "a file");
    let expected =
        ["emptied", "emptied/f", "replaced", "replaced/f", "upper", "upper/f"].map(str::to_owned);
    assert_eq!(layers.settle(&["replaced", "emptied", "upper"]), expected);
    if layers.whiteout("middle/away/f") {
        layers.file("base", "away/f", "data");
        layers.file("upper", "away/f", "data");
        assert_eq!(layers.settle(&["away"])[..2], ["away", "away/f"]);
    }
}

#[test]
fn nothing_is_followed() {
    let layers = Layers::new();
    layers.file("base", "real/f", "data");
    layers.file("upper", "real/f", "data");
    symlink("real", layers.at("upper/link")).expect("symlink");
    symlink("/", layers.at("upper/real/up")).expect("symlink");
    let all = ["link", "real", "real/f", "real/up"];
    assert_eq!(layers.settle(&["link", "link/f"]), all);
    assert_eq!(layers.settle(&["real"]), ["link", "real", "real/up"]);
}

/// What lies beside a database goes with it, and only then.
#[test]
fn leftovers_of_databases() {
    let leftovers =
        ["db-shm", "db-wal", ".rpm.lock", ".dbenv.lock", "__db.001", "Packages", "db", "data.mdb"];
    let fresh = |names: &[&str]| {
        let layers = Layers::new();
        for name in ["Packages", "db", "data.mdb"] {
            layers.file("base", &format!("d/{name}"), "data");
        }
        for name in names {
            let content = if name.ends_with("shm") || name.contains("db.0") { "x" } else { "" };
            layers.file("upper", &format!("d/{name}"), content);
        }
        layers
    };
    let layers = fresh(&leftovers[..5]);
    layers.file("upper", "d/lock.mdb", "readers");
    for name in ["Packages", "db"] {
        layers.file("upper", &format!("d/{name}"), "data");
    }
    assert_eq!(layers.settle(&["d"]), NOTHING);
    // Of other files, with content, for no database: these are somebody's.
    for (name, content) in [
        ("db-wal", "frames"),
        (".rpm.lock", "pid"),
        ("other-shm", "x"),
        ("other-wal", ""),
        ("__db.x", ""),
        ("__db.", ""),
        ("new", ""),
    ] {
        let layers = fresh(&["db-shm"]);
        layers.file("upper", &format!("d/{name}"), content);
        let mut expected = ["d".to_owned(), "d/db-shm".to_owned(), format!("d/{name}")];
        expected.sort();
        assert_eq!(layers.settle(&["d"]), expected, "{name}");
    }
    let layers = fresh(&["db-shm", ".rpm.lock"]);
    layers.file("upper", "d/db", "changed");
    assert_eq!(layers.settle(&["d"]), ["d", "d/.rpm.lock", "d/db", "d/db-shm"]);
    // A journal that had something in it is not taken for an empty one.
    let layers = fresh(&["db-wal"]);
    layers.file("base", "d/db-wal", "frames");
    assert_eq!(layers.settle(&["d"]), ["d", "d/db-wal"]);
    let layers = fresh(&[]);
    layers.file("base", "d/db-shm", "x");
    layers.file("base", "d/db-wal", "");
    if layers.whiteout("upper/d/db-shm") && layers.whiteout("upper/d/db-wal") {
        assert_eq!(layers.settle(&["d"]), NOTHING);
    }
}

#[test]
fn far_beneath_nothing_is_looked_at() {
    let layers = Layers::new();
    for layer in ["base", "upper"] {
        nest(&layers.at(layer), 40);
    }
    for layer in ["base", "upper"] {
        layers.file(layer, "d/near", "x");
    }
    let left = layers.settle(&["d"]);
    assert_eq!(left.len(), 41);
    assert!(!left.contains(&"d/near".to_owned()));
}

#[test]
fn a_view_of_layers() {
    let layers = Layers::new();
    layers.file("base", "both/below", "");
    layers.file("middle", "both/above", "");
    layers.file("base", "hidden/below", "");
    layers.file("middle", "hidden/above", "");
    layers.opaque("middle/hidden");
    let open = ["upper", "middle", "base"].map(|name| open(&layers.at(name)));
    let fds = open.each_ref().map(AsFd::as_fd);
    let root = Merged::root(&fds).expect("root");
    let inside = |dir: &std::ffi::CStr, name: &std::ffi::CStr| match root.child(dir) {
        Ok(Found::Directory(dir)) => match dir.child(name).expect("child") {
            Found::Other { layer, .. } => Some(layer),
            _ => None,
        },
        _ => None,
    };
    assert_eq!(inside(c"both", c"below"), Some(2));
    assert_eq!(inside(c"both", c"above"), Some(1));
    assert_eq!(inside(c"hidden", c"below"), None);
    assert_eq!(inside(c"hidden", c"above"), Some(1));
}

#[test]
fn paths_through_links() {
    let layers = Layers::new();
    layers.file("base", "usr/lib/db/f", "");
    layers.file("base", "etc/f", "");
    for (link, to) in [
        ("middle/lib", "usr/lib"),
        ("base/abs", "/usr/lib/db"),
        ("base/usr/up", "../../../etc"),
        ("base/loop", "loop"),
        ("base/none", "nowhere"),
        ("upper/etc2", "usr/../etc/."),
    ] {
        symlink(to, layers.at(link)).expect("symlink");
    }
    let open = ["upper", "middle", "base"].map(|name| open(&layers.at(name)));
    let fds = open.each_ref().map(AsFd::as_fd);
    for (path, expected) in [
        ("/usr/lib/db", Some("usr/lib/db")),
        ("/lib/db/f", Some("usr/lib/db/f")),
        ("abs/f", Some("usr/lib/db/f")),
        ("usr/up/f", Some("etc/f")),
        ("etc2/f", Some("etc/f")),
        ("loop", None),
        ("none", None),
        ("etc/f/x", None),
        ("/../etc", Some("etc")),
        ("/", Some("")),
    ] {
        let found = plain_path(&fds, path.as_bytes()).expect("look");
        let found = found.map(|path| String::from_utf8(path).expect("UTF-8"));
        assert_eq!(found.as_deref(), expected, "{path}");
    }
}
