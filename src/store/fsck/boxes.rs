//! Boxes: their records, their names, their logs.

use super::{Named, Remedy, Survey};
use crate::fault::{Kind, Result, is_of_the_disk, why};
use crate::store::{BoxName, LayerId, SnapshotName, Store, file, layout};

/// What lies in the directory of a box.
const KNOWN: [&str; 5] = ["box.json", "head", "lock", "log", "refs"];

impl Store {
    pub(super) fn look_at_boxes(&self, survey: &mut Survey) -> Result<()> {
        if survey.unread.contains(layout::BOXES) {
            return Ok(());
        }
        let mut names: Vec<BoxName> = Vec::new();
        for name in self.names(layout::BOXES).unwrap_or_default() {
            let Ok(name) = name.parse() else { continue };
            let folder = layout::boxed(&name);
            if self.look(&folder)?.is_some() && self.enter_folder(survey, &folder)? {
                names.push(name);
            }
        }
        let known = |name: &str| name.parse::<BoxName>().is_ok();
        self.strays(survey, layout::BOXES, known)?;
        // All records first: they tell who may own what.
        for name in &names {
            match self.box_record(name) {
                Ok(record) => survey.boxes.push(record),
                Err(fault) if fault.kind == Kind::NotFound => self.lost_record(survey, name)?,
                Err(fault) if fault.kind == Kind::Damaged => {
                    let why = last_part(&fault.message);
                    survey.record(None, &layout::box_record(name), &why, Remedy::Box(name.clone()));
                }
                Err(fault) => return Err(fault),
            }
        }
        for name in &names {
            if self.look(&layout::boxed(name))?.is_some() {
                self.look_at_box(survey, name)?;
            }
        }
        Ok(())
    }

    /// A box without a record, or one that has just been removed.
    fn lost_record(&self, survey: &mut Survey, name: &BoxName) -> Result<()> {
        let (folder, file) = (layout::boxed(name), layout::box_record(name));
        if self.look(&folder)?.is_some() && self.look(&file)?.is_none() {
            survey.record(None, &file, "the file is missing", Remedy::Box(name.clone()));
        }
        Ok(())
    }

    fn look_at_box(&self, survey: &mut Survey, name: &BoxName) -> Result<()> {
        let folder = layout::boxed(name);
        self.own_file_if_any(survey, &layout::box_record(name))?;
        self.own_file(survey, &layout::box_lock(name), true)?;
        self.own_file_if_any(survey, &layout::log(name))?;
        if self.own_file_if_any(survey, &layout::head(name))? {
            self.look_at_head(survey, name)?;
        }
        self.strays(survey, &folder, |entry| KNOWN.contains(&entry))?;
        if self.enter_folder(survey, &layout::refs(name))? {
            self.look_at_refs(survey, name)?;
        }
        self.look_at_log(survey, name)
    }

    fn look_at_head(&self, survey: &mut Survey, name: &BoxName) -> Result<()> {
        match self.box_head(name) {
            Ok(head) => {
                for (word, layer) in [("head", head.head), ("current", head.current)] {
                    survey.names.extend(layer.map(|layer| named(name, word, layer)));
                }
            }
            Err(fault) if fault.kind == Kind::Damaged => {
                let why = last_part(&fault.message);
                survey.record(None, &layout::head(name), &why, Remedy::Head(name.clone()));
            }
            Err(fault) => return Err(fault),
        }
        Ok(())
    }

    fn look_at_refs(&self, survey: &mut Survey, name: &BoxName) -> Result<()> {
        let folder = layout::refs(name);
        self.strays(survey, &folder, |entry| entry.parse::<SnapshotName>().is_ok())?;
        for entry in self.names(&folder)? {
            let Ok(snapshot) = entry.parse::<SnapshotName>() else { continue };
            let path = layout::reference(name, &snapshot);
            match self.box_ref(name, &snapshot) {
                Ok(Some(found)) => {
                    self.own_file_if_any(survey, &path)?;
                    survey.names.push(named(name, snapshot.as_str(), found.layer));
                }
                // Removed since we read the directory.
                Ok(None) => {}
                Err(fault) if fault.kind == Kind::Damaged => {
                    survey.record(None, &path, &last_part(&fault.message), Remedy::Remove);
                }
                Err(fault) => return Err(fault),
            }
        }
        Ok(())
    }

    /// A line that is no JSON is what a crash leaves, and no damage.
    fn look_at_log(&self, survey: &mut Survey, name: &BoxName) -> Result<()> {
        let path = layout::log(name);
        let bytes = match file::read_small(self.dir(), &path, crate::store::log::LIMIT) {
            Ok(bytes) => bytes,
            Err(errno) if is_of_the_disk(errno) => {
                survey.record(None, &path, &why(errno), Remedy::Remove);
                return Ok(());
            }
            // Told of as what it is.
            Err(_) => return Ok(()),
        };
        let broken = crate::store::log::broken_lines(&bytes);
        if broken > 0 {
            let lines = if broken == 1 { "a line" } else { "lines" };
            survey.note(&path, &format!("has {lines} that a crash has cut"));
        }
        Ok(())
    }

    /// Every name must lead to a layer whose chain is there. (Not so a layer that only stands in the chain of
    /// others: what it was once mounted with may be folded away.)
    pub(super) fn follow_names(&self, survey: &mut Survey) -> Result<()> {
        if survey.unread.contains(layout::LAYERS) {
            return Ok(());
        }
        let names = survey.names.clone();
        for named in &names {
            let path = match named.name.parse::<SnapshotName>() {
                Ok(snapshot) => layout::reference(&named.box_name, &snapshot),
                Err(_) => layout::head(&named.box_name),
            };
            self.follow(survey, &named.layer, &path)?;
            let file = layout::layer_record(&named.layer);
            for member in survey.chain(&named.layer) {
                self.follow(survey, &member, &file)?;
            }
        }
        let runs: Vec<_> = survey.runs.iter().map(|(run, _)| run.clone()).collect();
        for run in &runs {
            let path = format!("{}/{}", layout::run(&run.run), layout::RUN_RECORD);
            for layer in run.chain.iter().chain(run.layer.iter()) {
                self.follow(survey, layer, &path)?;
            }
        }
        Ok(())
    }

    /// One layer that the file at `path` names.
    fn follow(&self, survey: &mut Survey, layer: &LayerId, path: &str) -> Result<()> {
        if survey.layers.contains_key(layer) {
            return Ok(());
        }
        let told = survey.findings.iter().any(|finding| finding.remedy == Remedy::Layer(*layer));
        // It may have been moved since we read it, and its layer given back to its run.
        let there = self.look(&layout::layer(layer))?.is_some();
        if !there && !told && self.look(path)?.is_some() {
            let why = format!("the layer is missing; {path} names it");
            survey.record(Some(*layer), &layout::layer(layer), &why, Remedy::Layer(*layer));
        }
        Ok(())
    }
}

fn named(box_name: &BoxName, name: &str, layer: LayerId) -> Named {
    Named { box_name: box_name.clone(), name: name.to_owned(), layer }
}

/// The reason at the end of a message of ours: `what: on what: why`.
pub(super) fn last_part(message: &str) -> String {
    message.splitn(3, ": ").last().unwrap_or(message).to_owned()
}
