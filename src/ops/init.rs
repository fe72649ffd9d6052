//! Fills a box: a tree from outside becomes its first layer, and the snapshot `postinit`.
//!
//! All the work happens in a run of its own, which nobody sees: a failure throws it away, and after a kill
//! the next command does. Only a finished layer makes the box.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::fault::{Fault, Kind, Result};
use crate::ids::{self, IdMap, Mode, Picked};
use crate::image::Source;
use crate::store::{BoxName, LayerId, Run, RunRecord, RunState, Store};
use crate::tree::Totals;

use super::{budget, trash};

mod fill;
mod fresh;
mod refresh;
mod settle;

pub use refresh::Refreshed;

use fill::{Filled, fill};
use fresh::Fresh;

/// The snapshot that init takes.
pub(super) const POSTINIT: &str = "postinit";

/// How long another init of the same box may take for its last steps, which are a few writes.
const LAST_STEPS: Duration = Duration::from_secs(30);

/// What to make.
#[derive(Debug)]
pub struct Request {
    /// The box.
    pub box_name: BoxName,
    /// What to fill it from; what it was filled from before if none.
    pub source: Option<Source>,
    /// How to map ids; none for the best way there is.
    pub ids: Option<Mode>,
    /// Whether a box that is there gets a new first layer.
    pub refresh: bool,
    /// The age from which on it does; that of its settings if none.
    pub max_age: Option<Duration>,
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
    /// Whether `postinit` is another layer now.
    pub refreshed: Option<Refreshed>,
    /// The layer that was made, or that of head if none was.
    pub layer: LayerId,
    /// The box that has the same layer already, of the same archive: nothing was unpacked.
    pub shared_with: Option<BoxName>,
    /// How it maps ids.
    pub id_map: IdMap,
    /// What was copied, and what could not be; none if nothing was.
    pub totals: Option<Totals>,
    /// Owners and devices that the map cannot hold, kept beside the files.
    pub remembered: usize,
    /// Why it maps one id only, where the user has more in /etc/subuid.
    pub ids_refused: Option<Fault>,
}

/// Fills a box, and makes the store if there is none. The same again changes nothing and says so.
///
/// # Errors
/// Conflict if the box was filled from something else or with other ids; host if the source needs what this
/// machine has not; whatever reading the source says. Nothing stays of what was begun then, the store
/// included if this made it.
pub fn init(base_dir: &Path, request: &Request) -> Result<Initialised> {
    let source = source_of(base_dir, request)?.canonical()?;
    let (identity, stamp) = (source.identity()?, source.stamp()?);
    let fresh = Fresh::look(base_dir);
    let mut store = Store::create(base_dir).map_err(Fault::without_store)?;
    store.set_patience(PATIENCE);
    let job = Job { store: &store, request, source, identity, stamp };
    let made = job.make();
    if made.is_err() {
        // What cannot be removed now is found by the next command.
        trash::empty(&store).ok();
        fresh.take_back(&store);
    }
    if fresh.has_nothing() { made.map_err(Fault::without_store) } else { made }
}

/// The source that was typed, or that of a box that may have to be made anew.
fn source_of(base_dir: &Path, request: &Request) -> Result<Source> {
    if let Some(source) = &request.source {
        return Ok(source.clone());
    }
    let record = Store::open(base_dir).and_then(|store| store.box_record(&request.box_name));
    if request.refresh || request.max_age.is_some() {
        return record?.source.parse();
    }
    match record {
        Ok(record) if record.settings.max_age.is_some() => record.source.parse(),
        Err(fault) if fault.kind != Kind::NotFound => Err(fault),
        _ => Err(Fault::usage("init: --from SOURCE is missing").hint(
            "`sandbox init --help` has the sources; a box that is there: --refresh, or --max-age T",
        )),
    }
}

/// How long a lock is waited for: the work of minutes would be lost.
const PATIENCE: Duration = Duration::from_secs(60);

struct Job<'a> {
    store: &'a Store,
    request: &'a Request,
    source: Source,
    identity: String,
    /// Of the source, before it was read.
    stamp: Option<String>,
}

impl Job<'_> {
    fn make(&self) -> Result<Initialised> {
        if let Some(there) = self.there()? {
            return match self.stale()? {
                Some(stale) => self.refresh(&stale),
                None => Ok(there),
            };
        }
        budget::check(self.store)?;
        let Picked { map, refused } = ids::pick(self.request.ids)?;
        let done = match self.share(&map)? {
            Some(done) => done,
            None => self.in_a_run(&map, |run, filled| self.settle(run, &map, filled))?,
        };
        Ok(Initialised { ids_refused: refused.filter(|_| done.created), ..done })
    }

    /// Fills a run from the source, and lets `settle` make a layer of it. What is left of it goes.
    fn in_a_run(
        &self,
        map: &IdMap,
        settle: impl FnOnce(&Run, Filled) -> Result<Initialised>,
    ) -> Result<Initialised> {
        let run = self.claim(map)?;
        let made =
            fill(self.store, &self.source, &run, map).and_then(|filled| settle(&run, filled));
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
            source: record.source,
            ..Initialised::nothing(self, layer, &record.id_map)
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
            name: None,
            box_name: self.name().clone(),
            from: self.source.to_string(),
            layer: None,
            chain: Vec::new(),
            scaffold: None,
            id_map: map.clone(),
            argv: Vec::new(),
            copy_up: Vec::new(),
            plain: false,
            made: Vec::new(),
            nest: None,
            started: Timestamp::now(),
            pid: std::process::id(),
            state: RunState::Running,
            exit: None,
            fault: None,
        };
        match run.write_record(&record) {
            Ok(()) => Ok(run),
            Err(fault) => {
                run.discard(self.store).ok();
                Err(fault)
            }
        }
    }
}
