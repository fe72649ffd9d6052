//! What is wrong with a store, found without looking into the trees of layers: format, folders, records, and
//! whether each name leads to a layer that is there. The trees are looked at by whoever may enter them.
//!
//! A [`Survey`] is taken under the store lock, so that no layer vanishes meanwhile, and changes nothing.
//! Commands that move names may be at work: what seems wrong is looked at twice.

mod boxes;
mod closed;
mod layers;
mod ours;
mod rebuild;
mod repair;
mod runs;

use std::collections::{BTreeMap, BTreeSet};

use rustix::fs::Stat;
use serde::{Deserialize, Serialize};

use super::{BoxName, BoxRecord, LayerId, LayerRecord, RunId, RunRecord, Store, layout};
use crate::fault::Result;
use crate::ids::IdMap;
use crate::tree::path;

pub use repair::Action;

/// What sort of damage it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DamageKind {
    /// It is not there.
    Missing,
    /// It should not be there.
    Extra,
    /// Its content is not what it was.
    Content,
    /// Its mode, owner, time or attributes are not what they were.
    Metadata,
    /// A file of ours that cannot be read, contradicts itself or others, or is not there.
    Record,
}

/// Something that is not as we left it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// The layer it is in, if it is in one.
    pub layer: Option<LayerId>,
    /// Without a layer, or of kind [`DamageKind::Record`]: beneath the base directory. Else beneath the root of
    /// the layer; `.` is the root itself.
    #[serde(flatten, with = "path")]
    pub path: Vec<u8>,
    /// What sort of damage.
    pub kind: DamageKind,
    /// The same in words.
    pub detail: String,
    /// The names that cannot be trusted because of it, as `BOX/NAME`.
    #[serde(default)]
    pub snapshots: Vec<String>,
    /// The runs that cannot.
    #[serde(default)]
    pub runs: Vec<RunId>,
}

/// Something that a crash leaves, or that is of no harm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// Beneath the base directory.
    pub path: String,
    /// What it is.
    pub detail: String,
}

/// How damage is mended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// It is not to be mended by us.
    None,
    /// An empty file is made.
    MakeFile,
    /// A directory is made.
    MakeFolder,
    /// The permissions are set: 0700 or 0600.
    SetMode,
    /// What lies at the path goes to the trash.
    Remove,
    /// The head of the box is set anew.
    Head(BoxName),
    /// The record of the box is made anew.
    Box(BoxName),
    /// The record of the layer is written anew.
    Rewrite(LayerRecord),
    /// The layer goes, with all names that need it.
    Layer(LayerId),
    /// The run goes.
    Run(RunId),
}

/// Damage and its remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub damage: Damage,
    /// What can be done.
    pub remedy: Remedy,
}

/// A layer, as it was found.
#[derive(Debug, Clone)]
pub struct Surveyed {
    /// Its record, if it can be read, or made anew.
    pub record: Option<LayerRecord>,
    /// Whether it has digests.
    pub sealed: bool,
}

/// A name that leads to a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) box_name: BoxName,
    /// A snapshot, or `head` or `current`.
    pub(super) name: String,
    pub(super) layer: LayerId,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Survey {
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// What is of no harm.
    pub notes: Vec<Note>,
    /// All layers.
    pub layers: BTreeMap<LayerId, Surveyed>,
    /// All boxes whose records can be read.
    pub boxes: Vec<BoxRecord>,
    /// All runs whose records can be read, and whether they live.
    pub runs: Vec<(RunRecord, bool)>,
    pub(super) names: Vec<Named>,
    /// Directories of ours that cannot be read: what they hold is not known, and nothing follows from it.
    pub(super) unread: BTreeSet<String>,
}

impl Store {
    /// Looks at everything but the trees of layers.
    ///
    /// # Errors
    /// What the system calls say; damage is no error but what this is about. A store whose lock is missing is
    /// looked at without it. What is closed to us is found alone.
    pub fn survey(&self) -> Result<Survey> {
        let mut survey = Survey::default();
        self.look_for_closed(&mut survey)?;
        if !survey.unread.is_empty() {
            return Ok(survey);
        }
        let _lock = match self.has_lock()? {
            true => Some(self.lock_shared()?),
            false => None,
        };
        self.survey_locked()
    }

    /// The same, for whoever holds the store lock.
    fn survey_locked(&self) -> Result<Survey> {
        let mut survey = Survey::default();
        self.look_at_base(&mut survey)?;
        self.look_at_boxes(&mut survey)?;
        self.look_at_runs(&mut survey)?;
        // After the names: a layer is there before anything names it.
        self.look_at_layers(&mut survey)?;
        self.follow_names(&mut survey)?;
        Ok(survey)
    }

    fn look_at_base(&self, survey: &mut Survey) -> Result<()> {
        for folder in layout::FOLDERS {
            self.enter_folder(survey, folder)?;
        }
        self.own_file(survey, layout::LOCK, true)?;
        self.own_file(survey, layout::FORMAT, false)?;
        if self.own_file_if_any(survey, layout::SETTINGS)? && self.budget().is_err() {
            survey.record(None, layout::SETTINGS, "it is not what we wrote", Remedy::Remove);
        }
        let known = |name: &str| {
            layout::FOLDERS.contains(&name)
                || [layout::LOCK, layout::FORMAT, layout::SETTINGS, "lost+found"].contains(&name)
                || (self.is_nest() && name == layout::OUTER)
        };
        self.strays(survey, ".", known)
    }
}

