//! Repair, killed and failed at each step: what is whole stays, and the next repair ends the work.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::fault::Kind;

/// A store with everything that a repair mends; whole are the snapshots `base` and `kept` of box `first`.
pub(super) fn prepare(path: &Path) {
    let store = Store::create(path).expect("create");
    let first = make_box(&store, "first").expect("box");
    let base = commit(&store, &first, None, |state, id| {
        state.set(&snapshot("base"), id, Expected::Absent, None)?;
        state.set(&snapshot("postinit"), id, Expected::Absent, None)?;
        state.log(LogEntry { new: Some(*id), ..LogEntry::new("init") });
        Ok(())
    })
    .expect("commit");
    let kept = commit_as(&store, &first, Some(&base), "kept").expect("commit");
    let lost = commit_as(&store, &first, Some(&kept), "lost").expect("commit");
    let on_top = commit_as(&store, &first, Some(&lost), "on-top").expect("commit");
    let lock = store.lock_shared().expect("lock");
    first.set_head(&lock, &on_top.id, Expected::Absent).expect("head");
    let second = make_box(&store, "second").expect("box");
    second.set(&lock, &snapshot("kept"), &kept.id, Expected::Absent, None).expect("set");
    let run = run_with_file(&store, &lock, &lost.mount).expect("run");
    let record = run_record(&run, &lost.mount);
    run.keep(&record).expect("keep");
    let put = |name: &str, bytes: &str| fs::write(path.join(name), bytes).expect("write");
    put(&layout::layer_record(&lost.id), "{}");
    fs::remove_dir_all(path.join(layout::tree(&lost.id))).expect("remove");
    put(&layout::layer_record(&kept.id), "");
    put("boxes/second/head", "[]");
    put("boxes/second/box.json", "");
    put("boxes/first/refs/no name", "");
    put(
        "boxes/first/log",
        &format!("{}torn\n", fs::read_to_string(path.join("boxes/first/log")).expect("log")),
    );
    fs::set_permissions(path.join("boxes/first/refs"), fs::Permissions::from_mode(0o755))
        .expect("mode");
    drop(lock);
    fs::remove_file(path.join("lock")).expect("remove");
    fs::remove_dir(path.join("cache")).expect("remove");
}

fn record() -> BoxRecord {
    BoxRecord {
        first: None,
        name: box_name("second"),
        id_map: map(),
        source: "unknown".into(),
        identity: String::new(),
        created: Timestamp::now(),
        settings: BoxSettings::default(),
    }
}

/// Looks and mends, as `fsck --repair` does; makes digests of what is left.
pub(super) fn mend(store: &Store) -> Result<Vec<Action>> {
    let mut survey = store.survey()?;
    for finding in &mut survey.findings {
        if let Remedy::Rewrite(record) = &mut finding.remedy {
            (record.files, record.own_bytes) = (1, 5);
        }
    }
    let done = store.repair(&survey, &[record()], std::time::Duration::from_secs(1))?;
    let lock = store.lock_shared()?;
    for id in store.layers()? {
        if store.manifest(&id)?.is_none() {
            drop(store.begin_seal(&id)?);
            store.end_seal(&lock, &id)?;
        }
    }
    Ok(done)
}

/// What must hold after any number of repairs, whole or not: one more makes all well.
pub(super) fn check(path: &Path, at: &str) {
    let store = Store::open(path).expect(at);
    mend(&store).expect(at);
    let survey = store.survey().expect(at);
    assert!(survey.findings.is_empty(), "{at}: {:#?}", survey.findings);
    let first = store.open_box(&box_name("first")).expect(at);
    let names: Vec<_> = first.refs().expect(at).into_iter().map(|one| one.name).collect();
    assert_eq!(names, ["base", "kept", "postinit"].map(snapshot), "{at}");
    let base = first.get(&snapshot("base")).expect(at).expect(at).layer;
    assert_eq!((first.head().expect(at), first.current().expect(at)), (Some(base), Some(base)));
    let second = store.open_box(&box_name("second")).expect(at);
    let kept = second.get(&snapshot("kept")).expect(at).expect(at).layer;
    assert_eq!(store.openable(&kept).expect(at).mount, [base, kept], "{at}");
    assert!(store.runs().expect(at).is_empty(), "{at}");
    // What the disk would not have moved away is named by nobody any more.
    store.gc(&strict_gc()).expect(at);
    assert_eq!(store.layers().expect(at), sorted([base, kept]), "{at}");
}

