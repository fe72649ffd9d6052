//! Kills and failures before and after each step that changes the store.

use std::fs;
use std::os::unix::process::ExitStatusExt;

use super::failpoint::STEPS;
use super::*;

/// Does one of everything, in a store that [`prepare`] has made.
fn scenario(path: &Path) -> Result<()> {
    drop(Store::create(path.join("new/store"))?);
    let store = Store::open(path.join("store"))?;
    let first = store.open_box(&box_name("first"))?;
    let base = store.layer(&store.resolve(&box_name("first"), "base")?.layer)?;
    make_box(&store, "second")?;
    commit(&store, &first, Some(&base), |state, id| {
        state.set(&snapshot("made"), id, Expected::Absent, None)?;
        state.set_head(id, Expected::Layer(base.id))?;
        state.log(LogEntry { old: Some(base.id), new: Some(*id), ..LogEntry::new("run") });
        Ok(())
    })?;
    first.remove(&store.lock_shared()?, &snapshot("victim"))?;
    let lock = store.lock_shared()?;
    let mut empty = store.new_run(&lock, &map())?;
    let record = run_record(&empty, &base.mount);
    empty.write_record(&record)?;
    empty.write_record(&record)?;
    empty.discard(&store)?;
    run_with_file(&store, &lock, &base.mount)?.discard(&store)?;
    let kept = run_with_file(&store, &lock, &base.mount)?;
    let record = run_record(&kept, &base.mount);
    kept.keep(&record)?;
    abandon(run_with_file(&store, &lock, &base.mount)?);
    drop(lock);
    store.reap()?;
    store.gc(&strict_gc())?;
    drain(&store)
}

fn prepare(path: &Path) -> LayerId {
    let store = Store::create(path.join("store")).expect("create");
    let first = make_box(&store, "first").expect("box");
    let base = commit(&store, &first, None, |state, id| {
        state.set(&snapshot("base"), id, Expected::Absent, None)?;
        state.set_head(id, Expected::Absent)?;
        state.set_current(id, Expected::Absent)
    })
    .expect("commit");
    commit_as(&store, &first, Some(&base), "victim").expect("commit");
    let path = store.path();
    fs::write(path.join("boxes/first/refs/.new-stale"), "{").expect("write");
    fs::create_dir(path.join("cache/scaffold-old")).expect("mkdir");
    base.id
}

/// What must hold whenever a command was killed or failed.
fn check(path: &Path, base: LayerId, point: &str) {
    let store = Store::open(path.join("store")).expect(point);
    let first = store.open_box(&box_name("first")).expect(point);
    let mut named = vec![base];
    for found in first.refs().expect(point) {
        assert!(["base", "made", "victim"].contains(&found.name.as_str()), "{point}");
        named.push(found.layer);
        for id in store.layer(&found.layer).expect(point).mount {
            let file = store.path().join(format!("layers/{id}/fs/file"));
            assert_eq!(fs::read_to_string(file).expect(point), "hello", "{point}");
        }
    }
    assert!(named.contains(&first.head().expect(point).expect(point)), "{point}");
    assert_eq!(first.current().expect(point), Some(base), "{point}");
    for record in store.boxes().expect(point) {
        store.open_box(&record.name).expect(point).refs().expect(point);
    }
    store.runs().expect(point);
    // Nothing stays behind but what somebody named or kept.
    store.gc(&strict_gc()).expect(point);
    drain(&store).expect(point);
    named.sort_unstable();
    named.dedup();
    assert_eq!(store.layers().expect(point), named, "{point}");
    assert_eq!(garbage(&store), Vec::<String>::new(), "{point}");
    let runs = store.runs().expect(point);
    assert_eq!(store.names("runs").expect(point).len(), runs.len(), "{point}");
    assert!(runs.iter().all(|(_, state)| *state == RunState::Kept), "{point}");
    // And all goes on.
    drop(Store::create(path.join("new/store")).expect(point));
    commit_as(&store, &first, None, "after").expect(point);
}

#[test]
fn child() {
    let Some(path) = std::env::var_os("SANDBOX_TEST_CRASH") else { return };
    let code = match scenario(Path::new(&path)) {
        Ok(()) => 0,
        Err(fault) => {
            file::write_all(rustix::stdio::stderr(), fault.message.as_bytes()).ok();
            3
        }
    };
    crate::sys::process::exit_now(code);
}

fn each_point(how: &str, expected: impl Fn(&std::process::ExitStatus) -> bool) {
    for step in STEPS {
        for place in ["before", "after"] {
            let wish = format!("{step}.{place}:{how}");
            let folder = folder();
            let base = prepare(folder.path());
            let orders = [
                ("SANDBOX_TEST_CRASH", folder.path().as_os_str()),
                ("SANDBOX_FAIL", OsStr::new(&wish)),
            ];
            let output = again("crash::child", &orders).output().expect("run");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(expected(&output.status), "{wish}: {:?}: {said}", output.status);
            check(folder.path(), base, &wish);
        }
    }
}

#[test]
fn killed_anywhere() {
    // Every point is reached: each child dies of the signal.
    each_point("kill", |status| status.signal() == Some(9));
}

#[test]
fn ended_anywhere() {
    each_point("exit", |status| status.code() == Some(99));
}

#[test]
fn no_space_anywhere() {
    each_point("ENOSPC", |status| matches!(status.code(), Some(0 | 3)));
}

#[test]
fn input_output_error_anywhere() {
    each_point("EIO", |status| matches!(status.code(), Some(0 | 3)));
}

#[test]
fn without_failure_the_scenario_succeeds() {
    let folder = folder();
    let base = prepare(folder.path());
    scenario(folder.path()).expect("scenario");
    check(folder.path(), base, "no failure");
}
