//! One case at a time, each with a reason.

use super::*;

/// `a` is 0, `b` is 1, `c` is 2.
fn entry(path: &str, what: Make) -> Entry {
    (path.split('/').map(|part| part.as_bytes()[0] - b'a').collect(), what, 0)
}

fn layers(given: &[&[(&str, Make)]]) -> Layers {
    let entries = |layer: &&[(&str, Make)]| layer.iter().map(|(p, what)| entry(p, *what)).collect();
    Layers::new(&given.iter().map(entries).collect::<Vec<_>>())
}

#[test]
fn each_thing_over_each_other_thing() {
    use Make::*;
    let all = [File, Link, Symlink, Fifo, Dir, Opaque, Whiteout, Marked];
    for low in all {
        for high in all {
            for ground in [File, Dir] {
                let child = |of| if matches!(of, Dir | Opaque) { "b/a" } else { "c/a" };
                let layers = layers(&[
                    &[("b", ground), (child(ground), File), ("a", File)],
                    &[("a", File), ("b", low), (child(low), File), ("b/b", Dir)],
                    &[("a", File), ("b", high), ("b/c", File)],
                ]);
                layers.check();
            }
        }
    }
}

#[test]
fn what_came_and_went_leaves_nothing() {
    use Make::*;
    let layers = layers(&[
        &[("a/a", File), ("b", Dir)],
        &[("a/b", File), ("a/c", Dir), ("c/c", File), ("b/a", File)],
        &[
            ("a/a", Whiteout),
            ("a/b", Whiteout),
            ("a/c", Whiteout),
            ("c/c", Marked),
            ("b", Whiteout),
        ],
    ]);
    layers.check();
    let there = |path: &str| layers.at("fold").join(path).symlink_metadata().is_ok();
    assert!(there("a/a") && there("b"), "these hide something of the ground");
    assert!(!there("a/b") && !there("a/c") && !there("c/c"), "these hide nothing any more");
}

#[test]
fn files_are_the_same_inodes_and_links_stay_together() {
    use Make::*;
    let layers = layers(&[&[], &[("a", File), ("b", Link), ("c/a", Link)], &[("c/b", Symlink)]]);
    let totals = layers.fold();
    assert_eq!((totals.files, totals.bytes), (5, 3));
    let inode = |path: &str| fs::symlink_metadata(layers.at(path)).expect("stat").ino();
    for path in ["a", "b", "c/a"] {
        assert_eq!(inode(&format!("fold/{path}")), inode("1/a"));
    }
    assert_eq!(inode("fold/c/b"), inode("2/c/b"));
}

#[test]
fn a_file_with_all_the_names_it_can_have_is_copied() {
    let layers = layers(&[&[], &[("a", Make::File)], &[]]);
    let (file, aside) = (layers.at("1/a"), layers.at("aside"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4751)).expect("mode");
    fs::create_dir(&aside).expect("mkdir");
    let full = (0..70_000).any(|number| {
        let made = fs::hard_link(&file, aside.join(number.to_string()));
        made.is_err_and(|error| error.raw_os_error() == Some(31))
    });
    layers.fold();
    let (old, new) = (file.metadata().expect("old"), layers.at("fold/a").metadata().expect("new"));
    // A file system without a limit gives another name.
    assert_eq!(old.ino() != new.ino(), full);
    let seen =
        |found: &fs::Metadata| (found.mode(), found.uid(), found.mtime(), found.mtime_nsec());
    assert_eq!(seen(&old), seen(&new));
    let read = |path: &str| fs::read(layers.at(path)).expect("read");
    assert_eq!(read("1/a"), read("fold/a"));
    let all = |path: &str| {
        let file = fs::File::open(layers.at(path)).expect("open");
        let mut all = xattr::all(file.as_fd()).expect("xattrs");
        all.retain(|(name, _)| name != c"user.overlay.origin");
        all
    };
    assert_eq!(all("1/a"), all("fold/a"));
}

#[test]
fn entries_that_are_no_files_are_copied_too() {
    let layers = layers(&[&[], &[("a", Make::Fifo), ("b", Make::Symlink), ("c", Make::Whiteout)]]);
    let (from, to) = (open(&layers.at("1")), open(&layers.at("fold")));
    crate::tree::walk(from.as_fd(), &mut |visit: &crate::tree::Visit<'_>| {
        crate::tree::fold::same::copy(visit, to.as_fd()).expect("copy");
        Ok(crate::tree::Descend::Yes)
    })
    .expect("walk");
    for name in ["a", "b", "c"] {
        let old = layers.at("1").join(name).symlink_metadata().expect("old");
        let new = layers.at("fold").join(name).symlink_metadata().expect("new");
        let seen =
            |found: &fs::Metadata| (found.mode(), found.mtime(), found.mtime_nsec(), found.rdev());
        assert_eq!(seen(&old), seen(&new), "{name}");
    }
    assert_eq!(fs::read_link(layers.at("fold/b")).expect("link"), Path::new("to 0"));
}

#[test]
fn directories_that_deny_everything_and_deep_ones() {
    if !is_root() {
        return;
    }
    let layers = layers(&[&[], &[("a/a", Make::File)], &[("a/b", Make::File)]]);
    for layer in ["1/a", "2/a"] {
        fs::set_permissions(layers.at(layer), fs::Permissions::from_mode(0o000)).expect("chmod");
    }
    nest(&layers.at("1"), 3_000);
    nest(&layers.at("2"), 2_000);
    let totals = layers.fold();
    assert_eq!(fs::metadata(layers.at("fold/a")).expect("a").mode() & 0o7777, 0o000);
    assert_eq!(totals.files, 3 + 3_000 + 2);
    for layer in ["1", "2", "fold"] {
        let dir = open(&layers.at(layer));
        crate::tree::remove_tree(dir.as_fd(), std::ffi::OsStr::new("d")).expect("remove");
    }
}

#[test]
fn every_group_of_calls_can_fail() {
    use Make::*;
    let layers = layers(&[
        &[("a", Dir)],
        &[("a/b", File), ("b", File), ("c/a", File)],
        &[("a/b", Whiteout), ("b/a", Dir)],
    ]);
    let mut steps = std::collections::BTreeSet::new();
    let stack: Vec<_> = layers.stack().iter().map(|path| open(path)).collect();
    let [top, low, ground] = [0, 1, 2].map(|number| stack[number].as_fd());
    let place = open(&layers.at("fold"));
    let run = |step: &mut dyn FnMut(&'static str) -> Result<(), rustix::io::Errno>| {
        for entry in fs::read_dir(layers.at("fold")).expect("read") {
            let name = entry.expect("entry").file_name();
            crate::tree::remove_tree(place.as_fd(), &name).expect("remove");
        }
        fold(&[top, low], ground, place.as_fd(), step)
    };
    run(&mut |step| {
        steps.insert(step);
        Ok(())
    })
    .expect("fold");
    assert_eq!(
        steps.iter().copied().collect::<Vec<_>>(),
        ["fold.attributes", "fold.link", "fold.mkdir", "fold.opaque", "fold.prune"]
    );
    for failing in steps {
        let fault = run(&mut |step| match step == failing {
            true => Err(rustix::io::Errno::NOSPC),
            false => Ok(()),
        })
        .expect_err(failing);
        assert!(fault.message.contains("no space left"), "{failing}: {fault}");
    }
}