#[test]
fn what_is_damaged_goes_and_the_rest_stays() {
    let folder = folder();
    let path = folder.path().join("store");
    prepare(&path);
    let store = Store::open(&path).expect("open");
    assert_eq!(store.lock_shared().expect_err("no lock").kind, Kind::Damaged);
    let done = mend(&store).expect("mend");
    assert!(done.len() >= 12, "{done:#?}");
    check(&path, "after it");
    assert_eq!(mend(&store).expect("again"), []);
}

/// Everything of ours in a store, but not what trees hold.
fn all_of_ours(store: &Store) -> Vec<String> {
    let (mut found, mut open) = (Vec::new(), vec![String::from(".")]);
    while let Some(folder) = open.pop() {
        let dir = file::open_dir(store.dir(), &folder).expect("open");
        for name in file::names(dir.as_fd()).expect("names") {
            let path = if folder == "." { name } else { format!("{folder}/{name}") };
            if path.ends_with("/fs") || path.matches('/').count() > 1 && path.starts_with("runs/") {
                continue;
            }
            if fs::symlink_metadata(store.path().join(&path)).expect("stat").is_dir() {
                open.push(path.clone());
            }
            found.push(path);
        }
    }
    found
}

#[test]
fn what_is_closed_is_opened_and_no_more_done() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::create(&path).expect("create");
    let only = make_box(&store, "only").expect("box");
    let base = commit_as(&store, &only, None, "base").expect("commit");
    let top = commit_as(&store, &only, Some(&base), "top").expect("commit");
    let lock = store.lock_shared().expect("lock");
    only.set_head(&lock, &top.id, Expected::Absent).expect("head");
    let run = run_with_file(&store, &lock, &top.mount).expect("run");
    let (record, run_id) = (run_record(&run, &top.mount), run.id());
    run.keep(&record).expect("keep");
    drop(lock);
    mend(&store).expect("digests");
    let ours = all_of_ours(&store);
    assert!(ours.len() > 20, "{ours:?}");
    // Those who run things inside give theirs what modes they like.
    for inside in [layout::tree(&top.id), format!("{}/{}", layout::run(&run_id), layout::LAYER_FS)]
    {
        fs::set_permissions(path.join(inside), fs::Permissions::from_mode(0o000)).expect("chmod");
    }
    // Only root can have runs of others, in `range` mode: by a map that no box need have any more.
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(path.join(layout::run(&run_id)), Some(4242), None).expect("chown");
    }
    assert_eq!(store.survey().expect("survey").findings, []);
    assert_eq!(mend(&store).expect("mend"), []);
    let names = || (all_of_ours(&store), only.refs().expect("refs"), only.head().expect("head"));
    let before = names();
    for closed in ours {
        let place = path.join(&closed);
        fs::set_permissions(&place, fs::Permissions::from_mode(0o000)).expect("chmod");
        let survey = store.survey().unwrap_or_else(|fault| panic!("{closed}: {fault:?}"));
        let found: Vec<_> =
            survey.findings.iter().filter(|one| one.damage.path == closed.as_bytes()).collect();
        assert!(
            matches!(&found[..], [one] if one.damage.kind == DamageKind::Metadata),
            "{closed}: {:#?}",
            survey.findings
        );
        for _ in 0..2 {
            mend(&store).unwrap_or_else(|fault| panic!("mend {closed}: {fault:?}"));
        }
        let survey = store.survey().expect("survey");
        assert!(survey.findings.is_empty(), "{closed}: {:#?}", survey.findings);
        assert_eq!(names(), before, "{closed}");
    }
}
