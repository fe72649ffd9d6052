//! Taking moves back.

use std::fs;
use std::time::Duration;

use super::*;
use crate::fault::Kind;

/// A box with one layer, `base`, named so, head and current; its first move is in the log.
fn filled(store: &Store) -> (Box_<'_>, LayerRecord) {
    let first = make_box(store, "first").expect("box");
    let base = commit(store, &first, None, |state, id| {
        state.set(&snapshot("base"), id, Expected::Absent, None)?;
        state.set_head(id, Expected::Absent)?;
        state.set_current(id, Expected::Absent)?;
        state.log(LogEntry::new("init"));
        Ok(())
    });
    (first, base.expect("commit"))
}

fn act(
    store: &Store,
    first: &Box_<'_>,
    action: &str,
    change: impl FnOnce(&mut State<'_>) -> Result<()>,
) -> Result<()> {
    first.update(&store.lock_shared()?, |state| {
        change(state)?;
        state.log(LogEntry::new(action));
        Ok(())
    })
}

fn undo(store: &Store, first: &Box_<'_>) -> Result<String> {
    first.update(&store.lock_shared()?, |state| state.undo()).map(|entry| entry.action)
}

fn kind(answer: Result<String>) -> Result<String, Kind> {
    answer.map_err(|fault| fault.kind)
}

#[test]
fn undo_goes_back_move_by_move() {
    let (_folder, store) = store();
    let (first, base) = filled(&store);
    assert_eq!(kind(undo(&store, &first)), Err(Kind::NotFound), "init stays");
    let next = commit(&store, &first, Some(&base), |state, id| {
        state.set_head(id, Expected::Layer(base.id))?;
        state.log(LogEntry::new("run"));
        Ok(())
    })
    .expect("commit");
    let given = |state: &mut State<'_>| {
        let record = RefRecord::new(next.id, Some("said".into()));
        state.put(&snapshot("given"), RefRecord { protected: true, ..record })?;
        state.set_current(&next.id, Expected::Layer(base.id))
    };
    act(&store, &first, "snapshot", given).expect("snapshot");
    let before = first.refs().expect("refs");
    act(&store, &first, "rm", |state| state.remove(&snapshot("base")).map(drop)).expect("rm");
    // What changes nothing is no move.
    let log = first.log().expect("log");
    act(&store, &first, "clean", |state| state.set_head(&next.id, Expected::Layer(next.id)))
        .expect("clean");
    assert_eq!(first.log().expect("log"), log);

    assert_eq!(undo(&store, &first).expect("undo"), "rm");
    assert_eq!(first.refs().expect("refs"), before, "times, messages and protection come back");
    let fault = act(&store, &first, "rm", |state| state.remove(&snapshot("given")).map(drop));
    assert_eq!(fault.expect_err("protected").kind, Kind::Conflict);
    // A new move after an undo is undone before older ones.
    act(&store, &first, "clean", |state| state.set_head(&base.id, Expected::Layer(next.id)))
        .expect("clean");
    assert_eq!(undo(&store, &first).expect("undo"), "clean");
    assert_eq!(undo(&store, &first).expect("undo"), "snapshot");
    assert_eq!(first.current().expect("current"), Some(base.id));
    assert_eq!(undo(&store, &first).expect("undo"), "run");
    assert_eq!(first.head().expect("head"), Some(base.id));
    assert_eq!(kind(undo(&store, &first)), Err(Kind::NotFound));
    // What was kept is there until gc, and undo says so when it has gone.
    act(&store, &first, "rollback", |state| state.set_head(&next.id, Expected::Layer(base.id)))
        .expect("rollback");
    act(&store, &first, "clean", |state| state.set_head(&base.id, Expected::Layer(next.id)))
        .expect("clean");
    assert!(store.gc(&GcOptions::default()).expect("gc").is_empty(), "undo may need it");
    assert_eq!(store.gc(&strict_gc()).expect("gc").layers, [next.id]);
    let fault = undo(&store, &first).expect_err("gone");
    assert_eq!(fault.kind, Kind::NotFound);
    assert!(fault.message.contains(next.id.as_str()) && fault.hint.is_some(), "{fault}");
    assert_eq!(first.head().expect("head"), Some(base.id));
    drain(&store).expect("drain");
}

