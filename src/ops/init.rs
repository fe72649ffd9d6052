//! Fills a box: a tree from outside becomes its first layer, and the snapshot `postinit`.
//!
//! All the work happens in a run of its own, which nobody sees: a failure throws it away, and after a kill
//! the next command does. Only a finished layer makes the box.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::fault::{Fault, Kind, Result};
use crate::ids::{self, IdMap, Mode};
use crate::image::Source;
use crate::store::{
    BoxName, BoxRecord, BoxSettings, Expected, LayerId, LayerRecord, LogEntry, Run, RunRecord,
    RunState, SharedLock, SnapshotName, Store,
};
use crate::tree::Totals;

use super::trash;

mod fill;
mod fresh;

use fill::{Filled, fill};
use fresh::Fresh;

/// The snapshot that init takes.
const POSTINIT: &str = "postinit";

/// How long another init of the same box may take for its last steps, which are a few writes.
const LAST_STEPS: Duration = Duration::from_secs(30);

/// What to make.
#[derive(Debug)]
pub struct Request {
    /// The box.
    pub box_name: BoxName,
    /// What to fill it from.
    pub source: Source,
    /// How to map ids; none for the best way there is.
    pub ids: Option<Mode>,
}

/// A box that is filled.
#[derive(Debug, Serialize)]
pub struct Initialised {
    /// The box.
    #[serde(rename = "box")]
    pub box_name: BoxName,
    /// What it was filled from.
    pub source: String,
    /// Whether this call filled it; it was there already if not.
    pub created: bool,
    /// The layer of its head.
    pub layer: LayerId,
    /// How it maps ids.
    pub id_map: IdMap,
    /// What was copied, and what could not be; none if nothing was.
    pub totals: Option<Totals>,
    /// Owners and devices that the map cannot hold, kept beside the files.
    pub remembered: usize,
}

/// Fills a box, and makes the store if there is none. The same again changes nothing and says so.
///
/// # Errors
/// Conflict if the box was filled from something else or with other ids; host if the source needs what this
/// machine has not; whatever reading the source says. Nothing stays of what was begun then, the store
/// included if this made it.
pub fn init(base_dir: &Path, request: &Request) -> Result<Initialised> {
    let source = request.source.clone().canonical()?;
    let identity = source.identity()?;
    let fresh = Fresh::look(base_dir);
    let store = Store::create(base_dir)?;
    let job = Job { store: &store, request, source, identity };
    let made = job.make();
    if made.is_err() {
        // What cannot be removed now is found by the next command.
        trash::empty(&store).ok();
        fresh.take_back(&store);
    }
    made
}

struct Job<'a> {
    store: &'a Store,
    request: &'a Request,
    source: Source,
    identity: String,
}