impl Survey {
    pub(super) fn record(&mut self, layer: Option<LayerId>, path: &str, why: &str, remedy: Remedy) {
        self.found(layer, path.as_bytes(), DamageKind::Record, why, remedy);
    }

    pub(super) fn found(
        &mut self,
        layer: Option<LayerId>,
        path: &[u8],
        kind: DamageKind,
        detail: &str,
        remedy: Remedy,
    ) {
        let (path, detail) = (path.to_vec(), detail.to_owned());
        let damage = Damage { layer, path, kind, detail, snapshots: Vec::new(), runs: Vec::new() };
        self.findings.push(Finding { damage, remedy });
    }

    /// What must have these mode bits, whoever owns it.
    pub(super) fn mode(&mut self, path: &str, stat: &Stat, mode: u32) {
        let found = stat.st_mode & 0o7777;
        if found != mode {
            let why = format!("mode is {found:04o}, not {mode:04o}");
            self.found(None, path.as_bytes(), DamageKind::Metadata, &why, Remedy::SetMode);
        }
    }

    pub(super) fn note(&mut self, path: &str, detail: &str) {
        self.notes.push(Note { path: path.to_owned(), detail: detail.to_owned() });
    }

    /// Whether all directories of the store could be read, so that what is not found is not there.
    pub fn is_all_read(&self) -> bool {
        self.unread.is_empty()
    }

    /// Adds damage in the tree of a layer, which then is of no use.
    pub fn add_tree_damage(&mut self, layer: LayerId, path: &[u8], kind: DamageKind, detail: &str) {
        let path = if path.is_empty() { b"." } else { path };
        self.found(Some(layer), path, kind, detail, Remedy::Layer(layer));
    }

    /// The id maps of boxes and runs, with the layers that these need.
    pub fn needs(&self) -> Vec<(&IdMap, Vec<LayerId>)> {
        let mut all = Vec::new();
        for record in &self.boxes {
            let names = self.names.iter().filter(|named| named.box_name == record.name);
            all.push((&record.id_map, names.flat_map(|named| self.chain(&named.layer)).collect()));
        }
        for (run, _) in &self.runs {
            all.push((&run.id_map, run.chain.clone()));
        }
        all
    }

    /// The layers that the names of a box lead to.
    pub fn layers_of(&self, box_name: &str) -> Vec<LayerId> {
        let names = self.names.iter().filter(|named| named.box_name.as_str() == box_name);
        names.map(|named| named.layer).collect()
    }

    /// What a layer is mounted with.
    pub(super) fn chain(&self, layer: &LayerId) -> Vec<LayerId> {
        let record = self.layers.get(layer).and_then(|found| found.record.as_ref());
        record.map(|record| record.mount.clone()).unwrap_or_default()
    }

    /// The layers that are damaged or not there.
    pub(super) fn unusable(&self) -> BTreeSet<LayerId> {
        let lost = self.findings.iter().filter_map(|finding| match finding.remedy {
            Remedy::Layer(layer) => Some(layer),
            _ => None,
        });
        lost.collect()
    }

    /// Whether a layer can be mounted: it and all beneath it are whole.
    pub(super) fn is_usable(&self, layer: &LayerId, unusable: &BTreeSet<LayerId>) -> bool {
        match self.layers.get(layer).and_then(|found| found.record.as_ref()) {
            Some(record) => record
                .mount
                .iter()
                .all(|below| !unusable.contains(below) && self.layers.contains_key(below)),
            None => false,
        }
    }

    /// Writes beside each damage of a layer the names and runs that need it. Names of `home` stand alone,
    /// those of other boxes as `BOX/NAME`. Call it last.
    pub fn tell_who_needs_it(&mut self, home: &BoxName) {
        let (layers, names, runs) = (&self.layers, &self.names, &self.runs);
        let needs = |top: &LayerId, layer: &LayerId| {
            let record = layers.get(top).and_then(|found| found.record.as_ref());
            top == layer || record.is_some_and(|record| record.mount.contains(layer))
        };
        for finding in &mut self.findings {
            let Some(layer) = finding.damage.layer else { continue };
            let mut touched: Vec<String> = Vec::new();
            for named in names.iter().filter(|named| needs(&named.layer, &layer)) {
                // Head and current are told of only where no snapshot stands for the same layer.
                let said = |other: &&Named| {
                    other.box_name == named.box_name
                        && other.layer == named.layer
                        && !matches!(other.name.as_str(), "current" | "head")
                };
                let reserved = matches!(named.name.as_str(), "head" | "current");
                if reserved && names.iter().any(|other| said(&other)) {
                    continue;
                }
                touched.push(match named.box_name == *home {
                    true => named.name.clone(),
                    false => format!("{}/{}", named.box_name, named.name),
                });
            }
            touched.sort_unstable();
            touched.dedup();
            finding.damage.snapshots = touched;
            let needing = runs.iter().filter(|(run, _)| run.chain.contains(&layer));
            finding.damage.runs = needing.map(|(run, _)| run.run).collect();
        }
        self.findings.sort_by(|a, b| {
            let key = |damage: &'_ Damage| (damage.layer, damage.path.clone(), damage.kind);
            key(&a.damage).cmp(&key(&b.damage))
        });
    }
}
