//! Chains with a fold layer: what gc keeps of them, and what can still be opened.

use std::fs;
use std::time::Duration;

use super::*;
use crate::fault::Kind;

/// Publishes a layer with this record.
fn publish(store: &Store, record: &LayerRecord) {
    let lock = store.lock_shared().expect("lock");
    let run = run_with_file(store, &lock, &[]).expect("run");
    store.publish(&lock, &run, record, None, run.dir()).expect("publish");
    run.discard(store).expect("discard");
}

/// A fold layer that stands for these.
fn fold_of(layers: &[&LayerRecord]) -> LayerRecord {
    let folds = layers.iter().map(|layer| layer.id).collect();
    LayerRecord { folds, argv: vec![], exit: None, ..layer_record(None) }
}

/// A chain of four, then a fold layer of the two in the middle and a layer that mounts with it. They have the
/// names that the fields have.
struct Chain {
    base: LayerRecord,
    a: LayerRecord,
    b: LayerRecord,
    c: LayerRecord,
    fold: LayerRecord,
    d: LayerRecord,
}

fn chain(store: &Store, box_: &Box_<'_>) -> Chain {
    let base = commit_as(store, box_, None, "base").expect("commit");
    let a = commit_as(store, box_, Some(&base), "a").expect("commit");
    let b = commit_as(store, box_, Some(&a), "b").expect("commit");
    let c = commit_as(store, box_, Some(&b), "c").expect("commit");
    let fold = fold_of(&[&a, &b]);
    publish(store, &fold);
    let next = layer_record(Some(&c));
    let d = LayerRecord { mount: vec![base.id, fold.id, c.id, next.id], ..next };
    publish(store, &d);
    let lock = store.lock_shared().expect("lock");
    box_.set(&lock, &snapshot("d"), &d.id, Expected::Absent, None).expect("name");
    Chain { base, a, b, c, fold, d }
}

#[test]
fn folded_layers_live_as_long_as_an_old_name() {
    let (_folder, store) = store();
    let first = make_box(&store, "first").expect("box");
    let Chain { base, a, b, c, fold, d } = chain(&store, &first);
    let all = sorted([base.id, a.id, b.id, c.id, fold.id, d.id]);
    assert!(store.gc(&strict_gc()).expect("gc").is_empty());
    let lock = store.lock_shared().expect("lock");
    for name in ["base", "a", "b"] {
        first.remove(&lock, &snapshot(name)).expect("remove");
    }
    drop(lock);
    assert!(store.gc(&strict_gc()).expect("gc").is_empty(), "c is mounted with all of them");
    assert_eq!(store.layers().expect("layers"), all);
    first.remove(&store.lock_shared().expect("lock"), &snapshot("c")).expect("remove");
    assert_eq!(store.gc(&strict_gc()).expect("gc").layers, sorted([a.id, b.id]));
    assert_eq!(store.layers().expect("layers"), sorted([base.id, fold.id, c.id, d.id]));
    // c lives on beneath d, and cannot be opened any more.
    let resolve = |id: &LayerId| store.resolve(&box_name("first"), id.as_str());
    assert_eq!(resolve(&d.id).expect("whole").layer, d.id);
    let fault = resolve(&c.id).expect_err("half");
    assert!(fault.kind == Kind::NotFound && fault.message.contains("folded away"), "{fault}");
    let fault = resolve(&a.id).expect_err("gone");
    assert!(fault.kind == Kind::NotFound && fault.message.contains("there is none"), "{fault}");
    let lock = store.lock_shared().expect("lock");
    let fault = first
        .set(&lock, &snapshot("again"), &c.id, Expected::Absent, None)
        .expect_err("a name opens whole");
    assert!(fault.kind == Kind::NotFound && fault.message.contains("name layer"), "{fault}");
    first.remove(&lock, &snapshot("d")).expect("remove");
    drop(lock);
    store.gc(&strict_gc()).expect("gc");
    assert_eq!(store.layers().expect("layers"), []);
}

#[test]
fn a_fold_layer_is_no_snapshot() {
    let (_folder, store) = store();
    let first = make_box(&store, "first").expect("box");
    let Chain { a, c, fold, .. } = chain(&store, &first);
    let fault = store.resolve(&box_name("first"), fold.id.as_str()).expect_err("a fold layer");
    assert!(fault.kind == Kind::NotFound && fault.message.contains("2 layers"), "{fault}");
    let lock = store.lock_shared().expect("lock");
    let fault = first.set_head(&lock, &fold.id, Expected::Absent).expect_err("a fold layer");
    assert_eq!(fault.kind, Kind::NotFound);
    // As long as they are whole, the others can be named by their ids.
    for layer in [&a, &c] {
        assert_eq!(
            store.resolve(&box_name("first"), layer.id.as_str()).expect("id").layer,
            layer.id
        );
    }
}

#[test]
fn a_log_keeps_only_what_can_be_opened() {
    let (_folder, store) = store();
    let first = make_box(&store, "first").expect("box");
    let Chain { base, a, b, c, fold, d } = chain(&store, &first);
    let lock = store.lock_shared().expect("lock");
    first
        .update(&lock, |state| {
            for name in ["base", "a", "b", "c"] {
                state.remove(&snapshot(name))?;
            }
            state.log(LogEntry { old: Some(c.id), ..LogEntry::new("rm") });
            Ok(())
        })
        .expect("update");
    drop(lock);
    let young = GcOptions { undo: Some(Duration::from_secs(1000)), ..strict_gc() };
    assert!(store.gc(&young).expect("gc").is_empty(), "the log keeps c with its chain");
    assert_eq!(store.gc(&strict_gc()).expect("gc").layers, sorted([a.id, b.id]));
    // The entry is still young, but what it names is not whole.
    assert!(store.gc(&young).expect("gc").is_empty());
    assert_eq!(store.layers().expect("layers"), sorted([base.id, fold.id, c.id, d.id]));
}

#[test]
fn a_missing_member_of_a_chain_stops_gc() {
    let (_folder, store) = store();
    let first = make_box(&store, "first").expect("box");
    let Chain { fold, .. } = chain(&store, &first);
    let path = store.path().join("layers").join(fold.id.as_str());
    fs::rename(&path, store.path().join("cache/aside")).expect("rename");
    let fault = store.gc(&strict_gc()).expect_err("damage");
    assert!(fault.kind == Kind::Damaged && fault.message.contains(fold.id.as_str()), "{fault}");
}
