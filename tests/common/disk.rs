//! A store as it lies on disk, read by docs/format.md and not by the code of the store: what checks a program
//! must not share its mistakes. Nobody may be changing the store meanwhile.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// What was found, and what is wrong with it.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    base: PathBuf,
    pub(crate) boxes: BTreeMap<String, Moving>,
    /// The ids of all layers, with the chain that each is mounted with.
    pub(crate) layers: BTreeMap<String, Vec<String>>,
    /// The kept runs.
    pub(crate) kept: BTreeSet<String>,
    /// What must never be.
    pub(crate) damage: Vec<String>,
    /// What may be left by a killed command, and must be gone after gc.
    pub(crate) garbage: Vec<String>,
}

/// What moves in a box: layers by name, head and current.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Moving {
    pub(crate) refs: BTreeMap<String, String>,
    pub(crate) head: Option<String>,
    pub(crate) current: Option<String>,
}

impl Moving {
    /// Every layer that something stands for.
    pub(crate) fn layers(&self) -> impl Iterator<Item = &String> {
        self.refs.values().chain(&self.head).chain(&self.current)
    }
}

impl Disk {
    pub(crate) fn read(base: &Path) -> Self {
        let mut disk = Self { base: base.to_owned(), ..Self::default() };
        if disk.json("format.json").is_none_or(|format| format["format"] != 1) {
            disk.damage.push("format.json".to_owned());
        }
        for name in ["lock", "layers", "boxes", "runs", "trash", "cache"] {
            if !base.join(name).exists() {
                disk.damage.push(format!("{name} is missing"));
            }
        }
        disk.read_layers();
        disk.read_boxes();
        disk.read_runs();
        disk.read_ended();
        disk.garbage.extend(names(&base.join("trash")).iter().map(|name| format!("trash/{name}")));
        disk.find_orphans();
        disk
    }

    /// Panics, naming all that is wrong, if anything is.
    #[track_caller]
    pub(crate) fn sound(self, at: &str) -> Self {
        assert!(self.damage.is_empty(), "{at}: damage: {:#?}\n{self:#?}", self.damage);
        self
    }

    /// The same for what gc must have removed.
    #[track_caller]
    pub(crate) fn clean(self, at: &str) -> Self {
        let disk = self.sound(at);
        assert!(disk.garbage.is_empty(), "{at}: garbage: {:#?}", disk.garbage);
        disk
    }

    /// What a file of the topmost layer that has it says. (Nothing beneath a whiteout is looked for: no test
    /// removes what it asks for.)
    pub(crate) fn file(&self, layer: &str, path: &str) -> Option<String> {
        let chain = self.layers.get(layer)?;
        let at = |id: &String| self.base.join("layers").join(id).join("fs").join(path);
        chain.iter().rev().find_map(|id| fs::read_to_string(at(id)).ok())
    }

    /// What a file in the upper of a run says; that of the layer it was becoming, where there is no upper.
    pub(crate) fn upper_file(&self, run: &str, path: &str) -> Option<String> {
        let run = self.base.join("runs").join(run);
        let becomes = fs::read_link(run.join("becomes")).unwrap_or_default();
        let layer = self.base.join("layers").join(becomes);
        let at = |wrapper: PathBuf| fs::read_to_string(wrapper.join("fs").join(path)).ok();
        at(run.join("layer")).or_else(|| at(layer))
    }

    /// The layer that a run was started from.
    pub(crate) fn run_base(&self, run: &str) -> Option<String> {
        let record = self.json(&format!("runs/{run}/run.json"))?;
        record["layer"].as_str().map(str::to_owned)
    }

    /// The settings of a box, as they are written.
    pub(crate) fn settings(&self, name: &str) -> String {
        let record = self.json(&format!("boxes/{name}/box.json")).unwrap_or_default();
        record["settings"].to_string()
    }

    fn json(&self, name: &str) -> Option<Value> {
        serde_json::from_slice(&fs::read(self.base.join(name)).ok()?).ok()
    }

    fn read_layers(&mut self) {
        for id in names(&self.base.join("layers")) {
            let record = self.json(&format!("layers/{id}/layer.json")).unwrap_or_default();
            let chain = ids(&record["mount"]);
            let whole = self.base.join("layers").join(&id).join("fs").is_dir();
            if !is_layer(&id) || record["id"] != id.as_str() || chain.last() != Some(&id) || !whole
            {
                self.damage.push(format!("layers/{id} is no whole layer: {record}"));
            }
            self.layers.insert(id, chain);
        }
    }

    fn read_boxes(&mut self) {
        for name in names(&self.base.join("boxes")) {
            let place = format!("boxes/{name}");
            if name.starts_with('.') {
                self.garbage.push(place);
                continue;
            }
            let record = self.json(&format!("{place}/box.json")).unwrap_or_default();
            if record["name"] != name.as_str() || !self.base.join(&place).join("lock").is_file() {
                self.damage.push(format!("{place} is no whole box: {record}"));
            }
            let mut moving = Moving::default();
            for file in names(&self.base.join(&place).join("refs")) {
                let path = format!("{place}/refs/{file}");
                if file.starts_with('.') {
                    self.garbage.push(path);
                    continue;
                }
                match self.json(&path).map(|found| found["layer"].clone()) {
                    Some(Value::String(layer)) => drop(moving.refs.insert(file, layer)),
                    other => self.damage.push(format!("{path}: {other:?}")),
                }
            }
            let unfinished = names(&self.base.join(&place));
            let unfinished = unfinished.iter().filter(|file| file.starts_with('.'));
            self.garbage.extend(unfinished.map(|file| format!("{place}/{file}")));
            if self.base.join(&place).join("head").exists() {
                let path = format!("{place}/head");
                let Some(head) = self.json(&path) else {
                    self.damage.push(format!("{path} cannot be read"));
                    continue;
                };
                moving.head = head["head"].as_str().map(str::to_owned);
                moving.current = head["current"].as_str().map(str::to_owned);
            }
            for layer in moving.layers() {
                let gone = self.missing(layer);
                self.damage.extend(gone.map(|gone| format!("{place}: {layer} lacks {gone}")));
            }
            self.boxes.insert(name, moving);
        }
    }

