use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use rustix::fs::{FlockOperation, flock};

use super::*;
use crate::store::spare::Next;

/// A run that is about to end, as overlayfs leaves it.
fn ended(store: &Store) -> Run {
    let lock = store.lock_shared().expect("lock");
    let mut run = store.new_run(&lock, &map()).expect("run");
    run.write_record(&run_record(&run, &[])).expect("record");
    let left = path(store, &run).join("work/work/incompat/volatile");
    fs::create_dir_all(&left).expect("mkdir");
    fs::write(left.join("dirty"), "").expect("write");
    for dir in left.ancestors().take(3) {
        fs::set_permissions(dir, PermissionsExt::from_mode(0o0)).expect("chmod");
    }
    run
}

/// Ends a run: whether its directory was put aside or removed, and its lock is free. To close the lock is not enough
/// here: what another test forks at this moment has it, too, until its exec.
fn end(store: &Store, run: Run) -> bool {
    let empty = run.remove_empty(store);
    let_go(run);
    empty
}

fn let_go(run: Run) {
    flock(&run.lock, FlockOperation::Unlock).expect("unlock");
    drop(run);
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
    let dir = inode(&path(&store, &first));
    assert!(first.remove_empty(&store));
    assert_eq!(store.names(layout::RUNS).expect("names"), [""; 0]);
    let kept = store.names(spare(&store).to_str().expect("UTF-8")).expect("names");
    assert_eq!(kept, ["layer", "lock", "work"]);
    for name in ["work", "work/incompat", "work/incompat/volatile"] {
        let mode = fs::metadata(spare(&store).join("work").join(name)).expect("stat").mode();
        assert_eq!(mode & 0o700, 0o700, "rm -r gets through");
    }
    // Its overlay may still be on its way down, for as long as the lock is held.
    let other = ended(&store);
    assert_ne!(inode(&path(&store, &other)), dir);
    let_go(first);
    let second = ended(&store);
    assert_eq!(inode(&path(&store, &second)), dir);
    let mode = fs::metadata(path(&store, &second).join("layer/fs")).expect("stat").mode();
    assert_eq!(mode & 0o7777, 0o755);
    assert!(!spare(&store).exists());
    assert_eq!(store.runs().expect("runs").len(), 2);
}

#[test]
fn one_run_makes_ready_what_the_next_one_needs() {
    let (_folder, store) = store();
    assert!(end(&store, ended(&store)));
    let mut second = ended(&store);
    // Unless it is told that there is time, its directory is not used again.
    assert!(second.next == Next::Used);
    store.prepare_next(&mut second, &map());
    let at = |run: &Run, name: &str| inode(&path(&store, run).join(name));
    let next = [at(&second, "next-fs"), at(&second, "next-work")];
    assert!(end(&store, second));
    let kept = store.names(spare(&store).to_str().expect("UTF-8")).expect("names");
    assert_eq!(kept, [".new-run.json", "layer", "lock", "next-fs", "next-work", "work"]);

    let lock = store.lock_shared().expect("lock");
    let mut third = store.new_run(&lock, &map()).expect("run");
    assert_eq!([at(&third, "layer/fs"), at(&third, "work")], next);
    assert!(fs::read_dir(path(&store, &third).join("work")).expect("read").next().is_none());
    // A power cut can bring back an older record only where there was one.
    let record = run_record(&third, &[]);
    assert_eq!(fs::metadata(path(&store, &third).join(".new-run.json")).expect("stat").len(), 0);
    third.write_record(&record).expect("record");
    assert_eq!(store.runs().expect("runs")[0].0, record);
    drop(lock);

    store.prepare_next(&mut third, &map());
    let left = path(&store, &third).join("next-work");
    assert!(fs::read_dir(left).expect("read").next().is_none(), "emptied for the fourth");
    third.discard(&store).expect("discard");
    assert_eq!(garbage(&store), Vec::<String>::new());
}

#[test]
fn what_was_not_made_ready_is_not_used_again() {
    let (_folder, store) = store();
    assert!(end(&store, ended(&store)));
    assert!(end(&store, ended(&store)), "the second is removed");
    assert!(!spare(&store).exists());
    assert!(end(&store, ended(&store)));
    let mut run = ended(&store);
    store.prepare_next(&mut run, &map());
    assert!(end(&store, run));
    let mut run = ended(&store);
    fs::write(path(&store, &run).join("next-work/work/#1"), "").expect("write");
    store.prepare_next(&mut run, &map());
    assert!(!run.remove_empty(&store), "overlayfs has left what it should not have");
    assert!(!spare(&store).exists());
    run.discard(&store).expect("discard");
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
    [first, second, third, written].into_iter().for_each(let_go);
    store.gc(&strict_gc()).expect("gc");
    drain(&store).expect("drain");
    assert!(!spare(&store).exists());
    assert_eq!(garbage(&store), Vec::<String>::new());
}

#[test]
fn one_whose_root_was_changed_is_not_used_again() {
    let (_folder, store) = store();
    let run = ended(&store);
    let upper = path(&store, &run).join("layer/fs");
    fs::set_permissions(&upper, PermissionsExt::from_mode(0o555)).expect("chmod");
    assert!(run.remove_empty(&store));
    assert!(!spare(&store).exists());
    assert_eq!(garbage(&store), Vec::<String>::new());
}

#[test]
fn a_damaged_one_is_thrown_away() {
    let (_folder, store) = store();
    assert!(end(&store, ended(&store)));
    fs::write(spare(&store).join("layer/fs/file"), "").expect("write");
    let run = ended(&store);
    assert!(!spare(&store).exists());
    assert!(!path(&store, &run).join("layer/fs/file").exists());
    run.discard(&store).expect("discard");
    drain(&store).expect("drain");
    assert_eq!(garbage(&store), Vec::<String>::new());
}
