//! What lies between two snapshots.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use rustix::process::fchdir;
use serde::Serialize;

use super::owners::Known;
use crate::fault::{Context, Fault, Result, is_of_the_disk, why};
use crate::ids::{self, Entry, IdMap, Powers};
use crate::remedy::Refused;
use crate::rootfs::overlay::{Base, assemble};
use crate::store::{BoxName, LayerId, LayerRecord, Resolved, Run, RunRecord, Store};
use crate::tree::change::{Change, View, compare};
use crate::tree::meta::MARK;
use crate::tree::owners::Remembered;

mod apart;

use apart::apart;

pub(super) use apart::Member;

/// What to compare.
#[derive(Debug)]
pub enum Sides<'a> {
    /// A snapshot with its parent.
    Of(&'a str),
    /// Two snapshots.
    Between(&'a str, &'a str),
    /// What a kept run left, with what it started from.
    Run(&'a str),
}

/// The paths that differ.
#[derive(Debug, Serialize)]
pub struct Difference {
    /// The layer on the left; none if the right one is a base, all of which is added.
    pub from: Option<String>,
    /// The layer, or run, on the right.
    pub to: String,
    /// Sorted by path.
    pub changes: Vec<Change>,
}

/// One side: its id, what it is mounted from, the base first, and what is remembered there.
#[derive(Debug)]
struct Side {
    name: String,
    chain: Vec<Member>,
    known: Known,
}

impl Side {
    fn of_layers(store: &Store, name: &LayerId, chain: &[LayerId]) -> Result<Self> {
        let known = Known::of_layers(store, chain.iter().rev())?;
        let chain = chain.iter().copied().map(Member::Layer).collect();
        Ok(Self { name: name.to_string(), chain, known })
    }
}

/// Compares. Only paths that a layer of the difference holds are looked at; lowers are never walked.
///
/// # Errors
/// Not found for names; busy for a run that has not ended; host or conflict if the box's id map cannot be
/// made here.
pub fn diff(store: &Store, box_name: &BoxName, sides: &Sides<'_>) -> Result<Difference> {
    // Held throughout: gc must not take away a layer that is being read.
    let _lock = store.lock_shared()?;
    match *sides {
        Sides::Of(to) => {
            let to = store.resolve(box_name, to)?;
            let record = store.layer(&to.layer)?;
            let from = record.parent.map(|parent| beneath(store, &record, &parent)).transpose()?;
            difference(store, from, side_of(store, &record)?, &map_of(store, &to)?)
        }
        Sides::Between(from, to) => {
            let (from, to) = (store.resolve(box_name, from)?, store.resolve(box_name, to)?);
            let map = map_of(store, &to)?;
            if !map.same_owners(&map_of(store, &from)?) {
                return Err(Fault::conflict(format!(
                    "compare: boxes {} and {}: they map ids in different ways",
                    from.box_name, to.box_name
                )));
            }
            difference(store, Some(side(store, &from.layer)?), side(store, &to.layer)?, &map)
        }
        Sides::Run(id) => {
            // Whoever holds the run's lock keeps its upper from being discarded.
            let (run, record) = store.open_run(&store.run_id(id)?)?;
            // As for `recover`: its own journal may have been lost with the supervisor.
            let (from, to) = sides_of_run(store, &run, &record, MARK)?;
            difference(store, from, to, &record.id_map)
        }
    }
}

/// What a run that has just ended changed; the caller holds its lock. `journal` is what its command has left in the
/// journal of remembered owners.
///
/// # Errors
/// As [`diff`].
pub(super) fn of_run(
    store: &Store,
    run: &Run,
    record: &RunRecord,
    journal: &[u8],
) -> Result<Vec<Change>> {
    let (from, to) = sides_of_run(store, run, record, journal)?;
    Ok(difference(store, from, to, &record.id_map)?.changes)
}

fn map_of(store: &Store, found: &Resolved) -> Result<IdMap> {
    Ok(store.box_record(&found.box_name)?.id_map)
}

/// The upper on top of the chain that the run was started with, and that chain.
fn sides_of_run(
    store: &Store,
    run: &Run,
    record: &RunRecord,
    journal: &[u8],
) -> Result<(Option<Side>, Side)> {
    let from = record.layer.map(|layer| Side::of_layers(store, &layer, &record.chain));
    let mut chain: Vec<_> = record.chain.iter().copied().map(Member::Layer).collect();
    chain.push(Member::Upper(record.run));
    let known = Known::of_run(store, run, record, journal)?;
    Ok((from.transpose()?, Side { name: record.run.to_string(), chain, known }))
}

fn side(store: &Store, layer: &LayerId) -> Result<Side> {
    side_of(store, &store.layer(layer)?)
}

fn side_of(store: &Store, record: &LayerRecord) -> Result<Side> {
    Side::of_layers(store, &record.id, &record.mount)
}

/// The parent, as what the layer itself is mounted on: the parent's own chain may have been folded away.
fn beneath(store: &Store, record: &LayerRecord, parent: &LayerId) -> Result<Side> {
    let mount = &record.mount[..record.mount.len().saturating_sub(1)];
    Side::of_layers(store, parent, mount)
}

/// What is open for the comparison, in mounts of the child's own namespace.
struct Opened {
    base: Base,
    from: Option<Vec<OwnedFd>>,
    to: Vec<OwnedFd>,
    apart: Vec<OwnedFd>,
}

fn difference(store: &Store, from: Option<Side>, to: Side, map: &IdMap) -> Result<Difference> {
    ids::check(map)?;
    let chains = (from.as_ref().map_or(&[][..], |side| &side.chain), &to.chain[..]);
    let apart = apart(chains.0, chains.1, |layer| store.stands_for(layer))?;
    let open = || {
        let base = Base::clone_store(store.dir(), store.is_nest())?;
        let place = |member: &Member| open_tree(&base, &member.tree());
        // Overlay takes the top first.
        let all = |side: &Side| side.chain.iter().rev().map(place).collect();
        Ok(Opened {
            from: from.as_ref().map(all).transpose()?,
            to: all(&to)?,
            apart: apart.iter().map(place).collect::<Result<_>>()?,
            base,
        })
    };
    let compare = |opened: Opened| {
        let Opened { base, from: theirs, to: ours, apart } = opened;
        let apart = apart.iter().map(readable).collect::<Result<Vec<_>>>()?;
        let apart: Vec<_> = apart.iter().map(AsFd::as_fd).collect();
        let mut read = (Vec::new(), Vec::new());
        let root = merged(&base, &ours)?;
        let to = view(&to, root.as_fd(), &ours, &mut read.0)?;
        let (Some(from), Some(theirs)) = (&from, &theirs) else {
            return compare(None, &to, &apart);
        };
        let root = merged(&base, theirs)?;
        compare(Some(&view(from, root.as_fd(), theirs, &mut read.1)?), &to, &apart)
    };
    // The working directory is what the kernel carries into the new mount namespace.
    let changes =
        at(store, || ids::inside_prepared(Entry::Map(map), Powers::Mounts, open, compare))?;
    Ok(Difference { from: from.map(|side| side.name), to: to.name, changes })
}

fn view<'a>(
    side: &'a Side,
    root: BorrowedFd<'a>,
    layers: &'a [OwnedFd],
    read: &'a mut Vec<Remembered>,
) -> Result<View<'a>> {
    let layers = layers.iter().map(AsFd::as_fd).collect();
    Ok(View { root, recall: side.known.recall(layers, read)? })
}

