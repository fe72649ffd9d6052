//! Persistent caches of boxes.

use std::fs;

use super::*;

fn name() -> SnapshotName {
    snapshot("packages")
}

fn try_take(store: &Store, box_: &str) -> Result<Cache> {
    let lock = store.lock_shared().expect("lock");
    store.use_cache(&lock, &box_name(box_), &name(), &map())
}

fn take(store: &Store, box_: &str) -> Cache {
    try_take(store, box_).expect("cache")
}

#[test]
fn a_cache_stays_until_it_is_removed() {
    let (_folder, store) = store();
    make_box(&store, "first").expect("box");
    let used = take(&store, "first");
    let fs_dir = store.path().join(used.path());
    fs::write(fs_dir.join("file"), "x").expect("write");
    drop(used);
    // Two at once, and it is the same.
    let (one, two) = (take(&store, "first"), take(&store, "first"));
    assert_eq!(one.path(), two.path());
    assert_eq!(fs::read_to_string(fs_dir.join("file")).expect("read"), "x");
    assert_eq!(store.cache_names(&box_name("first")).expect("names"), [name()]);
    // It is not taken from those who use it.
    let fault = store.hold_cache(&box_name("first"), &name()).expect_err("in use");
    assert_eq!(fault.kind, crate::fault::Kind::Busy);
    drop(one);
    assert!(store.hold_cache(&box_name("first"), &name()).is_err());
    drop(two);
    let held = store.hold_cache(&box_name("first"), &name()).expect("free").expect("there");
    let lock = store.lock_shared().expect("lock");
    store.remove_cache(&lock, held).expect("remove");
    assert_eq!(store.names("cache").expect("names"), [""; 0]);
    assert!(store.hold_cache(&box_name("first"), &name()).expect("gone").is_none());
    assert_eq!(store.trash_pending().expect("trash"), 1);
    drain(&store).expect("empty");
    // The next use finds an empty one.
    drop(take(&store, "first"));
    assert_eq!(fs::read_dir(fs_dir).expect("read").count(), 0);
    assert_eq!(garbage(&store), Vec::<String>::new());
}

#[test]
fn gc_takes_the_caches_of_boxes_that_are_gone_and_no_others() {
    let (_folder, store) = store();
    for name in ["first", "second"] {
        make_box(&store, name).expect("box");
        drop(take(&store, name));
    }
    let used = take(&store, "first");
    store.remove_box(&store.lock_shared().expect("lock"), &box_name("first")).expect("remove");
    store.gc(&strict_gc()).expect("gc");
    assert_eq!(store.names("cache").expect("names"), ["box-first", "box-second"]);
    drop(used);
    store.gc(&strict_gc()).expect("gc");
    assert_eq!(store.names("cache").expect("names"), ["box-second"]);
    drain(&store).expect("empty");
}

/// What runs make and what others remove at the same time is never half.
#[test]
fn makers_and_removers_at_once() {
    let (_folder, store) = store();
    make_box(&store, "first").expect("box");
    let path = store.path().to_owned();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let store = Store::open(&path).expect("open");
                for _ in 0..200 {
                    let used = match try_take(&store, "first") {
                        // That a remover came in between each time is an answer, too.
                        Err(fault) if fault.kind == crate::fault::Kind::Busy => continue,
                        used => used.expect("cache"),
                    };
                    let dir = store.path().join(used.path());
                    fs::write(dir.join(format!("{:?}", std::thread::current().id())), "x")
                        .expect("a cache that is used is there");
                }
            });
        }
        scope.spawn(|| {
            let store = Store::open(&path).expect("open");
            for _ in 0..400 {
                if let Ok(Some(held)) = store.hold_cache(&box_name("first"), &name()) {
                    let lock = store.lock_shared().expect("lock");
                    store.remove_cache(&lock, held).expect("remove");
                }
            }
        });
    });
    drain(&store).expect("empty");
}
