//! Comparison of views; plain directories stand for merged ones.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};

use rustix::fs::fsetxattr;

use super::*;
use crate::tree::change::{Change, View, compare};

mod holes;
mod recalled;

fn line(change: &Change) -> String {
    let text = serde_json::to_value(change).expect("json");
    let field = |name: &str| text[name].as_str().unwrap_or("?").to_owned();
    format!("{} {} {}", field("path"), field("kind"), field("type"))
}

fn found(from: &Path, to: &Path, layers: &[&Path]) -> Vec<String> {
    let layers: Vec<_> = layers.iter().map(|layer| open(layer)).collect();
    let layers: Vec<_> = layers.iter().map(AsFd::as_fd).collect();
    let (from, to) = (open(from), open(to));
    let changes = compare(Some(&View::plain(from.as_fd())), &View::plain(to.as_fd()), &layers)
        .expect("compare");
    changes.iter().map(line).collect()
}

struct Views {
    dir: tempfile::TempDir,
}

impl Views {
    /// The same base in both views, and an empty layer.
    fn new() -> Self {
        let dir = temp();
        for view in ["from", "to"] {
            for path in ["etc/passwd", "etc/group", "usr/lib/a", "usr/lib/deep/b", "x-y", "x/y"] {
                write(&dir.path().join(view), path, "base");
            }
        }
        for path in ["etc/passwd", "etc/group", "usr/lib/a", "usr/lib/deep/b", "x-y", "x/y"] {
            let from = fs::File::open(dir.path().join("from").join(path)).expect("open");
            let to = fs::File::options().write(true).open(dir.path().join("to").join(path));
            let time = from.metadata().and_then(|found| found.modified()).expect("time");
            to.expect("open").set_modified(time).expect("time");
        }
        fs::create_dir(dir.path().join("layer")).expect("layer");
        Self { dir }
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join(path)
    }

    fn layer(&self, paths: &[&str]) {
        for path in paths {
            write(&self.at("layer"), path, "");
        }
    }

    fn found(&self) -> Vec<String> {
        found(&self.at("from"), &self.at("to"), &[&self.at("layer")])
    }
}

#[test]
fn equal_files_are_no_change() {
    let views = Views::new();
    views.layer(&["etc/passwd", "usr/lib/deep/b", "x/y", "x-y", "nowhere/at/all"]);
    assert_eq!(views.found(), Vec::<String>::new());
}

#[test]
fn only_what_is_in_a_layer_is_looked_at() {
    let views = Views::new();
    write(&views.at("to"), "etc/passwd", "other");
    write(&views.at("to"), "x-y", "other");
    views.layer(&["etc/passwd"]);
    assert_eq!(views.found(), ["etc/passwd modified file"]);
}

#[test]
fn each_kind_of_change() {
    let views = Views::new();
    write(&views.at("to"), "etc/passwd", "BASE");
    fs::remove_file(views.at("to/etc/group")).expect("remove");
    fs::set_permissions(views.at("to/x-y"), fs::Permissions::from_mode(0o600)).expect("chmod");
    fs::set_permissions(views.at("to/x"), fs::Permissions::from_mode(0o700)).expect("chmod");
    fs::remove_file(views.at("to/usr/lib/a")).expect("remove");
    symlink("b", views.at("to/usr/lib/a")).expect("symlink");
    write(&views.at("to"), "new/file", "");
    for view in ["from", "to"] {
        symlink(view, views.at(view).join("link")).expect("symlink");
    }
    views.layer(&["etc/passwd", "etc/group", "x-y", "x/none", "usr/lib/a", "new/file", "link"]);
    let expected = [
        "etc/group deleted file",
        "etc/passwd modified file",
        "link modified symlink",
        "new added dir",
        "new/file added file",
        "usr/lib/a type symlink",
        "x metadata dir",
        "x-y metadata file",
    ];
    assert_eq!(views.found(), expected);
}

#[test]
fn times_and_attributes_of_files_count() {
    let views = Views::new();
    let file = fs::File::options().write(true).open(views.at("to/etc/group")).expect("open");
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("time");
    let file = fs::File::open(views.at("to/x-y")).expect("open");
    fsetxattr(&file, "user.a", b"1", rustix::fs::XattrFlags::empty()).expect("xattr");
    views.layer(&["etc/group", "x-y"]);
    assert_eq!(views.found(), ["etc/group metadata file", "x-y metadata file"]);
}

#[test]
fn a_removed_directory_names_its_children() {
    let views = Views::new();
    fs::remove_dir_all(views.at("to/usr")).expect("remove");
    views.layer(&["usr"]);
    let expected = [
        "usr deleted dir",
        "usr/lib deleted dir",
        "usr/lib/a deleted file",
        "usr/lib/deep deleted dir",
        "usr/lib/deep/b deleted file",
    ];
    assert_eq!(views.found(), expected);
}

#[test]
fn a_directory_made_again_names_its_vanished_children() {
    let views = Views::new();
    fs::remove_dir_all(views.at("to/usr")).expect("remove");
    write(&views.at("to"), "usr/lib/new", "");
    views.layer(&["usr/lib/new"]);
    let usr = fs::File::open(views.at("layer/usr")).expect("open");
    fsetxattr(&usr, "user.overlay.opaque", b"y", rustix::fs::XattrFlags::empty()).expect("xattr");
    let expected = [
        "usr/lib/a deleted file",
        "usr/lib/deep deleted dir",
        "usr/lib/deep/b deleted file",
        "usr/lib/new added file",
    ];
    assert_eq!(views.found(), expected);
}

#[test]
fn a_directory_that_only_one_chain_hides_is_read_in_the_view() {
    let views = Views::new();
    fs::remove_dir_all(views.at("from/usr")).expect("remove");
    write(&views.at("from"), "usr", "a file");
    views.layer(&["usr"]);
    let expected = [
        "usr type dir",
        "usr/lib added dir",
        "usr/lib/a added file",
        "usr/lib/deep added dir",
        "usr/lib/deep/b added file",
    ];
    assert_eq!(views.found(), expected);
}

#[test]
fn one_layer_removes_and_another_makes() {
    let views = Views::new();
    fs::remove_file(views.at("to/usr/lib/a")).expect("remove");
    views.layer(&["usr"]);
    write(&views.at("second"), "usr/lib/deep/b", "");
    let layers = [views.at("layer"), views.at("second")];
    let layers: Vec<&Path> = layers.iter().map(|layer| layer.as_path()).collect();
    assert_eq!(found(&views.at("from"), &views.at("to"), &layers), ["usr/lib/a deleted file"]);
}

#[test]
fn without_a_first_view_everything_is_added() {
    let views = Views::new();
    let to = open(&views.at("to/usr"));
    let changes = compare(None, &View::plain(to.as_fd()), &[]).expect("compare");
    let lines: Vec<_> = changes.iter().map(line).collect();
    let expected =
        ["lib added dir", "lib/a added file", "lib/deep added dir", "lib/deep/b added file"];
    assert_eq!(lines, expected);
}

#[test]
fn deep_views_are_compared() {
    let views = Views::new();
    for view in ["from", "to", "layer"] {
        nest(&views.at(view), 3_000);
    }
    let changes = views.found();
    assert_eq!(changes.len(), 1, "the leaf's time differs");
    for view in ["from", "to", "layer"] {
        let dir = open(&views.at(view));
        crate::tree::remove_tree(dir.as_fd(), std::ffi::OsStr::new("d")).expect("remove");
    }
}