/// Does `job` with base_dir as the working directory, and goes back.
pub(super) fn at<T>(store: &Store, job: impl FnOnce() -> Result<T>) -> Result<T> {
    // Where we cannot go back to, we were not needed.
    let here = openat(CWD, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok();
    fchdir(store.dir()).context("enter", store.path().display())?;
    let answer = job();
    if let Some(here) = here {
        fchdir(here).context("go back to", "the working directory")?;
    }
    answer
}

/// Opens the tree of a layer or a run. That it must be there, a record of ours says.
pub(super) fn open_tree(base: &Base, tree: &str) -> Result<OwnedFd> {
    base.open(tree).map_err(|errno| no_tree(tree, errno))
}

/// The fault of a tree that cannot be opened.
pub(super) fn no_tree(tree: &str, errno: Errno) -> Fault {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => {
            Fault::damaged(format!("open layer: {tree}: it is missing"))
        }
        errno if is_of_the_disk(errno) => {
            Fault::damaged(format!("open layer: {tree}: {}", why(errno)))
        }
        _ => Fault::errno("open layer", tree, errno),
    }
}

/// A read-only view of these layers, the top first.
pub(super) fn merged(base: &Base, lowers: &[OwnedFd]) -> Result<OwnedFd> {
    match lowers {
        // Overlay wants two lowers where there is no upper; one alone is its own view.
        [lower] => readable(lower),
        lowers => {
            let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
            let root = assemble(base, lowers, None, attributes, None)
                .mounting("mount overlay of", &format!("{} layers", lowers.len()))?;
            readable(&root)
        }
    }
}

fn readable(place: &OwnedFd) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(place, ".", flags, Mode::empty()).context("read", "a layer")
}