#[test]
fn what_the_log_does_not_know_is_a_conflict() {
    let (_folder, store) = store();
    let (first, base) = filled(&store);
    let other = commit_as(&store, &first, Some(&base), "other").expect("commit");
    let third = commit_as(&store, &first, Some(&base), "third").expect("commit");
    act(&store, &first, "rollback", |state| state.set_head(&other.id, Expected::Layer(base.id)))
        .expect("rollback");
    let lock = store.lock_shared().expect("lock");
    first.set_head(&lock, &third.id, Expected::Layer(other.id)).expect("not logged");
    drop(lock);
    let fault = undo(&store, &first).expect_err("moved");
    assert_eq!(fault.kind, Kind::Conflict);
    assert!(fault.message.contains("head") && fault.hint.is_some(), "{fault}");
    assert_eq!(first.head().expect("head"), Some(third.id));
    let lock = store.lock_shared().expect("lock");
    first.set_head(&lock, &other.id, Expected::Layer(third.id)).expect("back");
    assert_eq!(undo(&store, &first).expect("undo"), "rollback");
}

#[test]
fn a_rehearsal_changes_nothing() {
    let (_folder, store) = store();
    let (first, _) = filled(&store);
    act(&store, &first, "rm", |state| state.remove(&snapshot("base")).map(drop)).expect("rm");
    let log = first.log().expect("log");
    let lock = store.lock_shared().expect("lock");
    let moved = first
        .rehearse(&lock, |state| {
            state.undo()?;
            Ok(state.moved())
        })
        .expect("rehearse");
    assert_eq!((moved.len(), moved[0].name.as_str()), (1, "base"));
    assert_eq!((first.refs().expect("refs").len(), first.log().expect("log")), (0, log));
}

#[test]
fn an_old_log_ends_the_way_back() {
    let (_folder, store) = store();
    let (first, base) = filled(&store);
    let old = r#"{"time":"2026-01-01T00:00:00Z","action":"rm","old":null,"new":null,"name":"x"}"#;
    let path = store.path().join("boxes/first/log");
    fs::write(&path, format!("{old}\n")).expect("write");
    let other = commit_as(&store, &first, Some(&base), "other").expect("commit");
    act(&store, &first, "rollback", |state| state.set_head(&other.id, Expected::Layer(base.id)))
        .expect("rollback");
    assert_eq!(undo(&store, &first).expect("undo"), "rollback");
    assert_eq!(kind(undo(&store, &first)), Err(Kind::NotFound));
}

/// Whatever lies in the log, a move does not hang on it, and undo takes back nothing but what fits.
#[test]
fn a_damaged_log_costs_only_the_way_back() {
    let (_folder, store) = store();
    let (first, base) = filled(&store);
    let other = commit_as(&store, &first, Some(&base), "other").expect("commit");
    let path = store.path().join("boxes/first/log");
    let go = |to: &LayerRecord, from: &LayerRecord| {
        act(&store, &first, "go", |state| state.set_head(&to.id, Expected::Layer(from.id)))
    };
    for bad in ["{\"time\":", "\0\0\0\0", "\n\n[]\n", "{}\n"] {
        go(&other, &base).expect("go");
        let mut bytes = fs::read(&path).expect("read");
        bytes.extend(bad.as_bytes());
        fs::write(&path, bytes).expect("write");
        go(&base, &other).expect("back");
        assert_eq!(undo(&store, &first).expect("undo"), "go");
        assert_eq!(undo(&store, &first).expect("undo"), "go");
        assert_eq!(first.head().expect("head"), Some(base.id));
        let (entries, damaged) = first.log_and_damage().expect("log");
        assert!(damaged > 0 && !entries.is_empty(), "{bad:?}");
    }
    // A line is lost: what stood in it cannot be undone, and older moves only if they fit.
    go(&other, &base).expect("go");
    let bytes = fs::read(&path).expect("read");
    go(&base, &other).expect("back");
    fs::write(&path, bytes).expect("write");
    assert_eq!(kind(undo(&store, &first)), Err(Kind::NotFound), "as if it had not happened");
    fs::remove_file(&path).expect("remove");
    assert_eq!(kind(undo(&store, &first)), Err(Kind::NotFound));
    fs::create_dir(&path).expect("mkdir");
    let fault = undo(&store, &first).expect_err("a directory");
    assert_eq!(fault.kind, Kind::Damaged);
    assert!(fault.message.contains("boxes/first/log") && fault.hint.is_some(), "{fault}");
    assert_eq!(go(&other, &base).expect_err("no log").kind, Kind::Damaged);
    assert_eq!(first.head().expect("head"), Some(base.id), "nothing without its line");
}

