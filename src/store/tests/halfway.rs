//! Moves that are killed or fail half-way: a failure changes nothing, and what a kill has left is undone.

use std::fs;
use std::os::unix::process::ExitStatusExt;

use super::*;

/// The steps of a move.
const STEPS: [&str; 14] = [
    "ref.temp",
    "ref.temp.fsync",
    "head.temp",
    "head.temp.fsync",
    "log.append",
    "ref.rename",
    "ref.remove",
    "ref.fsync",
    "head.rename",
    "head.fsync",
    "log.temp",
    "log.temp.fsync",
    "log.rename",
    "log.fsync",
];

/// All that a move can change.
type All = (Vec<SnapshotRef>, Option<LayerId>, Option<LayerId>);

fn all(first: &Box_<'_>) -> All {
    let head = (first.head().expect("head"), first.current().expect("current"));
    (first.refs().expect("refs"), head.0, head.1)
}

/// A box with the names `moved`, `removed` and `stays`, and a log that is cut by every move.
fn prepare(path: &Path) {
    let store = Store::create(path.join("store")).expect("create");
    let settings = BoxSettings { undo_size: Some(6000), ..BoxSettings::default() };
    let first = make_box_with(&store, "first", settings).expect("box");
    let base = commit(&store, &first, None, |state, id| {
        state.set(&snapshot("moved"), id, Expected::Absent, Some("said".into()))?;
        state.set_head(id, Expected::Absent)?;
        state.set_current(id, Expected::Absent)
    })
    .expect("commit");
    commit_as(&store, &first, Some(&base), "removed").expect("commit");
    commit_as(&store, &first, Some(&base), "stays").expect("commit");
    let log = store.path().join("boxes/first/log");
    let line = json_line(&LogEntry::new("older")).expect("json");
    fs::write(log, line.repeat(6000 / line.len())).expect("write");
}

/// A move that only takes a name away.
fn remove_one(path: &Path) -> Result<()> {
    let store = Store::open(path.join("store"))?;
    let first = store.open_box(&box_name("first"))?;
    first.update(&store.lock_shared()?, |state| {
        state.remove(&snapshot("removed"))?;
        state.log(LogEntry::new("rm"));
        Ok(())
    })
}

/// A move of all kinds.
fn change(path: &Path) -> Result<()> {
    let store = Store::open(path.join("store"))?;
    let first = store.open_box(&box_name("first"))?;
    let layer = store.resolve(&box_name("first"), "removed")?.layer;
    first.update(&store.lock_shared()?, |state| {
        let old = state.require(&snapshot("moved"))?.layer;
        state.set(&snapshot("moved"), &layer, Expected::Layer(old), None)?;
        state.set(&snapshot("fresh"), &layer, Expected::Absent, None)?;
        state.remove(&snapshot("removed"))?;
        state.set_head(&layer, Expected::Layer(old))?;
        state.set_current(&layer, Expected::Layer(old))?;
        state.log(LogEntry::new("all"));
        Ok(())
    })
}

fn undo(first: &Box_<'_>) -> Result<LogEntry> {
    first.update(&first.store.lock_shared()?, |state| state.undo())
}

#[test]
fn child() {
    let Some(path) = std::env::var_os("SANDBOX_TEST_HALFWAY") else { return };
    let path = Path::new(&path);
    let done = match std::env::var("SANDBOX_TEST_WHAT").as_deref() {
        Err(_) => change(path),
        Ok("remove") => remove_one(path),
        Ok(_) => Store::open(path.join("store"))
            .and_then(|store| undo(&store.open_box(&box_name("first"))?).map(drop)),
    };
    crate::sys::process::exit_now(if done.is_ok() { 0 } else { 3 });
}

/// Does the change (or its undo) with a failure, and gives what was before and what is after.
fn with_failure(wish: &str, undone: bool, check: impl FnOnce(&Store, &All, &All, i32)) {
    let folder = folder();
    prepare(folder.path());
    let store = Store::open(folder.path().join("store")).expect("open");
    let first = store.open_box(&box_name("first")).expect("box");
    if undone {
        change(folder.path()).expect("change");
    }
    let before = all(&first);
    let mut orders = vec![
        ("SANDBOX_TEST_HALFWAY", folder.path().as_os_str()),
        ("SANDBOX_FAIL", OsStr::new(wish)),
    ];
    orders.extend(undone.then_some(("SANDBOX_TEST_WHAT", OsStr::new("undo"))));
    let output = again("halfway::child", &orders).output().expect("run");
    let said = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code().unwrap_or_else(|| 128 + output.status.signal().expect("ended"));
    assert!([0, 3, 137].contains(&code), "{wish}: {said}");
    let after = all(&first);
    check(&store, &before, &after, code);
    store.gc(&strict_gc()).expect(wish);
    drain(&store).expect(wish);
    assert_eq!(garbage(&store), Vec::<String>::new(), "{wish}");
}

