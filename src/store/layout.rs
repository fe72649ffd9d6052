//! The names of everything in a store, in one place. `docs/format.md` explains each.

use super::{BoxName, LayerId, RunId, SnapshotName};

/// The file that says which format the store has; written last by `create`.
pub(crate) const FORMAT: &str = "format.json";
/// What holds for the whole store.
pub(crate) const SETTINGS: &str = "settings.json";
/// In the store of a sandbox inside the sandbox: which layers are those of the store around it.
pub(crate) const OUTER: &str = "outer.json";
/// The store lock.
pub(crate) const LOCK: &str = "lock";
/// Where layers live.
pub(crate) const LAYERS: &str = "layers";
/// Where boxes live.
pub(crate) const BOXES: &str = "boxes";
/// Where runs live.
pub(crate) const RUNS: &str = "runs";
/// What is to be removed.
pub(crate) const TRASH: &str = "trash";
/// What can be made again.
pub(crate) const CACHE: &str = "cache";
/// The directories of a store, in the order they are made.
pub(crate) const FOLDERS: [&str; 5] = [LAYERS, BOXES, RUNS, TRASH, CACHE];
/// How the name of an entry starts that is not finished yet.
pub(crate) const UNFINISHED: &str = ".new-";
/// How the name of the folder of a box's caches starts.
pub(crate) const CACHES: &str = "box-";
/// In a cache of a box: what the payload keeps there.
pub(crate) const CACHE_FS: &str = "fs";
/// How the name of such a cache starts in the trash.
pub(crate) const TRASHED_CACHE: &str = "boxcache-";
/// How the name of a compiled filter in the cache starts.
pub(crate) const SECCOMP: &str = "seccomp-";
/// How the name of a scaffold in the cache starts.
pub(crate) const SCAFFOLD: &str = "scaffold-";
/// What was listed last.
pub(crate) const LISTING: &str = "cache/listing.json";
/// How the name of a spare run directory in the cache starts.
pub(crate) const SPARE: &str = "spare-";

/// How the names of what a run that stayed has left in the cache start, and how those of its record and its log end.
pub(crate) const ENDED: &str = "ended-";
pub(crate) const ENDED_RECORD: &str = ".json";
pub(crate) const ENDED_LOG: &str = ".log";

/// In a run: the wrapper that becomes the layer.
pub(crate) const LAYER: &str = "layer";
/// In a run: the upper directory.
pub(crate) const LAYER_FS: &str = "layer/fs";
/// In a run: the record of the layer to be.
pub(crate) const LAYER_RECORD: &str = "layer/layer.json";
/// In a run: the remembered owners of the layer to be.
pub(crate) const LAYER_OWNERS: &str = "layer/owners";
/// In a run: the digests of the layer to be.
pub(crate) const LAYER_MANIFEST: &str = "layer/manifest";
/// In a run: overlayfs' work directory.
pub(crate) const WORK: &str = "work";
/// In a run: upper and work directory for the run that takes this directory over.
pub(crate) const NEXT_FS: &str = "next-fs";
pub(crate) const NEXT_WORK: &str = "next-work";
/// In a run: the store of a nested sandbox.
pub(crate) const NEST: &str = "nest";
/// In a run: the directories in which others than we may own files.
pub(crate) const FOREIGN_IN_RUN: [&str; 5] = [LAYER_FS, WORK, NEXT_FS, NEXT_WORK, NEST];
/// In a run: its record.
pub(crate) const RUN_RECORD: &str = "run.json";
/// In a run: the next version of its record, not renamed yet.
pub(crate) const RUN_RECORD_NEW: &str = ".new-run.json";
/// In a kept run: a symlink that names the layer it is becoming.
pub(crate) const RUN_BECOMES: &str = "becomes";
/// In a kept run: what the handler of remembered owners has written down.
pub(crate) const RUN_JOURNAL: &str = "journal";
/// In a run that stayed and is dead: empty, made when that was first seen.
pub(crate) const RUN_DEAD: &str = "dead";
/// In a run: its output, if it is a run that stays.
pub(crate) const RUN_LOG: &str = "log";
/// In a run that stays: the socket of its supervisor.
pub(crate) const RUN_SOCKET: &str = "sock";

