//! Several at once.

use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::fault::Kind;

/// One of several processes that move head along the same row of layers.
#[test]
fn child() {
    let Some(path) = std::env::var_os("SANDBOX_TEST_RACE") else { return };
    let store = Store::open(PathBuf::from(path)).expect("open");
    let layers = store.layers().expect("layers");
    let first = store.open_box(&box_name("first")).expect("box");
    let mut won = 0;
    loop {
        let head = first.head().expect("head").expect("some");
        let place = layers.iter().position(|id| *id == head).expect("known");
        let Some(next) = layers.get(place + 1) else { break };
        let lock = store.lock_shared().expect("lock");
        match first.set_head(&lock, next, Expected::Layer(head)) {
            Ok(()) => won += 1,
            Err(fault) => assert_eq!(fault.kind, Kind::Conflict, "{fault}"),
        }
    }
    crate::sys::process::exit_now(won);
}

#[test]
fn each_move_is_won_by_one_process() {
    let (_folder, store) = store();
    let first = make_box(&store, "first").expect("box");
    for number in 0..61 {
        commit_as(&store, &first, None, &format!("s{number}")).expect("commit");
    }
    let layers = store.layers().expect("layers");
    let lock = store.lock_shared().expect("lock");
    first.set_head(&lock, &layers[0], Expected::Absent).expect("head");
    drop(lock);
    let path = OsString::from(store.path());
    let orders = [("SANDBOX_TEST_RACE", path.as_os_str())];
    let spawn = |_| again("race::child", &orders).spawn().expect("spawn");
    let children: Vec<_> = (0..3).map(spawn).collect();
    let won =
        children.into_iter().map(|mut child| child.wait().expect("wait").code().expect("code"));
    assert_eq!(won.sum::<i32>(), 60);
    assert_eq!(first.head().expect("head").as_ref(), layers.last());
}

#[test]
fn gc_takes_nothing_from_runs_and_commits() {
    let (_folder, store) = store();
    let first = make_box(&store, "first").expect("box");
    let base = commit_as(&store, &first, None, "base").expect("commit");
    let (done, swept) = (AtomicBool::new(false), AtomicUsize::new(0));
    let path = store.path();
    std::thread::scope(|scope| {
        let sweeper = scope.spawn(|| {
            let store = Store::open(path).expect("open");
            while !done.load(Ordering::Relaxed) {
                let options = GcOptions { wait: Duration::from_secs(60), ..strict_gc() };
                let layers = store.gc(&options).expect("gc").layers.len();
                swept.fetch_add(layers, Ordering::Relaxed);
                store.reap().expect("reap");
                drain_with_others(&store);
            }
        });
        let workers: Vec<_> = (0..2)
            .map(|worker| {
                scope.spawn({
                    let swept = &swept;
                    move || work(path, worker, swept)
                })
            })
            .collect();
        for worker in workers {
            worker.join().expect("worker");
        }
        done.store(true, Ordering::Relaxed);
        sweeper.join().expect("sweeper");
    });
    assert_ne!(swept.into_inner(), 0, "gc never came to its turn");
    assert!(store.layer(&base.id).is_ok());
    for found in first.refs().expect("refs") {
        for id in store.layer(&found.layer).expect("record").mount {
            store.layer(&id).expect("whole chain");
        }
    }
    store.gc(&strict_gc()).expect("gc");
    drain(&store).expect("drain");
    assert_eq!(store.layers().expect("layers").len(), 3);
    assert_eq!(garbage(&store), Vec::<String>::new());
}

/// Commits on top of what it committed before, and lets only the newest have a name: so often, and until gc has
/// found something.
fn work(path: &Path, worker: usize, swept: &AtomicUsize) {
    let store = Store::open(path).expect("open");
    let first = store.open_box(&box_name("first")).expect("box");
    let name = snapshot(&format!("worker{worker}"));
    let patience = Instant::now() + Duration::from_secs(60);
    let more = |round| round < 40 || swept.load(Ordering::Relaxed) == 0;
    for _ in (0..).take_while(|round| more(*round) && Instant::now() < patience) {
        let lock = store.lock_shared().expect("lock");
        let base = store.resolve(&box_name("first"), "base").expect("base").layer;
        let base = store.layer(&base).expect("record");
        let run = run_with_file(&store, &lock, &base.mount).expect("run");
        drop(lock);
        let record = layer_record(Some(&base));
        let lock = store.lock_shared().expect("lock");
        store.publish(&lock, &run, &record, None, run.dir()).expect("publish");
        first
            .update(&lock, |state| {
                let old =
                    state.get(&name)?.map_or(Expected::Absent, |old| Expected::Layer(old.layer));
                state.set(&name, &record.id, old, None)
            })
            .expect("update");
        drop(lock);
        run.discard(&store).expect("discard");
        // A command takes longer to start than this: a moment without anybody's lock comes soon.
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// As [`drain`], while others put things there.
fn drain_with_others(store: &Store) {
    while let Some(trash) = store.trash().expect("trash") {
        trash.empty(&mut remove).expect("empty");
        trash.finish().expect("finish");
    }
}
