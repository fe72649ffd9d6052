//! What happens between the two holds of the lock: a layer that finds a use there stays.

use super::*;

/// A layer that nothing names, but the log of a box, long ago.
fn with_garbage(store: &Store) -> (Box_<'_>, LayerRecord, LayerRecord) {
    let first = make_box(store, "first").expect("box");
    let base = commit_as(store, &first, None, "base").expect("commit");
    let dead = commit_as(store, &first, Some(&base), "dead").expect("commit");
    let lock = store.lock_shared().expect("lock");
    first.remove(&lock, &snapshot("dead")).expect("remove");
    (first, base, dead)
}

/// What others do, and whether the layer then lives.
#[track_caller]
fn meanwhile(lives: bool, job: impl FnOnce(&Store, &Box_<'_>, &LayerRecord, &LayerRecord)) {
    let (_folder, store) = store();
    let (first, base, dead) = with_garbage(&store);
    let collected = store.gc_after(&strict_gc(), || job(&store, &first, &base, &dead)).expect("gc");
    let there = store.layers().expect("layers").contains(&dead.id);
    assert_eq!((there, collected.layers.is_empty()), (lives, lives));
    assert!(store.survey().expect("survey").findings.is_empty());
}

#[test]
fn nothing_happens() {
    meanwhile(false, |_, _, _, _| {});
}

#[test]
fn a_name_is_given_or_moved() {
    meanwhile(true, |store, first, _, dead| {
        let lock = store.lock_shared().expect("lock");
        first.set(&lock, &snapshot("again"), &dead.id, Expected::Absent, None).expect("set");
    });
    meanwhile(true, |store, first, base, dead| {
        let lock = store.lock_shared().expect("lock");
        let expected = Expected::Layer(base.id);
        first.set(&lock, &snapshot("base"), &dead.id, expected, None).expect("set");
    });
    // Within one tick of the clock, and back as it was.
    meanwhile(false, |store, first, base, dead| {
        let lock = store.lock_shared().expect("lock");
        for (old, new) in [(base.id, dead.id), (dead.id, base.id)] {
            let expected = Expected::Layer(old);
            first.set(&lock, &snapshot("base"), &new, expected, None).expect("set");
        }
    });
}

#[test]
fn head_moves() {
    meanwhile(true, |store, first, _, dead| {
        let lock = store.lock_shared().expect("lock");
        first.set_head(&lock, &dead.id, Expected::Absent).expect("set");
    });
}

#[test]
fn a_box_comes_or_is_made_anew() {
    meanwhile(true, |store, _, _, dead| {
        let second = make_box(store, "second").expect("box");
        let lock = store.lock_shared().expect("lock");
        second.set(&lock, &snapshot("it"), &dead.id, Expected::Absent, None).expect("set");
    });
    meanwhile(true, |store, _, _, dead| {
        let lock = store.lock_shared().expect("lock");
        store.remove_box(&lock, &box_name("first")).expect("remove");
        drop(lock);
        let first = make_box(store, "first").expect("box");
        let lock = store.lock_shared().expect("lock");
        first.set(&lock, &snapshot("it"), &dead.id, Expected::Absent, None).expect("set");
    });
}

#[test]
fn a_run_starts_from_it() {
    meanwhile(true, |store, _, _, dead| {
        let lock = store.lock_shared().expect("lock");
        let run = run_with_file(store, &lock, &dead.mount).expect("run");
        let record = run_record(&run, &dead.mount);
        run.keep(&record).expect("keep");
    });
}

#[test]
fn a_layer_is_made_on_it() {
    meanwhile(true, |store, first, _, dead| {
        commit_as(store, first, Some(dead), "new").expect("commit");
    });
    // One that is new itself is not looked at before the next time.
    let (_folder, store) = store();
    let (first, base, _) = with_garbage(&store);
    let collected = store
        .gc_after(&strict_gc(), || {
            commit_as(&store, &first, Some(&base), "new").expect("commit");
            first.remove(&store.lock_shared().expect("lock"), &snapshot("new")).expect("remove");
        })
        .expect("gc");
    assert_eq!((collected.layers.len(), store.layers().expect("layers").len()), (1, 2));
}

#[test]
fn another_gc_is_faster() {
    let (_folder, store) = store();
    let (_, base, dead) = with_garbage(&store);
    let again = || assert_eq!(store.gc(&strict_gc()).expect("gc").layers, [dead.id]);
    assert!(store.gc_after(&strict_gc(), again).expect("gc").is_empty());
    assert_eq!(store.layers().expect("layers"), [base.id]);
}

/// More than one hold is needed, and more events than fit into the queue.
#[test]
fn another_gc_takes_what_a_log_names() {
    let (_folder, store) = store();
    let (first, base, dead) = with_garbage(&store);
    let log_a_move = |layer: &LayerRecord| {
        let lock = store.lock_shared().expect("lock");
        let moved = first.update(&lock, |state| {
            state.set(&snapshot("more"), &layer.id, Expected::Absent, None)?;
            state.log(LogEntry::new("snapshot"));
            Ok(())
        });
        moved.expect("move");
    };
    let lock = store.lock_shared().expect("lock");
    first.set(&lock, &snapshot("moved"), &dead.id, Expected::Absent, None).expect("set");
    let removed = first.update(&lock, |state| {
        state.remove(&snapshot("moved"))?;
        state.log(LogEntry::new("rm"));
        Ok(())
    });
    removed.expect("remove");
    drop(lock);
    let kept = store.gc(&GcOptions::default()).expect("gc");
    assert!(kept.is_empty(), "undo may need it: {kept:?}");
    // One that no log names, so that there is something to do.
    let other = commit_as(&store, &first, Some(&base), "other").expect("commit");
    first.remove(&store.lock_shared().expect("lock"), &snapshot("other")).expect("remove");
    let others = || {
        // As far as one of them has come that leaves undo nothing.
        let trash = format!("layer-{}", dead.id);
        store.to_trash(&layout::layer(&dead.id), &trash).expect("rename");
        log_a_move(&base);
    };
    let collected = store.gc_after(&GcOptions::default(), others).expect("gc");
    assert_eq!(collected.layers, [other.id]);
    assert_eq!(store.layers().expect("layers"), [base.id]);
}

#[test]
fn many_layers_and_many_moves() {
    let (_folder, store) = store();
    let (first, base, dead) = with_garbage(&store);
    for _ in 0..200 {
        let record = layer_record(Some(&base));
        let fs = store.path().join(layout::tree(&record.id));
        std::fs::create_dir_all(fs).expect("layer");
        let json = json_line(&record).expect("json");
        std::fs::write(store.path().join(layout::layer_record(&record.id)), json).expect("write");
    }
    let collected = store
        .gc_after(&strict_gc(), || {
            let lock = store.lock_shared().expect("lock");
            first.set(&lock, &snapshot("again"), &dead.id, Expected::Absent, None).expect("set");
            for _ in 0..20_000 {
                std::fs::write(store.path().join("boxes/first/refs/.new-x"), "").expect("write");
                std::fs::remove_file(store.path().join("boxes/first/refs/.new-x")).expect("rm");
            }
        })
        .expect("gc");
    assert_eq!(collected.layers.len(), 200);
    assert_eq!(store.layers().expect("layers"), sorted([base.id, dead.id]));
}
