//! Random rows of moves, compared after each with a box that is only a few maps in memory.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::{list, log, rm, rollback, snapshot, undo};
use crate::fault::{Kind, Result};
use crate::store::tests as stores;
use crate::store::{
    BoxName, Expected, GcOptions, LayerId, LogEntry, RefRecord, SnapshotName, Store,
};

/// Names that are given and taken away.
const NAMES: [&str; 4] = ["a", "b", "c", "postinit"];

/// What can be done to a box. Numbers stand for names, and for layers by their age.
#[derive(Debug, Clone)]
enum Act {
    /// `run --keep`.
    Keep,
    /// `run --commit NAME`.
    Commit(usize),
    Snapshot {
        name: usize,
        message: bool,
        protect: Option<bool>,
        force: bool,
    },
    Rollback(usize),
    RollbackTo(usize),
    Clean,
    Rm(Vec<usize>),
    Rename(usize, usize),
    Undo,
    Rehearse,
    Gc,
}

fn acts() -> impl Strategy<Value = Act> {
    let name = || 0..NAMES.len();
    let given = (name(), any::<bool>(), option::weighted(0.3, any::<bool>()), any::<bool>());
    prop_oneof![
        3 => Just(Act::Keep),
        1 => name().prop_map(Act::Commit),
        4 => given.prop_map(|(name, message, protect, force)| Act::Snapshot { name, message, protect, force }),
        2 => name().prop_map(Act::Rollback),
        1 => (0..9_usize).prop_map(Act::RollbackTo),
        2 => Just(Act::Clean),
        2 => vec(name(), 1..3).prop_map(Act::Rm),
        2 => (name(), name()).prop_map(|(old, new)| Act::Rename(old, new)),
        5 => Just(Act::Undo),
        1 => Just(Act::Rehearse),
        1 => Just(Act::Gc),
    ]
}

/// All that a move can change.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    head: LayerId,
    current: LayerId,
    refs: BTreeMap<SnapshotName, RefRecord>,
}

/// The box as it should be.
#[derive(Debug)]
struct Model {
    now: Seen,
    /// What was before each move that was not taken back.
    before: Vec<Seen>,
    /// All layers, oldest first.
    layers: Vec<LayerId>,
    /// Moves and undos.
    logged: usize,
}

impl Model {
    /// Lets the box be this; a change is a move.
    fn go(&mut self, next: Seen) {
        if next != self.now {
            self.before.push(std::mem::replace(&mut self.now, next));
            self.logged += 1;
        }
    }

    fn act(&mut self, act: &Act) -> Result<(), Kind> {
        let mut next = self.now.clone();
        match act {
            Act::Keep | Act::Commit(_) => unreachable!("they tell which layer they made"),
            Act::Snapshot { name, message, protect, force } => {
                let said = message.then(|| "said".to_owned());
                next.give(&named(*name), said, *protect, *force)?;
            }
            Act::Rollback(name) => {
                let layer = next.refs.get(&named(*name)).ok_or(Kind::NotFound)?.layer;
                (next.head, next.current) = (layer, layer);
            }
            Act::RollbackTo(age) => {
                let layer = self.layers[age % self.layers.len()];
                (next.head, next.current) = (layer, layer);
            }
            Act::Clean => next.head = next.current,
            Act::Rm(names) => {
                for name in names {
                    // Twice on one line is once.
                    let name = named(*name);
                    let record = self.now.refs.get(&name).ok_or(Kind::NotFound)?;
                    if record.protected {
                        return Err(Kind::Conflict);
                    }
                    next.refs.remove(&name);
                }
            }
            Act::Rename(old, new) => {
                let record = next.refs.remove(&named(*old)).ok_or(Kind::NotFound)?;
                if next.refs.insert(named(*new), record).is_some() {
                    return Err(Kind::Conflict);
                }
            }
            Act::Undo => {
                self.now = self.before.pop().ok_or(Kind::NotFound)?;
                self.logged += 1;
                return Ok(());
            }
            Act::Rehearse => return self.before.last().map(drop).ok_or(Kind::NotFound),
            Act::Gc => {}
        }
        self.go(next);
        Ok(())
    }
}

impl Seen {
    fn give(
        &mut self,
        name: &SnapshotName,
        said: Option<String>,
        protect: Option<bool>,
        force: bool,
    ) -> Result<(), Kind> {
        let head = self.head;
        match self.refs.get_mut(name) {
            None if protect == Some(false) => return Err(Kind::NotFound),
            None => {
                let protected = protect.unwrap_or_default();
                let record = RefRecord { protected, ..RefRecord::new(head, said) };
                self.refs.insert(name.clone(), record);
                self.current = head;
            }
            Some(record) if record.layer == head || (protect.is_some() && !force) => {
                record.protected = protect.unwrap_or(record.protected);
                record.message = said.or_else(|| record.message.take());
                if record.layer == head {
                    self.current = head;
                }
            }
            Some(_) if !force => return Err(Kind::Conflict),
            Some(record) if record.protected && protect != Some(false) => {
                return Err(Kind::Conflict);
            }
            Some(record) => {
                let protected = protect.unwrap_or_default();
                *record = RefRecord { protected, ..RefRecord::new(head, said) };
                self.current = head;
            }
        }
        Ok(())
    }
}

fn named(number: usize) -> SnapshotName {
    stores::snapshot(NAMES[number])
}

