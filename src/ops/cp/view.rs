//! What stands at the inner end of a copy, and how its root is reached.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::source::Root;
use crate::fault::{Context, Fault, Kind, Result};
use crate::ids::{self, Entry, IdMap, Mode, Powers};
use crate::ops::diff::{Member, at, merged, open_tree};
use crate::ops::exec;
use crate::rootfs::overlay::Base;
use crate::run::supervisor::Held;
use crate::run::supervisor::ask::Joined;
use crate::store::{BoxName, Run, RunId, RunState, SharedLock, Store};

/// A root with files.
#[derive(Debug)]
pub(super) enum View {
    /// That of a run that stays.
    Live(Joined),
    /// That of a snapshot, or of a run that has ended.
    Layers {
        /// What it is mounted from, the base first.
        chain: Vec<Member>,
        /// Whose the files are.
        map: IdMap,
        /// Keeps it from being removed.
        _hold: Hold,
    },
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
    let map = store.box_record(&resolved.box_name)?.id_map;
    ids::check(&map)?;
    let chain = record.mount.iter().copied().map(Member::Layer).collect();
    Ok(View::Layers { chain, map, _hold: Hold::Store(lock) })
}

fn of_run(store: &Store, word: &str) -> Result<View> {
    let (record, state) = store.find_run(word)?;
    if state == RunState::Running {
        return exec::join(store, word).map(View::Live);
    }
    let (run, record) = store.open_run(&record.run)?;
    ids::check(&record.id_map)?;
    let mut chain: Vec<_> = record.chain.iter().copied().map(Member::Layer).collect();
    chain.push(Member::Upper(record.run));
    Ok(View::Layers { chain, map: record.id_map, _hold: Hold::Run(run) })
}

impl View {
    /// Does a job with the root, inside the user namespace.
    pub(super) fn inside<T: Serialize + DeserializeOwned>(
        &self,
        store: &Store,
        job: impl FnOnce(Root<'_>, &IdMap) -> Result<T>,
    ) -> Result<T> {
        match self {
            Self::Live(joined) => {
                let (Some(user), Some(root)) = (joined.get(Held::User), joined.get(Held::Root))
                else {
                    return Err(joined.line.odd());
                };
                let map = &joined.confinement.id_map;
                let entry = match joined.confinement.ordinary && map.mode == Mode::Single {
                    // Nobody is 0 in the namespace of that run, and a job is 0: of one with the same owners.
                    true => Entry::Map(map),
                    false => Entry::Joined(user),
                };
                ids::inside(entry, Powers::Files, || job(Root::Inside(root), map))
            }
            Self::Layers { chain, map, .. } => {
                let open = || {
                    let base = Base::clone_cwd(store.dir(), store.is_nest())
                        .context("clone the mount of", "the store")?;
                    let place = |member: &Member| open_tree(&base, &member.tree());
                    // Overlay takes the top first.
                    let lowers = chain.iter().rev().map(place).collect::<Result<Vec<_>>>()?;
                    Ok((base, lowers))
                };
                let work = |(base, lowers): (Base, Vec<_>)| {
                    let root = merged(&base, &lowers)?;
                    job(Root::Inside(std::os::fd::AsFd::as_fd(&root)), map)
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
