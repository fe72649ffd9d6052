//! gc, the reaper and the trash.

use std::fs;
use std::time::Duration;

use super::*;
use crate::fault::Kind;

#[test]
fn gc_keeps_what_is_needed_and_takes_the_rest() {
    let (_folder, store) = store();
    let first = make_box(&store, "first").expect("box");
    let base = commit_as(&store, &first, None, "base").expect("commit");
    let middle = commit_as(&store, &first, Some(&base), "middle").expect("commit");
    let tip = commit_as(&store, &first, Some(&middle), "tip").expect("commit");
    let dead = commit_as(&store, &first, Some(&middle), "dead").expect("commit");
    let undone = commit_as(&store, &first, Some(&middle), "undone").expect("commit");
    let used = commit_as(&store, &first, Some(&middle), "used").expect("commit");
    let lock = store.lock_shared().expect("lock");
    for name in ["middle", "dead", "used"] {
        first.remove(&lock, &snapshot(name)).expect("remove");
    }
    first
        .update(&lock, |state| {
            state.remove(&snapshot("undone"))?;
            state.log(LogEntry::new("rm"));
            Ok(())
        })
        .expect("update");
    let run = run_with_file(&store, &lock, &used.mount).expect("run");
    assert_eq!(
        store.gc(&GcOptions { wait: Duration::ZERO, ..strict_gc() }).expect_err("held").kind,
        Kind::Busy
    );
    drop(lock);
    let young = GcOptions { undo: Some(Duration::from_secs(1000)), ..strict_gc() };
    let dry = store.gc(&GcOptions { dry_run: true, ..young }).expect("dry");
    assert_eq!((dry.layers.as_slice(), dry.dry_run), ([dead.id].as_slice(), true));
    assert_eq!(dry.paths, [layout::layer(&dead.id)]);
    assert_eq!(store.layers().expect("layers").len(), 6);
    assert_eq!(store.gc(&young).expect("gc").layers, [dead.id]);
    assert_eq!(store.gc(&strict_gc()).expect("gc").layers, [undone.id]);
    let id = run.id();
    run.keep(&run_record_of(&store, &id)).expect("keep");
    assert!(store.gc(&strict_gc()).expect("gc").is_empty(), "a kept run needs its chain");
    let (run, _) = store.open_run(&id).expect("open");
    run.discard(&store).expect("discard");
    assert_eq!(store.gc(&strict_gc()).expect("gc").layers, [used.id]);
    assert_eq!(store.layers().expect("layers"), sorted([base.id, middle.id, tip.id]));
    drain(&store).expect("drain");
    assert_eq!(garbage(&store), Vec::<String>::new());
    let json = serde_json::to_value(&dry).expect("json");
    assert_eq!(json["dry_run"], true);
}

fn run_record_of(store: &Store, id: &RunId) -> RunRecord {
    let runs = store.runs().expect("runs");
    runs.into_iter().find(|(record, _)| record.run == *id).expect("the run").0
}

#[test]
fn gc_refuses_when_it_cannot_tell() {
    let (_folder, store) = store();
    let first = make_box(&store, "first").expect("box");
    let base = commit_as(&store, &first, None, "base").expect("commit");
    let dead = commit_as(&store, &first, Some(&base), "dead").expect("commit");
    let lock = store.lock_shared().expect("lock");
    first.remove(&lock, &snapshot("dead")).expect("remove");
    first.set_head(&lock, &base.id, Expected::Absent).expect("head");
    let run = run_with_file(&store, &lock, &base.mount).expect("run");
    drop(lock);
    let record = format!("runs/{}/run.json", run.id());
    let layer = format!("layers/{}/layer.json", base.id);
    for name in ["boxes/first/refs/base", "boxes/first/head", &layer, &record] {
        let path = store.path().join(name);
        let good = fs::read(&path).expect("read");
        for bad in ["{", "{}x", "\0\0\0"] {
            fs::write(&path, bad).expect("write");
            let fault = store.gc(&strict_gc()).expect_err(name);
            assert_eq!(fault.kind, Kind::Damaged, "{fault}");
            assert!(fault.message.contains(name), "{fault}");
            assert!(store.path().join("layers").join(dead.id.as_str()).exists());
        }
        fs::write(&path, good).expect("write");
    }
    fs::write(store.path().join("boxes/first/refs/a b"), "").expect("write");
    assert_eq!(store.gc(&strict_gc()).expect_err("foreign").kind, Kind::Damaged);
    fs::remove_file(store.path().join("boxes/first/refs/a b")).expect("remove");
    // A record of a dead layer may be as it likes.
    let path = store.path().join(format!("layers/{}/layer.json", dead.id));
    fs::write(path, "").expect("write");
    assert_eq!(store.gc(&strict_gc()).expect("gc").layers, [dead.id]);
    run.discard(&store).expect("discard");
}

