//! Folding: what a view shows must be the same with the fold layer as with the layers it stands for.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use rustix::fs::{FileType, fsetxattr, mknodat};

use super::*;
use crate::tree::fold::fold;
use crate::tree::xattr;

mod cases;

/// What is made in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Make {
    File,
    Link,
    Symlink,
    Fifo,
    Dir,
    Opaque,
    Whiteout,
    /// A regular file that is a whiteout.
    Marked,
}

/// An entry at a path of `a`, `b`, `c`, at most three deep. What it cannot stand on is left out.
type Entry = (Vec<u8>, Make, u32);

/// An old directory with the layers in it, the ground first.
struct Layers {
    dir: tempfile::TempDir,
    count: usize,
}

impl Layers {
    fn new(layers: &[Vec<Entry>]) -> Self {
        let dir = memory();
        for (number, entries) in layers.iter().enumerate() {
            let root = dir.path().join(number.to_string());
            fs::create_dir(&root).expect("layer");
            for entry in entries {
                make(&root, number, entry);
            }
            settle(&root, number as u64);
        }
        fs::create_dir(dir.path().join("fold")).expect("fold");
        Self { dir, count: layers.len() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// All layers, the topmost first.
    fn stack(&self) -> Vec<PathBuf> {
        (0..self.count).rev().map(|number| self.at(&number.to_string())).collect()
    }

    /// Folds all but the ground.
    fn fold(&self) -> crate::tree::Totals {
        let stack: Vec<_> = self.stack().iter().map(|path| open(path)).collect();
        let (ground, layers) = stack.split_last().expect("a ground");
        let layers: Vec<_> = layers.iter().map(AsFd::as_fd).collect();
        let place = open(&self.at("fold"));
        fold(&layers, ground.as_fd(), place.as_fd(), &mut |_| Ok(())).expect("fold")
    }

    /// Folds, and compares the views.
    fn check(&self) {
        let before = view(&self.stack());
        self.fold();
        let after = view(&[self.at("fold"), self.at("0")]);
        assert_eq!(after, before);
    }
}

fn make(root: &Path, layer: usize, (name, what, mode): &Entry) {
    let parts: Vec<_> = name.iter().map(|part| ["a", "b", "c"][usize::from(*part) % 3]).collect();
    let path = root.join(parts.join("/"));
    fs::create_dir_all(path.parent().expect("a parent")).ok();
    let file = || fs::write(&path, format!("{layer} {mode}"));
    let marked = matches!(what, Make::Marked);
    let node = |class| {
        let made = mknodat(rustix::fs::CWD, &path, class, rustix::fs::Mode::empty(), 0);
        made.map_err(std::io::Error::from)
    };
    if path.symlink_metadata().is_ok() {
        return;
    }
    let made = match what {
        Make::File => file(),
        Make::Link => fs::hard_link(root.join("a"), &path),
        Make::Symlink => symlink(format!("to {mode}"), &path),
        Make::Fifo => node(FileType::Fifo),
        Make::Dir | Make::Opaque => fs::create_dir(&path),
        Make::Whiteout => node(FileType::CharacterDevice),
        Make::Marked => fs::write(&path, ""),
    };
    // It would lie in a file.
    if made.is_err() {
        return;
    }
    if matches!(what, Make::File | Make::Dir | Make::Opaque) {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700 | mode)).expect("mode");
        set(&path, "user.mine", mode.to_string().as_bytes());
        set(&path, "user.overlay.overlay.opaque", b"y");
        set(&path, "user.overlay.origin", b"a note");
    }
    if matches!(what, Make::Opaque) {
        set(&path, "user.overlay.opaque", b"y");
    }
    if marked {
        set(&path, "user.overlay.whiteout", b"");
        let parent = path.parent().expect("a parent");
        if xattr::get(open(parent).as_fd(), c"user.overlay.opaque").expect("xattr").is_none() {
            set(parent, "user.overlay.opaque", b"x");
        }
    }
}

fn set(path: &Path, name: &str, value: &[u8]) {
    let file = fs::File::open(path).expect("open");
    fsetxattr(&file, name, value, rustix::fs::XattrFlags::empty()).expect("setxattr");
}

/// A directory in memory, where that has attributes of the user (Linux 6.6).
fn memory() -> tempfile::TempDir {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return temp() };
    let file = fs::File::open(dir.path()).expect("open");
    let flags = rustix::fs::XattrFlags::empty();
    if fsetxattr(&file, "user.x", b"", flags).is_ok() { dir } else { temp() }
}

