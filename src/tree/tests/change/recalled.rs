//! What is on no disk, but remembered by layers.

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;
use crate::tree::owners::{Device, DeviceClass, Remembered};
use crate::tree::recall::Recall;

fn device(path: &str, class: DeviceClass, minor: u32) -> Remembered {
    let device = Some(Device { class, major: 1, minor });
    Remembered { device, mode: Some(0o644), ..owned(path, 0) }
}

fn owned(path: &str, uid: u32) -> Remembered {
    Remembered { path: path.into(), uid: Some(uid), ..Remembered::default() }
}

/// Compares `from` with `to`, each a view of one layer that remembers this.
fn between(views: &Views, from: &[Remembered], to: &[Remembered]) -> Vec<String> {
    let (a, b) = (open(&views.at("from")), open(&views.at("to")));
    let view = |root, known| View { root, recall: Recall::new(vec![root], vec![known]) };
    let (a, b) = (view(a.as_fd(), from), view(b.as_fd(), to));
    let changes = compare(Some(&a), &b, &[a.root, b.root]).expect("compare");
    changes.iter().map(line).collect()
}

/// The same files in both views, of the same time.
fn views() -> Views {
    let views = Views::new();
    for view in ["from", "to"] {
        let at = |name: &str| views.at(view).join(name);
        for name in ["char", "disk", "file", "node"] {
            write(&views.at(view), name, "");
            let file = fs::File::options().write(true).open(at(name)).expect("open");
            file.set_modified(std::time::UNIX_EPOCH).expect("time");
        }
        symlink("x", at("link")).expect("symlink");
        mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR, 0).expect("fifo");
    }
    views
}

#[test]
fn owners_and_devices_are_what_they_are_inside() {
    let views = views();
    let (char, block) = (DeviceClass::Char, DeviceClass::Block);
    let from = [
        device("char", char, 3),
        device("disk", char, 8),
        owned("fifo", 7),
        owned("link", 7),
        device("node", char, 3),
    ];
    let to = [
        device("char", char, 5),
        device("disk", block, 8),
        device("file", char, 3),
        owned("link", 8),
        device("node", char, 3),
        owned("usr/lib", 9),
    ];
    let expected = [
        "char modified device",
        "disk type device",
        "fifo metadata fifo",
        "file type device",
        "link metadata symlink",
        "usr/lib metadata dir",
    ];
    assert_eq!(between(&views, &from, &to), expected);
    assert_eq!(between(&views, &to, &to), [""; 0]);
    // A device is its numbers, owner and mode, whatever the file that stands for it.
    write(&views.at("to"), "node", "not its content");
    assert_eq!(between(&views, &to, &to), [""; 0]);
    // What comes and goes.
    fs::remove_file(views.at("to/disk")).expect("remove");
    fs::remove_file(views.at("from/char")).expect("remove");
    let known = [device("char", char, 3), device("disk", char, 3), device("node", char, 3)];
    assert_eq!(between(&views, &known, &known), ["char added device", "disk deleted device"]);
}

#[test]
fn only_the_topmost_layer_that_has_a_path_has_a_say() {
    let views = Views::new();
    for name in ["both", "d/below", "dir/x"] {
        write(&views.at("from"), name, "");
    }
    write(&views.at("to"), "both", "");
    write(&views.at("to"), "dir/y", "");
    let (low, top) = (open(&views.at("from")), open(&views.at("to")));
    let (theirs, ours) = (
        ["both", "d/below", "dir", "gone"].map(|path| owned(path, 7)),
        ["gone/too", "x"].map(|path| owned(path, 9)),
    );
    let recall = Recall::new(vec![top.as_fd(), low.as_fd()], vec![&ours, &theirs]);
    let uid = |path: &str| recall.of(path.as_bytes()).expect("recall").and_then(|one| one.uid);
    let told = ["both", "d/below", "dir", "gone", "gone/too", "dir/x", "x/y"].map(uid);
    assert_eq!(told, [None, Some(7), None, None, None, None, None]);
    // `x` is a directory of both.
    assert_eq!(uid("x"), Some(9));
}