impl Job<'_> {
    fn make(&self) -> Result<Initialised> {
        if let Some(there) = self.there()? {
            return Ok(there);
        }
        let map = ids::choose(self.request.ids)?;
        let run = self.claim(&map)?;
        let made =
            fill(&self.source, &run, &map).and_then(|filled| self.settle(&run, &map, filled));
        let discarded = run.discard(self.store);
        let made = made?;
        discarded?;
        Ok(made)
    }

    fn name(&self) -> &BoxName {
        &self.request.box_name
    }

    /// The box as it is already, if that is what was asked for.
    fn there(&self) -> Result<Option<Initialised>> {
        let record = match self.store.box_record(self.name()) {
            Err(fault) if fault.kind == Kind::NotFound => return Ok(None),
            record => record?,
        };
        let Some(layer) = self.finished_head()? else { return Ok(None) };
        if record.identity != self.identity {
            return Err(Fault::conflict(format!(
                "init box {}: it was filled from {} already",
                record.name, record.source
            ))
            .hint(format!("fill another box: `sandbox init NAME --from {}`", self.source)));
        }
        if self.request.ids.is_some_and(|mode| mode != record.id_map.mode) {
            return Err(Fault::conflict(format!(
                "init box {}: its ids are mapped by {}",
                record.name, record.id_map.mode
            ))
            .hint("leave out --ids, or give another box a name of its own"));
        }
        Ok(Some(Initialised {
            box_name: record.name,
            source: record.source,
            created: false,
            layer,
            id_map: record.id_map,
            totals: None,
            remembered: 0,
        }))
    }

    /// The head of a box that exists. One without is either just being finished by another init, which
    /// holds the store lock meanwhile, or was left so by one that was killed; that is removed.
    fn finished_head(&self) -> Result<Option<LayerId>> {
        let head = || self.store.open_box(self.name())?.head();
        if let Some(head) = head()? {
            return Ok(Some(head));
        }
        drop(self.store.lock_exclusive(LAST_STEPS)?);
        if let Some(head) = head()? {
            return Ok(Some(head));
        }
        let lock = self.store.lock_shared()?;
        match self.store.remove_box(&lock, self.name()) {
            Err(fault) if fault.kind != Kind::NotFound => Err(fault),
            _ => Ok(None),
        }
    }

    /// A run to work in; nothing starts from it.
    fn claim(&self, map: &IdMap) -> Result<Run> {
        let lock = self.store.lock_shared()?;
        let mut run = self.store.new_run(&lock, map)?;
        let record = RunRecord {
            run: run.id(),
            box_name: self.name().clone(),
            from: self.source.to_string(),
            layer: None,
            chain: Vec::new(),
            scaffold: None,
            id_map: map.clone(),
            argv: Vec::new(),
            copy_up: Vec::new(),
            started: Timestamp::now(),
            pid: std::process::id(),
            state: RunState::Running,
            exit: None,
        };
        match run.write_record(&record) {
            Ok(()) => Ok(run),
            Err(fault) => {
                run.discard(self.store).ok();
                Err(fault)
            }
        }
    }

    /// Makes the box and its layer, all in one hold of the store lock.
    fn settle(&self, run: &Run, map: &IdMap, filled: Filled) -> Result<Initialised> {
        let lock = self.store.lock_shared()?;
        let record = BoxRecord {
            name: self.name().clone(),
            id_map: map.clone(),
            source: self.source.to_string(),
            identity: self.identity.clone(),
            created: Timestamp::now(),
            settings: BoxSettings::default(),
        };
        // The box first: of two that fill it at the same time the second has made no layer yet.
        match self.store.create_box(&lock, record) {
            Err(fault) if fault.kind == Kind::Conflict => {
                drop(lock);
                return self.there()?.ok_or(fault);
            }
            made => drop(made?),
        }
        let published = self.publish(&lock, run, &filled);
        match published {
            Ok(layer) => Ok(Initialised {
                box_name: self.name().clone(),
                source: self.source.to_string(),
                created: true,
                layer,
                id_map: map.clone(),
                totals: Some(filled.totals),
                remembered: filled.remembered.len(),
            }),
            Err(fault) => {
                self.store.remove_box(&lock, self.name()).ok();
                Err(fault)
            }
        }
    }

    fn publish(&self, lock: &SharedLock, run: &Run, filled: &Filled) -> Result<LayerId> {
        let id = LayerId::random()?;
        let record = LayerRecord {
            id,
            parent: None,
            depth: 0,
            mount: vec![id],
            folds: Vec::new(),
            created: Timestamp::now(),
            argv: Vec::new(),
            exit: None,
            files: filled.totals.files,
            own_bytes: filled.totals.bytes,
            diff_id: None,
            unmapped: filled.totals.unmapped,
        };
        let owners = filled.owners()?;
        self.store.publish(lock, run, &record, owners.as_deref(), run.dir())?;
        if let Err(fault) = self.take_names(lock, &id) {
            self.store.take_back(lock, run, &id).ok();
            return Err(fault);
        }
        Ok(id)
    }

    fn take_names(&self, lock: &SharedLock, id: &LayerId) -> Result<()> {
        let name: SnapshotName = POSTINIT.parse()?;
        self.store.open_box(self.name())?.update(lock, |state| {
            state.set(&name, id, Expected::Absent, None)?;
            state.set_head(id, Expected::Absent)?;
            state.set_current(id, Expected::Absent)?;
            state.log(LogEntry {
                new: Some(*id),
                name: Some(name.clone()),
                layer: Some(*id),
                ..LogEntry::new("init")
            });
            Ok(())
        })
    }
}
