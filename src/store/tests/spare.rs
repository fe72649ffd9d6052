use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;

/// A run that is about to end, as overlayfs leaves it.
fn ended(store: &Store) -> Run {
    let lock = store.lock_shared().expect("lock");
    let mut run = store.new_run(&lock, &map()).expect("run");
    run.write_record(&run_record(&run, &[])).expect("record");
    let left = path(store, &run).join("work/work/incompat/volatile");
    fs::create_dir_all(&left).expect("mkdir");
    fs::write(left.join("dirty"), "").expect("write");
    run
}

fn path(store: &Store, run: &Run) -> PathBuf {
    store.path().join(layout::run(&run.id()))
}

fn spare(store: &Store) -> PathBuf {
    let (uid, gid) = map().root_owner();
    store.path().join(layout::spare(uid, gid))
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).expect("stat").ino()
}

#[test]
fn the_directory_of_an_empty_run_serves_the_next_one() {
    let (_folder, store) = store();
    let first = ended(&store);
    let (dir, upper) = (inode(&path(&store, &first)), path(&store, &first).join("layer/fs"));
    // What a payload may have done to its root goes with it.
    fs::set_permissions(&upper, PermissionsExt::from_mode(0o1777)).expect("chmod");
    assert!(first.remove_empty(&store));
    assert_eq!(store.names(layout::RUNS).expect("names"), [""; 0]);
    let kept = store.names(spare(&store).to_str().expect("UTF-8")).expect("names");
    assert_eq!(kept, ["layer", "lock", "work"]);
    // Its overlay may still be on its way down, for as long as the lock is held.
    let other = ended(&store);
    assert_ne!(inode(&path(&store, &other)), dir);
    drop(first);
    let second = ended(&store);
    assert_eq!(inode(&path(&store, &second)), dir);
    let mode = fs::metadata(path(&store, &second).join("layer/fs")).expect("stat").mode();
    assert_eq!(mode & 0o7777, 0o755);
    assert!(!spare(&store).exists());
    assert_eq!(store.runs().expect("runs").len(), 2);
}

#[test]
fn where_overlayfs_worked_goes_when_the_next_one_comes() {
    let (_folder, store) = store();
    let first = ended(&store);
    let work =
        |path: PathBuf| store.names(path.join("work").to_str().expect("UTF-8")).expect("names");
    assert!(first.remove_empty(&store));
    assert_eq!(work(spare(&store)), ["work"]);
    drop(first);
    let lock = store.lock_shared().expect("lock");
    let second = store.new_run(&lock, &map()).expect("run");
    assert!(!spare(&store).exists());
    assert_eq!(work(path(&store, &second)), [""; 0]);
}

#[test]
fn what_overlayfs_should_not_have_left_is_not_kept() {
    let (_folder, store) = store();
    let run = ended(&store);
    fs::write(path(&store, &run).join("work/work/#1"), "").expect("write");
    assert!(!run.remove_empty(&store));
    assert!(!spare(&store).exists());
}

#[test]
fn only_one_is_kept_and_none_that_holds_anything() {
    let (_folder, store) = store();
    let (first, second, third) = (ended(&store), ended(&store), ended(&store));
    let dir = inode(&path(&store, &first));
    fs::create_dir(path(&store, &third).join("work/bind0")).expect("mkdir");
    assert!(!third.remove_empty(&store));
    assert!(!spare(&store).exists());
    assert!(first.remove_empty(&store) && second.remove_empty(&store));
    assert_eq!(inode(&spare(&store)), dir);
    let written = ended(&store);
    fs::write(path(&store, &written).join("layer/fs/file"), "").expect("write");
    assert!(!written.remove_empty(&store));
    drop((first, second, third, written));
    store.gc(&strict_gc()).expect("gc");
    drain(&store).expect("drain");
    assert!(!spare(&store).exists());
    assert_eq!(garbage(&store), Vec::<String>::new());
}

#[test]
fn one_that_was_left_half_taken_serves_too() {
    let (_folder, store) = store();
    assert!(ended(&store).remove_empty(&store));
    fs::create_dir(spare(&store).join("layer/fs")).expect("mkdir");
    let run = ended(&store);
    assert!(!spare(&store).exists());
    run.discard(&store).expect("discard");
}
