//! One of everything that changes a store. Each act succeeds or fails by itself and says so in a file beside
//! the store: what was acknowledged must be true for ever, what was refused must not have happened.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::disk::Disk;
use super::*;

/// A store with a box `first` whose snapshot `base` is head and current, and what the acts need.
pub(super) fn prepare(path: &Path) {
    let store = Store::create(path.join("store")).expect("create");
    // Its log keeps no more than one line: every logged move shortens it.
    let settings = BoxSettings { undo_size: Some(1), ..BoxSettings::default() };
    let first = make_box_with(&store, "first", settings).expect("box");
    let base = commit(&store, &first, None, |state, id| {
        state.set(&snapshot("base"), id, Expected::Absent, None)?;
        state.set_head(id, Expected::Absent)?;
        state.set_current(id, Expected::Absent)
    })
    .expect("commit");
    commit_as(&store, &first, Some(&base), "victim").expect("commit");
    make_box(&store, "doomed").expect("box");
    fs::write(store.path().join("boxes/first/refs/.new-stale"), "{").expect("write");
    fs::create_dir(store.path().join("cache/scaffold-old")).expect("mkdir");
    mend::prepare(&path.join("broken"));
    // An empty volume.
    fs::create_dir(path.join("wide")).expect("mkdir");
    fs::set_permissions(path.join("wide"), fs::Permissions::from_mode(0o755)).expect("chmod");
}

/// An act, and what is true of the names in `first` once it was acknowledged.
type Act = (&'static str, fn(&Path, &Store, &Box_<'_>) -> Result<()>);

const ACTS: &[Act] = &[
    ("", create),
    ("", make_second),
    ("", set_user),
    ("", drop_cache),
    ("+made", commit_made),
    ("", go_back),
    ("+also", name_also),
    ("", move_also),
    ("-victim", remove_victim),
    ("", lose_a_race),
    ("", settle_a_copy),
    ("", discard_two),
    ("", use_again),
    ("+saved", keep_and_save),
    ("+folded", fold_a_chain),
    ("", leave_half_a_layer),
    ("", discard_a_kept_one),
    ("", stays::act),
    ("", stays::end),
    ("", leave_a_corpse),
    ("", shift_owner),
    ("", remove_box),
    ("", tidy_up),
    ("", mend_another),
];

/// Does everything, and returns how much of it failed.
pub(super) fn act(path: &Path) -> usize {
    let Ok(store) = Store::open(path.join("store")) else { return 1 };
    let Ok(first) = store.open_box(&box_name("first")) else { return 1 };
    let mut failed = 0;
    for (effect, act) in ACTS {
        let done = act(path, &store, &first);
        failed += usize::from(done.is_err());
        if !effect.is_empty() {
            let (sign, name) = effect.split_at(1);
            let kept = if done.is_ok() == (sign == "+") { "+" } else { "-" };
            Acknowledged::tell(path, &format!("{kept}{name}"));
        }
    }
    failed
}

/// What the scenario was told by the store.
pub(super) struct Acknowledged {
    /// Whether a name is there.
    names: BTreeMap<String, bool>,
    kept: Vec<String>,
}

impl Acknowledged {
    fn tell(path: &Path, line: &str) {
        let told = fs::read_to_string(path.join("told")).unwrap_or_default();
        fs::write(path.join("told"), format!("{told}{line}\n")).expect("tell");
    }

    pub(super) fn read(path: &Path) -> Self {
        let told = fs::read_to_string(path.join("told")).unwrap_or_default();
        let mut names = BTreeMap::from([("base".to_owned(), true)]);
        let (kept, moves): (Vec<_>, Vec<_>) =
            told.lines().map(|line| line.split_at(1)).partition(|(sign, _)| *sign == "=");
        names.extend(moves.iter().map(|(sign, name)| ((*name).to_owned(), *sign == "+")));
        let kept = kept.iter().map(|(_, id)| (*id).to_owned()).collect();
        Self { names, kept }
    }

