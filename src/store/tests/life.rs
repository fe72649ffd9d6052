//! A run from its beginning to its end, boxes and snapshots.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;
use crate::fault::Kind;

#[test]
fn a_run_becomes_a_snapshot() {
    let (_folder, store) = store();
    let first = make_box(&store, "first").expect("box");
    let base = commit_as(&store, &first, None, "base").expect("commit");
    let next = commit_as(&store, &first, Some(&base), "next").expect("commit");
    assert_eq!(next.mount, [base.id, next.id]);
    assert_eq!(store.layer(&next.id).expect("record"), next);
    let wrapper = store.path().join("layers").join(next.id.as_str());
    assert_eq!(fs::read_to_string(wrapper.join("fs/file")).expect("file"), "hello");
    assert_eq!(
        fs::read_to_string(wrapper.join("owners")).expect("owners"),
        str::from_utf8(OWNERS).expect("text")
    );
    assert_eq!(fs::metadata(wrapper.join("fs")).expect("fs").permissions().mode() & 0o7777, 0o755);
    assert_eq!(store.layers().expect("layers"), sorted([base.id, next.id]));
    assert_eq!(store.runs().expect("runs"), []);
    assert_eq!(garbage(&store), Vec::<String>::new(), "the rest of a commit is removed at once");
}

#[test]
fn names_resolve_in_their_order() {
    let (_folder, store) = store();
    let first = make_box(&store, "first").expect("box");
    let base = commit(&store, &first, None, |state, id| {
        state.set(&snapshot("postinit"), id, Expected::Absent, None)?;
        state.set_head(id, Expected::Absent)?;
        state.set_current(id, Expected::Absent)
    })
    .expect("commit");
    // A snapshot that has the start of an id for its name.
    let prefix = &base.id.as_str()[..20];
    let other = commit_as(&store, &first, Some(&base), prefix).expect("commit");
    let second = make_box(&store, "second").expect("box");
    commit_as(&store, &second, None, "only").expect("commit");
    let resolve = |spec: &str| store.resolve(&box_name("first"), spec);
    assert_eq!(resolve("postinit").expect("name").layer, base.id);
    assert_eq!(resolve("head").expect("head").layer, base.id);
    assert_eq!(resolve("current").expect("current").name, None);
    assert_eq!(resolve(prefix).expect("name before id").layer, other.id);
    assert_eq!(resolve(other.id.as_str()).expect("id").layer, other.id);
    assert_eq!(resolve("second/only").expect("other box").box_name, box_name("second"));
    let cases = [
        ("nothing", Kind::NotFound),
        ("only", Kind::NotFound),
        ("second/postinit", Kind::NotFound),
        ("second/head", Kind::NotFound),
        ("third/x", Kind::NotFound),
        (&base.id.as_str()[..3], Kind::NotFound),
        ("", Kind::Usage),
        ("../first/x", Kind::Usage),
        ("first/../x", Kind::Usage),
        ("first/refs/x", Kind::Usage),
        ("host", Kind::Usage),
    ];
    for (spec, kind) in cases {
        let fault = resolve(spec).expect_err(spec);
        assert_eq!(fault.kind, kind, "{spec}: {fault}");
    }
    let common = base.id.as_str().chars().zip(other.id.as_str().chars());
    let common: String = common.take_while(|(a, b)| a == b).map(|(a, _)| a).collect();
    assert_eq!(resolve(&common).expect_err("ambiguous").kind, Kind::Conflict);
    // The id of a layer of another box is not known here.
    let theirs = store.resolve(&box_name("second"), "only").expect("theirs").layer;
    assert_eq!(resolve(theirs.as_str()).expect_err("not ours").kind, Kind::NotFound);
}

#[test]
fn moves_are_all_or_nothing_and_compared() {
    let (_folder, store) = store();
    let first = make_box(&store, "first").expect("box");
    let one = commit_as(&store, &first, None, "one").expect("commit").id;
    let two = commit_as(&store, &first, None, "two").expect("commit").id;
    let lock = store.lock_shared().expect("lock");
    let (name, new) = (snapshot("one"), snapshot("new"));
    let set = |expected| first.set(&lock, &name, &two, expected, None).map_err(|fault| fault.kind);
    assert_eq!(set(Expected::Absent), Err(Kind::Conflict));
    assert_eq!(set(Expected::Layer(two)), Err(Kind::Conflict));
    assert_eq!(first.get(&name).expect("get").expect("ref").layer, one);
    assert_eq!(set(Expected::Layer(one)), Ok(()));
    let missing = LayerId::random().expect("id");
    let fault = first.set(&lock, &new, &missing, Expected::Absent, None).expect_err("no layer");
    assert_eq!(fault.kind, Kind::Damaged);
    let failed = first.update(&lock, |state| {
        state.set(&new, &one, Expected::Absent, Some("said".into()))?;
        assert_eq!(state.get(&new)?.expect("staged").layer, one);
        state.set_head(&one, Expected::Layer(two))
    });
    assert_eq!(failed.expect_err("head is absent").kind, Kind::Conflict);
    assert_eq!(first.get(&new).expect("get"), None);
    first
        .update(&lock, |state| {
            state.set(&new, &one, Expected::Absent, Some("said".into()))?;
            state.remove(&name)?;
            state.set_head(&one, Expected::Absent)?;
            state.log(LogEntry { new: Some(one), ..LogEntry::new("rename") });
            Ok(())
        })
        .expect("update");
    let names: Vec<_> = first.refs().expect("refs").into_iter().map(|found| found.name).collect();
    assert_eq!(names, [new.clone(), snapshot("two")]);
    assert_eq!(first.get(&new).expect("get").expect("new").message.as_deref(), Some("said"));
    assert_eq!(first.head().expect("head"), Some(one));
    assert_eq!(first.log().expect("log").len(), 1);
    assert_eq!(first.remove(&lock, &name).expect_err("gone").kind, Kind::NotFound);
    assert_eq!(first.remove(&lock, &new).expect("remove"), Some(one));
}