fn each(how: &[&str], test: impl Fn(&str)) {
    for step in STEPS {
        for place in ["before", "after"] {
            how.iter().for_each(|how| test(&format!("{step}.{place}:{how}")));
        }
    }
}

#[test]
fn a_move_that_fails_changes_nothing() {
    each(&["ENOSPC", "EIO"], |wish| {
        with_failure(wish, false, |store, before, after, code| {
            // What fails after the move has been done is only the shortening of the log.
            let done = wish.starts_with("log.") && !wish.starts_with("log.append");
            assert_eq!(code, if done { 0 } else { 3 }, "{wish}");
            assert_eq!(before == after, !done, "{wish}");
            if !done {
                let first = store.open_box(&box_name("first")).expect(wish);
                let entries = first.log().expect(wish);
                assert!(entries.iter().all(|entry| entry.action == "older"), "{wish}");
            }
        });
    });
}

#[test]
fn a_move_that_is_killed_can_be_undone() {
    each(&["kill"], |wish| {
        with_failure(wish, false, |store, before, after, code| {
            assert_eq!(code, 137, "{wish}");
            let first = store.open_box(&box_name("first")).expect(wish);
            match undo(&first) {
                Ok(entry) => assert_eq!(entry.action, "all", "{wish}"),
                // There is nothing to undo: then nothing has been done.
                Err(fault) => {
                    assert_eq!(fault.kind, crate::fault::Kind::NotFound, "{wish}: {fault}");
                    assert_eq!(before, after, "{wish}");
                }
            }
            assert_eq!(*before, all(&first), "{wish}");
            assert!(undo(&first).is_err(), "{wish}: a second time");
        });
    });
}

#[test]
fn an_undo_that_is_killed_can_be_done_again() {
    each(&["kill", "EIO"], |wish| {
        with_failure(wish, true, |store, before, after, code| {
            let first = store.open_box(&box_name("first")).expect(wish);
            if code == 3 {
                assert_eq!(before, after, "{wish}");
            }
            let again = undo(&first);
            // It was done completely, or it is done now.
            let names: Vec<_> = all(&first).0.into_iter().map(|found| found.name).collect();
            assert_eq!(names, ["moved", "removed", "stays"].map(snapshot), "{wish}: {again:?}");
            assert_eq!(all(&first).0[0].message.as_deref(), Some("said"), "{wish}");
            assert_eq!(all(&first).1, Some(all(&first).0[0].layer), "{wish}");
        });
    });
}

/// Else a full disk would stay full.
#[test]
fn names_can_be_removed_on_a_full_disk() {
    for (how, gone) in [("ENOSPC", true), ("EDQUOT", true), ("EIO", false)] {
        let folder = folder();
        prepare(folder.path());
        let store = Store::open(folder.path().join("store")).expect("open");
        let first = store.open_box(&box_name("first")).expect("box");
        let (before, log) = (all(&first).0.len(), first.log().expect("log"));
        let wish = format!("log.append.before:{how}");
        let orders = [
            ("SANDBOX_TEST_HALFWAY", folder.path().as_os_str()),
            ("SANDBOX_TEST_WHAT", OsStr::new("remove")),
            ("SANDBOX_FAIL", OsStr::new(&wish)),
        ];
        let output = again("halfway::child", &orders).output().expect("run");
        assert_eq!(output.status.code(), Some(if gone { 0 } else { 3 }), "{how}");
        assert_eq!(all(&first).0.len(), before - usize::from(gone), "{how}");
        assert_eq!(first.log().expect("log"), log, "{how}");
        // What undo does not know, gc need not keep.
        let freed = store.gc(&GcOptions::default()).expect("gc").layers;
        assert_eq!(freed.len(), usize::from(gone), "{how}");
        drain(&store).expect("drain");
    }
}
