//! Back to the beginning: the snapshots of a box, its caches, or the box itself.

use serde::Serialize;

use super::boxes::{Damage, runs};
use crate::fault::{Fault, Kind, Result};
use crate::store::{
    BoxName, Cache, Expected, LayerId, LogEntry, RunId, RunState, SharedLock, SnapshotName, Store,
};

/// The snapshot that stays.
const POSTINIT: &str = "postinit";

/// What goes.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// All names but `postinit`, to which head and current return.
    pub snapshots: bool,
    /// The persistent caches of these names.
    pub caches: Caches,
    /// The box itself, with all of this.
    pub all: bool,
    /// Also what is protected and, with `all`, runs that were kept.
    pub force: bool,
}

/// Which caches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Caches {
    /// None.
    #[default]
    None,
    /// These, as far as they are there.
    Named(Vec<SnapshotName>),
    /// All of the box.
    All,
}

/// What went.
#[derive(Debug, Serialize)]
pub struct Scrubbed {
    /// The box.
    #[serde(rename = "box")]
    pub box_name: BoxName,
    /// The names that are gone.
    pub snapshots: Vec<SnapshotName>,
    /// Where head is now, if it has moved.
    pub head: Option<LayerId>,
    /// The caches that are gone.
    pub caches: Vec<SnapshotName>,
    /// Whether the box is gone.
    pub removed: bool,
    /// Kept runs that are gone.
    pub runs: Vec<RunId>,
    /// Kept runs of the box that are still there.
    pub kept: Vec<RunId>,
    /// Runs of the box that go on.
    pub running: Vec<RunId>,
}

impl Scrubbed {
    /// Whether there was nothing to do.
    pub fn is_nothing(&self) -> bool {
        let Self { snapshots, head, caches, removed, runs, .. } = self;
        snapshots.is_empty() && head.is_none() && caches.is_empty() && !removed && runs.is_empty()
    }
}

/// Scrubs a box. Again it does nothing, and that is no failure: neither is a box that is not there, with
/// `all`. Names go in one move, which `undo` takes back; caches and a box do not come back.
///
/// # Errors
/// Conflict, before anything was done, for protected snapshots and (with `all`) for kept runs, unless
/// `force`, and for snapshots without a `postinit` to return to; busy for a cache that a run uses.
pub fn scrub(store: &Store, box_name: &BoxName, request: &Request) -> Result<Scrubbed> {
    let lock = store.lock_shared()?;
    if !request.all {
        // Whether it is there at all.
        store.open_box(box_name)?;
    }
    let mut done = Scrubbed {
        box_name: box_name.clone(),
        snapshots: Vec::new(),
        head: None,
        caches: Vec::new(),
        removed: false,
        runs: Vec::new(),
        kept: Vec::new(),
        running: Vec::new(),
    };
    for run in runs(store, box_name)? {
        match run.state {
            RunState::Kept | RunState::Dead => done.kept.push(run.run),
            _ => done.running.push(run.run),
        }
    }
    if request.all && !request.force {
        refuse_kept(&done)?;
    }
    // All of them before anything is gone: one that is in use stops it.
    let held = hold(store, box_name, request)?;
    if request.snapshots && !request.all {
        snapshots(store, &lock, request, &mut done)?;
    }
    if request.all {
        remove(store, &lock, request, &mut done)?;
    }
    for (name, cache) in held {
        store.remove_cache(&lock, cache)?;
        done.caches.push(name);
    }
    Ok(done)
}

/// What happened to all boxes.
#[derive(Debug, Serialize)]
pub struct Everything {
    /// Those that were scrubbed, by name.
    pub boxes: Vec<Scrubbed>,
    /// Those that were not, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<Damage>,
}

/// Scrubs all boxes, each by itself: one that cannot be does not keep the others.
///
/// # Errors
/// What reading the directory of boxes says.
pub fn scrub_all(store: &Store, request: &Request) -> Result<Everything> {
    let mut all = Everything { boxes: Vec::new(), failed: Vec::new() };
    for (box_name, name) in store.box_entries()? {
        match name.and_then(|name| scrub(store, &name, request)) {
            Ok(done) => all.boxes.push(done),
            // It was removed since we read the directory.
            Err(fault) if fault.kind == Kind::NotFound => {}
            Err(error) => all.failed.push(Damage { box_name, error }),
        }
    }
    Ok(all)
}