    pub(super) fn hold(&self, disk: &Disk, at: &str) {
        let refs = &disk.boxes["first"].refs;
        for (name, there) in &self.names {
            assert_eq!(refs.contains_key(name), *there, "{at}: {name}: {refs:?}");
        }
        // What was kept is still there, or has a name.
        for (id, named) in self.kept.iter().zip(["saved", "nothing"]) {
            let there = disk.upper_file(id, "file").is_some();
            assert!(there || refs.contains_key(named), "{at}: {id} is lost: {disk:#?}");
        }
        let known = ["base", "made", "folded", "also", "victim", "saved", "after"];
        assert!(refs.keys().all(|name| known.contains(&name.as_str())), "{at}: {refs:?}");
        assert!(disk.boxes["first"].head.is_some(), "{at}");
        assert!(disk.boxes["first"].current.is_some(), "{at}");
    }
}

fn base(store: &Store) -> Result<LayerRecord> {
    store.layer(&store.resolve(&box_name("first"), "base")?.layer)
}

fn create(path: &Path, _: &Store, _: &Box_<'_>) -> Result<()> {
    let wide = Store::create(path.join("wide")).map(drop);
    Store::create(path.join("new/store")).map(drop).and(wide)
}

fn make_second(_: &Path, store: &Store, _: &Box_<'_>) -> Result<()> {
    make_box(store, "second").map(drop)
}

fn set_user(_: &Path, store: &Store, _: &Box_<'_>) -> Result<()> {
    store.open_box(&box_name("first"))?.update_settings(&store.lock_shared()?, |settings| {
        settings.user = Some("1".into());
        Ok(())
    })
}

/// Uses a cache, and removes it.
fn drop_cache(_: &Path, store: &Store, first: &Box_<'_>) -> Result<()> {
    let lock = store.lock_shared()?;
    drop(store.use_cache(&lock, first.name(), &snapshot("cache"), &map())?);
    let held = store.hold_cache(first.name(), &snapshot("cache"))?;
    held.map_or(Ok(()), |held| store.remove_cache(&lock, held))
}

fn commit_made(_: &Path, store: &Store, first: &Box_<'_>) -> Result<()> {
    let base = base(store)?;
    let (run, record) = prepared(store, &base)?;
    let lock = store.lock_shared()?;
    drop(run.begin_manifest()?);
    run.end_manifest(&record, Some(OWNERS))?;
    store.publish(&lock, &run, &record, Some(OWNERS), run.dir())?;
    let named = first.update(&lock, |state| {
        state.set(&snapshot("made"), &record.id, Expected::Absent, None)?;
        state.set_head(&record.id, Expected::Layer(base.id))?;
        state.log(LogEntry { old: Some(base.id), new: Some(record.id), ..LogEntry::new("run") });
        Ok(())
    });
    drop(lock);
    // Done or not: what becomes of the run changes nothing about it.
    run.discard(store).ok();
    named
}

/// A run on top of `base` with a file in its upper, and the record of the layer to be.
fn prepared(store: &Store, base: &LayerRecord) -> Result<(Run, LayerRecord)> {
    let lock = store.lock_shared()?;
    Ok((run_with_file(store, &lock, &base.mount)?, layer_record(Some(base))))
}

fn go_back(_: &Path, store: &Store, first: &Box_<'_>) -> Result<()> {
    let base = base(store)?.id;
    first.update(&store.lock_shared()?, |state| {
        let expected = |found: Option<LayerId>| found.map_or(Expected::Absent, Expected::Layer);
        state.set_head(&base, expected(state.head()))?;
        state.set_current(&base, expected(state.current()))?;
        state.log(LogEntry { new: Some(base), ..LogEntry::new("rollback") });
        Ok(())
    })
}

fn name_also(_: &Path, store: &Store, first: &Box_<'_>) -> Result<()> {
    let base = base(store)?.id;
    first.set(&store.lock_shared()?, &snapshot("also"), &base, Expected::Absent, None)
}

fn move_also(_: &Path, store: &Store, first: &Box_<'_>) -> Result<()> {
    let target = store.resolve(&box_name("first"), "made")?.layer;
    let old = store.resolve(&box_name("first"), "also")?.layer;
    let message = Some("moved".to_owned());
    first.set(&store.lock_shared()?, &snapshot("also"), &target, Expected::Layer(old), message)
}

fn remove_victim(_: &Path, store: &Store, first: &Box_<'_>) -> Result<()> {
    first.remove(&store.lock_shared()?, &snapshot("victim")).map(drop)
}