/// The box as it is.
fn seen(store: &Store, name: &BoxName) -> Seen {
    let listing = list::list(store, name).expect("list");
    let refs = store.open_box(name).expect("box").refs().expect("refs");
    assert_eq!(refs.len(), listing.snapshots.len());
    Seen {
        head: listing.head.expect("head"),
        current: listing.current.expect("current"),
        refs: refs.iter().map(|found| (found.name.clone(), found.record())).collect(),
    }
}

/// Publishes a layer and names it as `run` does.
fn run(store: &Store, name: &BoxName, target: Option<&SnapshotName>) -> Result<LayerId> {
    let open = store.open_box(name)?;
    let head = open.head()?.expect("head");
    let parent = store.layer(&head)?;
    let made = stores::commit(store, &open, Some(&parent), |state, id| {
        match target {
            Some(name) => state.set(name, id, Expected::Absent, None)?,
            None => state.set_head(id, Expected::Layer(head))?,
        }
        state.log(LogEntry { layer: Some(*id), ..LogEntry::new("run") });
        Ok(())
    })?;
    Ok(made.id)
}

fn request(name: usize, message: bool, protect: Option<bool>, force: bool) -> snapshot::Request {
    let message = message.then(|| "said".to_owned());
    snapshot::Request { name: named(name), message, protect, force }
}

/// Does it for real.
fn act(store: &Store, name: &BoxName, act: &Act, layers: &[LayerId]) -> Result<()> {
    match act {
        Act::Keep | Act::Commit(_) => unreachable!("done by the caller"),
        Act::Snapshot { name: to, message, protect, force } => {
            snapshot::snapshot(store, name, &request(*to, *message, *protect, *force)).map(drop)
        }
        Act::Rollback(to) => rollback::rollback(store, name, NAMES[*to]).map(drop),
        Act::RollbackTo(age) => {
            rollback::rollback(store, name, layers[age % layers.len()].as_str()).map(drop)
        }
        Act::Clean => rollback::clean(store, name).map(drop),
        Act::Rm(names) => {
            let names: Vec<_> = names.iter().map(|number| named(*number)).collect();
            rm::rm(store, name, &names).map(drop)
        }
        Act::Rename(old, new) => rm::rename(store, name, &named(*old), &named(*new)).map(drop),
        Act::Undo => undo::undo(store, name, false).map(drop),
        Act::Rehearse => undo::undo(store, name, true).map(drop),
        Act::Gc => store.gc(&GcOptions::default()).map(drop),
    }
}

/// Does it in both, and compares. Times of new names are the store's: the model takes them over.
fn step(store: &Store, name: &BoxName, model: &mut Model, one: &Act) -> Result<(), TestCaseError> {
    match one {
        Act::Keep => {
            let made = run(store, name, None).expect("keep");
            model.layers.push(made);
            model.go(Seen { head: made, ..model.now.clone() });
        }
        Act::Commit(number) => {
            let target = named(*number);
            let made = run(store, name, Some(&target)).map_err(|fault| fault.kind);
            if model.now.refs.contains_key(&target) {
                prop_assert_eq!(made, Err(Kind::Conflict));
            } else {
                let made = made.expect("commit");
                model.layers.push(made);
                let mut next = model.now.clone();
                next.refs.insert(target, RefRecord::new(made, None));
                model.go(next);
            }
        }
        other => {
            let expected = model.act(other);
            let found = act(store, name, other, &model.layers).map_err(|fault| fault.kind);
            prop_assert_eq!(found, expected);
        }
    }
    let found = seen(store, name);
    for (name, record) in &mut model.now.refs {
        let there = found.refs.get(name);
        let known = model.before.last().and_then(|before| before.refs.get(name));
        let fresh = known.is_none_or(|known| known.layer != record.layer);
        if let Some(there) = there.filter(|_| fresh && !matches!(one, Act::Undo | Act::Rename(..)))
        {
            record.created = there.created;
        }
    }
    prop_assert_eq!(&found, &model.now);
    let log = log::log(store, name, log::Request::default()).expect("log");
    prop_assert_eq!(log.entries.len(), model.logged);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_box_is_what_its_moves_say(acts in vec(acts(), 1..40)) {
        let (_folder, store) = stores::store();
        let name = stores::box_name("first");
        let first = stores::make_box(&store, "first").expect("box");
        let base = stores::commit(&store, &first, None, |state, id| {
            state.set(&named(3), id, Expected::Absent, None)?;
            state.set_head(id, Expected::Absent)?;
            state.set_current(id, Expected::Absent)?;
            state.log(LogEntry { layer: Some(*id), ..LogEntry::new("init") });
            Ok(())
        }).expect("commit").id;
        let now = seen(&store, &name);
        let mut model = Model { now, before: Vec::new(), layers: vec![base], logged: 1 };
        for one in &acts {
            step(&store, &name, &mut model, one)?;
        }
        // All the way back, and nothing is left of what was on the way.
        while !model.before.is_empty() {
            step(&store, &name, &mut model, &Act::Undo)?;
        }
        step(&store, &name, &mut model, &Act::Undo)?;
        store.gc(&stores::strict_gc()).expect("gc");
        prop_assert_eq!(store.layers().expect("layers"), [base]);
        stores::drain(&store).expect("drain");
    }
}