/// `layers/ID`.
pub(crate) fn layer(id: &LayerId) -> String {
    format!("{LAYERS}/{id}")
}

/// `layers/ID/layer.json`.
pub(crate) fn layer_record(id: &LayerId) -> String {
    format!("{LAYERS}/{id}/layer.json")
}

/// `ID/layer.json`: the same in `layers/`.
pub(crate) fn record_of_layer(id: &LayerId) -> String {
    // Not by format!: a listing asks for thousands.
    [id.as_str(), "/layer.json"].concat()
}

/// `layers/ID/owners`.
pub(crate) fn owners(id: &LayerId) -> String {
    format!("{LAYERS}/{id}/owners")
}

/// `layers/ID/fs`.
pub(crate) fn tree(id: &LayerId) -> String {
    format!("{LAYERS}/{id}/fs")
}

/// `layers/ID/manifest`.
pub(crate) fn manifest(id: &LayerId) -> String {
    format!("{LAYERS}/{id}/manifest")
}

/// `layers/ID/.new-manifest`: digests that are being made.
pub(crate) fn new_manifest(id: &LayerId) -> String {
    format!("{LAYERS}/{id}/{UNFINISHED}manifest")
}

/// `boxes/BOX`.
pub(crate) fn boxed(name: &BoxName) -> String {
    format!("{BOXES}/{name}")
}

/// `boxes/BOX/box.json`.
pub(crate) fn box_record(name: &BoxName) -> String {
    format!("{BOXES}/{name}/box.json")
}

/// `boxes/BOX/.new-box.json`: the next version of its record.
pub(crate) fn new_box_record(name: &BoxName) -> String {
    format!("{BOXES}/{name}/{UNFINISHED}box.json")
}

/// `boxes/BOX/lock`.
pub(crate) fn box_lock(name: &BoxName) -> String {
    format!("{BOXES}/{name}/lock")
}

/// `boxes/BOX/head`: head and current.
pub(crate) fn head(name: &BoxName) -> String {
    format!("{BOXES}/{name}/head")
}

/// `boxes/BOX/log`.
pub(crate) fn log(name: &BoxName) -> String {
    format!("{BOXES}/{name}/log")
}

/// `boxes/BOX/refs`.
pub(crate) fn refs(name: &BoxName) -> String {
    format!("{BOXES}/{name}/refs")
}

/// `boxes/BOX/refs/NAME`.
pub(crate) fn reference(name: &BoxName, snapshot: &SnapshotName) -> String {
    format!("{BOXES}/{name}/refs/{snapshot}")
}

/// `runs/ID`.
pub(crate) fn run(id: &RunId) -> String {
    format!("{RUNS}/{id}")
}

/// `nest/.taken-ID` in a run: the wrapper of a layer that is taken in from the store inside it.
pub(crate) fn taken(id: &LayerId) -> String {
    format!("{NEST}/.taken-{id}")
}

/// `cache/spare-UID-GID`: a run directory without a run, of inside root's ids on disk.
pub(crate) fn spare(uid: u32, gid: u32) -> String {
    format!("{CACHE}/{SPARE}{uid}-{gid}")
}

/// `cache/ended-ID.json`: how a run that stayed ended.
pub(crate) fn ended_record(id: &RunId) -> String {
    format!("{CACHE}/{ENDED}{id}{ENDED_RECORD}")
}

/// `cache/ended-ID.log`: what it has written.
pub(crate) fn ended_log(id: &RunId) -> String {
    format!("{CACHE}/{ENDED}{id}{ENDED_LOG}")
}

/// `cache/.ended-ID`: its record before it is whole.
pub(crate) fn ended_temporary(id: &RunId) -> String {
    format!("{CACHE}/.{ENDED}{id}")
}

/// `runs/.new-ID`: a run that is being made.
pub(crate) fn new_run(id: &RunId) -> String {
    format!("{RUNS}/{UNFINISHED}{id}")
}

/// `cache/box-BOX`: its persistent caches.
pub(crate) fn caches(name: &BoxName) -> String {
    format!("{CACHE}/{CACHES}{name}")
}

/// `cache/box-BOX/NAME`.
pub(crate) fn cache(name: &BoxName, cache: &SnapshotName) -> String {
    format!("{CACHE}/{CACHES}{name}/{cache}")
}
