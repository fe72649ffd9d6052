//! What stands at the inner end of a copy, and how its root is reached.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode as FileMode, OFlags, openat};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::source::{Memories, Root};
use crate::fault::{Fault, Kind, Result};
use crate::ids::{self, Entry, IdMap, Mode, Powers};
use crate::ops::diff::{Member, at, merged, no_tree, open_tree};
use crate::ops::exec;
use crate::ops::owners::{Known, of_layers};
use crate::ops::run::journal::read_journal;
use crate::rootfs::overlay::Base;
use crate::run::supervisor::Held;
use crate::run::supervisor::ask::Joined;
use crate::store::{BoxName, LayerId, Run, RunId, RunRecord, RunState, SharedLock, Store};
use crate::tree::living::Living;
use crate::tree::meta::{Journal, MARK};
use crate::tree::owners::Remembered;

/// A root with files.
#[derive(Debug)]
pub(super) enum View {
    /// That of a run that stays.
    Live(Live),
    /// That of a snapshot, or of a run that has ended.
    Layers {
        /// What it is mounted from, the base first.
        chain: Vec<Member>,
        /// Whose the files are.
        map: IdMap,
        /// What is remembered there.
        known: Known,
        /// Keeps it from being removed.
        _hold: Hold,
    },
}

/// A run that stays, and what it is mounted on.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) joined: Joined,
    /// The layers, top first. While the run lives, no gc takes them away.
    layers: Vec<LayerId>,
    /// Whether its files tell of no owner that a layer has not told of.
    plain: bool,
}

impl Live {
    fn of(store: &Store, word: &str, record: &RunRecord) -> Result<Self> {
        let joined = exec::join(store, word)?;
        let layers = record.chain.iter().rev().copied().collect();
        Ok(Self { joined, layers, plain: record.plain })
    }

    /// The layers as places (`O_PATH`), each with what it remembers.
    fn beneath(&self, store: &Store) -> Result<Vec<(OwnedFd, Vec<Remembered>)>> {
        let theirs = of_layers(store, self.layers.iter())?;
        let open = |(id, known): (&LayerId, _)| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let tree = format!("layers/{id}/fs");
            let layer = openat(store.dir(), &tree, flags, FileMode::empty());
            Ok((layer.map_err(|errno| no_tree(&tree, errno))?, known))
        };
        self.layers.iter().zip(theirs).map(open).collect()
    }

    /// The journal, if it remembers what no disk holds.
    pub(super) fn journal(&self) -> Option<BorrowedFd<'_>> {
        self.joined.get(Held::Journal)
    }

    /// Does a job with the root, inside the user namespace.
    pub(super) fn inside<T: Serialize + DeserializeOwned>(
        &self,
        job: impl FnOnce(BorrowedFd<'_>, &IdMap) -> Result<T>,
    ) -> Result<T> {
        let joined = &self.joined;
        let (Some(user), Some(root)) = (joined.get(Held::User), joined.get(Held::Root)) else {
            return Err(joined.line.odd());
        };
        let map = &joined.confinement.id_map;
        let entry = match joined.confinement.ordinary && map.mode == Mode::Single {
            // Nobody is 0 in the namespace of that run, and a job is 0: of one with the same owners.
            true => Entry::Map(map),
            false => Entry::Joined(user),
        };
        ids::inside(entry, Powers::Files, || job(root, map))
    }
}

/// What keeps layers, or an upper, where they are.
#[derive(Debug)]
#[expect(dead_code, reason = "they are only held")]
pub(super) enum Hold {
    Store(SharedLock),
    Run(Run),
}

/// The snapshot of this name, or the run of this id or name.
pub(super) fn of(store: &Store, box_name: &BoxName, word: &str) -> Result<View> {
    if word.parse::<RunId>().is_ok() {
        return of_run(store, word);
    }
    let lock = store.lock_shared()?;
    let resolved = match store.resolve(box_name, word) {
        Err(fault) if fault.kind == Kind::NotFound => {
            drop(lock);
            // The first answer is the better one, unless there is such a run.
            return match (store.find_run(word), store.find_ended(word)) {
                (Ok(_), _) => of_run(store, word),
                (Err(_), Some(ended)) => Err(ended.over()),
                (Err(_), None) => Err(fault),
            };
        }
        other => other?,
    };
    let record = store.layer(&resolved.layer)?;
    let known = Known::of_layers(store, record.mount.iter().rev())?;
    let map = store.box_record(&resolved.box_name)?.id_map;
    ids::check(&map)?;
    let chain = record.mount.iter().copied().map(Member::Layer).collect();
    Ok(View::Layers { chain, map, known, _hold: Hold::Store(lock) })
}

fn of_run(store: &Store, word: &str) -> Result<View> {
    let (record, state) = store.find_run(word)?;
    if state == RunState::Running {
        return Live::of(store, word, &record).map(View::Live);
    }
    let (run, record) = store.open_run(&record.run)?;
    ids::check(&record.id_map)?;
    let mut chain: Vec<_> = record.chain.iter().copied().map(Member::Layer).collect();
    chain.push(Member::Upper(record.run));
    // As for `recover`: its own journal may have been lost with the supervisor.
    let known = Known::of_run(store, &run, &record, MARK)?;
    Ok(View::Layers { chain, map: record.id_map, known, _hold: Hold::Run(run) })
}

impl View {
    /// Does a job with the root, inside the user namespace.
    pub(super) fn inside<T: Serialize + DeserializeOwned>(
        &self,
        store: &Store,
        job: impl FnOnce(Root<'_>, &Memories<'_>, &IdMap) -> Result<T>,
    ) -> Result<T> {
        match self {
            Self::Live(live) => {
                let beneath = live.beneath(store)?;
                live.inside(|root, map| {
                    let journal = match live.journal() {
                        Some(file) => Journal::parse(&read_journal(file)?),
                        None => Journal::default(),
                    };
                    let layers = beneath.iter().map(|(layer, known)| (layer.as_fd(), &known[..]));
                    let layers: Vec<_> = layers.collect();
                    let living = Living::new(root, map, journal, &layers, live.plain)?;
                    job(Root::Inside(root), &Memories::Live(living), map)
                })
            }
            Self::Layers { chain, map, known, .. } => {
                let open = || {
                    let base = Base::clone_store(store.dir(), store.is_nest())?;
                    let place = |member: &Member| open_tree(&base, &member.tree());
                    // Overlay takes the top first.
                    let lowers = chain.iter().rev().map(place).collect::<Result<Vec<_>>>()?;
                    Ok((base, lowers))
                };
                let work = |(base, lowers): (Base, Vec<OwnedFd>)| {
                    let root = merged(&base, &lowers)?;
                    let mut read = Vec::new();
                    let recall =
                        known.recall(lowers.iter().map(AsFd::as_fd).collect(), &mut read)?;
                    job(Root::Inside(root.as_fd()), &Memories::Layers(&recall), map)
                };
                at(store, || ids::inside_prepared(Entry::Map(map), Powers::Mounts, open, work))
            }
        }
    }
}

/// The fault of a snapshot that is none.
pub(super) fn no_snapshot(word: &str, fault: Fault) -> Fault {
    match fault.kind {
        Kind::NotFound => fault.hint(format!(
            "--as makes a snapshot from another one; a run that stays is copied into without it: {word}:PATH"
        )),
        _ => fault,
    }
}