#[test]
fn the_reaper_takes_the_dead_and_nobody_else() {
    let (_folder, store) = store();
    let lock = store.lock_shared().expect("lock");
    let living = run_with_file(&store, &lock, &[]).expect("run");
    let kept = run_with_file(&store, &lock, &[]).expect("run");
    let kept_id = kept.id();
    kept.keep(&run_record_of(&store, &kept_id)).expect("keep");
    let dead = abandon(run_with_file(&store, &lock, &[]).expect("run"));
    let blank = abandon(store.new_run(&lock, &map()).expect("run"));
    // What a power cut leaves of a record on ext4.
    let zeros = abandon(run_with_file(&store, &lock, &[]).expect("run"));
    fs::write(store.path().join(format!("runs/{zeros}/run.json")), [0; 300]).expect("write");
    let young = store.path().join("runs/.new-r-0000000000000");
    fs::create_dir(&young).expect("mkdir");
    let runs = store.runs().expect("runs").into_iter();
    let states: Vec<_> = runs.map(|(record, state)| (record.run, state)).collect();
    assert_eq!(
        sorted(states),
        sorted([
            (living.id(), RunState::Running),
            (kept_id, RunState::Kept),
            (dead, RunState::Dead)
        ])
    );
    let again = Store::open(store.path()).expect("open");
    let counts: Vec<usize> = std::thread::scope(|scope| {
        let reapers: Vec<_> = (0..4).map(|_| scope.spawn(|| again.reap().expect("reap"))).collect();
        reapers.into_iter().map(|reaper| reaper.join().expect("join")).collect()
    });
    // Two that look at one corpse at the same time may both leave it; a last one finds it.
    let count = counts.iter().sum::<usize>() + store.reap().expect("reap");
    assert_eq!(count, 3);
    let trash = store.names("trash").expect("trash");
    assert_eq!(trash, sorted([dead, blank, zeros].map(|id| format!("run-{id}"))));
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(60);
    fs::File::open(&young).expect("open").set_modified(long_ago).expect("touch");
    assert_eq!(store.reap().expect("reap"), 1);
    // The clock was set back since somebody died: what is of a later time is nobody's, either. What is of the
    // next moments may be of one whose clock is a little ahead.
    let young = store.path().join("runs/.new-r-0000000000001");
    fs::create_dir(&young).expect("mkdir");
    let touch = |ahead| {
        let time = std::time::SystemTime::now() + Duration::from_secs(ahead);
        fs::File::open(&young).expect("open").set_modified(time).expect("touch");
    };
    touch(5);
    assert_eq!(store.reap().expect("reap"), 0);
    touch(3600);
    assert_eq!(store.reap().expect("reap"), 1);
    // A damaged record may be of a kept run: it is left alone.
    fs::write(store.path().join(format!("runs/{kept_id}/run.json")), "{").expect("write");
    assert_eq!(store.reap().expect("reap"), 0);
    assert_eq!(store.names("runs").expect("runs").len(), 2);
    drop(living);
}

#[test]
fn old_scaffolds_go_unless_a_run_has_them() {
    let (_folder, store) = store();
    let lock = store.lock_shared().expect("lock");
    let mut run = store.new_run(&lock, &map()).expect("run");
    let record = run_record(&run, &[]);
    run.write_record(&RunRecord { scaffold: Some("scaffold-used".into()), ..record })
        .expect("record");
    drop(lock);
    for name in ["scaffold-used", "scaffold-old/etc", "seccomp-x"] {
        fs::create_dir_all(store.path().join("cache").join(name)).expect("mkdir");
    }
    store.gc(&GcOptions { cache: Duration::from_secs(60), ..strict_gc() }).expect("gc");
    assert_eq!(store.names("cache").expect("cache").len(), 3);
    store.gc(&strict_gc()).expect("gc");
    assert_eq!(store.names("cache").expect("cache"), ["scaffold-used"]);
    drain(&store).expect("drain");
    assert_eq!(garbage(&store), Vec::<String>::new());
}

#[test]
fn more_trash_than_one_batch_is_emptied() {
    let (_folder, store) = store();
    for _ in 0..70 {
        let lock = store.lock_shared().expect("lock");
        run_with_file(&store, &lock, &[]).expect("run").discard(&store).expect("discard");
    }
    assert_eq!(store.trash_pending().expect("pending"), 70);
    drain(&store).expect("drain");
    assert_eq!(store.trash_pending().expect("pending"), 0);
}
