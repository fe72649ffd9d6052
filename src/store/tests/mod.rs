//! Tests of the store as a whole.

mod caches;
#[cfg(any(debug_assertions, feature = "failpoints"))]
mod crash;
#[path = "../../../tests/common/disk.rs"]
mod disk;
mod fold;
mod gc;
#[cfg(any(debug_assertions, feature = "failpoints"))]
mod halfway;
mod life;
mod mend;
mod open;
mod race;
mod record;
#[cfg(any(debug_assertions, feature = "failpoints"))]
mod scenario;
mod spare;
mod stays;
mod sweep;
mod undo;

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use jiff::Timestamp;
use tempfile::TempDir;

use super::*;
use crate::fault::Result;
use crate::ids::{Extent, IdMap, Mode};

/// A file `owners`.
const OWNERS: &[u8] = b"{\"path\":\"file\",\"uid\":5,\"mode\":420}\n";

/// A directory of the test's own; in memory, where syncing costs nothing.
fn folder() -> TempDir {
    let memory = PathBuf::from("/dev/shm");
    let place = if memory.is_dir() { memory } else { std::env::temp_dir() };
    TempDir::with_prefix_in("sandbox-store-", place).expect("temporary directory")
}

pub(crate) fn store() -> (TempDir, Store) {
    let folder = folder();
    let store = Store::create(folder.path().join("store")).expect("create");
    (folder, store)
}

/// Inside 0 is whoever runs the test.
fn map() -> IdMap {
    let one = |outside| vec![Extent { inside: 0, outside, count: 1 }];
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    IdMap { mode: Mode::Single, uids: one(uid.as_raw()), gids: one(gid.as_raw()) }
}

pub(crate) fn box_name(text: &str) -> BoxName {
    text.parse().expect("box name")
}

pub(crate) fn snapshot(text: &str) -> SnapshotName {
    text.parse().expect("snapshot name")
}

pub(crate) fn make_box<'s>(store: &'s Store, name: &str) -> Result<Box_<'s>> {
    make_box_with(store, name, BoxSettings::default())
}

fn make_box_with<'s>(store: &'s Store, name: &str, settings: BoxSettings) -> Result<Box_<'s>> {
    let record = BoxRecord {
        name: box_name(name),
        id_map: map(),
        source: "scratch".into(),
        identity: "scratch".into(),
        created: Timestamp::now(),
        first: None,
        settings,
    };
    store.create_box(&store.lock_shared()?, record)
}

fn run_record(run: &Run, chain: &[LayerId]) -> RunRecord {
    RunRecord {
        run: run.id(),
        name: None,
        box_name: box_name("first"),
        from: "head".into(),
        layer: chain.last().copied(),
        chain: chain.to_vec(),
        scaffold: None,
        id_map: map(),
        argv: vec!["true".into()],
        copy_up: Vec::new(),
        plain: false,
        made: Vec::new(),
        nest: None,
        started: Timestamp::now(),
        pid: std::process::id(),
        state: RunState::Running,
        exit: None,
        fault: None,
    }
}

fn layer_record(parent: Option<&LayerRecord>) -> LayerRecord {
    let id = LayerId::random().expect("id");
    let mut mount = parent.map(|parent| parent.mount.clone()).unwrap_or_default();
    mount.push(id);
    LayerRecord {
        id,
        parent: parent.map(|parent| parent.id),
        depth: parent.map_or(0, |parent| parent.depth + 1),
        mount,
        folds: vec![],
        created: Timestamp::now(),
        argv: vec!["make".into()],
        exit: Some(0),
        files: 1,
        own_bytes: 5,
        diff_id: None,
        unmapped: 0,
    }
}

/// A run whose upper holds one file.
fn run_with_file(store: &Store, lock: &SharedLock, chain: &[LayerId]) -> Result<Run> {
    let mut run = store.new_run(lock, &map())?;
    run.write_record(&run_record(&run, chain))?;
    std::fs::write(inside(run.dir(), "layer/fs/file"), "hello").expect("write");
    Ok(run)
}

/// Leaves a run as a killed supervisor does.
fn abandon(run: Run) -> RunId {
    run.unlock();
    run.id()
}

/// Publishes a layer on top of `parent` and lets the caller name it, as a commit does.
pub(crate) fn commit(
    store: &Store,
    box_: &Box_<'_>,
    parent: Option<&LayerRecord>,
    name: impl FnOnce(&mut State<'_>, &LayerId) -> Result<()>,
) -> Result<LayerRecord> {
    let chain = parent.map(|parent| parent.mount.clone()).unwrap_or_default();
    let lock = store.lock_shared()?;
    let run = run_with_file(store, &lock, &chain)?;
    drop(lock);
    let record = layer_record(parent);
    let lock = store.lock_shared()?;
    store.publish(&lock, &run, &record, Some(OWNERS), run.dir())?;
    box_.update(&lock, |state| name(state, &record.id))?;
    drop(lock);
    run.discard(store)?;
    Ok(record)
}

/// Commits and lets a new snapshot stand for it.
fn commit_as(
    store: &Store,
    box_: &Box_<'_>,
    parent: Option<&LayerRecord>,
    name: &str,
) -> Result<LayerRecord> {
    let name = snapshot(name);
    commit(store, box_, parent, |state, id| state.set(&name, id, Expected::Absent, None))
}

fn inside(dir: BorrowedFd<'_>, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))
}

/// Without the namespaces of [`crate::ids`], for trees that are ours.
fn remove(dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    crate::tree::remove_tree(dir, name).map(drop)
}

/// Empties the trash in this process.
pub(crate) fn drain(store: &Store) -> Result<()> {
    while store.trash_pending()? > 0 {
        // A child that another test is just starting may hold a lock that was dropped.
        let Some(trash) = store.trash()? else { continue };
        let count = trash.len();
        trash.empty(&mut remove)?;
        assert_eq!(trash.finish()?.entries, count);
    }
    Ok(())
}

/// Every name beneath the store that stands for something unfinished or unwanted.
fn garbage(store: &Store) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![String::from(".")];
    while let Some(folder) = open.pop() {
        let dir = file::open_dir(store.dir(), &folder).expect("open");
        for name in file::names(dir.as_fd()).expect("names") {
            let path = format!("{folder}/{name}");
            if name.starts_with('.') || folder == "./trash" {
                found.push(path.clone());
            }
            if file::open_dir(store.dir(), &path).is_ok() {
                open.push(path);
            }
        }
    }
    found
}

/// This test binary again, to run one test that takes its orders from the environment.
fn again(test: &str, orders: &[(&str, &OsStr)]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", &format!("store::tests::{test}"), "--nocapture"]);
    command.envs(orders.iter().copied()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// gc that lets nothing live for its youth.
pub(crate) fn strict_gc() -> GcOptions {
    let zero = std::time::Duration::ZERO;
    GcOptions { undo: Some(zero), cache: zero, ..GcOptions::default() }
}

/// Ids drawn in one millisecond have no order.
fn sorted<T: Ord>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut items: Vec<_> = items.into_iter().collect();
    items.sort_unstable();
    items
}