/// Gives every directory a time of its own.
fn settle(dir: &Path, layer: u64) {
    for entry in fs::read_dir(dir).expect("read") {
        let entry = entry.expect("entry");
        if entry.file_type().expect("type").is_dir() {
            settle(&entry.path(), layer);
        }
    }
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 * (layer + 1));
    fs::File::open(dir).expect("open").set_modified(time).expect("time");
}

/// What overlayfs shows of a stack of layers, the topmost first: a line for each path. Written down from its
/// documentation, name by name, with no thought of speed.
fn view(stack: &[PathBuf]) -> BTreeMap<PathBuf, String> {
    let mut shown = BTreeMap::new();
    shown.insert(PathBuf::new(), describe(&stack[0], true));
    look(stack, Path::new(""), &mut shown);
    shown
}

fn look(stack: &[PathBuf], at: &Path, shown: &mut BTreeMap<PathBuf, String>) {
    let mut names = std::collections::BTreeSet::new();
    for layer in stack {
        let list = fs::read_dir(layer).expect("read");
        names.extend(list.map(|entry| entry.expect("entry").file_name()));
    }
    for name in names {
        let mut merged = Vec::new();
        for layer in stack {
            let path = layer.join(&name);
            let Ok(found) = path.symlink_metadata() else { continue };
            let white = found.file_type().is_char_device()
                || (opaque(layer) == Some(b"x".into()) && is_marked(&path, &found));
            if white || (!found.is_dir() && !merged.is_empty()) {
                break;
            }
            merged.push(path.clone());
            if !found.is_dir() || opaque(&path) == Some(b"y".into()) {
                break;
            }
        }
        let Some(top) = merged.first() else { continue };
        let dir = top.symlink_metadata().expect("stat").is_dir();
        shown.insert(at.join(&name), describe(top, dir));
        if dir {
            look(&merged, &at.join(&name), shown);
        }
    }
}

fn opaque(dir: &Path) -> Option<Vec<u8>> {
    xattr::get(open(dir).as_fd(), c"user.overlay.opaque").expect("xattr")
}

fn is_marked(path: &Path, found: &fs::Metadata) -> bool {
    found.is_file() && found.len() == 0 && {
        let file = fs::File::open(path).expect("open");
        xattr::get(file.as_fd(), c"user.overlay.whiteout").expect("xattr").is_some()
    }
}

/// All that a payload can see of an entry. A file is the very inode.
fn describe(path: &Path, dir: bool) -> String {
    let found = path.symlink_metadata().expect("stat");
    let common = (found.mode(), found.uid(), found.gid(), found.mtime(), found.mtime_nsec());
    if !dir {
        return format!("{common:?} inode {}", found.ino());
    }
    let mut attributes = xattr::all(open(path).as_fd()).expect("xattrs");
    attributes.retain(|(name, _)| {
        let name = name.to_bytes();
        !name.starts_with(b"user.overlay.") || name.starts_with(b"user.overlay.overlay.")
    });
    format!("{common:?} {attributes:?}")
}

fn any_make() -> impl Strategy<Value = Make> {
    use Make::*;
    proptest::sample::select(vec![
        File, File, Dir, Dir, Dir, Opaque, Opaque, Whiteout, Whiteout, Marked, Link, Symlink, Fifo,
    ])
}

fn any_layer() -> impl Strategy<Value = Vec<Entry>> {
    let name = proptest::collection::vec(0_u8..3, 1..4);
    proptest::collection::vec((name, any_make(), 0_u32..0o77), 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_fold_shows_what_its_layers_show(layers in proptest::collection::vec(any_layer(), 2..7)) {
        Layers::new(&layers).check();
    }

    #[test]
    fn a_fold_of_folds_shows_the_same(
        layers in proptest::collection::vec(any_layer(), 3..6),
        more in proptest::collection::vec(any_layer(), 1..3),
    ) {
        let first = Layers::new(&layers);
        first.fold();
        let second = Layers::new(&[&layers[..1], &[vec![]], &more].concat());
        // The fold in the place of the first layer above the ground, and all layers as they were.
        fs::remove_dir(second.at("1")).expect("remove");
        fs::rename(first.at("fold"), second.at("1")).expect("rename");
        fs::remove_dir_all(second.at("0")).expect("remove");
        fs::rename(first.at("0"), second.at("0")).expect("rename");
        let mut all: Vec<_> = (2..second.count).rev().map(|n| second.at(&n.to_string())).collect();
        all.extend((1..layers.len()).rev().map(|n| first.at(&n.to_string())));
        all.push(second.at("0"));
        let before = view(&all);
        second.fold();
        prop_assert_eq!(view(&[second.at("fold"), second.at("0")]), before);
    }
}