/// A commit whose name was taken meanwhile: the upper comes back.
fn lose_a_race(_: &Path, store: &Store, first: &Box_<'_>) -> Result<()> {
    let (run, record) = prepared(store, &base(store)?)?;
    let lock = store.lock_shared()?;
    store.publish(&lock, &run, &record, None, run.dir())?;
    let lost = first.set(&lock, &snapshot("base"), &record.id, Expected::Absent, None);
    assert!(lost.is_err());
    store.take_back(&lock, &run, &record.id)?;
    drop(lock);
    run.discard(store).map(drop)
}

/// A file that was copied up and did not change leaves the upper.
fn settle_a_copy(_: &Path, store: &Store, _: &Box_<'_>) -> Result<()> {
    let base = base(store)?;
    let run = run_with_file(store, &store.lock_shared()?, &base.mount)?;
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
    let fs = format!("layers/{}/fs", base.id);
    let layer = rustix::fs::openat(store.dir(), fs, flags, rustix::fs::Mode::empty())
        .context("open layer", base.id)?;
    let times = rustix::fs::statat(&layer, "file", rustix::fs::AtFlags::empty())
        .map(|stat| rustix::fs::Timestamps {
            last_access: rustix::fs::Timespec { tv_sec: 0, tv_nsec: 0 },
            last_modification: rustix::fs::Timespec {
                tv_sec: stat.st_mtime as _,
                tv_nsec: stat.st_mtime_nsec as _,
            },
        })
        .context("look at", "file")?;
    let upper = run.fs_dir()?;
    rustix::fs::utimensat(&upper, "file", &times, rustix::fs::AtFlags::empty())
        .context("set the time of", "file")?;
    let settled =
        crate::tree::settle(upper.as_fd(), &[layer.as_fd()], &[b"file".to_vec()], &mut reached);
    run.discard(store)?;
    assert_eq!(settled?, 1);
    Ok(())
}

fn discard_two(_: &Path, store: &Store, _: &Box_<'_>) -> Result<()> {
    let base = base(store)?;
    let lock = store.lock_shared()?;
    let mut empty = store.new_run(&lock, &map())?;
    let record = run_record(&empty, &base.mount);
    empty.write_record(&record)?;
    empty.write_record(&record)?;
    empty.discard(store)?;
    run_with_file(store, &lock, &base.mount)?.discard(store).map(drop)
}

/// What runs in a row do that change nothing.
fn use_again(_: &Path, store: &Store, _: &Box_<'_>) -> Result<()> {
    let base = base(store)?;
    let lock = store.lock_shared()?;
    let (uid, gid) = map().root_owner();
    for broken in [false, false, true] {
        let mut run = store.new_run(&lock, &map())?;
        run.write_record(&run_record(&run, &base.mount))?;
        store.prepare_next(&mut run, &map());
        run.remove_empty(store);
        let layer = store.path().join(layout::spare(uid, gid)).join("layer");
        drop(broken.then(|| fs::remove_dir_all(layer)));
    }
    store.new_run(&lock, &map())?.discard(store).map(drop)
}

/// What `run --keep-on-failure` and `recover` do.
fn keep_and_save(path: &Path, store: &Store, first: &Box_<'_>) -> Result<()> {
    let base = base(store)?;
    let (run, layer) = prepared(store, &base)?;
    let id = run.id();
    let record = run_record(&run, &base.mount);
    run.keep(&record)?;
    Acknowledged::tell(path, &format!("={id}"));
    let (run, _) = store.open_run(&id)?;
    let lock = store.lock_shared()?;
    store.publish(&lock, &run, &layer, None, run.dir())?;
    let named = first.set(&lock, &snapshot("saved"), &layer.id, Expected::Absent, None);
    if named.is_err() {
        store.take_back(&lock, &run, &layer.id)?;
        return named;
    }
    drop(lock);
    run.discard(store).ok();
    Ok(())
}