fn refuse_kept(done: &Scrubbed) -> Result<()> {
    let Some(first) = done.kept.first() else { return Ok(()) };
    let kept: Vec<_> = done.kept.iter().map(RunId::to_string).collect();
    Err(Fault::conflict(format!(
        "scrub box {}: it has kept runs: {}",
        done.box_name,
        kept.join(", ")
    ))
    .hint(format!("`sandbox recover {first} --as NAME` saves one, `sandbox rm --run {first}` throws one away; --force all of them")))
}

fn hold(
    store: &Store,
    box_name: &BoxName,
    request: &Request,
) -> Result<Vec<(SnapshotName, Cache)>> {
    let names = match &request.caches {
        Caches::None if !request.all => return Ok(Vec::new()),
        Caches::Named(names) if !request.all => names.clone(),
        _ => store.cache_names(box_name)?,
    };
    let mut held = Vec::new();
    for name in names {
        match store.hold_cache(box_name, &name) {
            Ok(cache) => held.extend(cache.map(|cache| (name, cache))),
            // gc takes it when its run is over and there is no such box any more.
            Err(fault) if fault.kind == Kind::Busy && request.all && request.force => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(held)
}

/// All names but one go, and head and current return to it: one move.
fn snapshots(
    store: &Store,
    lock: &SharedLock,
    request: &Request,
    done: &mut Scrubbed,
) -> Result<()> {
    let opened = store.open_box(&done.box_name)?;
    let postinit: SnapshotName = POSTINIT.parse()?;
    // It sets all that the file `head` says: so it is a way out if that is damaged.
    opened.mend(lock, |state| {
        let Some(first) = state.get(&postinit)? else { return Err(no_postinit(&done.box_name)) };
        for name in opened.snapshot_names()?.into_iter().filter(|name| *name != postinit) {
            if request.force {
                state.take(&name)?;
            } else {
                state.remove(&name).map_err(|fault| of_scrub(&done.box_name, fault))?;
            }
            done.snapshots.push(name);
        }
        let expected = |found: Option<LayerId>| found.map_or(Expected::Absent, Expected::Layer);
        let old = (state.head(), state.current());
        if old != (Some(first.layer), Some(first.layer)) {
            state.set_head(&first.layer, expected(old.0))?;
            state.set_current(&first.layer, expected(old.1))?;
            done.head = Some(first.layer);
        }
        state.log(LogEntry::new("scrub"));
        Ok(())
    })
}

fn no_postinit(box_name: &BoxName) -> Fault {
    Fault::conflict(format!("scrub box {box_name}: there is no {POSTINIT} to return to"))
        .hint(format!("`sandbox init {box_name} --refresh` makes it anew"))
}

/// The fault of a protected name, with what to do about it here.
fn of_scrub(box_name: &BoxName, fault: Fault) -> Fault {
    let fault = Fault { message: format!("scrub box {box_name}: {}", fault.message), ..fault };
    match fault.kind {
        Kind::Conflict => fault.hint("--force removes protected snapshots, too"),
        _ => fault,
    }
}

/// The box goes, if it is there; kept runs with it.
fn remove(store: &Store, lock: &SharedLock, request: &Request, done: &mut Scrubbed) -> Result<()> {
    let box_name = &done.box_name;
    let check = || if request.force { Ok(()) } else { refuse_protected(store, box_name) };
    match store.remove_box_if(lock, box_name, check) {
        Err(fault) if fault.kind == Kind::NotFound => {}
        removed => {
            removed?;
            done.removed = true;
        }
    }
    for run in std::mem::take(&mut done.kept) {
        match store.open_run(&run) {
            Ok((run, _)) => {
                done.runs.push(run.id());
                run.discard(store)?;
            }
            // Somebody works with it, or was faster.
            Err(fault) if fault.kind == Kind::Busy => done.running.push(run),
            Err(fault) if fault.kind == Kind::NotFound => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(())
}

fn refuse_protected(store: &Store, box_name: &BoxName) -> Result<()> {
    let all = store.open_box(box_name)?.refs()?;
    let names: Vec<_> =
        all.iter().filter(|one| one.protected).map(|one| one.name.as_str()).collect();
    if names.is_empty() {
        return Ok(());
    }
    Err(Fault::conflict(format!("scrub box {box_name}: protected: {}", names.join(", ")))
        .hint("--force removes protected snapshots, too"))
}