    fn read_runs(&mut self) {
        for name in names(&self.base.join("runs")) {
            let record = self.json(&format!("runs/{name}/run.json")).unwrap_or_default();
            if name.starts_with('.') || record["state"] != "kept" {
                self.garbage.push(format!("runs/{name}"));
                continue;
            }
            let run = self.base.join("runs").join(&name);
            // Without its upper it has become a layer, with a name or (killed before that) without.
            let becomes = fs::read_link(run.join("becomes")).unwrap_or_default();
            let becomes = becomes.to_string_lossy();
            let waits = self.layers.contains_key(&*becomes) && !self.is_named(&becomes);
            if !run.join("layer/fs").is_dir() && !waits {
                self.garbage.push(format!("runs/{name}: kept, and there is nothing in it"));
                continue;
            }
            for layer in ids(&record["chain"]) {
                if !self.layers.contains_key(&layer) {
                    self.damage.push(format!("runs/{name}: {layer} is missing"));
                }
            }
            self.kept.insert(name);
        }
    }

    /// What runs that stayed have left: a record has a log, and what a killed one leaves is garbage.
    fn read_ended(&mut self) {
        let cache = names(&self.base.join("cache"));
        for name in &cache {
            let (Some(id), path) = (name.strip_prefix("ended-"), format!("cache/{name}")) else {
                self.garbage.extend(name.starts_with(".ended-").then(|| format!("cache/{name}")));
                continue;
            };
            match id.strip_suffix(".json") {
                Some(id) => {
                    let record = self.json(&path).unwrap_or_default();
                    let whole = record["run"] == id && record["exit"].is_u64();
                    if !whole || !cache.contains(&format!("ended-{id}.log")) {
                        self.damage.push(format!("{path}: {record}"));
                    }
                }
                None => {
                    let record = format!("{}.json", name.trim_end_matches(".log"));
                    self.garbage.extend((!cache.contains(&record)).then_some(path));
                }
            }
        }
    }

    /// All layers that names, head and current need.
    pub(crate) fn needed(&self) -> BTreeSet<String> {
        let tips = self.boxes.values().flat_map(Moving::layers);
        tips.filter_map(|layer| self.layers.get(layer)).flatten().cloned().collect()
    }

    /// Whether a layer has, or had, a name, head or current: a line of the log says so if it was there before that
    /// move. Where a move goes is written before it goes there.
    fn is_named(&self, layer: &str) -> bool {
        let log = |name: &String| self.base.join("boxes").join(name).join("log");
        self.boxes.iter().any(|(name, moving)| {
            moving.layers().any(|id| id == layer)
                || fs::read_to_string(log(name))
                    .is_ok_and(|text| text.lines().any(|line| was_there(line, layer)))
        })
    }

    /// The first layer of a chain that is not there.
    fn missing(&self, layer: &String) -> Option<String> {
        let Some(chain) = self.layers.get(layer) else { return Some(layer.clone()) };
        chain.iter().find(|id| !self.layers.contains_key(*id)).cloned()
    }

    /// Layers that neither a name nor a kept run needs.
    fn find_orphans(&mut self) {
        let mut needed = self.needed();
        for run in &self.kept {
            let record = self.json(&format!("runs/{run}/run.json")).unwrap_or_default();
            needed.extend(ids(&record["chain"]));
            needed.extend(ids(&record["nest"]["layers"]));
            let taken = record["nest"]["taken"].as_object().into_iter().flatten();
            needed.extend(taken.filter_map(|(_, id)| id.as_str().map(str::to_owned)));
        }
        let orphans = self.layers.keys().filter(|id| !needed.contains(*id));
        self.garbage.extend(orphans.map(|id| format!("layers/{id}")));
    }
}

/// Whether a line of a log says that a layer was there before. One of an older version was written afterwards.
fn was_there(line: &str, layer: &str) -> bool {
    let entry: Value = serde_json::from_str(line).unwrap_or_default();
    if entry["move"].is_null() {
        return line.contains(layer);
    }
    let refs = entry["refs"].as_array().cloned().unwrap_or_default();
    let before = refs.iter().map(|moved| &moved["old"]["layer"]);
    before
        .chain([&entry["old"], &entry["head"]["old"], &entry["current"]["old"]])
        .any(|old| old == layer)
}

/// The names in a directory, sorted; none if it is not there.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<_> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn ids(list: &Value) -> Vec<String> {
    let list = list.as_array().cloned().unwrap_or_default();
    list.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect()
}

/// 26 letters of Crockford's base 32.
fn is_layer(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_digit() || (c.is_ascii_lowercase() && !"ilou".contains(c));
    name.len() == 26 && name.chars().all(letter)
}