#[test]
fn boxes_come_and_go_whole() {
    let (_folder, store) = store();
    let first = make_box(&store, "first").expect("box");
    assert_eq!(make_box(&store, "first").expect_err("twice").kind, Kind::Conflict);
    assert_eq!(store.boxes().expect("boxes"), [first.record().clone()]);
    let lock = store.lock_shared().expect("lock");
    store.remove_box(&lock, &box_name("first")).expect("remove");
    let gone = first.set_head(&lock, &LayerId::random().expect("id"), Expected::Absent);
    assert_eq!(gone.expect_err("removed").kind, Kind::NotFound);
    assert_eq!(store.open_box(&box_name("first")).expect_err("removed").kind, Kind::NotFound);
    drain(&store).expect("drain");
    assert_eq!(garbage(&store), Vec::<String>::new());
}

#[test]
fn discard_leaves_nothing() {
    let (_folder, store) = store();
    let lock = store.lock_shared().expect("lock");
    let mut run = store.new_run(&lock, &map()).expect("run");
    let record = run_record(&run, &[]);
    run.write_record(&record).expect("record");
    run.write_record(&RunRecord { exit: Some(1), ..record }).expect("record");
    assert_eq!(store.runs().expect("runs")[0].1, RunState::Running);
    // What overlayfs leaves behind of a volatile mount.
    let work = inside(run.dir(), "work/work");
    let inner = [work.join("incompat/volatile"), work.join("incompat"), work];
    fs::create_dir_all(&inner[0]).expect("mkdir");
    fs::write(inner[0].join("dirty"), "").expect("write");
    for folder in inner {
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o000)).expect("chmod");
    }
    fs::write(inside(run.dir(), "log"), "output").expect("write");
    fs::create_dir(inside(run.dir(), "nest")).expect("mkdir");
    assert_eq!(run.discard(&store).expect("discard"), Discarded::Gone);
    assert_eq!(store.names("runs").expect("names"), Vec::<String>::new());
    assert_eq!(store.trash_pending().expect("trash"), 0);

    let run = run_with_file(&store, &lock, &[]).expect("run");
    let name = format!("run-{}", run.id());
    assert_eq!(run.discard(&store).expect("discard"), Discarded::Trash(name));
    assert_eq!(store.trash_pending().expect("trash"), 1);
    let trash = store.trash().expect("trash").expect("some");
    assert!(!trash.is_ours() && store.trash().expect("trash").is_none(), "held by one only");
    drop(trash);
    drain(&store).expect("drain");
    assert_eq!(garbage(&store), Vec::<String>::new());
}

#[test]
fn a_failed_publish_leaves_the_run_to_be_kept() {
    let (_folder, store) = store();
    let lock = store.lock_shared().expect("lock");
    let mut run = run_with_file(&store, &lock, &[]).expect("run");
    let record = layer_record(None);
    fs::create_dir(store.path().join("layers").join(record.id.as_str())).expect("mkdir");
    assert!(store.publish(&lock, &run, &record, None, run.dir()).is_err());
    run.mark_kept(&run_record(&run, &[])).expect("keep");
    let id = run.id();
    assert_eq!(store.open_run(&id).expect_err("held").kind, Kind::Busy);
    abandon(run);
    assert_eq!(store.runs().expect("runs")[0].1, RunState::Kept);
    assert_eq!(store.reap().expect("reap"), 0);
    let (run, kept) = store.open_run(&id).expect("open");
    assert_eq!(kept.state, RunState::Kept);
    store.publish(&lock, &run, &layer_record(None), None, run.dir()).expect("publish");
    assert_eq!(run.discard(&store).expect("discard"), Discarded::Gone);
}

#[test]
fn in_a_range_the_upper_belongs_to_root_inside() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (_folder, store) = store();
    let many = vec![Extent { inside: 0, outside: 500_000, count: 65_536 }];
    let range = IdMap { mode: Mode::Range, uids: many.clone(), gids: many };
    let lock = store.lock_shared().expect("lock");
    let run = store.new_run(&lock, &range).expect("run");
    for name in ["layer", "layer/fs", "work", "."] {
        let found = fs::metadata(inside(run.dir(), name)).expect("metadata");
        assert_eq!((found.uid(), found.gid()), (500_000, 500_000), "{name}");
    }
    assert_eq!(run.discard(&store).expect("discard"), Discarded::Gone);
}

/// What a run costs before it starts; counted by hand with `strace -c`.
#[test]
fn hot_path() {
    let (_folder, store) = store();
    let first = make_box(&store, "first").expect("box");
    commit_as(&store, &first, None, "base").expect("commit");
    let path = store.path().to_owned();
    file::unlink(store.dir(), "BEGIN").ok();
    let store = Store::open(&path).expect("open");
    let lock = store.lock_shared().expect("lock");
    let found = store.resolve(&box_name("first"), "base").expect("resolve");
    let chain = store.layer(&found.layer).expect("layer").mount;
    let map = store.box_record(&found.box_name).expect("box").id_map;
    let mut run = store.new_run(&lock, &map).expect("run");
    run.write_record(&run_record(&run, &chain)).expect("record");
    drop(lock);
    file::unlink(store.dir(), "END").ok();
    run.discard(&store).expect("discard");
}
