//! Mending: what is damaged goes, with the names that need it; what is whole stays.
//!
//! All of it is done under the exclusive store lock, on a survey taken there. The order is such that a crash
//! leaves a store that is no worse, and the same command goes on: what is missing is made; names go before
//! the layers they lead to; layers go before their parents.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, RenameFlags, chmodat, mkdirat, renameat_with, statat};
use rustix::io::Errno;
use serde::Serialize;

use super::{Damage, DamageKind, Remedy, Survey};
use crate::fault::{Context, Result, is_of_the_disk};
use crate::store::discard::trash_name;
use crate::store::failpoint::step;
use crate::store::file::{self, PRIVATE_DIR, PRIVATE_FILE};
use crate::store::refs::Head;
use crate::store::{
    BoxName, BoxRecord, LayerId, LogEntry, RunId, SnapshotName, Store, json_line, layout,
};
use crate::tree::path;

/// Something that was mended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Action {
    /// Beneath the base directory.
    #[serde(flatten, with = "path")]
    pub path: Vec<u8>,
    /// What was done.
    pub done: String,
}

/// What the repair needs to know of damage that a [`Survey`] does not see.
type Damaged = BTreeMap<LayerId, Vec<(Vec<u8>, DamageKind, String)>>;

impl Store {
    /// Mends what can be mended; if anything is closed to us, that alone. `found` is all that is known of damage;
    /// of it, what lies in trees is taken as it is, since trees never change, and the rest is looked at again.
    /// `boxes` are records for boxes that have lost theirs.
    ///
    /// # Errors
    /// Busy if others hold the store for longer than `wait`; what the system calls say. What was done is done.
    pub fn repair(
        &self,
        found: &Survey,
        boxes: &[BoxRecord],
        wait: Duration,
    ) -> Result<Vec<Action>> {
        self.require_writable()?;
        let mut job = Repair { store: self, done: Vec::new() };
        // Without these there is no lock to take, and nothing to look at.
        for folder in layout::FOLDERS {
            if self.look(folder)?.is_none() {
                job.make_folder(folder)?;
            }
        }
        if !self.has_lock()? {
            job.make_file(layout::LOCK)?;
        }
        if job.open_closed()? {
            return Ok(job.done);
        }
        let _lock = self.lock_exclusive(wait)?;
        let mut survey = self.survey_locked()?;
        // It knows nothing of records that are written anew.
        file::unlink(self.dir(), layout::LISTING).ok();
        for (layer, all) in in_trees(found) {
            for (path, kind, detail) in all {
                if survey.layers.contains_key(&layer) {
                    survey.add_tree_damage(layer, &path, kind, &detail);
                }
            }
        }
        counted(&mut survey, found);
        job.simple(&survey)?;
        // Whatever names are or layers hold may be in there.
        if !survey.is_all_read() || !found.is_all_read() {
            return Ok(job.done);
        }
        job.boxes(&survey, boxes)?;
        job.names(&survey)?;
        job.runs(&survey)?;
        job.layers(&survey)?;
        Ok(job.done)
    }
}

/// Damage in the trees of layers.
fn in_trees(found: &Survey) -> Damaged {
    let mut damaged = Damaged::new();
    for finding in &found.findings {
        let Damage { layer, path, kind, detail, .. } = finding.damage.clone();
        if let (Some(layer), true) = (layer, kind != DamageKind::Record) {
            damaged.entry(layer).or_default().push((path, kind, detail));
        }
    }
    damaged
}

/// Records that are made from others say nothing of the tree; whoever looked into it has counted.
fn counted(survey: &mut Survey, found: &Survey) {
    for finding in &mut survey.findings {
        let Remedy::Rewrite(record) = &mut finding.remedy else { continue };
        let known = found.findings.iter().find_map(|one| match &one.remedy {
            Remedy::Rewrite(other) if other.id == record.id => Some(other.clone()),
            _ => None,
        });
        if let Some(known) = known {
            (record.files, record.own_bytes) = (known.files, known.own_bytes);
        }
    }
}

struct Repair<'s> {
    store: &'s Store,
    done: Vec<Action>,
}