/// What a commit does whose chain is full.
fn fold_a_chain(_: &Path, store: &Store, first: &Box_<'_>) -> Result<()> {
    let mut chain = vec![base(store)?];
    // The lock for all of it: nothing names these layers yet.
    let lock = store.lock_shared()?;
    for number in 0..3 {
        let parent = chain.last();
        let (mut run, record) = (run_with_file(store, &lock, &[])?, layer_record(parent));
        fill_to_fold(&run, number);
        store.publish(&lock, &run, &record, None, run.dir())?;
        run.write_record(&run_record(&run, &[]))?;
        run.discard(store)?;
        chain.push(record);
    }
    let plan = FoldPlan {
        ground: chain[0].id,
        layers: vec![chain[1].id, chain[2].id],
        rest: vec![chain[3].id],
        folds: vec![chain[1].id, chain[2].id],
    };
    let mut run = store.new_run(&lock, &map())?;
    run.write_record(&RunRecord { layer: None, ..run_record(&run, &chain[3].mount) })?;
    let place = |id| file::open_place(store.dir(), &format!("layers/{id}/fs"));
    let [ground, low, top] = [0, 1, 2].map(|number| place(chain[number].id).expect("layer"));
    let layers = [top.as_fd(), low.as_fd()];
    let filled = crate::tree::fold(&layers, ground.as_fd(), run.fs_dir()?.as_fd(), &mut reached);
    let fold = LayerRecord { folds: plan.folds.clone(), ..layer_record(None) };
    let published =
        filled.and_then(|_| store.publish(&lock, &run, &fold, None, run.dir()).map(drop));
    let (last, next) = (run_with_file(store, &lock, &[])?, layer_record(chain.last()));
    let record = LayerRecord { mount: [plan.mount(fold.id), vec![next.id]].concat(), ..next };
    let named = published.and_then(|()| {
        store.publish(&lock, &last, &record, None, last.dir())?;
        first.set(&lock, &snapshot("folded"), &record.id, Expected::Absent, None)
    });
    drop(lock);
    for run in [run, last] {
        run.discard(store).ok();
    }
    named
}

/// The lower layer gets what the upper one hides: then there is something to decide about.
fn fill_to_fold(run: &Run, number: usize) {
    let at = |name: &str| inside(run.dir(), &format!("layer/fs/{name}"));
    match number {
        0 => fs::write(at("d"), "").expect("write"),
        1 => {
            fs::create_dir(at("d")).expect("mkdir");
            let (class, mode) = (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::empty());
            rustix::fs::mknodat(rustix::fs::CWD, at("gone"), class, mode, 0).expect("whiteout");
        }
        _ => {}
    }
}

/// What a `recover` leaves that is killed between the layer and its name.
fn leave_half_a_layer(path: &Path, store: &Store, _: &Box_<'_>) -> Result<()> {
    let base = base(store)?;
    let (mut run, layer) = prepared(store, &base)?;
    let record = run_record(&run, &base.mount);
    run.keep_journal(b"a line that nobody finished")?;
    run.mark_kept(&record)?;
    Acknowledged::tell(path, &format!("={}", run.id()));
    store.publish(&store.lock_shared()?, &run, &layer, None, run.dir())?;
    abandon(run);
    Ok(())
}

/// What `recover` does with a run that changed nothing.
fn discard_a_kept_one(_: &Path, store: &Store, _: &Box_<'_>) -> Result<()> {
    let run = store.new_run(&store.lock_shared()?, &map())?;
    let (id, record) = (run.id(), run_record(&run, &[]));
    run.keep(&record)?;
    let (run, _) = store.open_run(&id)?;
    run.discard(store).map(drop)
}

fn leave_a_corpse(_: &Path, store: &Store, _: &Box_<'_>) -> Result<()> {
    let base = base(store)?;
    abandon(run_with_file(store, &store.lock_shared()?, &base.mount)?);
    Ok(())
}

/// A run whose root inside is another user, if we may.
fn shift_owner(_: &Path, store: &Store, _: &Box_<'_>) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let one = || vec![Extent { inside: 0, outside: 65_534, count: 1 }];
    let map = IdMap { mode: Mode::Range, uids: one(), gids: one() };
    let lock = store.lock_shared()?;
    drop(store.use_cache(&lock, &box_name("first"), &snapshot("theirs"), &map)?);
    store.new_run(&lock, &map)?.discard(store).map(drop)
}

fn remove_box(_: &Path, store: &Store, _: &Box_<'_>) -> Result<()> {
    store.remove_box(&store.lock_shared()?, &box_name("doomed"))
}

fn mend_another(path: &Path, _: &Store, _: &Box_<'_>) -> Result<()> {
    mend::mend(&Store::open(path.join("broken"))?).map(drop)
}

fn tidy_up(_: &Path, store: &Store, _: &Box_<'_>) -> Result<()> {
    store.set_budget(&Budget::default())?;
    store.reap()?;
    store.gc(&strict_gc())?;
    while let Some(trash) = store.trash()? {
        trash.empty(&mut remove)?;
        trash.finish()?;
    }
    Ok(())
}