#[test]
fn damaged_names_and_heads_have_a_way_out() {
    let (_folder, store) = store();
    let (first, base) = filled(&store);
    for bad in ["", "{", "\0\0", "7"] {
        fs::write(store.path().join("boxes/first/head"), bad).expect("write");
        let fault = first.head().expect_err(bad);
        assert_eq!(fault.kind, Kind::Damaged, "{bad}");
        assert!(fault.message.contains("boxes/first/head"), "{fault}");
        assert!(fault.hint.expect("hint").contains("sandbox rollback"), "{bad}");
        let set = |state: &mut State<'_>| {
            state.set_head(&base.id, Expected::Absent)?;
            state.set_current(&base.id, Expected::Absent)
        };
        assert_eq!(act(&store, &first, "set", set).expect_err(bad).kind, Kind::Damaged);
        first.mend(&store.lock_shared().expect("lock"), set).expect("mend");
        assert_eq!(first.head().expect("head"), Some(base.id));

        commit_as(&store, &first, Some(&base), "broken").expect("commit");
        fs::write(store.path().join("boxes/first/refs/broken"), bad).expect("write");
        let fault = first.refs().expect_err(bad);
        assert_eq!(fault.kind, Kind::Damaged, "{bad}");
        assert!(fault.message.contains("refs/broken"), "{fault}");
        assert!(fault.hint.expect("hint").contains("sandbox rm broken"), "{bad}");
        act(&store, &first, "rm", |state| {
            assert_eq!(state.remove(&snapshot("broken"))?, None);
            Ok(())
        })
        .expect("rm");
        assert_eq!(first.refs().expect("refs").len(), 1);
    }
    assert_eq!(kind(undo(&store, &first)), Err(Kind::NotFound), "nobody knows what it stood for");
    store.gc(&strict_gc()).expect("gc");
    drain(&store).expect("drain");
    assert_eq!(garbage(&store), Vec::<String>::new());
}

#[test]
fn a_log_has_a_size_and_an_age() {
    let (_folder, store) = store();
    let settings = BoxSettings { undo_size: Some(4000), ..BoxSettings::default() };
    let first = make_box_with(&store, "first", settings).expect("box");
    let base = commit_as(&store, &first, None, "base").expect("commit");
    let path = store.path().join("boxes/first/log");
    for number in 0..100 {
        let name = snapshot(&format!("n{number}"));
        act(&store, &first, "snapshot", |state| state.set(&name, &base.id, Expected::Absent, None))
            .expect("snapshot");
        assert!(fs::metadata(&path).expect("log").len() <= 4000);
    }
    let left = first.log().expect("log").len();
    assert!((3..20).contains(&left), "{left}");
    // Each undo is a line, too, and may cost older ones theirs.
    let mut count = 0;
    while kind(undo(&store, &first)) != Err(Kind::NotFound) {
        count += 1;
    }
    assert!((1..=left).contains(&count), "{count} of {left}");
    assert_eq!(first.refs().expect("refs").len(), 101 - count);
    assert_eq!(garbage(&store), Vec::<String>::new());
    // gc keeps what young entries need, and the box says what is young.
    let second = |name: &str, age: u64| {
        let settings = BoxSettings { undo_age: Some(age), ..BoxSettings::default() };
        let made = make_box_with(&store, name, settings).expect("box");
        let gone = commit_as(&store, &made, None, "gone").expect("commit");
        act(&store, &made, "rm", |state| state.remove(&snapshot("gone")).map(drop)).expect("rm");
        gone.id
    };
    let (old, young) = (second("old", 0), second("young", 1000));
    assert_eq!(store.gc(&GcOptions::default()).expect("gc").layers, [old]);
    let record = store.path().join("boxes/young/box.json");
    fs::write(record, "{").expect("write");
    assert!(store.gc(&GcOptions::default()).expect("gc").is_empty(), "nobody can say");
    let all = GcOptions { undo: Some(Duration::ZERO), ..GcOptions::default() };
    assert_eq!(store.gc(&all).expect("gc").layers, [young]);
    drain(&store).expect("drain");
}