impl Repair<'_> {
    fn did(&mut self, path: impl AsRef<[u8]>, done: &str) {
        self.done.push(Action { path: path.as_ref().to_vec(), done: done.to_owned() });
    }

    fn make_folder(&mut self, path: &str) -> Result<()> {
        step("repair.make", || mkdirat(self.store.dir(), path, PRIVATE_DIR))
            .context("make directory", self.store.show(path))?;
        self.did(path, "made");
        Ok(())
    }

    fn make_file(&mut self, path: &str) -> Result<()> {
        step("repair.make", || file::create(self.store.dir(), path).map(drop))
            .context("make file", self.store.show(path))?;
        self.did(path, "made");
        Ok(())
    }

    /// Opens what its mode closes to us, and says whether there was anything: what lies in it has not been looked at.
    fn open_closed(&mut self) -> Result<bool> {
        let mut last = BTreeSet::new();
        loop {
            let mut survey = Survey::default();
            self.store.look_for_closed(&mut survey)?;
            // Nothing new: there is nothing more, or it is not for us to open.
            if survey.unread.is_subset(&last) {
                return Ok(!last.is_empty());
            }
            self.simple(&survey)?;
            last.append(&mut survey.unread);
        }
    }

    /// What needs nothing but itself.
    fn simple(&mut self, survey: &Survey) -> Result<()> {
        for finding in &survey.findings {
            let raw = &finding.damage.path;
            let text = String::from_utf8_lossy(raw).into_owned();
            match &finding.remedy {
                Remedy::MakeFolder if self.store.look(&text)?.is_none() => {
                    self.make_folder(&text)?;
                }
                Remedy::MakeFile if self.store.look(&text)?.is_none() => self.make_file(&text)?,
                Remedy::SetMode => self.set_mode(&text)?,
                Remedy::Remove => self.remove(raw)?,
                Remedy::Rewrite(record) => {
                    let bytes = json_line(record)?;
                    step("repair.rewrite", || {
                        let folder = layout::layer(&record.id);
                        self.store.replace_durably(&folder, "layer.json", &bytes)
                    })
                    .context("write record", self.store.show(&text))?;
                    self.did(raw, "written anew");
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn set_mode(&mut self, path: &str) -> Result<()> {
        let stat = statat(self.store.dir(), path, AtFlags::SYMLINK_NOFOLLOW)
            .context("look at", self.store.show(path))?;
        let folder = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir();
        let mode: Mode = if folder { PRIVATE_DIR } else { PRIVATE_FILE };
        step("repair.mode", || chmodat(self.store.dir(), path, mode, AtFlags::empty()))
            .context("change mode", self.store.show(path))?;
        self.did(path, "mode set");
        Ok(())
    }

    /// To the trash, where it is emptied as something whose content is not ours.
    fn remove(&mut self, path: &[u8]) -> Result<()> {
        let trash = format!("{}/cache-{}", layout::TRASH, LayerId::random()?);
        let from = OsStr::from_bytes(path);
        let dir = self.store.dir();
        let moved =
            step("repair.remove", || renameat_with(dir, from, dir, &trash, RenameFlags::NOREPLACE));
        match moved {
            Ok(()) => self.did(path, "removed"),
            Err(Errno::NOENT) => {}
            moved => moved.context("remove", from.display())?,
        }
        Ok(())
    }

    fn boxes(&mut self, survey: &Survey, boxes: &[BoxRecord]) -> Result<()> {
        for finding in &survey.findings {
            let Remedy::Box(name) = &finding.remedy else { continue };
            let Some(record) = boxes.iter().find(|record| record.name == *name) else { continue };
            let bytes = json_line(record)?;
            step("repair.rewrite", || {
                self.store.replace_durably(&layout::boxed(name), "box.json", &bytes)
            })
            .context("write record of box", name)?;
            self.did(layout::box_record(name), "written anew");
        }
        Ok(())
    }

    /// Names that lead to what is lost go; a head that does is set back.
    fn names(&mut self, survey: &Survey) -> Result<()> {
        let unusable = survey.unusable();
        let lost = |layer: &LayerId| !survey.is_usable(layer, &unusable);
        let mut broken: BTreeSet<&BoxName> = BTreeSet::new();
        for finding in &survey.findings {
            if let Remedy::Head(name) = &finding.remedy {
                broken.insert(name);
            }
        }
        broken.extend(survey.names.iter().filter(|one| lost(&one.layer)).map(|one| &one.box_name));
        for name in broken {
            let of_box = |one: &&super::Named| one.box_name == *name;
            let mut entries = Vec::new();
            for named in survey.names.iter().filter(of_box).filter(|one| lost(&one.layer)) {
                if let Ok(snapshot) = named.name.parse::<SnapshotName>() {
                    self.remove(layout::reference(name, &snapshot).as_bytes())?;
                    entries.push(LogEntry { name: Some(snapshot), ..LogEntry::new("fsck") });
                }
            }
            self.store.sync_folder("repair.refs.fsync", &layout::refs(name))?;
            let old = self.store.box_head(name).unwrap_or_default();
            let usable = |layer: Option<LayerId>| layer.filter(|layer| !lost(layer));
            let postinit = survey.names.iter().filter(of_box).find(|one| one.name == "postinit");
            let postinit = usable(postinit.map(|one| one.layer));
            let current = usable(old.current).or(postinit);
            let head = Head { head: usable(old.head).or(current), current };
            let readable = self.store.box_head(name).is_ok();
            if head != old || !readable {
                let bytes = json_line(&head)?;
                step("repair.head", || {
                    self.store.replace_durably(&layout::boxed(name), "head", &bytes)
                })
                .context("set head", name)?;
                let now = head.head.map_or("set to none".to_owned(), |id| format!("set to {id}"));
                self.did(layout::head(name), &now);
                entries.push(LogEntry { new: head.head, ..LogEntry::new("fsck") });
            }
            self.store.append_log(name, &entries)?;
        }
        self.logs(survey)
    }

    /// Logs without the lines that no reader can use.
    fn logs(&mut self, survey: &Survey) -> Result<()> {
        for record in &survey.boxes {
            if self.store.drop_broken_lines(&record.name)? {
                self.did(layout::log(&record.name), "broken lines dropped");
            }
        }
        Ok(())
    }

    /// Runs that were kept and cannot be gone on with. Those that live are left alone.
    fn runs(&mut self, survey: &Survey) -> Result<()> {
        let unusable = survey.unusable();
        let mut gone: BTreeSet<RunId> = BTreeSet::new();
        for finding in &survey.findings {
            if let Remedy::Run(id) = &finding.remedy {
                gone.insert(*id);
            }
        }
        for (run, live) in &survey.runs {
            let needs = run.chain.iter().chain(run.layer.iter());
            let lost = needs.into_iter().any(|layer| !survey.is_usable(layer, &unusable));
            if lost && !live {
                gone.insert(run.run);
            }
        }
        for id in gone {
            let path = layout::run(&id);
            match step("repair.run", || self.store.to_trash(&path, &trash_name(&id))) {
                Ok(()) => self.did(path, "removed"),
                Err(Errno::NOENT) => {}
                Err(errno) => Err(errno).context("remove run", id)?,
            }
        }
        Ok(())
    }

    /// Layers that are damaged, and those on top of them that nothing whole needs, the topmost first; but none
    /// that a run mounts.
    fn layers(&mut self, survey: &Survey) -> Result<()> {
        let unusable = survey.unusable();
        let whole = survey.names.iter().filter(|one| survey.is_usable(&one.layer, &unusable));
        let needed: BTreeSet<_> = whole.flat_map(|one| survey.chain(&one.layer)).collect();
        let lost = |id: &LayerId| {
            let on_top = survey.chain(id).iter().any(|below| unusable.contains(below));
            unusable.contains(id) || (on_top && !needed.contains(id))
        };
        let mounted: BTreeSet<LayerId> = survey
            .runs
            .iter()
            .filter(|(_, live)| *live)
            .flat_map(|(run, _)| {
                run.chain.iter().chain(run.nest.iter().flat_map(|one| &one.layers))
            })
            .copied()
            .collect();
        // Not by age alone: ids that were drawn in one millisecond have no order.
        let depth = |id: &LayerId| survey.chain(id).len();
        let mut going: Vec<_> = survey.layers.keys().filter(|id| lost(id)).collect();
        going.sort_by_key(|id| std::cmp::Reverse((depth(id), **id)));
        let stays = |id: &LayerId| mounted.contains(id) || self.store.is_outer(id);
        for id in going.into_iter().filter(|id| !stays(id)) {
            let (path, trash) = (layout::layer(id), format!("layer-{id}"));
            match step("repair.layer", || self.store.to_trash(&path, &trash)) {
                Ok(()) => self.did(path, "removed"),
                // What is no directory at all may lie there, too.
                Err(Errno::EXIST) => self.remove(path.as_bytes())?,
                // That is for the file system's own checker. Nothing names it any more, and it is still told of.
                Err(errno) if is_of_the_disk(errno) => {}
                Err(errno) => Err(errno).context("remove layer", id)?,
            }
        }
        Ok(())
    }
}
